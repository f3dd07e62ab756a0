"""All that the command does: open the images, build the parts, measure, rank, write, show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from reorder_core import ComponentRef, RunError, Settings, UsageError, output_folder, write_json
from reorder_core.bars import bars
from reorder_core.catalogue import Catalogue
from reorder_core.interfaces.dataset import evenly
from reorder_core.pixels import Unreadable
from reorder_core.recipe import load_recipe
from reorder_core.recipe_settings import plain
from reorder_prior.candidates import (
    chance_candidates,
    default_candidates,
    named_candidates,
    parse_one,
    parse_orderings,
)
from reorder_prior.images import Images, chosen_numbers, to_fit
from reorder_prior.measure import Measure, codes_of, run_measure
from reorder_prior.ranking import Finding, rank
from reorder_prior.report import print_finding
from reorder_prior.shards import Share, agree, close_share, cores, every, fit_once, open_share, summed
from reorder_prior.tally import Tally

_COMPARED = 8  # images whose codes show whether all processes measure the same


@dataclass(frozen=True)
class Wanted:
    """Where images come from, what is counted and where the ranking goes.

    `recipe` with `overrides`, or `data` with `patch`. distances: of mutual information, ascending, 1 among them.
    """

    recipe: Path | None
    overrides: Sequence[str]
    data: Path | None
    patch: int | None
    image_size: tuple[int, int] | None
    ngrams: tuple[int, ...]
    distances: tuple[int, ...]
    write: Path | None


def run_study(
    wanted: Wanted,
    *,
    split: Literal["train", "validation"],
    orderings: str | None,
    tokenizer: str,
    compressor: str,
    together: int,
    images: int | None,
    seed: int,
    unreadable: Unreadable,
    workers: int | None,
    as_json: bool,
    out: Path | None,
) -> int:
    """Measure and report; returns the exit code. The first process of several is the one that writes and speaks."""
    catalogue = Catalogue.load()
    refs = None if orderings is None else parse_orderings(orderings)
    parts = parse_one("tokenizer", tokenizer), parse_one("compressor", compressor)
    for ref in (*(refs or ()), *parts):  # a misspelt name is said before any image is looked for
        catalogue.settings(catalogue.find(ref.kind, ref.name), ref.settings)
    share = open_share()
    first = share.process == 0
    console = Console(stderr=as_json, quiet=not first)
    source = _open(wanted, split, unreadable, seed)
    numbers = chosen_numbers(len(source), images, seed)
    try:
        measure, notes = every(share, lambda: _measure(source, numbers, refs, parts, wanted, together, catalogue))
        with bars(console, "images", disable=not first) as progress:
            _fit(measure, source, numbers, share, _reporter(progress, f"fitting {parts[0].name}"))
            tally = _tally(measure, source, numbers, seed, workers or cores(share), share, progress)
    finally:
        close_share(share)
    if not first:
        return 0
    if not tally.images:
        raise RunError(f"{source.label}: none of {tally.skipped} images could be read: look at the first of them")
    made = (measure.tokenizer, measure.compressor)
    described = (_described(ref, each, catalogue) for ref, each in zip(parts, made, strict=True))
    folder = None if source.folder is None else str(source.folder)
    finding = Finding(source.label, measure, *described, rank(measure, tally), tally, notes, folder)
    if as_json:
        import json

        print(json.dumps(finding.as_json(), indent=1), flush=True)
    else:
        print_finding(finding, wanted.write, out, console)
    _write(finding, wanted.write, out)  # after the table, which is not lost where a file cannot be written
    return 0


def _open(wanted: Wanted, split: Literal["train", "validation"], unreadable: Unreadable, seed: int) -> Images:
    if wanted.recipe is not None:
        return Images.of_recipe(load_recipe(wanted.recipe, wanted.overrides), split, unreadable)
    assert wanted.data is not None
    assert wanted.patch is not None
    return Images.of_folder(wanted.data, wanted.patch, wanted.image_size, unreadable, seed)


def _measure(
    source: Images,
    numbers: Sequence[int],
    refs: Sequence[ComponentRef] | None,
    parts: tuple[ComponentRef, ComponentRef],
    wanted: Wanted,
    together: int,
    catalogue: Catalogue,
) -> tuple[Measure, list[str]]:
    """Everything that images go through; and what was left out of the default orderings."""
    context = source.context
    if max(wanted.distances) >= max(2, context.grid.size):
        most = context.grid.size - 1
        raise UsageError(
            f"--distance {max(wanted.distances)}: the codes of a {context.grid} grid lie at most {most} slots apart, "
            f"choose 1 to {most}"
        )
    notes: list[str] = []
    if refs is None:
        candidates, notes = default_candidates(catalogue, context)
        candidates += chance_candidates(catalogue, context, candidates)
    else:
        candidates = named_candidates(refs, catalogue, context, lambda: to_fit(source, numbers))
    tokenizer, compressor = (catalogue.build(ref, context) for ref in parts)
    made = tokenizer, compressor, wanted.ngrams, together, wanted.distances
    return Measure(candidates, context.grid, context.patch, *made), notes


def _fit(
    measure: Measure, source: Images, numbers: Sequence[int], share: Share, report: Callable[[int, int], None]
) -> None:
    """Fit the tokenizer where it learns, once for all processes, and see that they all measure the same."""
    tokenizer = measure.tokenizer
    fit_once(share, tokenizer, lambda: tokenizer.fit(to_fit(source, numbers), report))
    some = [numbers[place] for place in evenly(len(numbers), _COMPARED)]

    def codes() -> bytes:
        found = source.load(some)
        return codes_of(measure, found).tobytes() if len(found) else b""

    agree(
        share,
        codes,
        "the processes give the same images different codes: train the tokenizer once with `reorder tokenizer train`, "
        "and name its file with --tokenizer '{name: …, path: …}'",
    )
    agree(
        share,
        lambda: np.stack([each.order_N for each in measure.candidates]).tobytes(),
        "an ordering that learns from data is another one in each process: measure it with one process",
    )


def _reporter(progress: Progress, label: str) -> Callable[[int, int], None]:
    """A bar that appears with the first report."""
    bars: list[Any] = []

    def report(done: int, total: int) -> None:
        if not bars:
            bars.append(progress.add_task(label, total=total))
        progress.update(bars[0], completed=done, total=total)

    return report


def _tally(
    measure: Measure,
    source: Images,
    numbers: Sequence[int],
    seed: int,
    workers: int,
    share: Share,
    progress: Progress,
) -> Tally:
    """The merged tally of all processes; the bar runs by this one's share of the images."""
    mine = -(-len(numbers) // share.processes)
    bar = progress.add_task(f"{len(measure.candidates)} orders", total=mine)

    def tick(done: int) -> None:
        progress.advance(bar, done)

    return summed(share, lambda: run_measure(measure, source, numbers, seed, workers, tick, share))


def _described(ref: ComponentRef, made: Any, catalogue: Catalogue) -> Mapping[str, Any]:
    """A component with all its settings: its own where it keeps them, as one read from a file has those of the file."""
    settings = catalogue.settings(catalogue.find(ref.kind, ref.name), ref.settings)
    own = getattr(made, "settings", None)
    asked = {} if settings is None else plain(settings)
    given = {key: value for key, value in asked.items() if key in ref.settings}
    return {"name": ref.name, **(plain(own) if isinstance(own, Settings) else asked), **given}


def _write(finding: Finding, file: Path | None, folder: Path | None) -> None:
    """The ranking with its orders, and the picture: whole or not at all."""
    content = finding.as_json(orders=True)
    if file is not None:
        try:
            write_json(file, content, indent=None)
        except OSError as error:
            raise RunError(f"--write {file} cannot be written ({error.strerror}): choose another file") from error
    if folder is not None:
        from reorder_prior.picture import draw

        with output_folder(folder):
            write_json(folder / "prior.json", content, indent=None)
            draw(finding, folder / "prior.png")
