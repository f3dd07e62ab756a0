"""All that the command does: read orders and recipes, make every cell, compare, write down, draw, show."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from reorder_core import UsageError, output_folder, write_json
from reorder_core.running import Stopped
from reorder_transfer.cells import Workshop
from reorder_transfer.matrix import Row, differences
from reorder_transfer.report import print_matrix
from reorder_transfer.sources import Source, read_sources
from reorder_transfer.target import Entry, Target, read_targets
from reorder_transfer.work import Made, jobs, seeds_of, work


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for; see its help."""

    sources: tuple[Path, ...]
    recipes: tuple[Path, ...]
    overrides: tuple[str, ...]
    modes: tuple[str, ...]
    orders: tuple[str, ...]
    seeds: tuple[int, ...] | None
    epochs: int | None
    bases: tuple[Path, ...]
    device: Any


def run_study(wanted: Wanted, out: Path | None, as_json: bool) -> int:
    """Do everything and say it; returns the exit code (130 where it was stopped: what is finished is kept)."""
    console = Console(stderr=as_json)
    sources = read_sources(wanted.sources)
    targets = read_targets(wanted.recipes, wanted.overrides, sources, wanted.orders, wanted.bases)
    folder = out or _folder(sources, targets)
    _make(folder / "orders")
    planned = [job for target in targets for job in jobs(target, wanted.modes, wanted.seeds, wanted.epochs, folder)]
    shop = Workshop(
        wanted.device, lambda finished: None, lambda: redirect_stdout(sys.stderr) if as_json else nullcontext()
    )
    try:
        made = work(planned, shop, folder, console)
    except (Stopped, KeyboardInterrupt) as stopped:
        console.print(
            f"stopped: what is finished is kept in {folder}; the same command goes on from there",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
        return getattr(stopped, "exit_code", Stopped.exit_code)
    rows = [row for target in targets for row in _rows(target, wanted, made, folder / "orders")]
    _write(rows, folder)
    if as_json:
        print(json.dumps(_document(rows), indent=2))
    else:
        print_matrix(rows, folder, console)
    return 0


def _rows(target: Target, wanted: Wanted, made: Mapping[Any, Made], orders: Path) -> Iterator[Row]:
    """The cells of one target, mode by mode."""
    seeds = seeds_of(target, wanted.seeds)
    first = next(entry for entry in target.entries if entry.kind == "ordering")
    for mode in wanted.modes:
        against = first if mode == "scratch" else target.own

        def of(entry: Entry, mode: str = mode) -> list[Made] | None:
            cells = [made.get((target.label, mode, entry.number, seed)) for seed in seeds]
            return None if None in cells else cells  # type: ignore[return-value]

        for entry in target.entries:
            cells = of(entry)
            if cells is not None:
                yield _row(target, mode, entry, against, cells, of(against) or [], seeds, orders)


def _row(
    target: Target,
    mode: str,
    entry: Entry,
    against: Entry,
    cells: Sequence[Made],
    others: Sequence[Made],
    seeds: tuple[int, ...],
    orders: Path,
) -> Row:
    one = cells[0].found
    same = entry.number == against.number
    images, over = (None, None) if same else differences([c.found for c in cells], [c.found for c in others])
    return Row(
        source=entry.label,
        kind=entry.kind,
        to=target.label,
        mode=mode,
        metric=one.primary,
        score=one.score,
        higher_is_better=one.higher_is_better,
        seed_numbers=seeds,
        values=tuple(each.found.value for each in cells),
        against=against.label,
        images=images,
        seeds=over,
        order=entry.write(orders),
        folders=tuple(each.folder for each in cells),
    )


def _folder(sources: Sequence[Source], targets: Sequence[Target]) -> Path:
    """Below `runs/transfer`, by the names of orders and recipes."""
    names = "_to_".join("+".join(_first_three([each.label for each in part])) for part in (sources, targets))
    return Path("runs") / "transfer" / re.sub(r"[^\w.+-]+", "_", names)


def _first_three(labels: Sequence[str]) -> list[str]:
    return [*labels[:3], *([f"{len(labels) - 3}_more"] if len(labels) > 3 else [])]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error


def _document(rows: Sequence[Row]) -> dict[str, Any]:
    return {"matrix": [row.as_json() for row in rows]}


def _write(rows: Sequence[Row], folder: Path) -> None:
    from reorder_transfer.picture import draw

    with output_folder(folder):
        write_json(folder / "transfer.json", _document(rows))
        draw(rows, folder / "transfer.png")
