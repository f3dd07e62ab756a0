"""The Mamba-2 backbone and mixer: contract, names and shapes, directions, weights, cached decoding, compile, export."""

from __future__ import annotations

import shutil

import pytest
import torch
from reorder_mamba.mamba2_backbone import Mamba2Backbone
from reorder_mamba.mamba2_mixer import GatedNorm, Mamba2Mixer
from reorder_mamba.mamba2_settings import Mamba2MixerSettings, Mamba2Settings
from safetensors.torch import save_file
from torch.nn import functional

from reorder_core import Context, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone, check_mixer
from reorder_core.settings import DataFacts

GRID = Grid(3, 4)
INNER = {"state": 4, "head_width": 8, "chunk": 5}
SMALL = INNER | {"width": 16, "depth": 2}
ROW = Layout.fixed(GRID, torch.arange(12))
COLUMN = Layout.fixed(GRID, torch.arange(12).view(3, 4).t().flatten())
DIRECTIONS = ["causal", "bidirectional", "four", "cross"]


def build(seed=3, **settings):
    generator = torch.Generator().manual_seed(seed)
    return Mamba2Backbone(Mamba2Settings(**(SMALL | settings)), Context(GRID, width=16, generator=generator)).eval()


def mixer_of(width=16, **settings):
    return Mamba2Mixer(Mamba2MixerSettings(**(INNER | settings)), Context(GRID, width=width))


