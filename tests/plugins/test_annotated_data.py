"""Mask folders, VQA and CSVs of several classes: what is read by hand, and a clear line for whatever is wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from reorder_annotated_data.mask_folder import MaskFolder
from reorder_annotated_data.multilabel import MultilabelCsv
from reorder_annotated_data.settings import CocoSettings, MaskFolderSettings, MultilabelCsvSettings, VqaSettings
from reorder_annotated_data.vqa import Vqa
from reorder_annotated_data.vqa_file import sorted_by_frequency

from reorder_core import Context, Grid, RunError, UsageError
from reorder_core.conformance import check_dataset
from reorder_core.interfaces.targets import IGNORED

CONTEXT = Context(Grid(4, 4), patch=8)
SIDE = {"size": [12, 16], "fit": "stretch", "flip": 0.0}


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def mask(values: Any, mode: str = "L") -> Image.Image:
    """16x12 pixels; the upper half has the first value, the lower the second."""
    pixels = np.full((12, 16), values[0], np.uint8)
    pixels[6:] = values[1]
    made = Image.fromarray(pixels)
    if mode == "P":
        made = Image.fromarray(pixels, "L")
        made.putpalette([channel for each in range(256) for channel in (each, 255 - each, 7)])
    return made


# Mask folders.


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for number, name in enumerate(("b", "a", "deep/c")):
            image, drawn = tmp_path / "images" / split / f"{name}.jpg", tmp_path / "masks" / split / f"{name}.png"
            for path in (image, drawn):
                path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(image, quality=95)
            mask((number, 255), "P" if number == 1 else "L").save(drawn)
    return tmp_path


def of_masks(root: Path, **given: Any) -> MaskFolderSettings:
    return MaskFolderSettings(**{"root": str(root), "classes": ["sky", "road", "car"], **SIDE, **given})


@pytest.mark.parametrize("given", [{"classes": 3}, {"classes": ["x", "y", "z"], "crop": "random_resized"}])
def test_mask_folder_contract(masks: Path, given: dict[str, Any]) -> None:
    check_dataset("mask_folder", {"root": str(masks), "size": 16, **given}, patch=8)


def test_masks_by_hand(masks: Path) -> None:
    data = MaskFolder(of_masks(masks), CONTEXT)
    assert data.classes == ("sky", "road", "car")
    target_BHW = data.validation.load([0, 1, 2], 0).target  # a, b, deep/c
    assert target_BHW.dtype == torch.int64
    assert target_BHW[:, :6].unique(dim=1).flatten().tolist()[:1] == [1]
    assert [int(each[0, 0]) for each in target_BHW] == [1, 0, 2]
    assert (target_BHW[:, 6:] == IGNORED).all()
    copy = pickle.loads(pickle.dumps(data.train))
    assert torch.equal(copy.load([1], 3).target, data.train.load([1], 3).target)


def test_masks_that_count_from_one(masks: Path) -> None:
    ade = MaskFolder(of_masks(masks, offset=1, classes=2), CONTEXT).validation.load([0, 1, 2], 0).target
    assert [int(each[0, 0]) for each in ade] == [0, IGNORED, 1]
    void = MaskFolder(of_masks(masks, ignore=[2, 255]), CONTEXT).validation.load([2], 0).target
    assert (void == IGNORED).all()


def test_names_of_classes(masks: Path) -> None:
    (masks / "names.txt").write_text("sky\n\n road \ncar\n")
    assert of_masks(masks, classes="names.txt").names() == ("sky", "road", "car")
    assert of_masks(masks, classes=2).names() == ("0", "1")
    assert MaskFolderSettings(root="/not/here", classes=150).describe().classes == 150
    with pytest.raises(UsageError, match=r"classes: there is no file .*none\.txt"):
        of_masks(masks, classes="none.txt").describe()
    (masks / "names.txt").write_text("\n")
    with pytest.raises(UsageError, match=r"names\.txt is empty"):
        of_masks(masks, classes="names.txt").describe()


def test_other_names_of_files(masks: Path) -> None:
    """CamVid's layout."""
    for split in ("train", "val"):
        for path in (masks / "masks" / split).rglob("*.png"):
            path.rename(path.with_name(f"{path.stem}_L.png"))
    data = MaskFolder(of_masks(masks, mask_suffix="_L.png"), CONTEXT)
    assert int(data.validation.load([0], 0).target[0, 0, 0]) == 1


