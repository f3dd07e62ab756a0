"""Captions of real photographs are learned by heart: the test that learning works.

The photographs lie beside the checkout (COCO 2017, 80 training images); without them there is nothing to test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reorder_annotated_data.coco import Coco
from reorder_annotated_data.settings import CocoSettings
from reorder_captioning.settings import CaptioningSettings
from reorder_captioning.task import Captioning

from reorder_core import Batch, Grid, Layout
from reorder_core.conformance import context
from reorder_core.conformance.building import build
from reorder_core.model import Model

COCO = Path(__file__).parents[2].parent / "shared" / "data" / "coco_mini"
pytestmark = pytest.mark.skipif(not COCO.is_dir(), reason="the photographs are not here")

GRID, PATCH, WIDTH = Grid(4, 4), 8, 64
READERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("mamba", {"width": WIDTH, "depth": 2, "state": 4}, {"reader": "prefix"}),
    ("vit", {"width": WIDTH, "depth": 2, "heads": 4}, {"reader": "cross_attention"}),
]


def learned_by_heart(
    backbone: str, given_backbone: dict[str, Any], given_task: dict[str, Any], photographs: int, steps: int
) -> tuple[float, float, dict[str, float]]:
    """The loss before and after so many steps on all photographs, one caption each, and the metrics after."""
    where = context(GRID, patch=PATCH, channels=3, width=WIDTH)
    look = CocoSettings(root=str(COCO), target="captions", size=32, fit="stretch", flip=0)
    dataset = Coco(look, where)
    where = where.changed(data=dataset.facts, dataset=dataset)
    torch.manual_seed(0)
    model = Model(build("backbone", backbone, given_backbone, where), GRID, PATCH, 3)
    task = Captioning(CaptioningSettings(vocabulary=600, max_words=24, **given_task), where)
    loaded = dataset.train.load(list(range(photographs)), 0)
    batch = Batch(loaded.images_BCHW, [texts[:1] for texts in loaded.target], loaded.index_B)
    layout = Layout.fixed(GRID, torch.randperm(GRID.size, generator=torch.Generator().manual_seed(3)))
    descent = torch.optim.AdamW([*task.parameters(), *model.parameters()], lr=4e-3, weight_decay=0)
    slower = torch.optim.lr_scheduler.OneCycleLR(descent, 4e-3, total_steps=steps)
    first = None
    for _ in range(steps):
        loss = task.step(model, batch, layout).loss_B.mean()
        first = loss.item() if first is None else first
        descent.zero_grad()
        loss.backward()
        descent.step()
        slower.step()
    task.eval()
    model.eval()
    metrics = task.metrics()
    with torch.no_grad():
        result = task.step(model, batch, layout)
        metrics.update(result, batch)
    assert first is not None
    return first, float(result.loss_B.mean()), dict(metrics.compute())


@pytest.mark.parametrize(("backbone", "given_backbone", "given_task"), READERS, ids=["prefix", "cross_attention"])
@pytest.mark.parametrize(("photographs", "steps"), [(8, 150), pytest.param(80, 400, marks=pytest.mark.slow)])
def test_captions_of_photographs_are_learned_by_heart(
    backbone: str, given_backbone: dict[str, Any], given_task: dict[str, Any], photographs: int, steps: int
) -> None:
    before, after, found = learned_by_heart(backbone, given_backbone, given_task, photographs, steps)
    print(f"\n{backbone}, {photographs} photographs: loss {before:.2f} -> {after:.4f}, {found}")
    assert after < 0.05
    assert found["exact_match"] > 0.95
    assert found["cider"] > 9.5
