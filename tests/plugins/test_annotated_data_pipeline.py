"""The pipeline of annotated images: boxes and masks go where the pixels go, and chance is a function of its seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reorder_annotated_data.pipeline import Pipeline
from reorder_annotated_data.settings import CocoSettings
from torch import Tensor

from reorder_core.interfaces.targets import IGNORED, Objects
from reorder_core.randomness import own_randomness

HEIGHT, WIDTH = 40, 60
SHORT = settings(max_examples=25, deadline=None, derandomize=True)
boxes = st.lists(
    st.tuples(st.integers(0, WIDTH - 6), st.integers(0, HEIGHT - 6), st.integers(6, 30), st.integers(6, 30)),
    min_size=0,
    max_size=4,
).map(lambda found: [(x, y, min(WIDTH, x + w), min(HEIGHT, y + h)) for x, y, w, h in found])
ways: Any = st.sampled_from(
    [
        {"fit": "stretch", "size": (32, 48)},
        {"fit": "letterbox", "size": (48, 48)},
        {"fit": "letterbox", "size": (96, 20)},
        {"fit": "crop", "size": 30, "resize": 33},
        {"fit": "crop", "size": (20, 64)},
        {"crop": "random_resized", "size": 40, "scale": (0.3, 1.0)},
        {"crop": "scale_jitter", "size": 40, "scale": (0.5, 2.0)},
    ]
)


def pipeline(training: bool = True, **given_settings: Any) -> Pipeline:
    return Pipeline.of(CocoSettings(root="x", masks=True, **given_settings), training)


def filled(found: list[tuple[int, int, int, int]]) -> Objects:
    """Objects that fill their boxes."""
    masks_OHW = torch.zeros(len(found), HEIGHT, WIDTH, dtype=torch.bool)
    for mask_HW, (left, top, right, bottom) in zip(masks_OHW, found, strict=True):
        mask_HW[top:bottom, left:right] = True
    return Objects(
        boxes_O4=torch.tensor(found, dtype=torch.float32).reshape(-1, 4),
        label_O=torch.arange(len(found)),
        masks_OHW=masks_OHW,
        crowd_O=torch.arange(len(found)) == 1,
        area_O=masks_OHW.flatten(1).sum(1).float(),
    )


def painted(objects: Objects) -> Image.Image:
    """A picture in which the first object is white."""
    assert objects.masks_OHW is not None
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[objects.masks_OHW[0].numpy()] = 255
    return Image.fromarray(pixels)


def run(made: Pipeline, objects: Any, seed: int = 0, picture: Image.Image | None = None) -> tuple[Tensor, Any]:
    with own_randomness() as set_seed:
        set_seed(seed)
        return made(picture or Image.new("RGB", (WIDTH, HEIGHT)), objects)


def bounds(mask_HW: Tensor) -> list[int]:
    """(left, top, right, bottom) of what is True."""
    rows, columns = mask_HW.any(1).nonzero(), mask_HW.any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@SHORT
@given(found=boxes, way=ways, seed=st.integers(0, 9))
def test_the_box_of_the_moved_mask_is_the_moved_box(found: Any, way: dict[str, Any], seed: int) -> None:
    image_CHW, objects = run(pipeline(**way), filled(found), seed)
    height, width = image_CHW.shape[-2:]
    assert objects.masks_OHW.shape == (len(objects), height, width)
    for box_4, mask_HW in zip(objects.boxes_O4.tolist(), objects.masks_OHW, strict=True):
        assert 0 <= box_4[0] < box_4[2] <= width
        assert 0 <= box_4[1] < box_4[3] <= height
        assert max(abs(a - b) for a, b in zip(bounds(mask_HW), box_4, strict=True)) <= 1
    assert torch.equal(objects.crowd_O, objects.label_O == 1)
    side_O2 = objects.boxes_O4[:, 2:] - objects.boxes_O4[:, :2]
    torch.testing.assert_close(objects.area_O, side_O2.prod(1), rtol=1e-3, atol=1e-2)


@SHORT
@given(found=boxes.filter(len), way=ways, seed=st.integers(0, 9))
def test_pixels_boxes_and_masks_move_together(found: Any, way: dict[str, Any], seed: int) -> None:
    """The first object is white on black: in the moved picture it is white where its mask is, but for its edges."""
    objects = filled(found)
    normal = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    image_CHW, moved = run(pipeline(**way, **normal), objects, seed, painted(objects))
    white_HW = image_CHW[0] > 0.5
    seen = (moved.label_O == 0).nonzero().flatten()
    mask_HW = moved.masks_OHW[seen[0]] if len(seen) else torch.zeros_like(white_HW)
    edge = 2 * (image_CHW.shape[-1] + image_CHW.shape[-2])
    assert int((white_HW ^ mask_HW).sum()) <= edge
    if len(seen) and mask_HW.sum() > 100:
        assert max(abs(a - b) for a, b in zip(bounds(white_HW), bounds(mask_HW), strict=True)) <= 2


@SHORT
@given(found=boxes)
def test_mirrored_twice_is_as_before(found: Any) -> None:
    mirror = pipeline(fit="stretch", size=(HEIGHT, WIDTH), flip=1.0)
    before = filled(found)
    _, once = run(mirror, before)
    _, twice = run(mirror, once)
    assert torch.equal(twice.boxes_O4, before.boxes_O4)
    assert torch.equal(twice.masks_OHW, before.masks_OHW)
    assert torch.equal(once.masks_OHW, before.masks_OHW.flip(-1))  # type: ignore[union-attr]
    assert torch.equal(twice.label_O, before.label_O)


def test_chance_is_a_function_of_its_seed() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    for crop in ("random_resized", "scale_jitter"):
        made = pipeline(crop=crop, size=32, color_jitter=0.4)
        one, again, other = (run(made, filled([(5, 5, 30, 30)]), seed, picture) for seed in (1, 1, 2))
        assert torch.equal(one[0], again[0])
        assert torch.equal(one[1].boxes_O4, again[1].boxes_O4)
        assert not torch.equal(one[0], other[0])
    same = [run(pipeline(training=False, size=32), None, seed, picture)[0] for seed in (1, 2)]
    assert torch.equal(same[0], same[1])


def test_small_remains_are_left_out_in_training_only() -> None:
    tiny = filled([(0, 0, 40, 30), (50, 30, 52, 32)])
    half = {"size": (HEIGHT // 2, WIDTH // 2), "fit": "stretch", "flip": 0.0}
    assert len(run(pipeline(**half, min_area=1.0), tiny)[1]) == 2
    assert run(pipeline(**half, min_area=1.5), tiny)[1].label_O.tolist() == [0]
    assert len(run(pipeline(training=False, **half, min_area=1.5), tiny)[1]) == 2


def test_a_letterbox_by_hand() -> None:
    white = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    image_CHW, _ = run(pipeline(training=False, size=30), None, picture=white)
    assert (image_CHW[:, :5].abs() < 0.02).all()  # filled with the mean, to half a grey level
    assert (image_CHW[:, 25:].abs() < 0.02).all()
    assert (image_CHW[:, 5:25] > 1).all()


@pytest.mark.parametrize("way", [{"size": 30}, {"size": 30, "crop": "scale_jitter", "scale": (0.4, 0.4)}])
def test_of_pixels_that_are_filled_no_class_is_known(way: dict[str, Any]) -> None:
    made = Pipeline.of(CocoSettings(root="x", target="mask", **way), training=True)
    _, mask_HW = run(made, torch.full((HEIGHT, WIDTH), 7, dtype=torch.uint8))
    assert mask_HW.dtype == torch.int64
    assert set(mask_HW.unique().tolist()) == {7, IGNORED}


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 4)])
def test_odd_pictures(size: tuple[int, int]) -> None:
    for way in ({"fit": "letterbox"}, {"fit": "crop", "resize": 36}, {"fit": "stretch"}, {"crop": "scale_jitter"}):
        image_CHW, _ = run(pipeline(size=32, **way), None, picture=Image.new("RGB", size))
        assert image_CHW.shape == (3, 32, 32)


def test_grey_pictures() -> None:
    made = Pipeline.of(CocoSettings(root="x", channels=1, size=32, color_jitter=0.5), training=True)
    image_CHW, _ = run(made, None, picture=Image.new("L", (WIDTH, HEIGHT), 255))
    assert image_CHW.shape == (1, 32, 32)