def test_wrong_masks(masks: Path) -> None:
    data, path = MaskFolder(of_masks(masks), CONTEXT), masks / "masks" / "train" / "a.png"
    says: list[tuple[Callable[[], object], str]] = [
        (lambda: mask((7, 0)).save(path), r"masks/train/a\.png holds 7 in row 0, column 0, and there are 3 classes"),
        (lambda: picture(0).save(path), r"masks/train/a\.png is a picture of colours \(RGB\)"),
        (lambda: mask((0, 0)).resize((9, 9)).save(path), r"train/a\.jpg is 16x12 pixels, and its mask .* is for 9x9"),
        (lambda: path.write_bytes(b"none"), r"masks/train/a\.png cannot be read"),
    ]
    for act, message in says:
        act()
        with pytest.raises(RunError, match=message) as caught:
            data.train.load([0, 1], 0)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(UsageError, match=r"train_masks: the image .*train/a\.jpg has no mask: there is no .*a\.png"):
        MaskFolder(of_masks(masks), CONTEXT)
    with pytest.raises(UsageError, match=r"train_images: .* holds no \*\.tif"):
        MaskFolder(of_masks(masks, image_suffix=".tif"), CONTEXT)
    with pytest.raises(UsageError, match=r"validation_masks: there is no folder .*truth"):
        MaskFolder(of_masks(masks, train_masks="masks/val", validation_masks="truth"), CONTEXT)


def test_a_number_of_classes_that_no_mask_holds() -> None:
    for number in ("0", "256", "-1"):  # as a recipe hands on a number that is none of 1 to 255: as a name
        with pytest.raises(ValidationError, match=f"a mask holds 1 to 255 classes, not {number}"):
            MaskFolderSettings(root="x", classes=number)


# Questions.


def asked() -> tuple[dict[str, Any], dict[str, Any]]:
    questions = [
        {"question_id": 9, "image_id": 4, "question": "How many\ncats?"},
        {"question_id": 3, "image_id": 4, "question": "Is it day?"},
        {"question_id": 5, "image_id": 6, "question": "Where is it?"},
    ]
    said = {9: ["2", "3", "2"], 3: ["no", "yes", "yes", "no"], 5: ["on the mat"]}
    annotations = [
        {
            "question_id": each["question_id"],
            "image_id": each["image_id"],
            "answer_type": {9: "number", 3: "yes/no", 5: "other"}[each["question_id"]],
            "question_type": "what",
            "answers": [{"answer": answer, "answer_id": 1} for answer in said[each["question_id"]]],
        }
        for each in reversed(questions)
    ]
    return {"questions": questions}, {"annotations": annotations}


FILES = {
    "train_images": "train",
    "train_pattern": "COCO_{id:012d}.png",
    "train_questions": "train_q.json",
    "train_annotations": "train_a.json",
    "validation_images": "train",
    "validation_pattern": "COCO_{id:012d}.png",
    "validation_questions": "val_q.json",
    "validation_annotations": "val_a.json",
}


@pytest.fixture
def vqa(tmp_path: Path) -> Path:
    (tmp_path / "train").mkdir()
    for number in (4, 6):
        picture(number).save(tmp_path / "train" / f"COCO_{number:012d}.png")
    for split in ("train", "val"):
        write_vqa(tmp_path, *asked(), split)
    return tmp_path


def write_vqa(root: Path, questions: Any, annotations: Any, split: str = "train") -> None:
    (root / f"{split}_q.json").write_text(json.dumps(questions))
    (root / f"{split}_a.json").write_text(json.dumps(annotations))


def test_vqa_contract(vqa: Path) -> None:
    check_dataset("vqa", {"root": str(vqa), "size": 16, **FILES}, patch=8)


