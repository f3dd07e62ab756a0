"""An order drawn on its grid: in the terminal, or as a picture (which loads matplotlib on first use).

draw_terminal(perm_N, grid)                                a string
draw_png(perm_N, grid, "order.png", title="hilbert")       a file
draw_many_png([("hilbert", perm_N, grid), …], "orders.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reorder_core.drawing.picture import draw_many_png as draw_many_png
    from reorder_core.drawing.picture import draw_png as draw_png
    from reorder_core.drawing.terminal import draw_terminal as draw_terminal

_HOME_OF = {"draw_many_png": "picture", "draw_png": "picture", "draw_terminal": "terminal"}

__all__ = [*sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'reorder_core.drawing' has no attribute {name!r}")
    return getattr(import_module(f"reorder_core.drawing.{_HOME_OF[name]}"), name)
