"""Segmentation and multilabel on 80 real photographs: too few to generalise, so they must be learned by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reorder_annotated_data.coco import Coco
from reorder_annotated_data.settings import CocoSettings
from reorder_multilabel.settings import MultilabelSettings
from reorder_multilabel.task import Multilabel
from reorder_segmentation.settings import SegmentationSettings
from reorder_segmentation.task import Segmentation

from reorder_core import Grid, Layout
from reorder_core.conformance import context
from reorder_core.conformance.building import build
from reorder_core.model import Model

COCO = Path(__file__).parents[2].parent / "shared" / "data" / "coco_mini"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COCO.is_dir(), reason="the photographs are not here"),
]
GRID, WIDTH, RATE = Grid(8, 8), 96, 4e-3


def learned_by_heart(
    target: str, make: Any, task_settings: Any, patch: int, images: int, steps: int
) -> dict[str, float]:
    """Metrics on the training images after so many steps on them, `images` at a time, in one random order."""
    torch.manual_seed(0)
    here = context(GRID, patch=patch, channels=3)
    side = GRID.rows * patch
    data_settings = CocoSettings(root=str(COCO), target=target, size=side, fit="stretch", flip=0)  # type: ignore[arg-type]
    dataset = Coco(data_settings, here)
    here = here.changed(data=dataset.facts, dataset=dataset, width=WIDTH)
    of = {"width": WIDTH, "depth": 2, "heads": 3, "mlp_ratio": 2.0, "readout": "mean"}
    model = Model(build("backbone", "vit", of, here), GRID, patch, 3, "sincos2d")
    task = make(task_settings, here)
    batches = [dataset.train.load(range(at, at + images), 0) for at in range(0, 80, images)]
    layout = Layout.fixed(GRID, torch.randperm(GRID.size))
    descent = torch.optim.AdamW([*task.parameters(), *model.parameters()], lr=RATE, weight_decay=0)
    slower = torch.optim.lr_scheduler.OneCycleLR(descent, RATE, total_steps=steps)
    for step in range(steps):
        descent.zero_grad()
        task.step(model, batches[step % len(batches)], layout).loss_B.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        descent.step()
        slower.step()
    metrics = task.eval().metrics()
    with torch.no_grad():
        for batch in batches:
            metrics.update(task.step(model.eval(), batch, layout), batch)
    return dict(metrics.compute())


def test_masks_of_photographs_are_learned_by_heart() -> None:
    settings = SegmentationSettings(head="pyramid", dice=0.5)
    found = learned_by_heart("mask", Segmentation, settings, patch=4, images=16, steps=1200)
    print(found)
    assert found["loss"] < 0.5
    assert found["miou"] > 0.5


def test_classes_of_photographs_are_learned_by_heart() -> None:
    found = learned_by_heart("classes", Multilabel, MultilabelSettings(), patch=8, images=40, steps=1200)
    print(found)
    assert found["loss"] < 0.01
    assert found["map"] > 0.95