def test_questions_by_hand(vqa: Path) -> None:
    data = Vqa(VqaSettings(root=str(vqa), **SIDE, **FILES), CONTEXT)
    batch = data.validation.load([0, 1, 2], 0)
    first, second, third = batch.target
    assert (first.text, first.answers, first.kind, first.name) == ("How many cats?", ("2", "2", "3"), "number", "9")
    assert second.answers == ("no", "no", "yes", "yes")
    assert third.answers == ("on the mat",)
    assert torch.equal(batch.images_BCHW[0], batch.images_BCHW[1])
    assert not torch.equal(batch.images_BCHW[0], batch.images_BCHW[2])
    assert list(data.train.targets()) == batch.target  # type: ignore[attr-defined]
    by_words = Vqa(VqaSettings(root=str(vqa), kind="question_type", **SIDE, **FILES), CONTEXT)
    assert by_words.train.load([0], 0).target[0].kind == "what"
    assert pickle.loads(pickle.dumps(data.train)).load([2], 0).target == [third]


def test_answers_stand_by_frequency() -> None:
    assert sorted_by_frequency(["b", "a", "c", "a", "c"]) == ("a", "a", "c", "c", "b")
    assert sorted_by_frequency([]) == ()


Fault = Callable[[list[dict[str, Any]], list[dict[str, Any]]], object]
VQA_FAULTS: list[tuple[Fault, str]] = [
    (lambda q, a: a.pop(), r"train_q\.json: question 9: has no annotation in .*train_a\.json"),
    (lambda q, a: q.pop(), r"train_a\.json: question 5: is answered, but .*train_q\.json does not ask it"),
    (lambda q, a: a.append(a[0]), r"train_a\.json: question 5: is answered by two annotations"),
    (lambda q, a: q.append(q[0]), r"train_q\.json: question 9: .* or is listed twice"),
    (lambda q, a: a[0].update(image_id=4), r"train_a\.json: question 5: is about image 4, and is asked about 6"),
    (lambda q, a: a[0].update(answers=[]), r"train_a\.json: question 5: has no answer"),
    (lambda q, a: a[0].pop("answers"), r"train_a\.json: question 5: has no list 'answers'"),
    (lambda q, a: a[0].pop("answer_type"), r"train_a\.json: question 5: 'answer_type' is missing"),
    (lambda q, a: q[1].update(question=" ? "), r"train_q\.json: question 3: the question has no words"),
    (lambda q, a: (q[2].update(image_id=8), a[0].update(image_id=8)), r"question 5: there is no .*COCO_000000000008"),
    (lambda q, a: (q.clear(), a.clear()), "asks nothing"),
]


