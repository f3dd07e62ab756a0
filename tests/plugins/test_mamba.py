"""The Mamba backbone: contract, names and shapes, readout, padding, cached decoding, settings."""

from __future__ import annotations

import math

import pytest
import torch
from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.causal_conv import causal_conv
from reorder_mamba.mixer import Mixer
from reorder_mamba.settings import MambaSettings
from torch.nn import functional

from reorder_core import Context, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone
from reorder_core.settings import DataFacts

GRID = Grid(3, 4)
SMALL = {"width": 16, "depth": 2, "state": 4}
ROW = Layout.fixed(GRID, torch.arange(12))
READOUTS = [
    {"readout": "last"},
    {"readout": "mean"},
    *({"readout": "class", "class_position": place} for place in ("start", "middle", "end")),
]


def build(seed=3, **settings):
    generator = torch.Generator().manual_seed(seed)
    return MambaBackbone(MambaSettings(**(SMALL | settings)), Context(GRID, width=16, generator=generator)).eval()


def tokens(batch=2, count=12, seed=0):
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("readout", READOUTS, ids=lambda settings: "-".join(settings.values()))
def test_holds_the_contract_of_backbones(direction, readout):
    if direction == "causal" and readout.get("class_position") == "start":
        pytest.skip("a causal model sees nothing from there; the recipe is refused")
    check_backbone("mamba", MambaSettings(**SMALL, direction=direction, **readout))


def test_parameters_have_the_names_and_shapes_of_mamba_ssm():
    mixer = Mixer(width=40, state=6, conv=3, expand=2)
    shapes = {name: tuple(value.shape) for name, value in mixer.state_dict().items()}
    inner, rank = 80, 3
    assert shapes == {
        "A_log": (inner, 6),
        "D": (inner,),
        "in_proj.weight": (2 * inner, 40),
        "conv1d.weight": (inner, 1, 3),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 12, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "out_proj.weight": (40, inner),
    }


def test_weights_go_across_both_ways():
    """A dictionary with mamba-ssm's names and shapes goes in strictly, and comes out as it was."""
    mixer = Mixer(width=16, state=4)
    theirs = {name: torch.randn_like(value) for name, value in mixer.state_dict().items()}
    mixer.load_state_dict(theirs, strict=True)
    for name, value in mixer.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_the_second_direction_has_vims_names():
    names = set(Mixer(width=16, bidirectional=True).state_dict()) - set(Mixer(width=16).state_dict())
    assert names == {
        "A_b_log",
        "D_b",
        "conv1d_b.weight",
        "conv1d_b.bias",
        "x_proj_b.weight",
        "dt_proj_b.weight",
        "dt_proj_b.bias",
    }


def test_the_mixer_equals_mambapys_with_the_same_weights():
    from mambapy.mamba import MambaBlock, MambaConfig

    config = MambaConfig(d_model=16, n_layers=1, d_state=4, pscan=False)
    theirs, ours = MambaBlock(config), Mixer(width=16, state=4)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours(tokens()), theirs(tokens()), rtol=1e-4, atol=1e-5)


def test_initial_values_are_the_papers():
    mixer = build(width=64).layers[0].mixer
    step = functional.softplus(mixer.dt_proj.bias)
    assert step.min() >= 0.99e-3
    assert step.max() <= 1.01e-1
    assert torch.equal(mixer.A_log, torch.arange(1, 5).float().log().expand_as(mixer.A_log))
    assert torch.equal(mixer.D, torch.ones_like(mixer.D))
    assert mixer.A_log._no_weight_decay
    assert mixer.D._no_weight_decay


def test_bidirectional_is_the_average_of_two_causal_mixers():
    both = Mixer(width=16, state=4, bidirectional=True)
    forwards, backwards = Mixer(width=16, state=4), Mixer(width=16, state=4)
    state = both.state_dict()
    forwards.load_state_dict({name: state[name] for name in forwards.state_dict()})
    renamed = {name: name.replace("proj.", "proj_b.").replace("conv1d.", "conv1d_b.") for name in state}
    renamed |= {
        "A_log": "A_b_log",
        "D": "D_b",
        "in_proj.weight": "in_proj.weight",
        "out_proj.weight": "out_proj.weight",
    }
    backwards.load_state_dict({name: state[renamed[name]] for name in backwards.state_dict()})
    expected = (forwards(tokens()) + backwards(tokens().flip(1)).flip(1)) / 2
    torch.testing.assert_close(both(tokens()), expected)


@pytest.mark.parametrize(("readout", "place"), [("start", 0), ("middle", 6), ("end", 12)])
@torch.no_grad()
def test_the_class_token_is_read_where_it_stands(readout, place):
    """Causal: the summary depends on the patches before the class token's place, and on no other."""
    model = build(readout="class", class_position=readout)
    before = model(tokens(), ROW).summary_BD
    for slot in range(12):
        changed = tokens()
        changed[:, slot] += 1
        same = torch.equal(model(changed, ROW).summary_BD, before)
        assert same == (slot >= place)


