"""The Transformer-XL room: contract, segments, memory, the released form, weights, steps, compiled and exported."""

from __future__ import annotations

import shutil

import pytest
import torch
from reorder_transformer_xl.attention import relative_shift
from reorder_transformer_xl.backbone import TransformerXLBackbone
from reorder_transformer_xl.distances import sinusoid
from reorder_transformer_xl.mixer import TransformerXLMixer
from reorder_transformer_xl.segments import cut
from reorder_transformer_xl.settings import TransformerXLMixerSettings, TransformerXLSettings

from reorder_core import Context, Grid, Layout, RunFacts, UsageError
from reorder_core.conformance import check_backbone, check_mixer
from reorder_core.model import Model
from reorder_core.settings import DataFacts

GRID = Grid(3, 4)
SMALL = {"width": 16, "depth": 2, "heads": 4}
ROW = Layout.fixed(GRID, torch.arange(12))
NO_COMPILER = not any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def build(grid=GRID, **settings):
    generator = torch.Generator().manual_seed(3)
    return TransformerXLBackbone(TransformerXLSettings(**(SMALL | settings)), Context(grid, generator=generator)).eval()


def tokens(batch=2, count=12, seed=0):
    return torch.randn(batch, count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "pre"},
        {"segment": 3, "memory": 2, "readout": "mean"},
        {"segment": 2, "memory": 5, "readout": "mean"},
        {"readout": "last", "distances": "learned"},
        {"relative": False},
        {"relative": False, "readout": "class", "class_position": "middle"},
        {"causal": False},
        {"causal": False, "distances": "learned"},
        {"causal": False, "relative": False},
        {"faithful": True},
        {"faithful": True, "distances": "learned", "readout": "last"},
        {"faithful": True, "causal": False, "relative": False},
        {"faithful": True, "causal": False, "relative": False, "readout": "last"},
        {"mlp_ratio": 0},
    ],
    ids=str,
)
def test_holds_the_contract_of_backbones(settings):
    check_backbone("transformer_xl", TransformerXLSettings(**(SMALL | settings)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"segment": 3, "memory": 4, "distances": "learned"},
        {"causal": False},
        {"causal": False, "relative": False},
        {"causal": False, "relative": False, "faithful": True},
    ],
    ids=str,
)
def test_holds_the_contract_of_mixers(settings):
    check_mixer("transformer_xl", TransformerXLMixerSettings(heads=4, **settings))


@pytest.mark.parametrize(
    ("length", "segment", "memory", "faithful", "expected"),
    [
        (197, "auto", 128, False, (50, 128, 4)),
        (197, "auto", 500, False, (50, 150, 4)),
        (197, "auto", 128, True, (197, 0, 1)),
        (197, 64, 128, True, (64, 0, 4)),
        (197, 197, 128, False, (197, 0, 1)),
        (3, "auto", 128, False, (3, 0, 1)),
        (13, "auto", 128, False, (5, 10, 3)),
    ],
)
def test_how_a_sequence_is_cut(length, segment, memory, faithful, expected):
    segments = cut(length, segment, memory, faithful)
    assert (segments.size, segments.memory, segments.count) == expected
    assert segments.padding == segments.count * segments.size - length


@torch.no_grad()
def test_memory_reaches_as_far_as_depth_times_its_length():
    """Two layers, segments of 3, a memory of 2: the last segment sees slots from 7 on, and through slot 7 from 4 on."""
    model = build(segment=3, memory=2, readout="mean")
    plain = model(tokens(), ROW).levels[0].tokens_BND
    for slot in range(12):
        changed = tokens()
        changed[:, slot] += 1
        moved_by = (model(changed, ROW).levels[0].tokens_BND - plain).abs().amax(dim=(0, 2))
        assert (moved_by[11] > 0) == (slot >= 4), slot


@torch.no_grad()
def test_faithful_carries_nothing_from_one_segment_to_the_next():
    model = build(segment=4, faithful=True, readout="last")
    changed = tokens()
    changed[:, :8] += 1
    assert torch.equal(model(changed, ROW).summary_BD, model(tokens(), ROW).summary_BD)
    carried = build(segment=4, readout="last")
    assert not torch.equal(carried(changed, ROW).summary_BD, carried(tokens(), ROW).summary_BD)


