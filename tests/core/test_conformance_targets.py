"""What the contract of data sets says of targets other than a class."""

from __future__ import annotations

import re

import pytest
import torch

from reorder_core.conformance.building import ContractBroken
from reorder_core.conformance.targets import check_targets, same_target
from reorder_core.interfaces.targets import IGNORED, Objects, Question
from reorder_core.settings import DataFacts

H, W, K = 6, 8, 3


def facts(target: str) -> DataFacts:
    return DataFacts(H, W, 1, target=target, classes=K)


def objects(box=(1.0, 2.0, 4.0, 5.0), label=2, **more) -> Objects:
    return Objects(torch.tensor([box]), torch.tensor([label]), name="one", **more)


NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), name="empty")
GOOD = {
    "class": torch.tensor([0, 2]),
    "classes": torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
    "mask": torch.full((2, H, W), IGNORED),
    "boxes": [objects(masks_OHW=torch.ones(1, H, W, dtype=torch.bool), crowd_O=torch.tensor([True])), NOTHING],
    "captions": [("a three",), ("two digits", "a one and a two")],
    "questions": [Question("how many?", ("two",), "count"), Question("is there a 3?", ("no", "yes"))],
    "a stranger's own": object(),
}


@pytest.mark.parametrize("target", GOOD)
def test_good_targets_pass(target):
    check_targets(GOOD[target], facts(target), 2, "train")


@pytest.mark.parametrize(
    ("target", "bad", "said"),
    [
        ("class", torch.tensor([0, 3]), "from 0 to 2"),
        ("class", torch.tensor([0.0, 1.0]), "int64"),
        ("classes", torch.zeros(2, K + 1), "float32 (2, 3)"),
        ("classes", torch.full((2, K), 0.5), "there or not"),
        ("mask", torch.zeros(2, W, H, dtype=torch.int64), "int64 (2, 6, 8)"),
        ("mask", torch.full((2, H, W), K), "0 to 2, or 255"),
        ("boxes", (NOTHING, NOTHING), "a list of 2"),
        ("boxes", [objects(), None], "must be Objects"),
        ("boxes", [objects((1.0, 2.0, 9.0, 5.0)), NOTHING], "inside of the image"),
        ("boxes", [objects((1.0, 2.0, 1.0, 5.0)), NOTHING], "inside of the image"),
        ("boxes", [objects(label=K), NOTHING], "labels must be 0 to 2 (one)"),
        ("boxes", [objects(masks_OHW=torch.ones(1, W, H, dtype=torch.bool)), NOTHING], "masks_OHW"),
        ("boxes", [objects(crowd_O=torch.tensor([1])), NOTHING], "crowd_O"),
        ("captions", [("a three",), ()], "at least one text"),
        ("captions", [("a three",), (" ",)], "must have words"),
        ("questions", [Question("how many?", ("two",)), Question("why?", ())], "has words and answers"),
    ],
)
def test_bad_targets_are_caught(target, bad, said):
    with pytest.raises(ContractBroken, match=re.escape(said)):
        check_targets(bad, facts(target), 2, "train")


def test_targets_are_compared_by_value():
    assert same_target(objects(), objects())
    assert not same_target(objects(), objects(label=1))
    assert not same_target(objects(), objects(crowd_O=torch.tensor([False])))
    assert same_target(torch.tensor([1, 2]), torch.tensor([1, 2]))
    assert same_target(("a", "b"), ("a", "b"))
    assert not same_target(Question("a?", ("b",)), Question("a?", ("c",)))
