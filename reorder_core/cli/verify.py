"""Is an installed component what it promises? The quick look of `reorder list --verify`; the kit looks closer."""

from __future__ import annotations

from contextlib import suppress

from reorder_core.catalogue import Catalogue, Entry
from reorder_core.errors import ReorderError, UnsupportedGrid, one_line


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
        return one_line(error)
    return ""


def _try_ordering(catalogue: Catalogue, entry: Entry) -> None:
    from reorder_core.cli.show import LearnsFromData, permutation_of
    from reorder_core.grid import Grid

    settings = catalogue.settings_class(entry)
    if settings is not None and any(field.is_required() for field in settings.model_fields.values()):
        return
    for grid in (Grid(1, 1), Grid(2, 3), Grid(4, 4)):
        with suppress(UnsupportedGrid, LearnsFromData):
            permutation_of(catalogue, entry, {}, grid)
