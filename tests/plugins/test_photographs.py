"""Questions about real photographs, and masked patches of them, are learned by heart: the test that learning works.

The photographs lie beside the checkout (COCO 2017, 80 training images); without them there is nothing to test.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from reorder_annotated_data.coco import Coco
from reorder_annotated_data.settings import CocoSettings, VqaSettings
from reorder_annotated_data.vqa import Vqa
from reorder_reconstruction.settings import ReconstructionSettings
from reorder_reconstruction.task import Reconstruction
from reorder_visual_reasoning.settings import VisualReasoningSettings
from reorder_visual_reasoning.task import VisualReasoning
from reorder_vit.backbone import VitBackbone
from reorder_vit.settings import VitSettings

from reorder_core import Grid, Layout
from reorder_core.conformance import context
from reorder_core.model import Model

COCO = Path(__file__).parents[2].parent / "shared" / "data" / "coco_mini"
pytestmark = pytest.mark.skipif(not COCO.is_dir(), reason="the photographs are not here")

GRID, PATCH, WIDTH = Grid(4, 4), 8, 64
LOOK = {"size": 32, "fit": "stretch", "flip": 0}


def few_or_all(steps):
    """Twelve photographs after so many steps; and all of them, which takes minutes."""
    return pytest.mark.parametrize(
        ("photographs", "steps"), [(12, steps), pytest.param(80, 600, marks=pytest.mark.slow)]
    )


def where_of(dataset):
    given = context(GRID, patch=PATCH, channels=3, width=WIDTH)
    return given.changed(data=dataset.facts, dataset=dataset)


def learned(task, model, batch, steps, rate=4e-3):
    """The result on the training images after so many steps on all of them, and the loss before."""
    layout = Layout.fixed(GRID, torch.randperm(GRID.size, generator=torch.Generator().manual_seed(3)))
    descent = torch.optim.AdamW([*task.parameters(), *model.parameters()], lr=rate, weight_decay=0)
    slower = torch.optim.lr_scheduler.OneCycleLR(descent, rate, total_steps=steps)
    losses = []
    for _ in range(steps):
        loss = task.step(model, batch, layout).loss_B.mean()
        losses.append(loss.item())
        descent.zero_grad()
        loss.backward()
        descent.step()
        slower.step()
    with torch.no_grad():
        return task.step(model, batch, layout), losses[0]


@few_or_all(240)
def test_masked_patches_of_photographs_are_learned_by_heart(photographs, steps):
    """Each photograph has its own mask, which stays the same."""
    torch.manual_seed(0)
    dataset = Coco(CocoSettings(root=str(COCO), **LOOK), context(GRID, patch=PATCH, channels=3))
    batch = dataset.train.load(range(photographs), 0)
    where = where_of(dataset)
    task = Reconstruction(ReconstructionSettings(head="mlp"), where)
    model = Model(VitBackbone(VitSettings(width=WIDTH, depth=2, heads=4), where), GRID, PATCH, 3)
    result, first = learned(task, model, batch, steps)
    metrics = task.metrics()
    metrics.update(result, batch)
    found = metrics.compute()
    assert first > 0.9
    assert found["loss"] < 0.25
    assert found["explained"] > 0.75


def written(folder: Path) -> Path:
    """Questions about the photographs in VQA's layout, from their boxes: two an image, each answered by ten people."""
    held = json.loads((COCO / "annotations" / "instances_train2017.json").read_text())
    names = {category["id"]: category["name"] for category in held["categories"]}
    seen = defaultdict(Counter)
    for one in held["annotations"]:
        seen[one["image_id"]][names[one["category_id"]]] += 1
    asked = []
    for number, image in enumerate(held["images"]):
        there = seen[image["id"]]
        asked.append((image["id"], "How many persons are there?", "number", str(there["person"])))
        about = ("person", "chair", "car", "cup", "book")[number % 5]
        asked.append((image["id"], f"Is there a {about}?", "yes/no", "yes" if there[about] else "no"))
    questions, annotations = [], []
    for number, (image, text, kind, answer) in enumerate(asked):
        people = [answer] * 8 + ["not sure"] * 2
        questions.append({"question_id": number, "image_id": image, "question": text})
        said = [{"answer_id": at + 1, "answer": one, "answer_confidence": "yes"} for at, one in enumerate(people)]
        annotations.append(
            {
                "question_id": number,
                "image_id": image,
                "question_type": text.split()[0].lower(),
                "answer_type": kind,
                "multiple_choice_answer": answer,
                "answers": said,
            }
        )
    (folder / "questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    return folder


@few_or_all(120)
@pytest.mark.parametrize(("reader", "loss"), [("suffix", "cross_entropy"), ("cross_attention", "soft")])
def test_answers_about_photographs_are_learned_by_heart(tmp_path, reader, loss, photographs, steps):
    torch.manual_seed(0)
    folder = written(tmp_path)
    files = {
        f"{split}_{what}": str(folder / f"{what}.json")
        for split in ("train", "validation")
        for what in ("questions", "annotations")
    }
    files |= {f"{split}_images": str(COCO / "train2017") for split in ("train", "validation")}
    files |= {f"{split}_pattern": "{id:012d}.jpg" for split in ("train", "validation")}
    dataset = Vqa(VqaSettings(root=str(COCO), **files, **LOOK), context(GRID, patch=PATCH, channels=3))
    batch = dataset.train.load(range(2 * photographs), 0)
    where = where_of(dataset)
    task = VisualReasoning(VisualReasoningSettings(reader=reader, loss=loss), where)
    backbone = VitBackbone(VitSettings(width=WIDTH, depth=2, heads=4), where)
    result, first = learned(task, Model(backbone, GRID, PATCH, 3), batch, steps)
    metrics = task.metrics()
    metrics.update(result, batch)
    found = metrics.compute()
    assert first > 1
    assert found["accuracy"] == found["accuracy_number"] == found["accuracy_yes_no"] == 1