@torch.no_grad()
def test_faithful_reads_at_a_class_token_that_stands_first_and_sees_all():
    model = build(faithful=True)
    assert model.special_places(12) == (0,)
    assert model.attention == "full"
    plain = model(tokens(), ROW).summary_BD
    for slot in range(12):
        changed = tokens()
        changed[:, slot] += 1
        assert not torch.equal(model(changed, ROW).summary_BD, plain)


def test_a_causal_class_token_stands_at_the_end_and_in_the_last_segment():
    model = build()
    assert model.special_places(12) == (12,)
    assert model.attention == "causal"
    assert model.blocks[0].mixer.segments(13).size == 5  # a quarter would leave it alone in the last one


@torch.no_grad()
def test_without_positions_a_model_of_one_full_segment_does_not_see_the_order():
    blind = {"causal": False, "relative": False, "segment": 13}
    assert not build(**blind).order_sensitive
    assert build(**blind | {"segment": 12}).order_sensitive  # the class token alone in a second segment
    assert build(**blind | {"relative": True}).order_sensitive
    assert build(**blind | {"causal": True}).order_sensitive


def test_layers_share_u_v_and_distances_in_a_backbone_and_a_mixer_has_its_own():
    names = set(build(distances="learned").state_dict())
    assert {"relative.r_w_bias", "relative.r_r_bias", "relative.pos_emb"} < names
    assert not any(name.startswith("blocks.") and "relative" in name for name in names)
    alone = TransformerXLMixer(TransformerXLMixerSettings(heads=4), Context(GRID, width=16))
    assert set(alone.state_dict()) == {
        "qkv_net.weight",
        "o_net.weight",
        "r_net.weight",
        "relative.r_w_bias",
        "relative.r_r_bias",
    }
    without = TransformerXLMixer(TransformerXLMixerSettings(heads=4, relative=False), Context(GRID, width=16))
    assert set(without.state_dict()) == {"qkv_net.weight", "o_net.weight"}


def test_the_base_preset_has_the_papers_number_of_parameters():
    """93.76 M with patch embedding, positions of 14 x 14 places, and a head of 1,000 classes."""
    base = {"width": 768, "depth": 12, "heads": 12, "faithful": True, "distances": "learned", "dropout": 0.1}
    grid = Grid(14, 14)
    with torch.device("meta"):
        model = Model(TransformerXLBackbone(TransformerXLSettings(**base), Context(grid)), grid, 16, 3)
        head = torch.nn.Linear(768, 1000)
    count = sum(value.numel() for part in (model, head) for value in part.parameters())
    assert f"{count / 1e6:.2f}" == "93.76"


