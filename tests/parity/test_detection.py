"""Detection against references: torchvision's FCOS for one image, pycocotools for average precision, DETR's formula."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from reorder_detection.detections import Decoded, Detections, wanted
from reorder_detection.detr import DetrHead
from reorder_detection.fcos_loss import Fields, Locations, assign_BL, parts_B3
from reorder_detection.matching import Said, loss_B
from reorder_detection.metrics import DetectionMetrics
from reorder_detection.pyramid import centres_L2
from reorder_detection.settings import DetrSettings
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import box_convert, generalized_box_iou

from reorder_core import Batch, TaskResult
from reorder_core.conformance import context
from reorder_core.interfaces.targets import Objects

CPU = torch.device("cpu")
CLASSES = 5


def locations_of(side: int, strides: list[float]) -> Locations:
    sizes = [(int(side // stride), int(side // stride)) for stride in strides]
    lengths = tuple(rows * columns for rows, columns in sizes)
    stride_L = torch.cat([torch.full((many,), stride) for many, stride in zip(lengths, strides, strict=True)])
    return Locations(centres_L2(sizes, strides, CPU), stride_L, lengths)


def objects_of(count: int, side: int, seed: int) -> Objects:
    draw = torch.Generator().manual_seed(seed)
    corner_O2 = torch.rand(count, 2, generator=draw) * side * 0.7
    size_O2 = torch.rand(count, 2, generator=draw) * side * 0.5 + 2
    boxes_O4 = torch.cat([corner_O2, (corner_O2 + size_O2).clamp(max=side)], 1)
    return Objects(boxes_O4, torch.randint(CLASSES, (count,), generator=draw))


class _Reference(FCOS):
    """torchvision's target assignment and loss, without its backbone."""

    def __init__(self, radius: float) -> None:
        torch.nn.Module.__init__(self)
        self.center_sampling_radius = radius
        self.head = FCOSHead(32, 1, CLASSES, 1)


@pytest.mark.parametrize("strides", [[4.0], [4.0, 8.0], [2.0, 4.0, 8.0, 16.0]])
@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, 1), (3, 2), (9, 3), (25, 4)])
def test_the_loss_of_one_image_is_torchvisions(strides: list[float], count: int, seed: int) -> None:
    side, radius = 64, 1.5
    locations, objects = locations_of(side, strides), objects_of(count, side, seed)
    draw = torch.Generator().manual_seed(seed)
    length = sum(locations.lengths)
    fields = Fields(
        torch.randn(1, length, CLASSES, generator=draw),
        torch.rand(1, length, 4, generator=draw) * 4,
        torch.randn(1, length, generator=draw),
        locations,
    )
    said = {
        "cls_logits": fields.logits_BLK,
        "bbox_regression": fields.distances_BL4,
        "bbox_ctrness": fields.centredness_BL[..., None],
    }
    half_L1 = locations.stride_L[:, None] / 2
    anchors_L4 = torch.cat([locations.centre_L2 - half_L1, locations.centre_L2 + half_L1], 1)
    truth = [{"boxes": objects.boxes_O4, "labels": objects.label_O}]
    expected = _Reference(radius).compute_loss(truth, said, [anchors_L4], list(locations.lengths))
    found_3 = parts_B3(fields, wanted([objects], CPU, CLASSES), radius)[0]
    names = ("classification", "bbox_regression", "bbox_ctrness")
    torch.testing.assert_close(found_3, torch.stack([expected[name] for name in names]), rtol=1e-4, atol=1e-5)
    which_BL = assign_BL(locations, objects.boxes_O4[None], radius)
    assert (which_BL >= 0).any() == (count > 0), "the case would say nothing"