@pytest.mark.parametrize(("fault", "says"), VQA_FAULTS)
def test_faults_in_questions_are_one_line(vqa: Path, fault: Fault, says: str) -> None:
    questions, annotations = asked()
    fault(questions["questions"], annotations["annotations"])
    write_vqa(vqa, questions, annotations)
    with pytest.raises(UsageError, match=says) as caught:
        Vqa(VqaSettings(root=str(vqa), **SIDE, **FILES), CONTEXT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["image.jpg", "{number}.jpg", "{id:x", "{id.none}.jpg", "{}.jpg"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(ValidationError, match="train_pattern"):
        VqaSettings(root="x", train_pattern=pattern)


def test_the_names_of_vqa_v2() -> None:
    settings = VqaSettings(root="/data")
    assert settings.pattern("validation").format(id=42) == "COCO_val2014_000000000042.jpg"
    assert settings.describe().target == "questions"
    assert settings.flip_rate == 0


# CSVs of several classes.

WIDE = "path,dog,cat\n0.png,0,1\n1.png,1.0,True\n\nsub/2.png,0,0\n"
LONG = "labels,path\ncat,0\ndog ; cat,1\n,sub/2\n"


@pytest.fixture
def csvs(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for number, name in enumerate(("0", "1", "sub/2")):
        picture(number).save(tmp_path / "pictures" / f"{name}.png")
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text(WIDE, encoding="utf-8-sig")
        (tmp_path / f"{split}_long.csv").write_text(LONG)
    return tmp_path


LONG_SETTINGS = {"labels_column": "labels", "suffix": ".png", "train": "train_long.csv", "validation": "val_long.csv"}


def of_csv(root: Path, **given: Any) -> MultilabelCsvSettings:
    return MultilabelCsvSettings(**{"root": str(root), "images": "pictures", **SIDE, **given})


@pytest.mark.parametrize("given", [{}, LONG_SETTINGS, {"classes": ["cat"]}])
def test_csv_contract(csvs: Path, given: dict[str, Any]) -> None:
    check_dataset("multilabel_csv", {"root": str(csvs), "images": "pictures", "size": 16, **given}, patch=8)


def test_csvs_by_hand(csvs: Path) -> None:
    wide, long = MultilabelCsv(of_csv(csvs), CONTEXT), MultilabelCsv(of_csv(csvs, **LONG_SETTINGS), CONTEXT)
    assert wide.classes == ("dog", "cat")
    assert wide.train.load([0, 1, 2], 0).target.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert long.classes == ("cat", "dog")
    assert long.validation.load([0, 1, 2], 0).target.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert [each.tolist() for each in wide.train.targets()] == [[0, 1], [1, 1], [0, 0]]  # type: ignore[attr-defined]
    (csvs / "train_long.csv").write_text("labels,path\ncat dog,0\n")
    (csvs / "val_long.csv").write_text("labels,path\ndog,1\n")
    spaced = MultilabelCsv(of_csv(csvs, **LONG_SETTINGS, separator=" "), CONTEXT)
    assert spaced.validation.load([0], 0).target.tolist() == [[0, 1]]
    assert pickle.loads(pickle.dumps(spaced.train)).load([0], 0).target.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        (WIDE, {"path_column": "file"}, r"train: .*train\.csv has no column 'file' \(its columns: path, dog, cat\)"),
        (WIDE, {"labels_column": "label"}, "has no column 'label'"),
        (WIDE, {"classes": ["dog", "cats"]}, r"has no column 'cats'; did you mean 'cat'\?"),
        ("path,dog\n0.png,2\n", {}, r"train\.csv: line 2: the column 'dog' holds '2' and not 0 or 1"),
        ("path,dog\n0.png\n", {}, r"train\.csv: line 2: has 1 columns and the first line 2"),
        ("path,dog\n,1\n", {}, r"train\.csv: line 2: names no image"),
        ("path,dog\n9.png,1\n", {}, r"train\.csv: line 2: there is no .*9\.png"),
        ("path,dog,dog\n0.png,1,0\n", {}, "two columns of one name"),
        ("path,dog\n", {}, "lists no image"),
        ("", {}, r"has no column 'path' \(its columns: none\)"),
        ("path\n0.png\n", {}, "names no class"),
        ("path,l\n0.png,cat;ox\n", {"labels_column": "l", "classes": ["cat"]}, "line 2: the label 'ox' is no class"),
        ("path,dog\n" + 200_000 * "x" + ",1\n", {}, r"train: .*train\.csv is no CSV \(field larger than"),
        (WIDE, {"train": "none.csv"}, r"train: there is no file .*none\.csv"),
        (WIDE, {"images": "nowhere"}, "images: there is no folder .*nowhere"),
    ],
)
def test_faults_in_csvs_are_one_line(csvs: Path, text: str, given: dict[str, Any], says: str) -> None:
    (csvs / "train.csv").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        MultilabelCsv(of_csv(csvs, **given), CONTEXT)
    assert "\n" not in str(caught.value)


def test_labels_that_no_training_image_has(csvs: Path) -> None:
    (csvs / "val_long.csv").write_text("labels,path\nowl,0\n")
    with pytest.raises(UsageError, match=r"val_long\.csv: line 2: the label 'owl' is no class"):
        MultilabelCsv(of_csv(csvs, **LONG_SETTINGS), CONTEXT)


def test_settings_of_csvs() -> None:
    with pytest.raises(ValidationError, match="separator: has a meaning with labels_column only"):
        MultilabelCsvSettings(root="x", separator=",")
    with pytest.raises(ValidationError, match="name each one once"):
        MultilabelCsvSettings(root="x", classes=["a", "a"])
    assert MultilabelCsvSettings(root="/not/here", classes=["a", "b"]).describe().classes == 2


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        (CocoSettings, {"root": "x", "target": "captions"}),
        (CocoSettings, {"root": "x", "target": "mask"}),
        (MultilabelCsvSettings, {"root": "x"}),
    ],
)
def test_settings_that_name_every_default_are_read_again(settings, given):
    """As the recipe that a run saves does."""
    first = settings(**given)
    assert settings(**first.model_dump()) == first
