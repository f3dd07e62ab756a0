"""COCO JSON: boxes, masks, classes and captions by hand, and a clear line for whatever is wrong in the files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from pydantic import ValidationError
from reorder_annotated_data.coco import Coco, mask_of, semantic_mask
from reorder_annotated_data.coco_file import coco_file
from reorder_annotated_data.settings import CocoSettings
from reorder_detection.settings import DetectionSettings, DetrSettings
from reorder_detection.task import Detection
from torch.utils.data import DataLoader

from reorder_core import Context, Grid, RunError, UsageError
from reorder_core.conformance import check_dataset, context
from reorder_core.interfaces.targets import IGNORED

CONTEXT = Context(Grid(4, 4), patch=8)
MINI = Path(__file__).parents[2].parent / "shared" / "data" / "coco_mini"
HEIGHT, WIDTH = 24, 32
CROWD = np.zeros((HEIGHT, WIDTH), np.uint8)
CROWD[4:20, 16:30] = 1
# Ids with gaps and out of order: they are numbered by id, 3 → 0, 7 → 1, 90 → 2.
CATEGORIES = [{"id": 90, "name": "cup"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def counts_of(mask_HW: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column by column, zeros first."""
    flat, counts, held = mask_HW.flatten(order="F"), [0], 0
    for each in flat:
        if each != held:
            counts.append(0)
            held = each
        counts[-1] += 1
    return counts


def coded(mask_HW: np.ndarray) -> dict[str, Any]:
    """Compressed run lengths, by pycocotools itself."""
    done: dict[str, Any] = run_lengths.encode(np.asfortranarray(mask_HW))
    return done


def polygon(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def instances() -> dict[str, Any]:
    """Three images: two objects and a crowd, one object of run lengths, none."""
    rle = coded(CROWD)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in (11, 5, 8)],
        "categories": [dict(each) for each in CATEGORIES],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 90, "bbox": [2, 4, 10, 8], "area": 80.0, "iscrowd": 0}
            | {"segmentation": polygon(2, 4, 12, 12)},
            {"id": 2, "image_id": 11, "category_id": 3, "bbox": [4, 6, 4, 4], "area": 16.0, "iscrowd": 0}
            | {"segmentation": polygon(4, 6, 8, 10)},
            {"id": 3, "image_id": 11, "category_id": 7, "bbox": [16, 4, 14, 16], "area": 224.0, "iscrowd": 1}
            | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts_of(CROWD)}},
            {"id": 4, "image_id": 5, "category_id": 7, "bbox": [16, 4, 14, 16], "area": 224.0, "iscrowd": 0}
            | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}},
        ],
    }


def captions() -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in (11, 5, 8)],
        "annotations": [
            {"id": number, "image_id": image, "caption": f"a cat,\n number {number} "}
            for number, image in enumerate((8, 11, 5, 11))
        ],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        for number in (5, 8, 11):
            pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{number}.png")
        write(tmp_path, instances(), split)
        (tmp_path / "annotations" / f"captions_{split}.json").write_text(json.dumps(captions()))
    return tmp_path


def write(root: Path, held: Any, split: str = "train2017", what: str = "instances") -> None:
    (root / "annotations" / f"{what}_{split}.json").write_text(json.dumps(held))


def plain(root: Path, **given: Any) -> CocoSettings:
    """The pictures as they are."""
    return CocoSettings(**{"root": str(root), "size": [HEIGHT, WIDTH], "fit": "stretch", "flip": 0.0, **given})


@pytest.mark.parametrize(
    "given",
    [
        {"target": "boxes"},
        {"target": "boxes", "masks": True, "crop": "scale_jitter", "color_jitter": 0.3},
        {"target": "boxes", "crop": "random_resized", "drop_empty": True, "channels": 1},
        {"target": "mask", "crop": "scale_jitter"},
        {"target": "classes", "categories": ["dog", "cat"], "fit": "crop", "resize": 20},
        {"target": "captions"},
    ],
)
def test_contract(root: Path, given: dict[str, Any]) -> None:
    check_dataset("coco", {"root": str(root), "size": 16, **given}, patch=8)


