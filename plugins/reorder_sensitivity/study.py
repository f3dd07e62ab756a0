"""All that the command does: open, measure, write down, draw, show."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from reorder_core import Batch, output_folder, write_json
from reorder_core.bars import bars
from reorder_core.opened import Opened, open_target
from reorder_sensitivity.card import Card, card
from reorder_sensitivity.forgetting import Retention, quarter_ratio, retention
from reorder_sensitivity.orders import Tried, named_orders, random_orders, swapped_orders
from reorder_sensitivity.reaction import Reaction, reactions
from reorder_sensitivity.report import print_findings

_RETENTION_IMAGES = 128  # gradients and occlusions cost more than reading, and averages over orders settle sooner


@dataclass(frozen=True)
class Finding:
    """What was found of one target."""

    label: str
    target: Path
    trained_steps: int
    order_name: str
    metric: str
    higher_is_better: bool
    images: int
    own_score: float
    card: Card
    reactions: list[Reaction]
    retention: Retention

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `sensitivity.json` has them."""
        kept = self.retention
        return {
            "target": str(self.target),
            "label": self.label,
            "trained_steps": self.trained_steps,
            "order": self.order_name,
            "metric": self.metric,
            "images": self.images,
            "own_score": self.own_score,
            "card": asdict(self.card),
            "reactions": [asdict(each) for each in self.reactions],
            "retention": {
                "gradient": kept.gradient_N.tolist(),
                "gradient_spread": kept.gradient_RN.std(axis=0).tolist(),
                "occluded_slots": kept.slots_S.tolist(),
                "occlusion": kept.occlusion_RS.mean(axis=0).tolist(),
                "place": kept.place_N.tolist(),
                "first_to_last_quarter": kept.first_to_last,
                "first_to_last_quarter_by_gradient": quarter_ratio(kept.gradient_N),
            },
        }


def run_study(
    targets: Sequence[Path],
    overrides: Sequence[str],
    out: Path | None,
    as_json: bool,
    *,
    orderings: list[str] | None,
    randoms: int,
    swaps: int,
    images: int,
    slots: int,
    seed: int,
    batch_size: int,
    device: Literal["auto", "cpu", "cuda", "mps"],
) -> int:
    """Measure every target and write the results; returns the exit code."""
    opened = [open_target(target, overrides, device) for target in targets]
    labels = _labels(opened, targets)
    console = Console(stderr=as_json)
    findings = []
    with bars(console, "orders") as progress:
        for target, label, each in zip(targets, labels, opened, strict=True):
            rng = np.random.default_rng(seed)
            tried = [
                *named_orders(each, orderings),
                Tried("random", random_orders(each.grid.size, randoms, rng)),
                Tried("adjacent swap", swapped_orders(each.order_N, 1, swaps, rng)),
                Tried(f"{each.grid.size} adjacent swaps", swapped_orders(each.order_N, each.grid.size, swaps, rng)),
            ]
            total = sum(len(kind.orders_KN) for kind in tried) + randoms
            bar = progress.add_task(label, total=total)
            findings.append(_measure(each, target, label, tried, images, slots, batch_size, _tick(progress, bar)))
    folder = out or _folder(opened, targets)
    _write(findings, folder)
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        print_findings(findings, folder, console)
    return 0


def _measure(
    opened: Opened,
    target: Path,
    label: str,
    tried: Sequence[Tried],
    images: int,
    slots: int,
    batch_size: int,
    tick: Any,
) -> Finding:
    batches = list(opened.batches(opened.dataset.validation, images, batch_size))
    own_score, found = reactions(opened, batches, tried, tick)
    few = _first(batches, _RETENTION_IMAGES)
    randoms_RN = next(kind.orders_KN for kind in tried if kind.name == "random")
    return Finding(
        label=label,
        target=target,
        trained_steps=opened.steps,
        order_name=opened.order_name,
        metric=getattr(opened.task, "score", opened.task.primary),  # what score_B is of
        higher_is_better=opened.task.higher_is_better,
        images=sum(len(batch.index_B) for batch in batches),
        own_score=own_score,
        card=card(opened),
        reactions=found,
        retention=retention(opened, few, randoms_RN, slots, tick),
    )


def _first(batches: Sequence[Batch], images: int) -> list[Batch]:
    """Whole batches until there are that many images."""
    taken: list[Batch] = []
    while len(taken) < len(batches) and sum(len(batch.index_B) for batch in taken) < images:
        taken.append(batches[len(taken)])
    return taken


def _labels(opened: Sequence[Opened], targets: Sequence[Path]) -> list[str]:
    """The backbones' names; with the recipes' or controls' where those are the same; numbered where all is."""
    names = [each.recipe.backbone.name for each in opened]
    if len({*names}) < len(names):
        pairs = list(zip(opened, targets, strict=True))
        inside = [place.name if place.parent.name == "controls" else each.recipe.name for each, place in pairs]
        names = [f"{name} ({place})" for name, place in zip(names, inside, strict=True)]
    return [f"{name} {number}" if names.count(name) > 1 else name for number, name in enumerate(names, start=1)]


def _folder(opened: Sequence[Opened], targets: Sequence[Path]) -> Path:
    """Inside a run where it is about one run; else below `runs/sensitivity`, by the names of the recipes."""
    if len(targets) == 1 and targets[0].is_dir():
        return targets[0] / "sensitivity"
    names = [f"{each.recipe.name}-{each.recipe.backbone.name}" for each in opened]
    rest = f"_and_{len(names) - 3}_more" if len(names) > 3 else ""
    return Path("runs") / "sensitivity" / (re.sub(r"[^\w.+-]", "_", "+".join(names[:3])) + rest)


def _write(findings: Sequence[Finding], folder: Path) -> None:
    from reorder_sensitivity.picture import draw_orders, draw_retention

    with output_folder(folder):
        write_json(folder / "sensitivity.json", [finding.as_json() for finding in findings])
        draw_orders(findings, folder / "orders.png")
        draw_retention(findings, folder / "retention.png")


def _tick(progress: Progress, bar: Any) -> Any:
    return lambda: progress.advance(bar)
