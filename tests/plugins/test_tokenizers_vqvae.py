"""The VQ-VAE: its codebook against hand-written twins, its gradient, its grid, and its file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from reorder_tokenizers.codebook import Codebook, ema_update
from reorder_tokenizers.header import read_header
from reorder_tokenizers.network import decoder, encoder
from reorder_tokenizers.settings import KMeansSettings, VqvaeSettings
from reorder_tokenizers.training import _step, cosine, decibels, train
from reorder_tokenizers.vqvae import Autoencoder
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from reorder_core import ComponentRef, DataFacts, Grid, RunError, RunFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import context
from reorder_core.pixels import MemoryImages

SMALL = {"codes": 16, "epochs": 4, "width": 16, "depth": 1, "batch_size": 32, "device": "cpu"}
LONGER = {**SMALL, "epochs": 15, "batch_size": 16, "learning_rate": 4e-3}


def built(where=None, kind="vqvae", **chosen):
    return Catalogue.load().build(ComponentRef("tokenizer", kind, chosen), where or digits_context())


def digits_context(seed=0):
    return context("4x4", patch=2, seed=seed)


def digits(count=256):
    return (load_digits().images[:count, None] / 16).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    made = built(**LONGER)
    made.fit(digits())
    return made


def filled(codes=5, width=3, revive_below=0.1, decay=0.9):
    """A codebook of random codes, each chosen twice a step so far."""
    made = Codebook(codes, width, decay, revive_below)
    made.code_KD.copy_(torch.randn(codes, width, generator=torch.Generator().manual_seed(1)))
    made.count_K.fill_(2)
    made.sum_KD.copy_(2 * made.code_KD)
    return made


def test_the_moving_averages_are_those_of_a_hand_written_twin():
    """Equations 6 and 7 of the paper's appendix, a latent and a code at a time."""
    rng = torch.Generator().manual_seed(0)
    count_K, sum_KD = torch.rand(4, generator=rng), torch.randn(4, 3, generator=rng)
    latents_MD = torch.randn(20, 3, generator=rng)
    code_M = torch.randint(0, 3, (20,), generator=rng)  # code 3 is never chosen
    decay = 0.9
    for _ in range(3):
        twin_count, twin_sum = [], []
        for k in range(4):
            mine = [latents_MD[m] for m in range(20) if code_M[m] == k]
            twin_count.append(decay * float(count_K[k]) + (1 - decay) * len(mine))
            total_D = [sum(float(each[d]) for each in mine) for d in range(3)]
            twin_sum.append([decay * float(sum_KD[k, d]) + (1 - decay) * total_D[d] for d in range(3)])
        count_K, sum_KD = ema_update(count_K, sum_KD, latents_MD, code_M, decay)
        np.testing.assert_allclose(count_K, twin_count, rtol=1e-5)
        np.testing.assert_allclose(sum_KD, twin_sum, rtol=1e-4, atol=1e-6)


def test_codes_go_where_their_latents_are():
    made = filled(codes=2, width=2)
    latents_MD = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, -5.0]])
    code_M = torch.tensor([0, 0, 1])
    for _ in range(200):
        made.learn(latents_MD, code_M)
    np.testing.assert_allclose(made.code_KD, [[2, 0], [0, -5]], atol=1e-4)
    np.testing.assert_allclose(made.count_K, [2, 1], atol=1e-4)


def test_a_code_that_is_never_chosen_keeps_its_place():
    made = filled()
    place_D = made.code_KD[4].clone()
    for _ in range(500):
        made.learn(made.code_KD[:4].clone(), torch.arange(4))
    np.testing.assert_allclose(made.code_KD[4], place_D, atol=1e-3)
    assert made.code_KD.isfinite().all()


def test_a_dead_code_is_placed_where_latents_are_badly_represented():
    made = filled()
    made.code_KD[4] = 1000.0
    latents_MD = made.code_KD[[0, 0, 1, 1, 2, 2, 3, 3, 3, 3]].clone()
    latents_MD[9] += 20
    code_M, chosen_MD = made(latents_MD)
    error_M = (latents_MD - chosen_MD).square().sum(dim=1)
    rng = torch.Generator().manual_seed(0)
    assert made.revive(latents_MD, error_M, rng) == 0  # not yet dead
    for _ in range(40):
        made.learn(latents_MD[:9], code_M[:9])
    assert made.count_K[4] < 0.1 * 2
    assert made.revive(latents_MD, error_M, rng) == 1
    assert torch.equal(made.code_KD[4], latents_MD[9])
    assert made.count_K[4] == 2  # the mean: it has time to live
    assert made(latents_MD)[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 4]
    assert made.revive(latents_MD, error_M, rng) == 0


