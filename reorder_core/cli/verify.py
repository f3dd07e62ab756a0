"""Is an installed component what it promises? The quick look of `reorder list --verify`; the kit looks closer."""

from __future__ import annotations

from reorder_core.catalogue import Catalogue, Entry
from reorder_core.errors import ReorderError, UnsupportedGrid


def fault(catalogue: Catalogue, entry: Entry) -> str:
    """What is wrong with a component, in one line, or an empty string.

    Imports its settings class and its target; an ordering that needs no settings is also asked for a few grids.
    """
    if entry.state != "ok":
        return ""
    try:
        catalogue.settings_class(entry)
        catalogue.target(entry)
        if entry.component.kind == "ordering":
            _try_ordering(catalogue, entry)
    except ReorderError as error:
        return " ".join(str(error).split())
    return ""


def _try_ordering(catalogue: Catalogue, entry: Entry) -> None:
    from reorder_core.grid import Grid
    from reorder_core.interfaces.context import Context
    from reorder_core.permutation import validate
    from reorder_core.settings import ComponentRef

    settings = catalogue.settings_class(entry)
    if settings is not None and any(field.is_required() for field in settings.model_fields.values()):
        return
    for grid in (Grid(1, 1), Grid(2, 3), Grid(4, 4)):
        context = Context(grid=grid, resolve=lambda ref: catalogue.build(ref, context))  # noqa: B023
        ordering = catalogue.build(ComponentRef("ordering", entry.component.name), context)
        if hasattr(ordering, "fit"):
            return
        try:
            order = ordering.permutation(grid)
        except UnsupportedGrid:
            continue
        except ReorderError:
            raise
        except Exception as error:
            raise ReorderError(f"{entry} fails on a grid of {grid}: {type(error).__name__}: {error}") from error
        validate(order, grid.size, f"{entry}, on a grid of {grid}, is no permutation: its order")
