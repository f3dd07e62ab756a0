"""The tables on the screen, and what they come to in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reorder_predict.between import ALPHA, Association
from reorder_predict.correlation import Estimate
from reorder_predict.within import Likeness

if TYPE_CHECKING:
    from reorder_predict.study import Findings


def summary(findings: Findings) -> list[str]:
    """A sentence a model about orders, one about unseen models, one a model about images."""
    said = [
        _of_model(model, [row for row in findings.between if row.model == model]) for model in findings.table.models
    ]
    said.append(_of_transfer(findings))
    if findings.images is not None:
        said += [_of_images(model, findings.images) for model in findings.table.models]
    return said


def _of_model(model: str, rows: Sequence[Association]) -> str:
    if not rows:
        return f"{model}: no statistic could be tested"
    rows = [row for row in rows if not row.twin]
    sure = [row for row in rows if not row.doubts]
    if sure:
        told = "; ".join(f"{row.statistic} (rho {_show(row.found.spearman)}, {row.found.pairs} orders)" for row in sure)
        return f"{model}: accuracy goes with {told}"
    best = rows[0]
    return (
        f"{model}: the evidence is too thin to say that any of {len(rows)} statistics predicts its accuracy "
        f"(strongest: {best.statistic}, rho {_show(best.found.spearman)}; {', '.join(best.doubts)})"
    )


def _of_transfer(findings: Findings) -> str:
    if not findings.transfer:
        return "leave one model out: this needs two models that share three orders or more"
    tried = [each for each in findings.transfer if each.predictor in ("all statistics", *findings.columns)]
    best = max(tried, key=lambda each: each.r2, default=None)
    if best is None:
        return "leave one model out: no statistic is known of three orders of two models"
    if best.r2 <= 0:
        return f"leave one model out: nothing predicts an unseen model better than the mean (best: {_r2(best)})"
    told = f"best is {_r2(best)} (the mean: 0), chosen among {len(tried)}"
    if findings.chance is None or findings.chance >= ALPHA:
        chance = "" if findings.chance is None else f", as good in {findings.chance:.0%} of shuffles of the statistics"
        return f"leave one model out: the evidence is too thin; {told}{chance}"
    return f"leave one model out: {told}, as good in {findings.chance:.1%} of shuffles of the statistics"


def _r2(each: object) -> str:
    return f"{each.predictor}, R2 {each.r2:.2f}"  # type: ignore[attr-defined]


def _of_images(model: str, rows: Sequence[Likeness]) -> str:
    own = [row for row in rows if row.model == model and "(" not in row.verdict]  # those held to all controls
    counts = {said: sum(row.verdict.startswith(said) for row in own) for said in ("alike is better", "alike is worse")}
    rest = len(own) - sum(counts.values())
    return (
        f"{model}: images whose consecutive patches are more alike do better in {counts['alike is better']}, worse in "
        f"{counts['alike is worse']} and neither in {rest} of {len(own)} orders, "
        f"with class, contrast and row-by-row variation held fixed"
    )


def print_findings(findings: Findings, folder: Path, console: Console) -> None:
    """Accuracies, associations, unseen models, images; then the sentences and the notes."""
    console.print(_accuracies(findings, console.width))
    console.print(_associations(findings))
    if findings.transfer:
        console.print(_transfer(findings))
    if findings.images:
        console.print(_images(findings.images))
    for sentence in summary(findings):
        console.print(Text(sentence, style="bold"))
    for note in findings.notes:
        console.print(Text(f"note: {note}", style="dim"))
    console.print(Text(f"saved in {folder}"))


def _accuracies(findings: Findings, width: int) -> Table:
    """With as many statistics as the screen is wide enough for; predict.json has them all."""
    table = findings.table
    room = width - 26 - sum(len(model) + 3 for model in table.models)
    columns = {name: column for name, column in findings.columns.items() if (room := room - len(name) - 3) >= 0}
    shown = Table(title=f"{table.metric} on {table.data}, {table.grid} patches (seeds)", title_justify="left")
    shown.add_column("order")
    for model in table.models:
        shown.add_column(model, justify="right")
    for name in columns:
        shown.add_column(name, justify="right", style="dim")
    for order in table.orders:
        cells = {cell.model: cell for cell in table.cells if cell.order is order}
        values = [f"{cells[m].value:.4g} ({len(cells[m].runs)})" if m in cells else "" for m in table.models]
        known = [f"{column[order.name]:.3g}" if order.name in column else "" for column in columns.values()]
        shown.add_row(order.name, *values, *known)
    return shown


def _associations(findings: Findings) -> Table:
    shown = Table(title="Between orders: statistic against accuracy", title_justify="left")
    for heading in ("model", "statistic", "orders", "Spearman", "Kendall", "p", "p (Holm)", "evidence"):
        shown.add_column(heading, justify="left" if heading in ("model", "statistic", "evidence") else "right")
    for row in findings.between:
        shown.add_row(
            row.model,
            row.statistic,
            str(row.found.pairs),
            _show(row.found.spearman),
            _show(row.found.kendall),
            f"{row.found.p:.2g}{'' if row.found.exact else '~'}",
            "" if row.twin else f"{row.corrected:.2g}",
            Text(row.verdict, style="dim" if row.doubts or row.twin else "green"),
        )
    return shown


def _transfer(findings: Findings) -> Table:
    shown = Table(title="Leave one model out: R2 against the mean, and rank correlation", title_justify="left")
    shown.add_column("predicted from")
    shown.add_column("R2", justify="right")
    for model in findings.table.models:
        shown.add_column(model, justify="right")
    for each in findings.transfer:
        told = {guess.model: guess for guess in each.guesses}
        cells = []
        for model in findings.table.models:
            guess = told.get(model)
            rank = "" if guess is None or np.isnan(guess.rank) else f", rank {guess.rank:.2f}"
            cells.append("" if guess is None else f"{guess.r2:.2f}{rank}")
        shown.add_row(each.predictor, f"{each.r2:.2f}", *cells)
    return shown


def _images(rows: Sequence[Likeness]) -> Table:
    shown = Table(
        title="Within the data set: an image's variation along the order against its score",
        caption="partial and log-odds: variation row by row, contrast and class held fixed",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("model", "order", "Spearman", "partial", "log-odds a deviation", "p (Holm)", "verdict"):
        shown.add_column(heading, justify="left" if heading in ("model", "order", "verdict") else "right")
    for row in rows:
        slope = "" if row.slope is None else f"{row.slope.value:+.2f} [{row.slope.low:+.2f}, {row.slope.high:+.2f}]"
        style = "dim" if row.verdict.startswith("no") else "green"
        shown.add_row(
            row.model,
            row.order,
            _show(row.spearman),
            _show(row.partial),
            slope,
            f"{row.corrected:.2g}",
            Text(row.verdict, style=style),
        )
    return shown


def _show(value: Estimate) -> str:
    if np.isnan(value.low):
        return f"{value.value:+.2f} [no interval]"
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