def test_the_loss_of_detr_is_its_formula() -> None:
    """Against a matching by enumeration and the terms written out for one image of two objects."""
    settings = DetrSettings(kind="detr", queries=4, layers=1, width=8, heads=2)
    head = DetrHead(settings, context("2x2", patch=8, width=8, classes=CLASSES, target="boxes"), CLASSES)
    draw = torch.Generator().manual_seed(3)
    said = Said(torch.randn(1, 4, CLASSES + 1, generator=draw), torch.rand(1, 4, 4, generator=draw) * 0.5 + 0.25)
    objects = Objects(torch.tensor([[1.0, 2, 9, 12], [4, 4, 15, 10]]), torch.tensor([2, 0]))
    boxes_O4 = box_convert(objects.boxes_O4 / 16, "xyxy", "cxcywh")
    found = float(head.loss_B([said], wanted([objects], CPU, CLASSES)))

    log_prob = said.logits_BQC[0].log_softmax(1)
    best = None
    for one in range(4):
        for two in {*range(4)} - {one}:
            queries = [one, two]
            mine = said.boxes_BQ4[0, queries]
            corners = (box_convert(each, "cxcywh", "xyxy") for each in (mine, boxes_O4))
            l1 = float((mine - boxes_O4).abs().sum())
            giou = float((1 - generalized_box_iou(*corners).diag()).sum())
            cost = -float(log_prob[queries, objects.label_O].exp().sum()) + 5 * l1 + 2 * giou
            if best is None or cost < best[0]:
                best = (cost, queries, 5 * l1 + 2 * giou)
    assert best is not None
    _, queries, boxes = best
    label_Q = torch.full((4,), CLASSES)
    label_Q[queries] = objects.label_O
    weight = torch.ones(CLASSES + 1)
    weight[-1] = 0.1
    classes = torch.nn.functional.cross_entropy(said.logits_BQC[0], label_Q, weight)
    assert found == pytest.approx(float(classes) + boxes / 2, rel=1e-5)


def test_focal_loss_of_detr_is_its_formula() -> None:
    """Deformable DETR's: alpha 0.25, gamma 2, weight 2, summed over queries and classes, divided by the objects; in
    matching the loss of the object's class with it less that without it."""
    settings = DetrSettings(kind="detr", queries=3, width=8, heads=2, classes="focal", box_weight=0.0, giou_weight=0.0)
    draw = torch.Generator().manual_seed(4)
    logits_BQC = torch.randn(1, 3, CLASSES, generator=draw, dtype=torch.float64) * 3
    boxes_BQ4 = torch.rand(1, 3, 4, generator=draw, dtype=torch.float64) * 0.5 + 0.25
    objects = Objects(torch.tensor([[1.0, 2, 9, 12], [4, 4, 15, 10]]), torch.tensor([2, 0]))
    targets = wanted([objects], CPU, CLASSES)
    found = float(loss_B(Said(logits_BQC, boxes_BQ4), targets, targets.boxes_BM4.double() / 16, settings))

    p = logits_BQC[0].sigmoid()
    with_it, without = -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
    pairs = [(one, two) for one in range(3) for two in {*range(3)} - {one}]
    costs = [float((with_it - without)[[one, two], [2, 0]].sum()) for one, two in pairs]
    assert found == pytest.approx(float(without.sum() + min(costs)), rel=1e-6)  # weight 2, two objects


