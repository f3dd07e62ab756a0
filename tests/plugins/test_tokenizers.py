"""The room tokenizers: contracts, k-means and mean intensity, codes from a file, `reorder new`, what is refused."""

from __future__ import annotations

import random
from importlib import import_module

import numpy as np
import pytest
import torch
from reorder_tokenizers.checked import checked
from reorder_tokenizers.conformance import check_tokenizer
from reorder_tokenizers.interface import Tokenizer
from reorder_tokenizers.nearest import nearest
from reorder_tokenizers.templates import tokenizer
from reorder_tokenizers.usage import Usage
from sklearn.datasets import load_digits

from reorder_core import ComponentRef, Grid, RunError, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import ContractBroken, context
from reorder_core.patches import cut, pasted

SMALL = {"codes": 8, "epochs": 2, "batch_size": 16}
OF = {"uniform": {}, "kmeans": SMALL, "vqvae": {**SMALL, "width": 8, "depth": 1, "device": "cpu"}}


def built(name, where=None, **chosen):
    return Catalogue.load().build(ComponentRef("tokenizer", name, chosen), where or digits_context())


def digits_context(patch=4, seed=0):
    return context(Grid(8 // patch, 8 // patch), patch=patch, seed=seed)


def digits(count=400):
    return (load_digits().images[:count, None] / 16).astype(np.float32)


@pytest.mark.parametrize("name", OF)
@pytest.mark.parametrize("channels", [1, 3])
def test_contract(name, channels):
    longer = {"epochs": 20, "batch_size": 8, "width": 16, "learning_rate": 4e-3} if name == "vqvae" else {}
    check_tokenizer(name, {**OF[name], **longer}, channels=channels)


@pytest.mark.parametrize("shape", [(48, 15), (48, 3, 5)])
def test_contract_of_codes(tmp_path, shape):
    np.save(tmp_path / "codes.npy", np.random.default_rng(0).integers(0, 9, shape).astype(np.int32))
    check_tokenizer("codes", {"path": str(tmp_path / "codes.npy")})


@pytest.mark.parametrize("name", OF)
def test_the_interface(name):
    made = built(name, **OF[name])
    assert isinstance(made, Tokenizer)
    assert made.fitted == (name == "uniform")


def test_uniform_levels_are_of_equal_width():
    where = context("1x5", patch=2, channels=3)
    level_N = np.array([0, 0.249, 0.25, 0.75, 1], np.float32)
    images_BCHW = np.broadcast_to(np.repeat(level_N, 2), (1, 3, 2, 10))
    made = built("uniform", where, levels=4)
    assert made.tokens(images_BCHW).tolist() == [[0, 0, 1, 3, 3]]
    np.testing.assert_allclose(made.reconstruct(images_BCHW)[0, 0, 0, ::2], [0.125, 0.125, 0.375, 0.875, 0.875])
    assert built("uniform").codes == 64


def test_more_levels_are_closer():
    images_BCHW, where = digits(), digits_context(patch=1)
    errors = [
        np.abs(built("uniform", where, levels=k).reconstruct(images_BCHW) - images_BCHW).max() for k in (2, 8, 64)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1 / 128 + 1e-6


@pytest.mark.parametrize("name", OF)
@pytest.mark.parametrize("grey", [0.0, 0.37, 1.0])
def test_a_constant_image_has_one_code(name, grey):
    """In every place, whatever it was fitted to: constant images compress equally in every order."""
    where = context("4x6", patch=4)
    made = built(name, where, **OF[name])
    made.fit(np.random.default_rng(0).random((20, 1, 16, 24)).astype(np.float32))
    assert len(np.unique(made.tokens(np.full((2, 1, 16, 24), grey, np.float32)))) == 1


def test_kmeans_finds_the_patches_that_images_are_made_of():
    rng = np.random.default_rng(0)
    words_KP = rng.random((6, 16)).astype(np.float32)
    where = context("4x4", patch=4)
    word_BN = rng.integers(0, 6, (200, 16))
    made = built("kmeans", where, codes=6)
    images_BCHW = pasted(words_KP[word_BN], where.grid, 4)
    made.fit(images_BCHW)
    codes_BN = made.tokens(images_BCHW)
    name_K = [codes_BN[word_BN == word][0] for word in range(6)]
    assert sorted(name_K) == list(range(6))
    assert np.array_equal(np.array(name_K)[word_BN], codes_BN)
    np.testing.assert_allclose(made.reconstruct(images_BCHW), images_BCHW, atol=1e-3)
    assert made.usage.perplexity > 5.9


def test_kmeans_of_digits_is_better_than_mean_intensity():
    images_BCHW = digits()
    made = built("kmeans", codes=64)
    made.fit(images_BCHW)
    error = [np.square(each.reconstruct(images_BCHW) - images_BCHW).mean() for each in (made, built("uniform"))]
    assert error[0] < 0.5 * error[1]
    assert made.usage.used == 64


def test_another_seed_gives_other_codes():
    codes = []
    for seed in (0, 0, 1):
        made = built("kmeans", digits_context(seed=seed), codes=16)
        made.fit(digits())
        codes.append(made.tokens(digits()))
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


@pytest.mark.parametrize("name", ["kmeans", "vqvae"])
def test_fewer_patches_than_codes(name):
    with pytest.raises(UsageError, match=r"3 images have 12 patches, fewer than 13 codes: give more images or lower"):
        built(name, **{**OF[name], "codes": 13}).fit(digits(3))


@pytest.mark.parametrize("name", ["kmeans", "vqvae"])
def test_a_collapsed_codebook_says_by_how_much(name):
    """Images that are all alike, twenty at once, can use one code of twenty."""
    alike_BCHW = np.full((20, 1, 8, 8), 0.5, np.float32)
    chosen = {**OF[name], "codes": 20, "least_used": 0.1}
    with pytest.raises(RunError, match=r"collapsed: only 1 of 20 codes are used \(5\.0%, at least 10\.0% are due\)"):
        built(name, **chosen).fit(alike_BCHW)


@pytest.mark.parametrize("name", ["kmeans", "vqvae"])
def test_a_codebook_of_which_little_is_used_is_warned_about(name, caplog):
    made = built(name, **{**OF[name], "codes": 20, "least_used": 0.05})
    made.fit(np.full((20, 1, 8, 8), 0.5, np.float32))
    assert made.fitted
    assert (
        caplog.messages
        == ["only 1 of 20 codes are used (5.0%): train with fewer codes or for longer"]
        == [made.usage.warning]
    )


def test_usage():
    found = Usage(np.array([4, 0, 4, 4, 4]))
    assert (found.used, found.codes, found.warning) == (4, 5, None)
    assert found.perplexity == pytest.approx(4)


def test_equal_codes_are_named_by_the_first_wherever_a_point_stands():
    """Twins in the codebook, and points that are all alike, in numbers that a product of matrices cuts up unevenly."""
    rng = torch.Generator().manual_seed(0)
    codes_KD = torch.randn(37, 48, generator=rng)
    codes_KD = torch.cat([codes_KD, codes_KD, codes_KD])
    point_D = codes_KD[50] + 0.01 * torch.randn(48, generator=rng)
    for count in (1, 7, 129, 1001):
        assert nearest(point_D.expand(count, -1), codes_KD).tolist() == [13] * count


def test_the_nearest_is_the_nearest():
    rng = torch.Generator().manual_seed(0)
    points_MD, codes_KD = torch.randn(500, 5, generator=rng), torch.randn(40, 5, generator=rng)
    distance_MK = (points_MD[:, None] - codes_KD).square().sum(dim=2)
    assert torch.equal(nearest(points_MD, codes_KD), distance_MK.argmin(dim=1))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), r"\[2, 3, 8, 8\] do not fit this tokenizer, which reads \[B, 1, 8, 8\]"),
        (np.zeros((2, 1, 8, 12), np.float32), "do not fit this tokenizer"),
        (np.full((2, 1, 8, 8), 255, np.float32), "reads pixels from 0 to 1, and these go from 255 to 255"),
        (np.full((2, 1, 8, 8), np.nan, np.float32), "reads pixels from 0 to 1"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, said):
    with pytest.raises(UsageError, match=said):
        checked(images, digits_context())


def test_frames_are_refused():
    with pytest.raises(UsageError, match="has 2 frames"):
        built("uniform", context(Grid(2, 2, 2))).tokens(np.zeros((1, 1, 8, 8), np.float32))


class TestCodes:
    def saved(self, tmp_path, values, name="codes.npy"):
        np.save(tmp_path / name, values)
        return {"path": str(tmp_path / name)}

    def test_are_found_by_number(self, tmp_path):
        codes_IN = np.arange(40).reshape(10, 4) % 7
        made = built("codes", **self.saved(tmp_path, codes_IN))
        assert (made.codes, made.fitted, made.needs_numbers) == (7, True, True)
        assert np.array_equal(made.tokens(digits(3), numbers=[7, 0, 7]), codes_IN[[7, 0, 7]])

    def test_of_an_npz(self, tmp_path):
        path = tmp_path / "codes.npz"
        np.savez(path, train=np.zeros((3, 4), np.int64), validation=np.ones((2, 4), np.uint8))
        made = built("codes", path=str(path), array="validation", codes=5)
        assert (made.codes, len(made)) == (5, 2)
        with pytest.raises(UsageError, match="holds these arrays: train, validation: name one"):
            built("codes", path=str(path))

    @pytest.mark.parametrize(
        ("values", "chosen", "said"),
        [
            (np.zeros((3, 5), int), {}, r"shape \[3, 5\], where \[images, 4\] is due for a grid of 2x2"),
            (np.zeros((0, 4), int), {}, r"shape \[0, 4\]"),
            (np.zeros((3, 4)), {}, "holds float64 where codes are whole numbers"),
            (np.full((3, 4), -1), {}, "codes from -1 to -1"),
            (np.full((3, 4), 9), {"codes": 9}, "codes from 9 to 9, where 0 to 8 are due"),
            (np.zeros((3, 4), int), {"array": "train"}, "is no .npz file"),
        ],
    )
    def test_that_do_not_fit(self, tmp_path, values, chosen, said):
        with pytest.raises(UsageError, match=said):
            built("codes", **self.saved(tmp_path, values), **chosen)

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(UsageError, match="No such file"):
            built("codes", path=str(tmp_path / "gone.npy"))
        for name in ("text.npy", "text.npz"):
            (tmp_path / name).write_text("nothing")
            with pytest.raises(UsageError, match=r"is no \.npy or \.npz file"):
                built("codes", path=str(tmp_path / name))

    def test_numbers_that_are_missing(self, tmp_path):
        made = built("codes", **self.saved(tmp_path, np.zeros((3, 4), int)))
        with pytest.raises(UsageError, match=r"none were given: pass tokens\(images, numbers=…\)"):
            made.tokens(digits(2))
        with pytest.raises(UsageError, match="holds the codes of 3 images, and image 3 is none of them"):
            made.tokens(digits(2), numbers=[0, 3])
        with pytest.raises(UsageError, match="1 numbers do not belong to 2 images"):
            made.tokens(digits(2), numbers=[0])


class Honest:
    """Keeps its contract but for what a test takes away: two levels of brightness."""

    def __init__(self, settings, where):
        self.codes, self.fitted, self.where = 2, True, where

    def fit(self, images_BCHW, progress=None):
        self.fitted = True

    def tokens(self, images_BCHW):
        return (cut(checked(images_BCHW, self.where), self.where.grid).mean(axis=2) > 0.5).astype(np.int64)


class NotRowByRow(Honest):
    def tokens(self, images_BCHW):
        return super().tokens(images_BCHW)[:, ::-1].copy()


class ToTheBatch(Honest):
    def tokens(self, images_BCHW):
        mean_BN = cut(checked(images_BCHW, self.where), self.where.grid).mean(axis=2)
        return (mean_BN > (mean_BN.mean() if mean_BN.size else 0)).astype(np.int64)


class TooMany(Honest):
    def tokens(self, images_BCHW):
        return 2 * super().tokens(images_BCHW)


class Floats(Honest):
    def tokens(self, images_BCHW):
        return super().tokens(images_BCHW).astype(np.float32)


class Draws(Honest):
    def tokens(self, images_BCHW):
        random.random()
        return super().tokens(images_BCHW)


class Unasked(Honest):
    """Gives codes before it was fitted."""

    def __init__(self, settings, where):
        super().__init__(settings, where)
        self.fitted = False


class TakesAll(Honest):
    def tokens(self, images_BCHW):
        try:
            return super().tokens(images_BCHW)
        except UsageError:
            return np.zeros((len(images_BCHW), 15), np.int64)


class Forgets(Unasked):
    def tokens(self, images_BCHW):
        if not self.fitted:
            raise UsageError("fit it")
        return super().tokens(images_BCHW)

    def fit(self, images_BCHW, progress=None):
        progress(1, 2)
        self.fitted = True


class KeepsItToItself(Honest):
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.fitted = False


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (KeepsItToItself, "another one's state"),
        (NotRowByRow, "row by row"),
        (ToTheBatch, "beside it"),
        (TooMany, r"lie in 0 … 1, not in 0 … 2"),
        (Floats, "int64"),
        (Draws, "random state of Python"),
        (Unasked, "tokens before fit"),
        (TakesAll, "must be refused"),
        (Forgets, "everything done"),
    ],
)
def test_the_contract_catches(broken, said):
    check_tokenizer(Honest)
    with pytest.raises(ContractBroken, match=said):
        check_tokenizer(broken)


def test_new_tokenizer_passes_its_tests(tmp_path, monkeypatch):
    """Here in this process; tests/guests/test_writing_a_plugin.py installs one as `reorder new` writes it."""
    for path, text in tokenizer("equal_parts").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        assert "$" not in text
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.syspath_prepend(tmp_path / "tests")
    written = import_module("test_equal_parts")
    written.test_contract()
    written.test_promise()