def test_no_code_is_revived_where_nothing_is_badly_represented_or_where_it_is_off():
    rng = torch.Generator().manual_seed(0)
    for revive_below, error in ((0.1, 0.0), (0.0, 1.0)):
        made = filled(revive_below=revive_below)
        made.count_K[2] = 0
        place_KD = made.code_KD.clone()
        assert made.revive(torch.randn(10, 3, generator=rng), torch.full((10,), error), rng) == 0
        assert torch.equal(made.code_KD, place_KD)


def test_the_first_codes_are_latents_that_are_spread_out():
    rng = torch.Generator().manual_seed(0)
    centre_KD = 10 * torch.randn(8, 4, generator=rng)
    latents_MD = (centre_KD[:, None] + 0.01 * torch.randn(8, 50, 4, generator=rng)).flatten(0, 1)
    made = Codebook(8, 4, 0.99, 0.1)
    made.begin(latents_MD, 40, rng)
    assert all((latents_MD == code_D).all(dim=1).any() for code_D in made.code_KD)
    assert sorted((made(centre_KD)[0]).tolist()) == list(range(8))
    assert made.count_K.sum() == pytest.approx(40)
    np.testing.assert_allclose(made.sum_KD / made.count_K[:, None], made.code_KD, rtol=1e-5)


def one_step(commitment, revive_below=0.0):
    """A small network after one step on four images: its codebook before and after, and the encoder's gradient."""
    torch.manual_seed(0)
    made = built(**{**SMALL, "commitment": commitment, "revive_below": revive_below})
    model = Autoencoder(made.settings, made.context)
    image_BCHW = torch.from_numpy(digits(4))
    with torch.no_grad():
        latent_MD = model.latents(image_BCHW).permute(0, 2, 3, 1).flatten(0, 2)
        model.codebook.begin(latent_MD, len(latent_MD), torch.Generator().manual_seed(0))
        model.codebook.code_KD[0] = 1e3  # nobody's nearest
        model.codebook.count_K[0] = 0.0
        model.codebook.sum_KD[0] = 0.0
    before = {name: value.clone() for name, value in model.codebook.named_buffers()}
    _, revived = _step(model, image_BCHW, 0.1, commitment, torch.Generator().manual_seed(1))
    gradient = torch.cat([p.grad.flatten() for p in model.encoder.parameters() if p.grad is not None])
    return model, latent_MD, before, revived, gradient


def test_a_step_moves_the_codebook_by_the_moving_averages():
    model, latent_MD, before, revived, _ = one_step(0.25)
    code_M = (latent_MD[:, None] - before["code_KD"][None]).square().sum(2).argmin(1)
    count_K, sum_KD = ema_update(before["count_K"], before["sum_KD"], latent_MD, code_M, model.codebook.decay)
    expected_KD = torch.where((count_K > 1e-5)[:, None], sum_KD / count_K.clamp(min=1e-5)[:, None], before["code_KD"])
    torch.testing.assert_close(model.codebook.code_KD, expected_KD, rtol=1e-4, atol=1e-5)
    assert revived == 0
    assert not torch.equal(model.codebook.code_KD, before["code_KD"])


def test_a_step_places_dead_codes_anew():
    model, _, before, revived, _ = one_step(0.25, revive_below=0.1)
    assert revived >= 1
    assert not torch.equal(model.codebook.code_KD[0], before["code_KD"][0])


def test_commitment_pulls_on_the_encoder():
    *_, without = one_step(0.0)
    *_, weak = one_step(0.25)
    *_, strong = one_step(0.5)
    pull = weak - without
    assert float(pull.norm()) > 0
    torch.testing.assert_close(strong - without, 2 * pull, rtol=1e-3, atol=1e-5)


def test_the_codebook_begins_after_the_warm_up(monkeypatch):
    begun = []
    own = Codebook.begin
    monkeypatch.setattr(Codebook, "begin", lambda self, *given: (begun.append(len(steps)), own(self, *given)))
    steps = []
    made = built(**{**SMALL, "warm_up": 0.5, "epochs": 2})
    model = Autoencoder(made.settings, made.context)
    source, generator = MemoryImages(digits(128)), torch.Generator().manual_seed(0)
    device = torch.device("cpu")
    train(model, source, made.settings, generator, device, lambda done, total: steps.append(done), lambda text: None)
    assert begun == [4], "half of the eight steps pass without the codebook"