def test_boxes_by_hand(root: Path) -> None:
    data = Coco(plain(root, masks=True), CONTEXT)
    assert data.classes == ("cat", "dog", "cup")
    first, second, empty = data.validation.load([0, 1, 2], 0).target
    assert first.boxes_O4.tolist() == [[2, 4, 12, 12], [4, 6, 8, 10], [16, 4, 30, 20]]
    assert first.label_O.tolist() == [2, 0, 1]
    assert first.crowd_O.tolist() == [False, False, True]
    assert first.area_O.tolist() == [80, 16, 224]
    assert first.name == "11.png"
    assert (first.masks_OHW[2].numpy() == CROWD).all()
    assert (second.masks_OHW[0].numpy() == CROWD).all()
    assert first.masks_OHW.flatten(1).sum(1).tolist() == [80, 16, 224]
    assert len(empty) == 0
    assert empty.boxes_O4.shape == (0, 4)
    assert empty.masks_OHW.shape == (0, HEIGHT, WIDTH)


def test_boxes_are_in_pixels_of_the_resized_image(root: Path) -> None:
    twice = Coco(plain(root, size=[2 * HEIGHT, WIDTH // 2]), CONTEXT).validation.load([0], 0).target[0]
    assert twice.boxes_O4[0].tolist() == [1, 8, 6, 24]
    assert twice.area_O.tolist() == [80, 16, 224]
    boxed = Coco(plain(root, size=64, fit="letterbox"), CONTEXT).validation.load([0], 0).target[0]
    assert boxed.boxes_O4[0].tolist() == [4, 16, 24, 32]
    assert boxed.area_O.tolist() == [320, 64, 896]
    cut = Coco(plain(root, size=24, fit="crop"), CONTEXT).validation.load([0], 0).target[0]
    assert cut.boxes_O4.tolist() == [[0, 4, 8, 12], [0, 6, 4, 10], [12, 4, 24, 20]]


def test_mask_by_hand(root: Path) -> None:
    data = Coco(plain(root, target="mask"), CONTEXT)
    assert data.classes == ("background", "cat", "dog", "cup")
    assert data.facts.classes == 4
    first_HW, second_HW, empty_HW = data.validation.load([0, 1, 2], 0).target
    expected_HW = np.zeros((HEIGHT, WIDTH), np.int64)
    expected_HW[4:12, 2:12] = 3
    expected_HW[6:10, 4:8] = 1  # the smaller object is seen
    expected_HW[CROWD == 1] = IGNORED
    assert (first_HW.numpy() == expected_HW).all()
    assert (second_HW.numpy() == 2 * CROWD).all()
    assert (empty_HW == 0).all()
    filled_HW = Coco(plain(root, target="mask", size=40, fit="letterbox"), CONTEXT).validation.load([2], 0).target[0]
    assert (filled_HW[:5] == IGNORED).all()
    assert (filled_HW[5:35] == 0).all()


def test_an_object_before_a_crowd_is_seen(root: Path) -> None:
    held = instances()
    held["annotations"][2]["image_id"] = 5
    write(root, held)
    objects = coco_file(plain(root, target="mask"), "train").images[1].objects
    assert (semantic_mask(objects, (HEIGHT, WIDTH)).numpy() == 2 * CROWD).all()


def test_the_three_ways_to_write_a_mask_agree() -> None:
    square_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    square_HW[4:12, 2:12] = 1
    ways = [
        polygon(2, 4, 12, 12),
        {"size": [HEIGHT, WIDTH], "counts": counts_of(square_HW)},
        {"size": [HEIGHT, WIDTH], "counts": coded(square_HW)["counts"].decode()},
        polygon(2, 4, 12, 8) + polygon(2, 8, 12, 12),
    ]
    for way in ways:
        assert (mask_of(way, (HEIGHT, WIDTH)) == square_HW).all()


def test_classes_and_categories_that_are_kept(root: Path) -> None:
    data = Coco(plain(root, target="classes"), CONTEXT)
    assert data.validation.load([0, 1, 2], 0).target.tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]
    some = plain(root, categories=["cup", "cat"])
    kept = Coco(some, CONTEXT)
    assert kept.classes == ("cup", "cat")
    assert some.describe().classes == 2
    first, second = kept.validation.load([0, 1], 0).target
    assert first.label_O.tolist() == [0, 1]
    assert len(second) == 0
    assert len(kept.train) == 3
    fewer = Coco(plain(root, categories=["cup", "cat"], drop_empty=True), CONTEXT)
    assert (len(fewer.train), len(fewer.validation)) == (1, 3)
    crowds = Coco(plain(root, categories=["dog"], drop_empty=True), CONTEXT)
    assert [crowds.train.source.path(each).name for each in range(len(crowds.train))] == ["5.png"]


def test_objects_are_counted_without_pixels_and_crowds(root: Path) -> None:
    data = Coco(plain(root), CONTEXT)
    assert list(data.train.object_counts()) == [("11.png", 2), ("5.png", 1), ("8.png", 0)]  # type: ignore[attr-defined]
    where = context("2x4", patch=8, width=8, classes=3, target="boxes").changed(dataset=data)
    head = DetrSettings(kind="detr", queries=1, width=8, heads=2)
    with pytest.raises(UsageError, match=r"the train image 11\.png has 2 objects, and task\.head\.queries is 1"):
        Detection(DetectionSettings(head=head), where)


def test_captions(root: Path) -> None:
    data = Coco(plain(root, target="captions"), CONTEXT)
    said = [("a cat, number 1", "a cat, number 3"), ("a cat, number 2",), ("a cat, number 0",)]
    assert data.validation.load([0, 1, 2], 0).target == said
    assert list(data.train.targets()) == said  # type: ignore[attr-defined]
    assert not hasattr(Coco(plain(root), CONTEXT).train, "targets")


def test_nothing_is_mirrored_beside_words() -> None:
    assert CocoSettings(root="x", target="captions").flip_rate == 0
    assert CocoSettings(root="x", target="captions", flip=0.5).flip_rate == 0.5
    assert CocoSettings(root="x").flip_rate == 0.5


@pytest.mark.parametrize("target", ["boxes", "captions"])
def test_worker_processes_read_the_same(root: Path, target: str) -> None:
    split = Coco(plain(root, target=target, flip=0.5), CONTEXT).train
    here = split.load([0, 1, 2], 4)
    (there,) = DataLoader(_Loads(split), batch_size=None, num_workers=1)
    assert torch.equal(here.images_BCHW, there.images_BCHW)
    if target == "boxes":
        assert all(torch.equal(a.boxes_O4, b.boxes_O4) for a, b in zip(here.target, there.target, strict=True))
    else:
        assert here.target == there.target


class _Loads(torch.utils.data.Dataset[Any]):
    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> Any:
        return self.split.load([0, 1, 2], 4)


def change(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes the second annotation (id 2, of image 11)."""

    def do(held: dict[str, Any]) -> None:
        held["annotations"][1] |= changes

    return do


def remove(*path: Any) -> Callable[[dict[str, Any]], None]:
    def do(held: dict[str, Any]) -> None:
        for step in path[:-1]:
            held = held[step]
        del held[path[-1]]

    return do


FAULTS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (change(bbox=[28, 4, 10, 4]), r"annotation 2: the box \[28, 4, 10, 4\] .* is outside its image of 32x24 pixels"),
    (change(bbox=[-5, 4, 10, 4]), "annotation 2: the box .* is outside"),
    (change(bbox=[40, 4, 10, 4]), "annotation 2: the box .* is outside"),
    (change(bbox=[4, 4, 0, 4]), "annotation 2: the box .* has no area"),
    (change(bbox=[4, 4, 3, -2]), "annotation 2: the box .* has no area"),
    (change(bbox=[32.5, 4, 0.4, 2]), "annotation 2: the box .* has no area inside its image"),
    (change(bbox=[4, 4, 3]), "annotation 2: 'bbox' is .* and not"),
    (change(bbox=[4, 4, 3, float("nan")]), "annotation 2: 'bbox' is .* and not"),
    (change(bbox="all"), "annotation 2: 'bbox' is 'all'"),
    (change(category_id=4), "annotation 2: names category 4, which the file does not list"),
    (change(image_id=12), "annotation 2: names image 12, which the file does not list"),
    (change(segmentation=[[1, 2, 3, 4]]), "annotation 2: 'segmentation' is no outline"),
    (change(segmentation=[]), "annotation 2: 'segmentation' is no outline"),
    (change(segmentation={"size": [9, 9], "counts": [81]}), r"annotation 2: its mask is of \(height, width\) \[9, 9\]"),
    (change(segmentation=[["a"] * 6]), "annotation 2: 'segmentation' is no outline"),
    (change(segmentation=[[float("nan")] * 6]), "annotation 2: 'segmentation' is no outline"),
    (change(segmentation={"size": [HEIGHT, WIDTH], "counts": ""}), "annotation 2: its mask has no 'counts'"),
    (
        change(segmentation={"size": [HEIGHT, WIDTH], "counts": [-1, 769]}),
        "annotation 2: the 'counts' of its mask are no",
    ),
    (change(segmentation={"size": [HEIGHT, WIDTH], "counts": [1, 2]}), "annotation 2: the 'counts' of its mask are no"),
    (change(segmentation={"size": [HEIGHT, WIDTH], "counts": ["a"]}), "annotation 2: the 'counts' of its mask are no"),
    (change(bbox=[4, 4, 3, 10**400]), "annotation 2: 'bbox' is .* and not"),
    (change(iscrowd="0"), "annotation 2: 'iscrowd' is '0' and neither 0 nor 1"),
    (change(id=1), "annotation 1: is listed twice"),
    (lambda held: held["images"][1].update(height=0), "image 5: is 32x0 pixels large"),
    (remove("annotations", 1, "bbox"), "annotation 2: 'bbox' is missing"),
    (remove("annotations", 1, "id"), "an annotation: 'id' is missing"),
    (remove("images", 1, "height"), "image 5: 'height' is missing"),
    (remove("annotations"), "has no list 'annotations'"),
    (remove("categories"), "has no list 'categories'"),
    (lambda held: held["images"].append(held["images"][0]), "image 11: is listed twice"),
    (lambda held: held["categories"].append({"id": 3, "name": "ox"}), "category 3: is listed twice"),
    (lambda held: held["images"][1].update(file_name="far.png"), r"image 5: there is no .*far\.png"),
    (lambda held: held.update(images=[], annotations=[]), "lists no image"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS)
def test_faults_in_the_file_are_one_line(root: Path, fault: Callable[[dict[str, Any]], None], says: str) -> None:
    held = instances()
    fault(held)
    write(root, held)
    with pytest.raises(UsageError, match=r"instances_train2017\.json: .*" + says) as caught:
        Coco(plain(root, masks=True), CONTEXT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"masks": True}, {"target": "mask"}])
def test_letters_that_are_no_run_lengths_are_one_line(root: Path, given: dict[str, Any]) -> None:
    """Found out when they are read: decoding all masks of a large file beforehand would take minutes."""
    held = instances()
    held["annotations"][3]["segmentation"]["counts"] = "zz!!~~"
    write(root, held)
    with pytest.raises(
        RunError, match=r"instances_train2017\.json: the run lengths of annotation 4 cannot be read"
    ) as caught:
        Coco(plain(root, **given), CONTEXT).train.load([0, 1], 0)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    for content, says in (("{", "is not JSON"), ("[]", "holds a list"), ("\xff", "is not JSON")):
        path.write_text(content)
        for act in (plain(root).describe, lambda: Coco(plain(root), CONTEXT)):
            with pytest.raises(UsageError, match=rf"train_annotations: .*instances_train2017\.json {says}") as caught:
                act()
            assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read as text"):
        plain(root).describe()
    path.unlink()
    with pytest.raises(UsageError, match=r"train_annotations: there is no file .*instances_train2017\.json"):
        Coco(plain(root), CONTEXT)
    with pytest.raises(UsageError, match=r"train_images: there is no folder .*pictures"):
        Coco(plain(root, train_images="pictures", target="captions"), CONTEXT)


def test_repairing_says_what_it_did(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = instances()
    held["annotations"][0]["bbox"] = [-4, 4, 16, 30]
    held["annotations"][1]["bbox"] = [4, 4, 0, 3]
    held["annotations"][3]["bbox"] = [50, 4, 5, 3]
    write(root, held)
    with caplog.at_level(logging.WARNING):
        data = Coco(plain(root, faulty="repair"), CONTEXT)
    assert "2 boxes of no area left out" in caplog.text
    assert "1 boxes clipped" in caplog.text
    first, second = data.train.load([0, 1], 0).target
    assert first.boxes_O4.tolist() == [[0, 4, 12, 24], [16, 4, 30, 20]]
    assert len(second) == 0


def test_a_rounding_error_is_no_fault(root: Path) -> None:
    held = instances()
    held["annotations"][3]["bbox"] = [16, 4, 16.02, 20.9]
    write(root, held)
    assert Coco(plain(root), CONTEXT).train.load([1], 0).target[0].boxes_O4.tolist() == [[16, 4, 32, 24]]


@pytest.mark.parametrize("text", ["", "  \n", "..."])
def test_captions_without_words(root: Path, text: str) -> None:
    held = captions()
    held["annotations"][2]["caption"] = text
    write(root, held, what="captions")
    with pytest.raises(UsageError, match=r"captions_train2017\.json: annotation 2: the caption has no words"):
        Coco(plain(root, target="captions"), CONTEXT)
    repaired = coco_file(plain(root, target="captions", faulty="repair"), "train")
    assert [image.number for image in repaired.images] == [11, 8]
    assert dict(repaired.repaired) == {"captions without words left out": 1, "images without a caption left out": 1}
    del held["annotations"][2]
    write(root, held, what="captions")
    with pytest.raises(UsageError, match=r"image 5 \(5\.png\) has no caption"):
        Coco(plain(root, target="captions"), CONTEXT)


def test_pictures_that_do_not_fit_their_annotations(root: Path) -> None:
    data = Coco(plain(root), CONTEXT)
    Image.new("RGB", (30, 20)).save(root / "train2017" / "5.png")
    with pytest.raises(RunError, match=r"5\.png is 30x20 pixels, and image 5 in .*\.json is for 32x24"):
        data.train.load([0, 1], 0)
    (root / "train2017" / "5.png").write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"5\.png cannot be read"):
        data.train.load([1], 0)


def test_splits_and_recipe_that_disagree(root: Path) -> None:
    with pytest.raises(UsageError, match=r"the recipe says 4, and .* has 3 categories"):
        Coco(plain(root, classes=4), CONTEXT)
    with pytest.raises(UsageError, match=r"has no category 'dogs'; did you mean 'dog'\?"):
        Coco(plain(root, categories=["dogs"]), CONTEXT)
    held = instances()
    held["categories"][0]["name"] = "mug"
    write(root, held, "val2017")
    with pytest.raises(UsageError, match=r"val2017\.json has other categories than"):
        Coco(plain(root), CONTEXT)
    held = instances()
    write(root, held, "val2017")
    held["annotations"] = []
    write(root, held)
    with pytest.raises(UsageError, match="leaves no train image"):
        Coco(plain(root, drop_empty=True), CONTEXT)


def test_describing_needs_no_file_where_classes_are_given() -> None:
    assert CocoSettings(root="/not/here", classes=80).describe().classes == 80
    assert CocoSettings(root="/not/here", classes=80, target="mask").describe().classes == 81
    assert CocoSettings(root="/not/here", target="captions").describe().target == "captions"
    assert CocoSettings(root="/not/here", categories=["cat"], size=[8, 16]).describe().height == 8


def test_a_changed_file_is_read_again(root: Path) -> None:
    assert plain(root).describe().classes == 3
    held = instances()
    held["categories"].append({"id": 91, "name": "owl"})
    write(root, held)
    assert plain(root).describe().classes == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"masks": True, "target": "mask"}, "masks: are given beside boxes"),
        ({"min_area": 4, "target": "mask"}, "min_area: is about boxes"),
        ({"classes": 3, "target": "captions"}, "classes: captions have none"),
        ({"drop_empty": True, "target": "captions"}, "drop_empty: is about objects"),
        ({"categories": ["a", "a"]}, "name each one once"),
        ({"categories": ["a"], "classes": 2}, "correct one"),
        ({"classes": 255, "target": "mask"}, "254 at most"),
        ({"resize": 300}, "has no meaning with fit: letterbox"),
        ({"resize": 100, "fit": "crop"}, "nothing to crop"),
        ({"scale": [0.5, 1.0]}, "no meaning with crop: none"),
        ({"scale": [0.5, 0.1], "crop": "scale_jitter"}, "smaller number first"),
        ({"scale": [0.5, 2.0], "crop": "random_resized"}, "more than the whole"),
        ({"mean": [0.5]}, "mean: give 3 numbers"),
        ({"target": "keypoints"}, "Input should be"),
    ],
)
def test_bad_settings(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        CocoSettings(root="x", **given)


@pytest.mark.skipif(not MINI.is_dir(), reason="no folder of COCO images beside this checkout")
@pytest.mark.parametrize("target", ["boxes", "mask", "classes", "captions"])
def test_real_files(target: str) -> None:
    settings = CocoSettings(root=str(MINI), target=target, size=96, crop="scale_jitter")  # type: ignore[arg-type]
    data = Coco(settings, CONTEXT)
    assert (len(data.train), len(data.validation)) == (80, 79)
    assert len(data.classes) == (data.facts.classes or 0)
    train, validation = data.train.load(range(0, 80, 8), 1), data.validation.load(range(0, 79, 8), 0)
    assert torch.isfinite(train.images_BCHW).all()
    assert validation.images_BCHW.shape == (10, 3, 96, 96)
    if target == "boxes":
        json_boxes = json.loads((MINI / "annotations" / "instances_train2017.json").read_text())["annotations"]
        assert sum(len(image.objects) for image in coco_file(settings, "train").images) == len(json_boxes)