def tokens(batch=2, count=12, seed=0):
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "settings",
    [
        {"readout": "last"},
        {"readout": "mean", "groups": 2, "norm": "layer"},
        {"readout": "class", "class_position": "middle"},
        {"readout": "registers", "registers": 2},
        {"direction": "bidirectional", "readout": "class", "class_position": "start"},
        {"direction": "bidirectional", "readout": "registers", "registers": 4},
        {"direction": "cross", "orders": 2, "readout": "mean"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_holds_the_contract_of_backbones(settings):
    check_backbone("mamba2", Mamba2Settings(**SMALL, **settings))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_holds_the_contract_of_mixers(direction):
    check_mixer("mamba2", Mamba2MixerSettings(**INNER, direction=direction))


def published_shapes(width, state, heads, groups, taps=4):
    """The tensors of `mamba_ssm.Mamba2(width, d_state=state, ngroups=groups)` with its defaults, and their shapes."""
    inner = 2 * width
    channels = inner + 2 * groups * state
    return {
        "in_proj.weight": (2 * inner + 2 * groups * state + heads, width),
        "conv1d.weight": (channels, 1, taps),
        "conv1d.bias": (channels,),
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "norm.weight": (inner,),
        "out_proj.weight": (width, inner),
    }


@pytest.mark.parametrize("groups", [1, 2])
def test_parameters_have_the_names_and_shapes_of_mamba_ssm(groups):
    mixer = mixer_of(width=128, state=128, head_width=64, groups=groups)
    shapes = {name: tuple(value.shape) for name, value in mixer.state_dict().items()}
    assert shapes == published_shapes(128, 128, 4, groups)


def test_a_second_direction_has_parameters_of_its_own():
    names = set(mixer_of(direction="bidirectional").state_dict()) - set(mixer_of().state_dict())
    assert names == {"conv1d_b.weight", "conv1d_b.bias", "dt_bias_b", "A_b_log", "D_b"}


def checkpoint(path, width=16, depth=2, heads=4, **changes):
    """A language model in mamba-ssm's layout, as its MambaLMHeadModel saves it."""
    draw = torch.Generator().manual_seed(5)
    shapes = {"embedding.weight": (11, width), "norm_f.weight": (width,)}
    for k in range(depth):
        shapes[f"layers.{k}.norm.weight"] = (width,)
        shapes |= {f"layers.{k}.mixer.{name}": s for name, s in published_shapes(width, 4, heads, 1).items()}
    tensors = {f"backbone.{name}": torch.rand(shape, generator=draw) for name, shape in shapes.items()}
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"].clone()
    for name, value in changes.items():
        tensors[name.replace("__", ".")] = value
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return tensors


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_checkpoint_of_mamba_ssm_is_loaded(tmp_path, file):
    tensors = checkpoint(tmp_path / file)
    model = build(weights=str(tmp_path / file))
    assert len(model.state_dict()) == 2 * 9 + 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[f"backbone.{name}"]), name


def test_weights_of_another_shape_are_named(tmp_path):
    checkpoint(tmp_path / "a.bin", heads=2)
    with pytest.raises(UsageError, match=r"layers.0.mixer.A_log is \[2\] and should be \[4\]"):
        build(weights=str(tmp_path / "a.bin"))


def test_initial_values_are_the_references():
    mixer = build(width=64).layers[0].mixer
    step = functional.softplus(mixer.dt_bias)
    assert step.min() >= 0.99e-3
    assert step.max() <= 1.01e-1
    assert mixer.A_log.exp().min() >= 1
    assert mixer.A_log.exp().max() <= 16
    assert torch.equal(mixer.D, torch.ones_like(mixer.D))
    assert all(getattr(mixer, name)._no_weight_decay for name in ("A_log", "D", "dt_bias"))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_gate_comes_before_the_norm_and_the_norm_is_of_each_group(groups):
    norm = GatedNorm(8, groups)
    torch.nn.init.normal_(norm.weight)
    y, z = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    gated = (y * z * torch.sigmoid(z)).view(2, 3, groups, -1)
    size = (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(y, z), (gated / size).view(2, 3, 8) * norm.weight)


def direction_alone(both, suffix):
    """A causal mixer with the parameters of one direction of another."""
    alone, state = mixer_of(), both.state_dict()

    def named(name):
        if name.startswith(("in_proj", "out_proj", "norm")):
            return name
        if name == "A_log":
            return f"A{suffix}_log"
        first, dot, rest = name.partition(".")
        return f"{first}{suffix}{dot}{rest}"

    alone.load_state_dict({name: state[named(name)] for name in alone.state_dict()})
    alone.norm, alone.out_proj = torch.nn.Identity(), torch.nn.Identity()  # what directions share after they meet
    alone.norm.forward = lambda y, z: y
    return alone


@pytest.mark.parametrize(("direction", "order"), [("bidirectional", ROW.reversed()), ("cross", COLUMN)])
def test_two_directions_are_averaged_before_the_norm(direction, order):
    both = mixer_of(direction=direction, orders=2 if direction == "cross" else None)
    plan = both.plan((ROW, order) if direction == "cross" else ROW)
    forwards, other = direction_alone(both, ""), direction_alone(both, "_b")
    there = other(order.order(tokens()))
    mean = (forwards(tokens()) + order.restore(there)) / 2
    gate = both.in_proj(tokens())[..., :32]
    torch.testing.assert_close(both(tokens(), plan), both.out_proj(both.norm(mean, gate)))


@pytest.mark.parametrize("direction", ["causal", "bidirectional"])
@pytest.mark.parametrize("readout", ["last", "mean"])
@torch.no_grad()
def test_padding_at_the_end_is_not_seen(direction, readout):
    model = build(direction=direction, readout=readout)
    valid_BN = torch.arange(12).expand(2, 12) < 9
    padded = model(tokens(), Layout(GRID, ROW.perm_GN, valid_BN=valid_BN)).summary_BD
    short = model(tokens()[:, :9], Layout.fixed(Grid(3, 3), torch.arange(9))).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(direction):
    """Also before a class token, whose convolution reads zeros there."""
    model = build(direction=direction, orders=2 if direction == "cross" else None, readout="class")
    valid_BN = torch.tensor([[True] * 9 + [False] * 3, [True] * 4 + [False, True] * 4])
    layout = Layout(GRID, ROW.perm_GN, valid_BN=valid_BN)
    layouts = (layout, COLUMN) if direction == "cross" else layout
    other = torch.where(valid_BN.unsqueeze(-1), tokens(), 100 * tokens(seed=1))
    torch.testing.assert_close(model(other, layouts).summary_BD, model(tokens(), layouts).summary_BD)


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_steps_with_a_cached_state_equal_the_forward_pass(groups):
    model = build(groups=groups)
    expected_BND = model(tokens(), ROW).levels[0].tokens_BND
    state = model.init_state(2)
    for slot in range(12):
        output_BD, state = model.step(tokens()[:, slot], state)
        torch.testing.assert_close(output_BD, expected_BND[:, slot], rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{"direction": "bidirectional"}, {"readout": "class"}], ids=str)