@torch.no_grad()
def test_last_is_the_last_token_and_mean_the_mean():
    features = build(readout="last")(tokens(), ROW)
    assert torch.equal(features.summary_BD, features.levels[0].tokens_BND[:, -1])
    features = build(readout="mean")(tokens(), ROW)
    torch.testing.assert_close(features.summary_BD, features.levels[0].tokens_BND.mean(1))


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("readout", ["last", "mean"])
@torch.no_grad()
def test_padding_at_the_end_is_not_seen(direction, readout):
    model = build(direction=direction, readout=readout)
    valid_BN = torch.arange(12).expand(2, 12) < 9
    padded = model(tokens(), Layout(GRID, ROW.perm_GN, valid_BN=valid_BN)).summary_BD
    short = model(tokens()[:, :9], Layout.fixed(Grid(3, 3), torch.arange(9))).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)


@torch.no_grad()
def test_steps_with_a_cached_state_equal_the_forward_pass():
    model = build()
    expected_BND = model(tokens(), ROW).levels[0].tokens_BND
    state = model.init_state(2)
    for slot in range(12):
        output_BD, state = model.step(tokens()[:, slot], state)
        torch.testing.assert_close(output_BD, expected_BND[:, slot], rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{"direction": "bidirectional"}, {"readout": "class"}], ids=str)
def test_no_steps_where_the_model_can_not_run_by_steps(settings):
    with pytest.raises(UsageError, match="only a causal mamba without class token"):
        build(**settings).init_state(1)


@pytest.mark.parametrize("readout", READOUTS, ids=lambda settings: "-".join(settings.values()))
@torch.no_grad()
def test_between_gets_the_patches_alone_and_its_layout_is_handed_on(readout):
    model = build(**readout)
    seen, flipped = [], Layout.fixed(GRID, torch.arange(12).flip(0))

    def between(k, tokens_BND, layout):
        seen.append((k, tuple(tokens_BND.shape), layout))
        return (tokens_BND.flip(1), flipped) if k == 1 else (tokens_BND, layout)

    plain_BND = model(tokens(), ROW).levels[0].tokens_BND
    model.between = between
    level = model(tokens(), ROW).levels[0]
    assert seen == [(0, (2, 12, 16), ROW), (1, (2, 12, 16), ROW)]
    assert level.layout is flipped
    torch.testing.assert_close(level.tokens_BND, plain_BND.flip(1))


def test_drop_path_drops_whole_images_while_training_only():
    model = build(drop_path=0.9, depth=2)
    block = model.layers[1].train()
    torch.manual_seed(0)
    kept_B = (block(tokens(64)) != tokens(64)).flatten(1).any(1)
    assert 0 < kept_B.sum() < 20
    model.eval()
    assert torch.equal(model(tokens(), ROW).summary_BD, model(tokens(), ROW).summary_BD)


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, two, other = build(), build(), build(seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    weight = "layers.0.mixer.in_proj.weight"
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


@pytest.mark.parametrize("L", [1, 2, 3, 9])
@pytest.mark.parametrize("W", [1, 2, 4])
def test_the_causal_convolution_is_conv1ds(L, W):
    x_BLD = torch.randn(2, L, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 1, W, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    padded = functional.pad(x_BLD.mT, (W - 1, 0))
    torch.testing.assert_close(causal_conv(x_BLD, weight, bias), functional.conv1d(padded, weight, bias, groups=5).mT)
    assert torch.autograd.gradcheck(causal_conv, (x_BLD, weight, bias))


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32():
    model = build()
    plain = model(tokens(), ROW).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), ROW).summary_BD
    assert cast.isfinite().all()
    torch.testing.assert_close(cast.float(), plain, rtol=0.1, atol=0.1)


def test_exports_to_torchs_own_operators():
    class Summary(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = build(depth=1)

        def forward(self, tokens_BND):
            return self.backbone(tokens_BND, ROW).summary_BD

    model = Summary()
    with torch.no_grad():
        program = torch.export.export(model, (tokens(),))
        torch.testing.assert_close(program.module()(tokens(seed=1)), model(tokens(seed=1)))
    names = {str(node.target).split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert "reorder_mamba" not in names


FACTS = RunFacts(DataFacts(12, 16, 1), GRID, 4, 8, "learned")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"class_position": "middle"}, "has a class token, not 'last'"),
        ({"readout": "class", "class_position": "start"}, "has read no patch yet at its first token"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(settings, says):
    (problem,) = MambaSettings(**settings).problems(FACTS)
    assert problem.key == "class_position"
    assert says in problem.message


def test_settings_that_agree_are_none():
    for readout in READOUTS:
        assert not list(MambaSettings(direction="bidirectional", **readout).problems(FACTS))
    assert not list(MambaSettings(readout="class").problems(FACTS))


def test_dt_rank_auto_is_a_sixteenth_of_the_width():
    for width in (1, 16, 17, 100):
        assert Mixer(width).rank == math.ceil(width / 16)
    assert Mixer(16, dt_rank=5).dt_proj.in_features == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_compiled_scan_that_cannot_be_is_refused_when_the_model_is_built():
    with pytest.raises(UsageError, match=r"backbone.scan: mamba_ssm can not run: there is no CUDA device here"):
        MambaBackbone(MambaSettings(width=8, depth=1, scan="mamba_ssm"), Context(Grid(2, 2)))