def coco_numbers(said: list[Detections], truth: list[Objects]) -> dict[str, float]:
    """pycocotools' own evaluation."""
    annotations, results = [], []
    for image, (found, objects) in enumerate(zip(said, truth, strict=True), start=1):
        crowds = torch.zeros(len(objects)) if objects.crowd_O is None else objects.crowd_O
        for box, label, crowd in zip(objects.boxes_O4.tolist(), objects.label_O.tolist(), crowds, strict=True):
            wide, high = box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": [box[0], box[1], wide, high],
                    "area": wide * high,
                    "iscrowd": int(crowd),
                }
            )
        for box, label, score in zip(
            found.boxes_O4.tolist(), found.label_O.tolist(), found.score_O.tolist(), strict=True
        ):
            wide_high = [box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": image, "category_id": label, "bbox": box[:2] + wide_high, "score": score})
    truth_file = COCO()
    truth_file.dataset = {
        "info": {},
        "images": [{"id": number + 1} for number in range(len(truth))],
        "categories": [{"id": label} for label in range(CLASSES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth_file.createIndex()
        evaluation = COCOeval(truth_file, truth_file.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large", "", "", "mar")
    return {name: value for name, value in zip(names, evaluation.stats[:9].tolist(), strict=True) if name}


def our_numbers(said: list[Detections], truth: list[Objects]) -> dict[str, Any]:
    metrics = DetectionMetrics(100, 0.3)
    for start in range(0, len(said), 2):
        part = slice(start, start + 2)
        images = len(said[part])
        decoded = Decoded(images, lambda part=part: said[part])
        metrics.update(
            TaskResult(torch.zeros(images), decoded), Batch(torch.zeros(images, 1), truth[part], torch.arange(images))
        )
    return dict(metrics.compute())


def noisy(objects: Objects, seed: int, wrong: int) -> Detections:
    """Objects that were found more or less, and `wrong` that are not there."""
    draw = torch.Generator().manual_seed(seed)
    boxes_O4 = objects.boxes_O4 + torch.randn(len(objects), 4, generator=draw) * 2
    more = objects_of(wrong, 150, seed + 100)
    label_O = torch.cat([objects.label_O, more.label_O])
    return Detections(torch.cat([boxes_O4, more.boxes_O4]), torch.rand(len(label_O), generator=draw), label_O)


def crowded() -> tuple[list[Detections], list[Objects]]:
    """A crowd with detections in it, an empty image with one detection, an empty one without, an object not found."""
    crowd = Objects(
        torch.tensor([[0.0, 0, 60, 60], [70, 70, 100, 100]]), torch.tensor([1, 1]), crowd_O=torch.tensor([True, False])
    )
    empty = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    missed = Objects(torch.tensor([[10.0, 10, 120, 130]]), torch.tensor([3]))
    in_crowd = Detections(
        torch.tensor([[5.0, 5, 30, 30], [20, 20, 50, 55], [70, 70, 101, 99], [71, 70, 100, 100]]),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.tensor([1, 1, 1, 1]),
    )
    one = Detections(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0.95]), torch.tensor([1]))
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return [in_crowd, one, none, none], [crowd, empty, empty, missed]


def cases() -> dict[str, tuple[list[Detections], list[Objects]]]:
    truth = [objects_of(count, 150, seed) for seed, count in enumerate((3, 0, 7, 1, 12))]
    some = [noisy(objects, seed, wrong=seed) for seed, objects in enumerate(truth)]
    return {"noisy": (some, truth), "crowded": crowded()}


@pytest.mark.parametrize("case", ["noisy", "crowded"])
def test_average_precision_is_pycocotools(case: str) -> None:
    said, truth = cases()[case]
    expected, found = coco_numbers(said, truth), our_numbers(said, truth)
    for name, value in expected.items():
        if value < 0:
            assert name not in found, "where no image has such objects there is no number"
        else:
            assert found[name] == pytest.approx(value, abs=1e-6), name
    assert 0 < found["map50"] < 1


def test_a_perfect_prediction_is_one_and_an_empty_split_is_defined() -> None:
    truth = [objects_of(count, 150, seed) for seed, count in enumerate((3, 0, 7))]
    perfect = [Detections(each.boxes_O4, torch.ones(len(each)), each.label_O) for each in truth]
    found = our_numbers(perfect, truth)
    assert all(found[name] == pytest.approx(1) for name in ("map", "map50", "map75", "mar", "f1"))
    empty = truth[1:2]
    assert our_numbers(perfect[1:2], empty) == {"map50": 0.0, "f1": 1.0, "loss": 0.0}
    assert np.isnan(DetectionMetrics(100, 0.3).compute()["loss"]), "no image, no loss"