def test_no_steps_where_the_model_can_not_run_by_steps(settings):
    with pytest.raises(UsageError, match="only a causal mamba without class token"):
        build(**settings).init_state(1)


@torch.no_grad()
def test_the_chunk_changes_no_result():
    model, other = build(chunk=3), build(chunk=64)
    torch.testing.assert_close(model(tokens(), ROW).summary_BD, other(tokens(), ROW).summary_BD)


@torch.no_grad()
def test_bfloat16_stays_near_float32():
    model = build(direction="bidirectional")
    plain = model(tokens(), ROW).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), ROW).summary_BD
    half = model.to(torch.bfloat16)(tokens().to(torch.bfloat16), ROW).summary_BD
    assert half.dtype == torch.bfloat16
    for near in (cast, half):
        assert near.isfinite().all()
        torch.testing.assert_close(near.float(), plain, rtol=0.1, atol=0.1)


class Summary(torch.nn.Module):
    def __init__(self, layout, **settings):
        super().__init__()
        self.backbone, self.layout = build(depth=1, chunk=8, **settings), layout

    def forward(self, tokens_BND):
        return self.backbone(tokens_BND, self.layout).summary_BD


@pytest.mark.skipif(not shutil.which("c++") and not shutil.which("g++"), reason="inductor needs a C++ compiler")
@torch.no_grad()
def test_inductor_compiles_it_as_one_graph():
    model = Summary(ROW).eval()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(tokens()), model(tokens()), rtol=1e-4, atol=1e-5)


def test_the_backward_pass_of_a_cross_scan_is_traced_as_one_graph():
    model = Summary((ROW, COLUMN), direction="cross", orders=2, readout="mean")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, found = model(tokens()), compiled(tokens())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = [parameter for name, parameter in model.named_parameters() if "mixer" in name]
    ours, plain = (torch.autograd.grad(summary.sum(), weights) for summary in (found, expected))
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"direction": "bidirectional", "readout": "registers", "registers": 2}])
@torch.no_grad()
def test_exports_to_torchs_own_operators(settings):
    model = Summary(ROW, **settings).eval()
    program = torch.export.export(model, (tokens(),), strict=False)
    torch.testing.assert_close(program.module()(tokens(seed=1)), model(tokens(seed=1)))
    names = {str(node.target).split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert "reorder_mamba" not in names


FACTS = RunFacts(DataFacts(12, 16, 1), GRID, 4, 8, "learned")


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"class_position": "middle"}, "class_position", "has a class token, not 'last'"),
        ({"readout": "class", "class_position": "start"}, "class_position", "has read no patch yet"),
        ({"orders": 3}, "orders", "only direction 'cross' reads several orders"),
        ({"registers": 3}, "registers", "readout 'last' has no registers"),
        ({"readout": "registers", "registers": 5}, "registers", "a width of 16 is not divisible by 5 registers"),
        (
            {"head_width": 12},
            "head_width",
            "an inner width of 32 (expand 2 · width 16) is not divisible by heads of 12",
        ),
        ({"groups": 3}, "groups", "4 heads can not share in 3 groups"),
        ({"weights": "nowhere.bin"}, "weights", "there is no nowhere.bin"),
    ],
)
def test_settings_that_do_not_fit_are_a_problem(settings, key, says):
    (problem,) = Mamba2Settings(**(SMALL | settings)).problems(FACTS)
    assert problem.key == key
    assert says in problem.message


def test_settings_that_fit_are_none():
    for settings in ({}, {"groups": 4}, {"direction": "cross", "orders": 2}, {"readout": "registers", "registers": 8}):
        assert not list(Mamba2Settings(**(SMALL | settings)).problems(FACTS))


def test_heads_that_do_not_divide_the_width_are_refused_when_the_mixer_is_built():
    with pytest.raises(UsageError, match="head_width: an inner width of 32"):
        mixer_of(head_width=12)
    with pytest.raises(UsageError, match="groups: 4 heads can not share in 3 groups"):
        mixer_of(groups=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_kernels_that_cannot_run_are_refused_when_the_mixer_is_built():
    with pytest.raises(UsageError, match=r"scan 'mamba_ssm' can not run: there is no CUDA device here"):
        mixer_of(scan="mamba_ssm")
