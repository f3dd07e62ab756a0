"""The skeleton of sequence models: special tokens, readouts, blocks, `between`, exits, weights, mixers."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from reorder_core import Context, Grid, Layout, SequenceBackbone, SequenceSettings, UsageError
from reorder_core.conformance import ContractBroken, check_backbone, check_mixer
from reorder_core.layout import insert, take_apart
from reorder_core.weights import load_weights, read_weights

GRID = Grid(3, 4)


class Attention(nn.Module):
    """Full attention of one head."""

    attention = "full"
    order_sensitive = False
    orders = 1

    def __init__(self, settings, context):
        super().__init__()
        self.qkv = nn.Linear(context.width, 3 * context.width)

    def plan(self, layout):
        valid_BL = layout.valid_BL
        return None if valid_BL is None else valid_BL[:, None]

    def forward(self, tokens_BLD, plan):
        q, k, v = self.qkv(tokens_BLD).chunk(3, dim=-1)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=plan)


class Convolution(nn.Module):
    """Each token and the two before it."""

    attention = "causal"
    order_sensitive = True
    orders = 1

    def __init__(self, settings, context):
        super().__init__()
        self.taps = nn.Conv1d(context.width, context.width, 3)

    def plan(self, layout):
        return layout

    def forward(self, tokens_BLD, plan):
        return self.taps(functional.pad(tokens_BLD.mT, (2, 0))).mT


def model(mixer=Attention, seed=0, **settings):
    chosen = SequenceSettings(**({"width": 16, "depth": 2} | settings))
    context = Context(GRID, generator=torch.Generator().manual_seed(seed))
    return SequenceBackbone(chosen, context, lambda inner: mixer(None, inner)).eval()


def layout(seed=0, valid_BN=None):
    perm_N = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    return Layout(GRID, perm_N[None], valid_BN=valid_BN)


def tokens(batch=2, seed=1):
    return torch.randn(batch, 12, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mixer", [Attention, Convolution])
def test_a_mixer_that_is_what_it_declares_keeps_the_contract(mixer):
    check_mixer(mixer)


@pytest.mark.parametrize("position", ["start", "middle", "end"])
def test_a_class_token_anywhere(position):
    settings = SequenceSettings(width=16, depth=2, class_position=position)
    check_backbone(lambda given, context: SequenceBackbone(settings, context, lambda inner: Attention(None, inner)))


def test_a_mixer_that_lies_about_its_attention_is_found_out():
    class Liar(Convolution):
        def forward(self, tokens_BLD, plan):
            return self.taps(functional.pad(tokens_BLD.mT, (1, 1))).mT

    with pytest.raises(ContractBroken, match="attention is causal"):
        check_mixer(Liar)


@pytest.mark.parametrize("special", [(), (0,), (12,), (0, 13), (0, 3, 8), (5, 6, 7), (12, 13, 14), (0, 1, 2)])
def test_special_tokens_go_in_and_come_out(special):
    patches_BND, special_BSD = tokens(), torch.randn(2, len(special), 16)
    sequence_BLD = insert(patches_BND, special_BSD, special)
    assert sequence_BLD.shape[1] == 12 + len(special)
    assert torch.equal(sequence_BLD[:, list(special)], special_BSD)
    again_BND, special_again_BSD = take_apart(sequence_BLD, special)
    assert torch.equal(again_BND, patches_BND)
    assert torch.equal(special_again_BSD, special_BSD)
    places = layout().with_special(special)
    assert places.length == 12 + len(special)
    assert torch.equal(sequence_BLD[:, places.patch_places()], patches_BND)


def test_special_places_are_checked():
    for wrong in [(3, 1), (13,), (2, 2), (-1,)]:
        with pytest.raises(ValueError, match="special places must be ascending"):
            layout().with_special(wrong)


def test_padding_and_reversal():
    valid_BN = torch.arange(12).expand(2, 12) < 9
    padded = layout(valid_BN=valid_BN).with_special((0, 13))
    assert padded.valid_BL.tolist()[0] == [True] + [True] * 9 + [False] * 3 + [True]
    assert layout().valid_BL is None
    backwards = layout(valid_BN=valid_BN).reversed()
    assert torch.equal(backwards.perm_GN.flip(1), layout().perm_GN)
    assert torch.equal(backwards.valid_BN.flip(1), valid_BN)


def test_places_of_slots():
    grid = Grid(2, 3, frames=2)
    one = Layout(grid, torch.randperm(12)[None])
    assert (one.places_GN3()[0].numpy() == grid.places()[one.perm_GN[0].numpy()]).all()


@torch.no_grad()
@pytest.mark.parametrize("readout", ["mean", "last", "class"])
def test_padding_is_not_seen(readout):
    backbone = model(readout=readout)
    valid_BN = torch.arange(12).expand(2, 12) < 9
    padded = backbone(tokens(), layout(valid_BN=valid_BN)).summary_BD
    short = backbone(tokens()[:, :9], Layout(Grid(3, 3), torch.arange(9)[None])).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)


@torch.no_grad()
def test_between_sees_the_patches_and_may_give_them_another_order():
    backbone, seen = model(Convolution, readout="mean"), []

    def between(k, patches_BND, order):
        seen.append((k, tuple(patches_BND.shape), order.special))
        if k == 0:
            turned = order.reversed()
            return patches_BND.flip(1), turned
        return patches_BND, order

    plain = backbone(tokens(), layout())
    backbone.between = between
    features = backbone(tokens(), layout())
    assert seen == [(0, (2, 12, 16), ()), (1, (2, 12, 16), ())]
    assert torch.equal(features.levels[0].layout.perm_GN, layout().reversed().perm_GN)
    assert not torch.allclose(features.summary_BD, plain.summary_BD)


@torch.no_grad()
def test_exits_are_summaries_of_earlier_blocks():
    backbone = model(depth=3)
    backbone.exits_after = (0, 2)
    features = backbone(tokens(), layout())
    assert len(features.exits) == 2
    assert torch.equal(features.exits[1], features.summary_BD)
    assert not torch.equal(features.exits[0], features.summary_BD)


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, two, other = model(), model(), model(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    state = one.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in two.state_dict().items())
    assert not torch.equal(other.state_dict()["blocks.0.mixer.qkv.weight"], state["blocks.0.mixer.qkv.weight"])


def test_a_module_may_keep_its_own_initialisation():
    class Kept(Attention):
        _keep_init = True

    big, small = model(Kept), model()
    assert big.blocks[0].mixer.qkv.weight.std() > 3 * small.blocks[0].mixer.qkv.weight.std()


def test_a_causal_model_is_not_read_at_its_first_token():
    assert model(Convolution).special_places(12) == (12,)
    assert model(Attention).special_places(12) == (0,)
    with pytest.raises(UsageError, match="has read no patch yet"):
        model(Convolution, class_position="start")


def test_last_makes_any_model_care_about_the_order():
    assert model(readout="last").order_sensitive
    assert not model(readout="mean").order_sensitive


def test_no_mlp():
    assert not any("mlp" in name for name in model(mlp_ratio=0).state_dict())


def test_weights_from_files(tmp_path):
    source, path = model(seed=3), tmp_path / "w.safetensors"
    save_file(source.state_dict(), path)
    loaded = model(weights=str(path))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in loaded.state_dict().items())
    saved = {"epoch": 3, "args": Namespace(lr=0.1), "model": {"state_dict": source.state_dict()}}
    torch.save(saved, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == set(source.state_dict())


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(model(depth=3).state_dict() | {"head.weight": torch.zeros(2)}, path)
    before = model().state_dict()
    into = model()
    with pytest.raises(UsageError, match=r"not known here: .*blocks.2.mixer.*and \d+ more"):
        load_weights(into, path)
    save_file(model(width=24).state_dict(), path)
    with pytest.raises(UsageError, match=r"of another shape: cls_token is \[1, 1, 24\] and should be \[1, 1, 16\]"):
        load_weights(into, path)
    save_file({"norm.weight": torch.ones(16)}, path)
    with pytest.raises(UsageError, match="missing: cls_token, blocks"):
        load_weights(into, path)
    load_weights(into, path, optional=lambda name: name != "norm.weight")
    assert all(torch.equal(value, into.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing", "cannot be read"),
        (b"junk\n", "cannot be read"),
        (None, "cannot be read"),
        ("pickle", "holds no named tensors"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, said):
    path = tmp_path / "w.pth"
    if content == "pickle":
        torch.save({"epoch": 1}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_weights(path)
    with pytest.raises(UsageError, match="holds no checkpoint of a run"):
        read_weights(tmp_path)


def test_context_builds_in_a_changed_context():
    built = []

    def builder(ref, where):
        built.append((ref, where.width))
        return where.resolve if ref == "outer" else where

    context = Context(GRID, builder=builder).changed()
    context.build("outer", width=8)("inner")
    context.resolve("plain")
    assert built == [("outer", 8), ("inner", 8), ("plain", 0)]
