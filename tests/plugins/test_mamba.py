"""The Mamba backbone: contract, names and shapes, readout, padding, cached decoding, settings."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.causal_conv import causal_conv
from reorder_mamba.mixer import Mixer
from reorder_mamba.settings import MambaMixerSettings, MambaSettings
from safetensors.torch import save_file
from torch.nn import functional

from reorder_core import Context, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone, check_mixer
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


def mixer_of(width=16, **settings):
    return Mixer(MambaMixerSettings(**settings), Context(GRID, width=width))


def tokens(batch=2, count=12, seed=0):
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("readout", READOUTS, ids=lambda settings: "-".join(settings.values()))
def test_holds_the_contract_of_backbones(direction, readout):
    if direction == "causal" and readout.get("class_position") == "start":
        pytest.skip("a causal model sees nothing from there; the recipe is refused")
    check_backbone("mamba", MambaSettings(**SMALL, direction=direction, **readout))


@pytest.mark.parametrize("direction", ["causal", "bidirectional", "four", "cross"])
def test_holds_the_contract_of_mixers(direction):
    check_mixer("mamba", MambaMixerSettings(state=4, direction=direction))


def test_parameters_have_the_names_and_shapes_of_mamba_ssm():
    mixer = mixer_of(width=40, state=6, conv=3, expand=2)
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
    mixer = mixer_of(state=4)
    theirs = {name: torch.randn_like(value) for name, value in mixer.state_dict().items()}
    mixer.load_state_dict(theirs, strict=True)
    for name, value in mixer.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_the_second_direction_has_vims_names():
    names = set(mixer_of(direction="bidirectional").state_dict()) - set(mixer_of().state_dict())
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
    theirs, ours = MambaBlock(config), mixer_of(state=4)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours(tokens()), theirs(tokens()), rtol=1e-4, atol=1e-5)


def test_the_backbone_equals_transformers_with_the_same_weights(tmp_path):
    """Outputs, and gradients of the tokens and of every parameter."""
    from transformers import MambaConfig, MambaModel

    torch.manual_seed(2)
    config = MambaConfig(
        vocab_size=7, hidden_size=16, state_size=4, num_hidden_layers=2, expand=2, conv_kernel=4, use_cache=False
    )
    theirs = MambaModel(config).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    ours = build(weights=str(tmp_path / "theirs.pt"))
    one, other = tokens().requires_grad_(), tokens().requires_grad_()
    found, expected = ours(one, ROW).levels[0].tokens_BND, theirs(inputs_embeds=other).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, named[name].grad, rtol=1e-3, atol=1e-3, msg=name)


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
    both = mixer_of(state=4, direction="bidirectional")
    forwards, backwards = mixer_of(state=4), mixer_of(state=4)
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
    torch.testing.assert_close(both(tokens(), both.plan(ROW)), expected)


@pytest.mark.parametrize(("readout", "place"), [("middle", 6), ("end", 12)])
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


def test_a_class_token_that_has_read_nothing_is_refused():
    with pytest.raises(UsageError, match="has read no patch yet at its first token"):
        build(readout="class", class_position="start")


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


@pytest.mark.parametrize(
    "settings",
    [{"direction": "bidirectional"}, {"readout": "class"}, {"readout": "registers", "registers": 2}],
    ids=str,
)
def test_no_steps_where_the_model_can_not_run_by_steps(settings):
    with pytest.raises(UsageError, match="only a causal mamba without class token, registers and between"):
        build(**settings).init_state(1)


@pytest.mark.parametrize("readout", READOUTS, ids=lambda settings: "-".join(settings.values()))
@torch.no_grad()
def test_between_gets_the_patches_alone_and_its_layout_is_handed_on(readout):
    model = build(direction="bidirectional", **readout)
    seen, flipped = [], Layout.fixed(GRID, torch.arange(12).flip(0))

    def between(k, tokens_BND, layout):
        seen.append((k, tuple(tokens_BND.shape), layout))
        return (tokens_BND.flip(1), flipped) if k == 1 else (tokens_BND, layout)

    plain_BND = model(tokens(), ROW).levels[0].tokens_BND
    model.between = between
    level = model(tokens(), ROW).levels[0]
    assert [(k, shape) for k, shape, _ in seen] == [(0, (2, 12, 16)), (1, (2, 12, 16))]
    assert all(torch.equal(layout.perm_GN, ROW.perm_GN) and not layout.special for _, _, layout in seen)
    assert torch.equal(level.layout.perm_GN, flipped.perm_GN)
    torch.testing.assert_close(level.tokens_BND, plain_BND.flip(1))


def test_drop_path_drops_whole_images_while_training_only():
    model = build(drop_path=0.9, depth=2)
    block = model.layers[1].train()
    torch.manual_seed(0)
    kept_B = (block(tokens(64), model.plan(ROW)) != tokens(64)).flatten(1).any(1)
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


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"direction": "bidirectional", "readout": "class", "class_position": "middle"},
        {"direction": "four", "readout": "registers", "registers": 2},
        {"direction": "cross", "orders": 3, "readout": "mean"},
    ],
    ids=str,
)
def test_is_one_graph_to_torch_compile(settings):
    """Traced whole, without a break; Inductor takes minutes for what is tested here in seconds."""
    torch._dynamo.reset()
    model = build(depth=1, **settings)
    layouts = tuple(Layout.fixed(GRID, torch.arange(12).roll(r)) for r in range(model.orders))
    layout = layouts if model.orders > 1 else layouts[0]
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found, expected = (each(tokens(), layout).summary_BD for each in (compiled, model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler for Inductor")
@torch.no_grad()
def test_inductor_agrees_with_eager():
    model = build(depth=1)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(tokens(), ROW).summary_BD, model(tokens(), ROW).summary_BD)


FACTS = RunFacts(DataFacts(12, 16, 1), GRID, 4, 8, "learned")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"class_position": "middle"}, "class_position: only readout 'class' has a class token, not 'last'"),
        ({"readout": "class", "class_position": "start"}, "class_position: a causal model has read no patch yet"),
        ({"orders": 3}, "orders: only direction 'cross' reads several orders, not 'causal'"),
        ({"registers": 3}, "registers: readout 'last' has no registers"),
        ({"readout": "registers", "registers": 5}, "registers: a width of 192 is not divisible by 5 registers"),
        ({"readout": "registers", "registers": 16}, "registers: 16 registers have no place among 12 patches"),
        ({"weights": "/nowhere.pt"}, "weights: there is no /nowhere.pt"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(settings, says):
    (problem,) = MambaSettings(**settings).problems(FACTS)
    assert f"{problem.key}: {problem.message}".startswith(says)


def test_settings_that_agree_are_none():
    for readout in READOUTS:
        assert not list(MambaSettings(direction="bidirectional", **readout).problems(FACTS))
    assert not list(MambaSettings(readout="class").problems(FACTS))
    assert not list(MambaSettings(readout="registers").problems(FACTS))
    assert not list(MambaSettings(direction="cross", orders=2).problems(FACTS))


def test_dt_rank_auto_is_a_sixteenth_of_the_width():
    for width in (1, 16, 17, 100):
        assert mixer_of(width).rank == math.ceil(width / 16)
    assert mixer_of(16, dt_rank=5).dt_proj.in_features == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_compiled_scan_that_cannot_be_is_refused_when_the_model_is_built():
    with pytest.raises(UsageError, match=r"scan 'mamba_ssm' can not run: there is no CUDA device here"):
        MambaBackbone(MambaSettings(width=8, depth=1, scan="mamba_ssm"), Context(Grid(2, 2)))


@pytest.mark.parametrize("direction", ["causal", "bidirectional", "cross"])
@pytest.mark.parametrize("registers", [1, 4])
def test_registers_hold_the_contract(direction, registers):
    check_backbone("mamba", MambaSettings(**SMALL, direction=direction, readout="registers", registers=registers))


def test_registers_stand_where_mamba_regs_do():
    """12 among 196 patches: after 15, 30, … 180 of them, as in the released code of Mamba-Reg."""
    model = MambaBackbone(
        MambaSettings(width=24, depth=1, direction="bidirectional", readout="registers"), Context(GRID)
    )
    assert model.special_places(196) == tuple(15 * (i + 1) + i for i in range(12))
    assert {name: tuple(value.shape) for name, value in model.named_parameters() if "layers" not in name} == {
        "registers": (1, 12, 24),
        "norm_f.weight": (24,),
        "neck.weight": (2, 24),
        "neck_norm.weight": (24,),
    }


@torch.no_grad()
def test_each_register_gives_its_share_of_the_summary():
    model = build(readout="registers", registers=4, direction="bidirectional")
    torch.nn.init.ones_(model.neck.weight)
    model.neck_norm = torch.nn.Identity()
    special_BSD = tokens(2, 4)
    summary_BD = model.summarise(tokens(), special_BSD, ROW)
    torch.testing.assert_close(summary_BD, special_BSD.sum(-1).repeat_interleave(4, dim=1))


@torch.no_grad()
def test_the_last_register_of_a_causal_model_has_read_every_patch():
    model = build(readout="registers", registers=4)
    assert model.special_places(12) == (3, 7, 11, 15)
    changed = tokens()
    changed[:, -1] += 1
    assert not torch.equal(model(changed, ROW).summary_BD, model(tokens(), ROW).summary_BD)


def test_more_registers_than_patches_are_refused():
    with pytest.raises(UsageError, match="8 registers have no place among 6 patches"):
        build(readout="registers", registers=8)(tokens(count=6), Layout.fixed(Grid(2, 3), torch.arange(6)))
    with pytest.raises(UsageError, match="a width of 16 is not divisible by 3 registers"):
        build(readout="registers", registers=3)


def mamba_ssm_shapes(width, depth, state, conv=4, expand=2, words=50):
    """Names and shapes of mamba_ssm's MambaLMHeadModel, written down from its modules."""
    inner, rank = expand * width, math.ceil(width / 16)
    block = {
        "norm.weight": (width,),
        "mixer.A_log": (inner, state),
        "mixer.D": (inner,),
        "mixer.in_proj.weight": (2 * inner, width),
        "mixer.conv1d.weight": (inner, 1, conv),
        "mixer.conv1d.bias": (inner,),
        "mixer.x_proj.weight": (rank + 2 * state, inner),
        "mixer.dt_proj.weight": (inner, rank),
        "mixer.dt_proj.bias": (inner,),
        "mixer.out_proj.weight": (width, inner),
    }
    shapes = {f"backbone.layers.{k}.{name}": shape for k in range(depth) for name, shape in block.items()}
    return shapes | {
        "backbone.embedding.weight": (words, width),
        "backbone.norm_f.weight": (width,),
        "lm_head.weight": (words, width),
    }