def test_the_gradient_passes_the_codebook_straight():
    """The encoder's output gets the gradient that the decoder has at the chosen codes, and the codebook none."""
    torch.manual_seed(0)
    model = Autoencoder(VqvaeSettings(codes=7, width=8, depth=1, code_width=3), digits_context())
    model.codebook.code_KD.normal_()
    image_BCHW = torch.rand(2, 1, 8, 8)
    kept = []
    model.encoder.register_forward_hook(lambda *call: kept.append(call[2]))
    coded = model(image_BCHW)
    (gradient_BDhw,) = torch.autograd.grad(coded.image_BCHW.square().sum(), kept)
    chosen_BDhw = model.codebook.code_KD[coded.code_M].view(2, 4, 4, 3).permute(0, 3, 1, 2).requires_grad_()
    drawn_BCHW = model.decoder(chosen_BDhw) + 0.5
    (twin_BDhw,) = torch.autograd.grad(drawn_BCHW.square().sum(), [chosen_BDhw])
    torch.testing.assert_close(gradient_BDhw, twin_BDhw)
    torch.testing.assert_close(coded.image_BCHW, drawn_BCHW)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"encoder", "decoder"}
    (commitment_BDhw,) = torch.autograd.grad(model(image_BCHW).error_M.sum(), kept[1:])
    torch.testing.assert_close(commitment_BDhw, 2 * (kept[1] - chosen_BDhw))


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 5, 6, 7, 14, 16])
def test_the_grid_of_latents_is_the_grid_of_patches(patch):
    image_BCHW = torch.rand(2, 3, 2 * patch, 3 * patch)
    latent_BDhw = encoder(patch, 3, 8, 1, 5)(image_BCHW)
    assert latent_BDhw.shape == (2, 5, 2, 3)
    assert decoder(patch, 3, 8, 1, 5)(latent_BDhw).shape == image_BCHW.shape


