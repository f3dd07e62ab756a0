"""The table on the screen: compression and the statistics side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reorder_core.bootstrap import Interval
from reorder_prior.columns import Column, columns_of
from reorder_prior.ranking import Finding, Ranked

#: The mark of an ordering that the one above it may as well stand below.
TIED = "≈"

_WIDEST = 1000  # characters of a table


def print_finding(finding: Finding, file: Path | None, folder: Path | None, console: Console) -> None:
    """The ranking, what its columns mean, what was left out, and where the rest is."""
    table = _table(finding)
    least = console.measure(table, options=console.options.update(max_width=_WIDEST)).minimum
    console.print(table, width=max(console.width, least), crop=False, soft_wrap=least > console.width)  # all figures
    console.print(_legend(finding), style="dim", soft_wrap=True, highlight=False)
    for said in (verdict(finding), beside_chance(finding)):
        if said:
            console.print(said, soft_wrap=True, highlight=False, markup=False)
    if finding.tally.skipped:
        count = finding.tally.skipped
        console.print(
            f"{count:,} image{'s' * (count != 1)} could not be read and {'are' if count != 1 else 'is'} left out",
            style="yellow",
        )
    for note in finding.notes:
        console.print(note, style="dim", soft_wrap=True, highlight=False, markup=False)
    places = [*([file] if file else []), *([folder / "prior.json", folder / "prior.png"] if folder else [])]
    if places:
        console.print(f"written: {', '.join(map(str, places))}", soft_wrap=True, highlight=False, markup=False)


def _table(finding: Finding) -> Table:
    measure, tally = finding.measure, finding.tally
    made = f"{finding.tokenizer['name']} ({measure.tokenizer.codes} codes), {finding.compressor['name']}"
    title = f"{finding.data}: {tally.images:,} images, {measure.grid} patches of {measure.patch} px, {made}"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("ordering", overflow="fold", min_width=14)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("reduction %", justify="right", no_wrap=True)
    table.add_column("behind", justify="right", no_wrap=True)
    for ngram in measure.ngrams[1:]:
        table.add_column(f"{ngram}-gram %", justify="right", no_wrap=True)
    columns = columns_of(measure.distances)
    for column in columns:
        table.add_column(column.head, justify="right", no_wrap=True)
    for row in finding.ranking:
        table.add_row(*_cells(row, columns), style="dim" if row.by_chance else None)
    return table


def _cells(row: Ranked, columns: Sequence[Column]) -> list[str]:
    mark = "" if row.is_told_from_next else f" {TIED}"
    cells = [f"{escape(row.ordering)}{mark}", f"{row.size.bytes:.2f}", _percent(row.size.reduction)]
    cells.append("" if row.behind_winner is None else _percent(row.behind_winner))
    cells += [_percent(size.reduction) for size in list(row.sizes.values())[1:]]
    return cells + [f"{row.statistics[column.name]:{column.form}}" for column in columns]


def _percent(found: Interval) -> str:
    """Two lines: the value, and below it its interval, both in percent."""
    return f"{100 * found.mean:.2f}\n[dim]{100 * found.low:.2f}…{100 * found.high:.2f}[/]"


def _legend(finding: Finding) -> str:
    measure = finding.measure
    alone = measure.together == 1
    raw = finding.ranking[0].size.raw
    over = f"{finding.tally.groups:,} {'images' if alone else 'streams'}"
    how = "alone" if alone else f"{measure.together} together"
    return "\n".join(
        [
            f"bytes: of an image, from {raw:.1f}, compressed {how}",
            f"reduction: 1 - bytes / raw; behind: how much more the first reduces; small: 95 % bootstrap over {over}",
            f"{TIED}: not surely behind the one above. "
            + "; ".join(f"{each.head}: {each.meaning}" for each in columns_of(measure.distances)),
        ]
    )


def verdict(finding: Finding) -> str:
    """One sentence on how far the ranking can be relied on."""
    first, *others = finding.ranking
    if not others:
        return f"{first.ordering} is the only order."
    if all(row.size.bytes == first.size.bytes for row in others):
        return f"every order compresses equally.{_too_short(finding)}"
    if finding.tally.groups < 2:
        return f"{first.ordering} compresses best, in one stream: nothing is known about other images."
    tied = [row.ordering for row in others if row.behind_winner and not row.behind_winner.excludes_zero]
    if tied:
        return f"{first.ordering} compresses best, but not surely better than {', '.join(tied)}.{_too_short(finding)}"
    sure = "and surely better than every other (over the choice of images)"
    return f"{first.ordering} compresses best, {sure}.{_too_short(finding)}"


def beside_chance(finding: Finding) -> str:
    """One sentence on what a random order gives, and which orders are surely ahead of the best of them; or nothing."""
    random = [100 * row.size.reduction.mean for row in finding.ranking if row.by_chance]
    if not random or finding.tally.groups == 1:
        return ""
    count = f"{len(random)} random order{'s' * (len(random) > 1)}"
    span = f"{min(random):.2f} %" if max(random) - min(random) < 0.005 else f"{min(random):.2f} to {max(random):.2f} %"
    ahead = [row.ordering for row in finding.ranking if row.over_chance is not None and row.over_chance.low > 0]
    who = ", ".join(ahead) or "none"
    return f"By chance: {count} reduce{'s' * (len(random) == 1)} by {span}; surely ahead of the best of them: {who}."


def _too_short(finding: Finding) -> str:
    """What to do where nothing repeats within an image, so that the ranking rests on the few that do repeat."""
    if not finding.is_stored or finding.measure.together > 1:
        return ""
    codes = finding.measure.grid.size
    return f" No order makes an image shorter than its {codes} codes: they hardly repeat, try --together 64."