@pytest.mark.parametrize("kind", ["torch", "safetensors", "nested"])
def test_a_checkpoint_of_mamba_ssm_loads(tmp_path, kind):
    draw = torch.Generator().manual_seed(5)
    theirs = {name: torch.randn(shape, generator=draw) for name, shape in mamba_ssm_shapes(16, 2, 4).items()}
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(theirs, path)
    else:
        torch.save({"model": theirs} if kind == "nested" else theirs, path)
    for readout in ({}, {"readout": "class"}, {"readout": "registers", "registers": 2}):
        ours = build(weights=str(path), **readout).state_dict()
        extra = {name for name in ours if f"backbone.{name}" not in theirs}
        assert {name.split(".")[0] for name in extra} <= {"cls_token", "registers", "neck", "neck_norm"}
        for name in set(ours) - extra:
            assert torch.equal(ours[name], theirs[f"backbone.{name}"]), name


def test_weights_of_another_shape_are_one_sentence(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({name: torch.zeros(shape) for name, shape in mamba_ssm_shapes(16, 1, 8).items()}, path)
    with pytest.raises(UsageError) as told:
        build(weights=str(path))
    for part in ("layers.0.mixer.A_log is [32, 8] and should be [32, 4]", "missing: layers.1.norm.weight", "change"):
        assert part in str(told.value)
