"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


def _ordering(name: str, target: str, summary: str, settings: str | None = None, paper: str = "") -> Component:
    return Component(
        kind="ordering",
        name=name,
        target=f"reorder_orderings.{target}",
        summary=summary,
        settings=f"reorder_orderings.settings:{settings}" if settings else None,
        paper=paper,
    )


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        _ordering("row_major", "raster:RowMajor", "row after row, each from left to right"),
        _ordering("column_major", "raster:ColumnMajor", "column after column, each from top to bottom"),
        _ordering("snake", "raster:Snake", "every second row (or column) backwards: no jump", "SnakeSettings"),
        _ordering("diagonal", "diagonal:Diagonal", "diagonal after diagonal, each from upper right to lower left"),
        _ordering("zigzag", "diagonal:Zigzag", "diagonals, every second one backwards, as JPEG reads a block"),
        _ordering("spiral", "spiral:Spiral", "around the edge and inward, or from the middle out", "SpiralSettings"),
        _ordering(
            "hilbert",
            "hilbert:Hilbert",
            "Hilbert's curve on any rectangle: neighbours stay near, at most one diagonal step",
            paper="Hilbert 1891, Mathematische Annalen 38; any rectangle after Cerveny 2018 (gilbert)",
        ),
        _ordering(
            "morton",
            "morton:Morton",
            "Z-order: the bits of row and column interleaved",
            paper="Morton 1966, IBM technical report",
        ),
        _ordering(
            "peano",
            "peano:Peano",
            "Peano's curve, exact on powers of three; one diagonal step where both sides are even",
            paper="Peano 1890, Mathematische Annalen 36",
        ),
        _ordering("random", "shuffled:Random", "one order drawn by chance from a seed", "RandomSettings"),
        _ordering("file", "saved:File", "an order saved as order.json or .npy", "FileSettings"),
        _ordering("reverse", "transformed:Reverse", "another ordering, read backwards", "ReverseSettings"),
        _ordering(
            "transpose", "transformed:Transpose", "another ordering, rows and columns exchanged", "TransposeSettings"
        ),
        _ordering("flip", "transformed:Flip", "another ordering in a mirror, left-right or top-bottom", "FlipSettings"),
        _ordering("rotate", "transformed:Rotate", "another ordering, turned by quarter turns", "RotateSettings"),
    )