@pytest.mark.parametrize("depth", [0, 2])
def test_a_code_stands_where_its_patch_does(depth):
    """What a latent sees has its own patch in the middle: a dot moves the latent of its patch the most."""
    torch.manual_seed(0)
    made = encoder(4, 1, 16, depth, 8)
    dark_BCHW = torch.zeros(1, 1, 20, 20)
    for row, column in ((0, 0), (2, 3), (4, 4)):
        dotted_BCHW = dark_BCHW.clone()
        dotted_BCHW[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
        moved_hw = (made(dotted_BCHW) - made(dark_BCHW)).norm(dim=1)[0]
        assert int(moved_hw.argmax()) == 5 * row + column


def test_it_learns_digits(fitted):
    """Better than mean intensity in 64 levels, with 16 codes; nearly all of them are used."""
    images_BCHW = digits(400)[256:]
    levels = built(kind="uniform")
    error = [np.square(each.reconstruct(images_BCHW) - images_BCHW).mean() for each in (fitted, levels)]
    assert error[0] < error[1]
    assert fitted.usage.used >= 14
    assert fitted.usage.perplexity > 6


def test_the_same_seed_gives_the_same_tokenizer():
    one, again, other = (built(digits_context(seed=seed), **SMALL) for seed in (0, 0, 1))
    for each in (one, again, other):
        each.fit(digits(64))
    assert all(torch.equal(a, b) for a, b in zip(one._state().values(), again._state().values(), strict=True))
    assert not np.array_equal(one.tokens(digits()), other.tokens(digits()))


def test_a_file_gives_back_the_same_tokenizer(fitted, tmp_path):
    path = tmp_path / "tokens.safetensors"
    fitted.save(path, {"psnr": 12.5})
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.safetensors"]
    again = built(path=str(path), device="cpu")
    assert (again.fitted, again.codes, again.settings.width) == (True, 16, 16)
    assert np.array_equal(again.tokens(digits()), fitted.tokens(digits()))
    assert np.array_equal(again.reconstruct(digits()), fitted.reconstruct(digits()))
    with safe_open(path, "pt") as file:
        found = file.metadata()
    assert (found["kind"], found["patch"], found["channels"], found["codes"]) == ("vqvae", "2", "1", "16")
    assert json.loads(found["settings"])["commitment"] == 0.25
    assert read_header(path).figures == {"psnr": 12.5}


def test_kmeans_has_a_file_too(tmp_path):
    made = built(kind="kmeans", codes=9)
    made.fit(digits())
    made.save(tmp_path / "means.safetensors", {})
    again = built(kind="kmeans", path=str(tmp_path / "means.safetensors"))
    assert np.array_equal(again.tokens(digits()), made.tokens(digits()))
    assert again.code_patches().shape == (9, 1, 2, 2)


class TestFiles:
    @pytest.fixture
    def path(self, fitted, tmp_path):
        fitted.save(tmp_path / "tokens.safetensors", {})
        return tmp_path / "tokens.safetensors"

    def test_of_other_patches(self, path):
        for where, said in (
            (context("2x2", patch=4), "was trained on patches of 2 pixels, and these images have patches of 4 pixels"),
            (context("4x4", patch=2, channels=3), "was trained on 1 channels, and these images have 3 channels"),
        ):
            with pytest.raises(UsageError, match=said):
                built(where, path=str(path))

    def test_of_another_kind(self, path):
        with pytest.raises(UsageError, match=r"holds a tokenizer of the kind 'vqvae': write \{name: vqvae, path:"):
            built(kind="kmeans", path=str(path))

    def test_are_looked_at_before_anything_starts(self, path, tmp_path):
        """By `reorder check`, without torch."""
        facts = RunFacts(DataFacts(8, 8, 1), Grid(2, 2), 4, 8, "learned")
        (problem,) = VqvaeSettings(path=path).problems(facts)
        assert problem.key == "path"
        assert "was trained on patches of 2 pixels" in problem.message
        (problem,) = KMeansSettings(path=tmp_path / "gone").problems(facts)
        assert "gone cannot be read (No such file or directory): make one with" in problem.message
        assert [*VqvaeSettings(path=path).problems(RunFacts(DataFacts(8, 8, 1), Grid(4, 4), 2, 8, "none"))] == []

    def test_that_are_no_tokenizers(self, tmp_path):
        (tmp_path / "short").write_bytes(b"abc")
        (tmp_path / "text").write_text("no header at all, but long enough")
        save_file({"a": torch.zeros(2)}, tmp_path / "bare")
        save_file({"a": torch.zeros(2)}, tmp_path / "other", {"format": "pt"})
        for name in ("short", "text", "bare", "other"):
            with pytest.raises(UsageError, match=f"{name} is no tokenizer's file"):
                built(path=str(tmp_path / name))

    def test_that_are_damaged(self, path):
        header = read_header(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        with pytest.raises(UsageError, match="are damaged"):
            built(path=str(path), device="cpu")
        save_file({"a": torch.zeros(2)}, path, header.as_metadata())
        with pytest.raises(UsageError, match="are damaged"):
            built(path=str(path), device="cpu")

    def test_have_settings_of_their_own(self, path):
        with pytest.raises(
            UsageError, match="codes, epochs: the file of `path` has its own; leave out one or the other"
        ):
            built(path=str(path), codes=16, epochs=3)

    def test_an_interrupted_save_leaves_what_was_there(self, fitted, path, monkeypatch):
        before = path.read_bytes()

        def half(tensors, aside, metadata):
            aside.write_bytes(b"half of it")
            raise KeyboardInterrupt

        monkeypatch.setattr("reorder_tokenizers.learned.save_file", half)
        with pytest.raises(KeyboardInterrupt):
            fitted.save(path, {})
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(RunError, match=r"the loss is not finite in step \d+: lower learning_rate \(1e\+20\)"):
        built(**{**SMALL, "learning_rate": 1e20}).fit(digits())


def test_images_are_read_a_batch_at_a_time():
    asked = []

    class Counted(MemoryImages):
        def load(self, numbers, mapping=map):
            asked.append(len(numbers))
            return super().load(numbers, mapping)

    for kind, chosen in (("vqvae", {**SMALL, "width": 4}), ("kmeans", {"codes": 16, "batch_size": 32})):
        built(kind=kind, **{**chosen, "epochs": 1}).learn(Counted(digits(1000)))
    assert max(asked) <= 256


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="this machine has no 'cuda': write cpu, or auto"):
        built(**{**SMALL, "device": "cuda"})


def test_the_schedule_and_decibels():
    assert [round(cosine(step, 10), 6) for step in (0, 5, 10)] == [1, 0.5, 0]
    assert decibels(0.01) == pytest.approx(20)
    assert decibels(0.0) == float("inf")


def test_the_network_holds_no_other_randomness():
    assert not [
        each for each in Autoencoder(VqvaeSettings(), digits_context()).modules() if isinstance(each, nn.Dropout)
    ]
