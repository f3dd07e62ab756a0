"""Image folders and data sets by name: the pipeline, its determinism, and a clear line for whatever is wrong."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from reorder_image_data.folder import ImageFolder
from reorder_image_data.named import TimmData, TorchvisionData
from reorder_image_data.pipeline import training_transform, validation_transform
from reorder_image_data.settings import ImageFolderSettings, TimmSettings, TorchvisionSettings

from reorder_core import Context, Grid, RunError, UsageError
from reorder_core.conformance import check_dataset
from reorder_core.randomness import image_seed

CONTEXT = Context(Grid(4, 4), patch=8)
CIFAR10 = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10"
FULL = {
    "crop": "random_resized",
    "flip": 0.5,
    "vertical_flip": 0.5,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.8,
}


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for number, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for each in range(count):
                picture(100 * number + each).save(folder / f"{each}.{'png' if each % 2 else 'JPG'}", quality=95)
    return tmp_path / "images"


def settings_of(root: Path, **given_settings: Any) -> ImageFolderSettings:
    return ImageFolderSettings(**{"root": str(root), "size": 32, "resize": 36, **given_settings})


@pytest.mark.parametrize(
    "given_settings",
    [
        {},
        {"channels": 1},
        FULL,
        {"color_jitter": 0.4, "size": [24, 40], "resize": 30},
        {"resize": None, "size": [16, 24], "channels": 1, "color_jitter": 0.4},
        {"classes": 3, "interpolation": "bilinear"},
    ],
)
def test_contract(root: Path, given_settings: dict[str, Any]) -> None:
    check_dataset("image_folder", {"root": str(root), "size": 32, "resize": 36, **given_settings}, patch=8)


def test_lists_every_picture_with_its_class(root: Path) -> None:
    (root / "train" / "ant" / "deeper").mkdir()
    picture(1).save(root / "train" / "ant" / "deeper" / "more.png")
    (root / "train" / "ant" / "notes.txt").write_text("no picture")
    data = ImageFolder(settings_of(root), CONTEXT)
    assert data.classes == ("ant", "bee", "cat")
    assert (len(data.train), len(data.validation)) == (13, 6)
    targets = data.train.load(range(13), 0).target
    assert torch.bincount(targets).tolist() == [5, 4, 4]
    assert "deeper" in "".join(data.train.source.name(index) for index in range(13) if targets[index] == 0)


def test_the_papers_pipeline_by_hand(root: Path) -> None:
    """Resize the shorter side, crop at the centre, flip or not, normalise: nothing else."""
    settings = settings_of(root, resize=36, size=32)
    data = ImageFolder(settings, CONTEXT)
    opened = Image.open(data.validation.source.name(1)).convert("RGB")
    resized = opened.resize((43, 36), Image.Resampling.BICUBIC)
    cropped = np.asarray(resized.crop((6, 2, 38, 34)), np.float32) / 255
    mean, std = settings.normalisation
    expected = torch.from_numpy((cropped - np.array(mean, np.float32)) / np.array(std, np.float32)).permute(2, 0, 1)
    torch.testing.assert_close(data.validation.load([1], 0).images_BCHW[0], expected, atol=1e-5, rtol=1e-5)

    straight = ImageFolder(settings_of(root, flip=0.0), CONTEXT).train.load(range(12), 3).images_BCHW
    mirrored = ImageFolder(settings_of(root, flip=1.0), CONTEXT).train.load(range(12), 3).images_BCHW
    torch.testing.assert_close(mirrored, straight.flip(-1), rtol=0, atol=0)
    by_chance = data.train.load(range(12), 3).images_BCHW
    same = (by_chance == straight).flatten(1).all(1)
    assert (same | (by_chance == mirrored).flatten(1).all(1)).all()
    assert 0 < int(same.sum()) < 12


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 224), (100, 113), (33, 199), (384, 438)])
def test_resize_is_exact(size: int, resize: int) -> None:
    transform = validation_transform(ImageFolderSettings(root="x", size=size, resize=resize))
    assert min(transform.transforms[0](picture(0, 90, 120)).size) == resize


def test_defaults_are_the_papers() -> None:
    steps = [type(step).__name__ for step in training_transform(ImageFolderSettings(root="x")).transforms]
    assert steps == ["Resize", "CenterCrop", "RandomHorizontalFlip", "MaybeToTensor", "Normalize"]
    full = [type(step).__name__ for step in training_transform(ImageFolderSettings(root="x", **FULL)).transforms]
    assert full[0] == "RandomResizedCropAndInterpolation"
    assert {"RandAugment", "RandomErasing"} <= set(full)


def test_augmentation_is_a_pure_function_of_seed_epoch_and_index(root: Path) -> None:
    data = ImageFolder(settings_of(root, seed=3, **FULL), CONTEXT)
    whole = data.train.load(range(12), 5).images_BCHW
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    torch.testing.assert_close(data.train.load([7, 2, 7], 5).images_BCHW, whole[[7, 2, 7]], rtol=0, atol=0)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert (data.train.load(range(12), 6).images_BCHW != whole).flatten(1).any(1).all()
    other = ImageFolder(settings_of(root, seed=4, **FULL), CONTEXT).train.load(range(12), 5).images_BCHW
    assert (other != whole).flatten(1).any(1).all()
    assert len({image_seed(*numbers) for numbers in [(1, 2, 3), (1, 3, 2), (12, 3, 0), (1, 23, 0)]}) == 4


def test_the_runs_seed_counts_where_none_is_set(root: Path) -> None:
    def first(run_seed: int, **given_settings: Any) -> torch.Tensor:
        context = Context(Grid(4, 4), patch=8, generator=torch.Generator().manual_seed(run_seed))
        return ImageFolder(settings_of(root, **FULL, **given_settings), context).train.load(range(4), 0).images_BCHW

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(first(1, seed=5), first(2, seed=5))


def test_splits_go_to_worker_processes(root: Path) -> None:
    data = ImageFolder(settings_of(root, **FULL), CONTEXT)
    for split in (data.train, data.validation):
        copy = pickle.loads(pickle.dumps(split))
        torch.testing.assert_close(copy.load([3], 2).images_BCHW, split.load([3], 2).images_BCHW, rtol=0, atol=0)


def test_unreadable_pictures_are_named(root: Path) -> None:
    broken = root / "train" / "bee" / "0.JPG"
    data = ImageFolder(settings_of(root), CONTEXT)
    whole = broken.read_bytes()
    for content in (b"no picture", whole[: len(whole) // 2], b""):
        broken.write_bytes(content)
        with pytest.raises(RunError, match=r"bee/0\.JPG cannot be read .*: replace or remove it") as caught:
            data.train.load(range(12), 0)
        assert "\n" not in str(caught.value)
    broken.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        data.train.load(range(12), 0)


def test_missing_and_empty_folders(root: Path, tmp_path: Path) -> None:
    nowhere = settings_of(tmp_path / "nowhere")
    for act in (nowhere.describe, lambda: ImageFolder(nowhere, CONTEXT)):
        with pytest.raises(UsageError, match=r"root: there is no folder .*nowhere"):
            act()
    with pytest.raises(UsageError, match=r"train: there is no folder .*training"):
        settings_of(root, train="training").describe()
    with pytest.raises(UsageError, match=r"validation: there is no folder .*dev"):
        ImageFolder(settings_of(root, validation="dev"), CONTEXT)
    (root / "train" / "dog").mkdir()
    for act in (settings_of(root).describe, lambda: ImageFolder(settings_of(root), CONTEXT)):
        with pytest.raises(UsageError, match=r"train: the class folder .*dog holds no image"):
            act()
    (tmp_path / "bare" / "train").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no class folders"):
        settings_of(tmp_path / "bare").describe()


def test_trees_that_differ(root: Path) -> None:
    (root / "val" / "cat").rename(root / "val" / "cow")
    with pytest.raises(UsageError, match=r"'cat' and 1 more stands only in .*train"):
        ImageFolder(settings_of(root), CONTEXT)


def test_another_number_of_classes(root: Path) -> None:
    with pytest.raises(UsageError, match=r"the recipe says 7, and .*train holds 3"):
        ImageFolder(settings_of(root, classes=7), CONTEXT)


def test_describing_needs_no_folder_where_classes_are_given() -> None:
    facts = ImageFolderSettings(root="/not/here", classes=1000, size=[192, 256]).describe()
    assert (facts.height, facts.width, facts.channels, facts.classes) == (192, 256, 3, 1000)


def test_counts_classes(root: Path) -> None:
    assert settings_of(root).describe().classes == 3


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({"size": 0}, "greater than or equal to 1"),
        ({"size": 300}, "leave nothing to crop"),
        ({"channels": 2}, "Input should be 1 or 3"),
        ({"mean": [0.5]}, "mean: give 3 numbers"),
        ({"std": [0.0, 1.0, 1.0]}, "greater than 0"),
        ({"scale": [0.9, 0.1]}, "smaller share first"),
        ({"rand_augment": "m9"}, "pattern"),
        ({"rand_augment": "rand-m9", "color_jitter": 0.4}, "takes its place"),
        ({"rand_augment": "rand-m9", "channels": 1}, "needs RGB"),
        ({"flip": 1.5}, "less than or equal to 1"),
        ({"crops": "centre"}, "Extra inputs"),
    ],
)
def test_bad_settings(given_settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ImageFolderSettings(root="x", **given_settings)


def test_torchvision_by_name(tmp_path: Path) -> None:
    """A tiny MNIST in torchvision's own file format."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 30), ("t10k", 10)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(np.array([0x801, count], ">i4").tobytes() + labels.tobytes())
    given_settings = {"root": str(tmp_path), "channels": 1, "size": 28, "resize": None, "flip": 0.0}
    data = TorchvisionData(TorchvisionSettings(dataset="mnist", **given_settings), CONTEXT)  # type: ignore[arg-type]
    batch = data.train.load([4, 13], 0)
    assert batch.images_BCHW.shape == (2, 1, 28, 28)
    assert batch.target.tolist() == [4, 3]
    assert len(data.classes) == 10
    pickle.loads(pickle.dumps(data.validation)).load([0], 0)

    timm_settings = {"dataset": "torch/mnist", "classes": 10, **given_settings}
    same = TimmData(TimmSettings(**timm_settings), CONTEXT)  # type: ignore[arg-type]
    torch.testing.assert_close(same.train.load([4, 13], 0).images_BCHW, batch.images_BCHW, rtol=0, atol=0)


