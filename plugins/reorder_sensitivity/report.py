"""The tables on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from reorder_sensitivity.study import Finding


def print_findings(findings: Sequence[Finding], folder: Path, console: Console) -> None:
    """A table of each target's orders, one of what they forget, and where the rest is."""
    for finding in findings:
        console.print(_orders(finding))
    console.print(_models(findings))
    console.print(
        "output: how far the summary moves, relative to its length (of the models: in random orders)\n"
        "brackets: paired bootstrap 95 % interval over images. MFLOPs: of one image, forward\n"
        "first/last: influence of the first quarter of the slots over that of the last, over random orders,\n"
        "by occlusion (by gradient with --slots below 4); below 1, the beginning is forgotten",
        style="dim",
        soft_wrap=True,
    )
    console.print(f"figures and pictures: {folder}", highlight=False, soft_wrap=True)


def _orders(finding: Finding) -> Table:
    weights = f"{finding.trained_steps:,} steps" if finding.trained_steps else "fresh weights"
    own = f"{finding.metric} {finding.own_score:.3f} in its own order, {finding.order_name}"
    table = Table(title=f"{finding.label} ({weights}): {own}", title_justify="left", box=None, pad_edge=False)
    table.add_column("order")
    for name in ("output", "±", finding.metric, "change", ""):
        table.add_column(name, justify="right")
    for row in sorted(finding.reactions, key=lambda each: each.output):
        change = row.change
        table.add_row(
            row.name if row.orders == 1 else f"{row.name} (mean of {row.orders})",
            f"{row.output:.4f}",
            f"{row.spread:.4f}" if row.orders > 1 else "",
            f"{row.score:.3f}",
            f"{change.mean:+.3f}",
            f"[{change.low:+.3f}, {change.high:+.3f}]".replace("[", r"\["),
        )
    return table


def _models(findings: Sequence[Finding]) -> Table:
    table = Table(title="models", title_justify="left", box=None, pad_edge=False)
    table.add_column("model")
    for name in ("parameters", "MFLOPs", "attention", "order", "output", "change", "first/last"):
        table.add_column(name, justify="right")
    for finding in findings:
        facts = finding.card
        random = next(row for row in finding.reactions if row.name == "random")
        table.add_row(
            finding.label,
            f"{facts.parameters:,}",
            f"{facts.flops / 1e6:,.1f}",
            facts.attention,
            "matters" if facts.order_sensitive else "does not",
            f"{random.output:.3f}",
            f"{random.change.mean:+.3f}",
            f"{finding.retention.first_to_last:.2f}",
        )
    return table
