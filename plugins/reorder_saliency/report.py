"""The tables on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from reorder_saliency.study import Study


def print_study(study: Study, folder: Path, console: Console) -> None:
    """A table of the orders by each method, one of the classes where it was asked, and where the rest is."""
    console.print(_orders(study))
    if any(each.classes for each in study.measured):
        console.print(_classes(study))
    for method, reason in study.left_out.items():
        console.print(f"{method} left out: {reason}", soft_wrap=True)
    if study.small:
        console.print(f"classes with fewer than two images, left out: {', '.join(study.small)}", soft_wrap=True)
    console.print(
        "Spearman's rank correlation of slot and saliency: above 0, what matters is read late\n"
        "brackets: bootstrap 95 % interval over images, for these weights; those of classes are in saliency.json\n"
        f"of random orders, 95 % lie within ±{study.chance:.2f}",
        style="dim",
        soft_wrap=True,
    )
    console.print(f"figures and pictures: {folder}", highlight=False, soft_wrap=True)


def _orders(study: Study) -> Table:
    opened = study.opened
    score = f"{study.metric} {study.measured[0].whole.score:.3f} on {study.images} images"
    title = f"{opened.recipe.name}: {opened.recipe.backbone.ref.name} in its own order, {opened.order_name} ({score})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("order")
    for each in study.measured:
        table.add_column(each.method, justify="right", no_wrap=True)
    for number, name in enumerate(study.orders):
        found = [each.whole.placed[number] for each in study.measured]
        table.add_row(name, *(rf"{at.correlation:+.2f} \[{at.low:+.2f}, {at.high:+.2f}]" for at in found))
    return table


def _classes(study: Study) -> Table:
    title = "classes, in the run's own order"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("images", study.metric, *(each.method for each in study.measured)):
        table.add_column(name, justify="right", no_wrap=True)
    for number, group in enumerate(study.measured[0].classes):
        found = [each.classes[number].placed[0] for each in study.measured]
        table.add_row(group.name, str(group.images), f"{group.score:.3f}", *(f"{at.correlation:+.2f}" for at in found))
    return table