def authors_state(depth, D, H, inner):
    """Names and shapes of kimiyoung/transformer-xl, attn_type 0."""
    shapes = {"r_w_bias": (H, D // H), "r_r_bias": (H, D // H), "pos_emb.inv_freq": (D // 2,)}
    shapes |= {"word_emb.emb_layers.0.weight": (30, D), "crit.out_layers.0.weight": (30, D)}
    for k in range(depth):
        attention, forward = f"layers.{k}.dec_attn.", f"layers.{k}.pos_ff."
        shapes |= {attention + "qkv_net.weight": (3 * D, D), attention + "o_net.weight": (D, D)}
        shapes |= {attention + "r_net.weight": (D, D), attention + "layer_norm.weight": (D,)}
        shapes |= {attention + "layer_norm.bias": (D,), forward + "layer_norm.weight": (D,)}
        shapes |= {forward + "layer_norm.bias": (D,), forward + "CoreNet.0.weight": (inner, D)}
        shapes |= {forward + "CoreNet.0.bias": (inner,), forward + "CoreNet.3.weight": (D, inner)}
        shapes |= {forward + "CoreNet.3.bias": (D,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_weights_with_the_authors_names_load(tmp_path):
    theirs = authors_state(2, 16, 4, 64)
    torch.save(theirs, tmp_path / "model.pt")
    ours = build(weights=str(tmp_path / "model.pt")).state_dict()
    assert torch.equal(ours["blocks.1.mixer.qkv_net.weight"], theirs["layers.1.dec_attn.qkv_net.weight"])
    assert torch.equal(ours["blocks.0.mlp.fc2.bias"], theirs["layers.0.pos_ff.CoreNet.3.bias"])
    assert torch.equal(ours["blocks.0.norm2.weight"], theirs["layers.0.pos_ff.layer_norm.weight"])
    assert torch.equal(ours["relative.r_r_bias"], theirs["r_r_bias"])


def test_weights_of_the_released_code_load(tmp_path):
    theirs = authors_state(2, 16, 4, 64) | {"pos_emb.pos_emb": torch.randn(13, 16), "cls_token": torch.randn(1, 1, 16)}
    theirs |= {"head.head.0.weight": torch.randn(16), "head.head.0.bias": torch.randn(16)}
    theirs |= {"head.head.1.weight": torch.randn(10, 16), "coord_emb": torch.randn(12, 16)}
    torch.save({"model": theirs}, tmp_path / "model.pt")
    ours = build(faithful=True, distances="learned", weights=str(tmp_path / "model.pt")).state_dict()
    assert torch.equal(ours["relative.pos_emb"], theirs["pos_emb.pos_emb"])
    assert torch.equal(ours["norm.weight"], theirs["head.head.0.weight"])
    assert torch.equal(ours["cls_token"], theirs["cls_token"])


def test_weights_that_do_not_fit_are_refused_with_names_and_shapes(tmp_path):
    torch.save(authors_state(2, 16, 4, 32), tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"blocks.0.mlp.fc1.weight is \[32, 16\] and should be \[64, 16\]"):
        build(weights=str(tmp_path / "model.pt"))


def test_relative_shift_moves_the_row_of_query_i_left_by_its_distance_from_the_last():
    M, T = 2, 3
    distance_C = torch.arange(M + T - 1, -T - 1, -1)
    score_1TC = (100 * torch.arange(T)[:, None] + distance_C[None, :])[None].contiguous()
    shifted_TK = relative_shift(score_1TC, M + T)[0]
    for i in range(T):
        for j in range(M + T):
            assert shifted_TK[i, j] == 100 * i + M + i - j


def test_the_sinusoid_is_the_papers_also_for_an_odd_width():
    vectors_CD = sinusoid(torch.tensor([0, 5]), 7)
    assert vectors_CD.shape == (2, 7)
    assert torch.equal(vectors_CD[0], torch.tensor([0.0, 0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(vectors_CD[1, :2], torch.tensor([5.0, 5 * 10000 ** (-2 / 7)]).sin())


@pytest.mark.parametrize("readout", ["last", "mean"])
@torch.no_grad()
def test_padding_at_the_end_is_not_seen(readout):
    model = build(segment=4, readout=readout)
    valid_BN = torch.arange(12).expand(2, 12) < 9
    padded = model(tokens(), Layout(GRID, ROW.perm_GN, valid_BN=valid_BN)).summary_BD
    short = model(tokens()[:, :9], Layout.fixed(Grid(3, 3), torch.arange(9))).summary_BD
    torch.testing.assert_close(padded, short, rtol=0, atol=1e-5)
    assert padded.isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"norm": "pre"}, {"relative": False}, {"distances": "learned"}], ids=str)
@torch.no_grad()
def test_steps_with_a_cached_state_equal_the_forward_pass(settings):
    model = build(readout="last", segment=5, memory=3, **settings)
    expected_BND = model(tokens(), ROW).levels[0].tokens_BND
    state = model.init_state(2)
    for slot in range(12):
        output_BD, state = model.step(tokens()[:, slot], state)
        torch.testing.assert_close(output_BD, expected_BND[:, slot], rtol=0, atol=1e-5)
    assert state.layers[0].key_BJHE.shape[1] == 5  # slots 7 to 11: three remembered, two of the last segment


@pytest.mark.parametrize("settings", [{"causal": False, "readout": "last"}, {}], ids=str)
def test_no_steps_where_the_model_cannot_run_by_steps(settings):
    with pytest.raises(UsageError, match="only a causal transformer_xl without class token"):
        build(**settings).init_state(1)


@torch.no_grad()
def test_bfloat16_stays_near_float32():
    model = build()
    plain = model(tokens(), ROW).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(tokens(), ROW).summary_BD
    torch.testing.assert_close(cast.float(), plain, rtol=0.05, atol=0.05)
    whole = model.to(torch.bfloat16)(tokens().bfloat16(), ROW).summary_BD
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(whole.float(), plain, rtol=0.1, atol=0.1)


def test_gradients_under_autocast_stay_near_float32():
    model = build(segment=5)

    def gradients():
        features = model(tokens(), ROW)
        return torch.autograd.grad(features.levels[0].tokens_BND.float().cos().sum(), list(model.blocks.parameters()))

    plain = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradients()
    for one, other in zip(plain, cast, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).norm() <= 0.2 * one.norm() + 1e-3


@pytest.mark.parametrize("settings", [{}, {"norm": "pre", "causal": False}], ids=str)
def test_traces_without_a_graph_break_with_its_gradients(settings):
    model = build(depth=1, segment=4, readout="last", **settings).train()
    traced = torch.compile(model, fullgraph=True, backend="aot_eager")
    named = [value for name, value in model.named_parameters()]
    ours = torch.autograd.grad(traced(tokens(), ROW).levels[0].tokens_BND.cos().sum(), named)
    plain = torch.autograd.grad(model(tokens(), ROW).levels[0].tokens_BND.cos().sum(), named)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(NO_COMPILER, reason="torch.compile needs a C++ compiler on this machine")
def test_compiles_without_a_graph_break():
    model = build(depth=1, segment=5)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)
        torch.testing.assert_close(
            compiled(tokens(), ROW).summary_BD, model(tokens(), ROW).summary_BD, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("settings", [{}, {"norm": "pre", "causal": False, "relative": False}], ids=str)
def test_exports_with_a_fixed_order(settings):
    class Summary(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = build(depth=1, **settings)

        def forward(self, tokens_BND):
            return self.backbone(tokens_BND, ROW).summary_BD

    model = Summary()
    program = torch.export.export(model, (tokens(),), strict=False)
    torch.testing.assert_close(program.module()(tokens(seed=1)), model(tokens(seed=1)))


FACTS = RunFacts(DataFacts(12, 16, 1), GRID, 4, 8, "learned")


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        (
            {"segment": 20},
            "segment",
            "a segment of 20 tokens does not fit into a sequence of 13 (12 patches and 1 class",
        ),
        ({"segment": 13, "readout": "last"}, "segment", "sequence of 12 (12 patches): choose at most 12, or auto"),
        ({"segment": 6}, "segment", "the class token stands alone in the last one"),
        ({"segment": 6, "memory": 0}, "segment", "choose 7, or readout mean"),
        ({"segment": 11, "readout": "last"}, "segment", "the last patch, which is read, stands alone"),
        ({"heads": 5}, "heads", "a width of 192 is not divisible by 5 heads"),
        ({"class_position": "start"}, "class_position", "has read no patch yet at its first token"),
        ({"relative": False, "distances": "learned"}, "distances", "no distance to learn"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(settings, key, says):
    (problem,) = TransformerXLSettings(**settings).problems(FACTS)
    assert problem.key == key
    assert says in problem.message


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"segment": 13},
        {"segment": 6, "readout": "mean"},
        {"faithful": True, "class_position": "start"},
        {"causal": False},
    ],
    ids=str,
)
def test_settings_that_agree_are_none(settings):
    assert not list(TransformerXLSettings(**settings).problems(FACTS))


def test_what_cannot_be_is_refused_when_the_model_is_built():
    with pytest.raises(UsageError, match=r"backbone.segment: a segment of 40 tokens does not fit"):
        build(segment=40)
    with pytest.raises(UsageError, match="a width of 16 is not divisible by 5 heads"):
        build(heads=5)
    with pytest.raises(UsageError, match=r"a causal model has read no patch yet"):
        build(class_position="start")
    longer = Layout.fixed(Grid(5, 5), torch.arange(25))
    with pytest.raises(UsageError, match=r"distances: learned has vectors for 12 tokens behind and 0 ahead"):
        build(distances="learned", readout="last")(tokens(count=25), longer)