def test_nothing_is_fetched_unasked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch/cifar10 \(train\) cannot be opened below .*set download: true"):
        TorchvisionData(TorchvisionSettings(dataset="cifar10", root=str(tmp_path)), CONTEXT)


def test_known_names_describe_themselves() -> None:
    facts = TorchvisionSettings(dataset="cifar100", size=32, resize=None).describe()
    assert (facts.classes, facts.train, facts.validation, facts.height) == (100, 50_000, 10_000, 32)
    with pytest.raises(ValidationError, match="set download: true"):
        TimmSettings(dataset="hfds/user/set", classes=10)
    with pytest.raises(ValidationError, match="pattern"):
        TimmSettings(dataset="tfds/mnist", classes=10)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delitem(sys.modules, "timm.data.readers.reader_hfds", raising=False)
    settings = TimmSettings(dataset="hfds/user/set", classes=10, download=True)
    with pytest.raises(UsageError, match="needs a library that is not installed"):
        TimmData(settings, CONTEXT)


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="no folder of real images beside this checkout")
def test_real_images() -> None:
    settings = ImageFolderSettings(root=str(CIFAR10), size=32, resize=None, **FULL)
    data = ImageFolder(settings, CONTEXT)
    assert len(data.classes) == settings.describe().classes == 10
    batch = data.train.load(range(0, len(data.train), 500), 0)
    assert batch.images_BCHW.shape[1:] == (3, 32, 32)
    assert torch.isfinite(batch.images_BCHW).all()
    assert data.validation.load(range(0, 5000, 100), 0).images_BCHW.std() == pytest.approx(1, abs=0.3)
