"""The Longformer: contract, global tokens, norms, weights, compile and export, refusals."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from reorder_longformer.backbone import LongformerBackbone
from reorder_longformer.mixer import LongformerMixer
from reorder_longformer.settings import LongformerMixerSettings, LongformerSettings
from reorder_longformer.sliding_window import choose_backend
from torch import nn

from reorder_core import Context, Grid, Layout, RunError, RunFacts, UsageError
from reorder_core.conformance import check_backbone, check_mixer
from reorder_core.settings import DataFacts

GRID = Grid(3, 5)
ROW = Layout.fixed(GRID, torch.arange(15))
SMALL = {"width": 32, "depth": 2, "heads": 2, "window": 4}
FACTS = RunFacts(DataFacts(12, 20, 1), GRID, 4, 8, "none")
ORDER = torch.randperm(15, generator=torch.Generator().manual_seed(1))


def build(seed=3, grid=GRID, **settings):
    generator = torch.Generator().manual_seed(seed)
    chosen = LongformerSettings(**(SMALL | settings))
    return LongformerBackbone(chosen, Context(grid, width=chosen.width, generator=generator)).eval()


def tokens(batch=2, count=15, width=32, seed=0):
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"readout": "mean"},
        {"class_position": "middle", "global_tokens": "none", "window": 2},
        {"readout": "last", "global_tokens": 3},
        {"global_tokens": "none", "dilation": 2},
        {"readout": "mean", "global_tokens": 3, "mlp_ratio": 0, "norm": "post", "width": 96},
    ],
    ids=str,
)
def test_holds_the_contract_of_backbones(settings):
    check_backbone("longformer", LongformerSettings(**(SMALL | settings)))


@pytest.mark.parametrize("settings", [{}, {"global_tokens": 2, "dilation": 2}], ids=str)
def test_holds_the_contract_of_mixers(settings):
    check_mixer("longformer", LongformerMixerSettings(heads=2, window=4, **settings))


@torch.no_grad()
def test_padding_is_not_seen():
    model = build(window=4)
    valid_BN = torch.arange(15).expand(2, 15) < 10
    changed = torch.where(valid_BN[:, :, None], tokens(), 7.0)
    one, two = (model(each, Layout(GRID, ROW.perm_GN, valid_BN=valid_BN)).summary_BD for each in (tokens(), changed))
    torch.testing.assert_close(one, two)
    short = model(tokens()[:, :10], Layout.fixed(Grid(2, 5), torch.arange(10))).summary_BD
    torch.testing.assert_close(one, short, rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_global_tokens_a_change_reaches_as_far_as_the_window():
    mixer = LongformerMixer(LongformerMixerSettings(heads=2, window=4, dilation=2), Context(GRID, width=32))
    plan = mixer.plan(ROW)
    changed = tokens().clone()
    changed[:, 7] += 1
    moved_N = (mixer(changed, plan) - mixer(tokens(), plan)).abs().amax((0, 2)) > 1e-6
    assert moved_N.nonzero()[:, 0].tolist() == [3, 5, 7, 9, 11]


@torch.no_grad()
def test_global_tokens_see_all_and_are_seen_by_all():
    mixer = LongformerMixer(LongformerMixerSettings(heads=2, window=2, global_tokens=8), Context(GRID, width=32))
    plan = mixer.plan(ROW)
    assert plan.places == (4, 12)
    for place, reached in ((4, set(range(15))), (9, {8, 9, 10, 4, 12})):
        changed = tokens().clone()
        changed[:, place] += 1
        moved_N = (mixer(changed, plan) - mixer(tokens(), plan)).abs().amax((0, 2)) > 1e-6
        assert set(moved_N.nonzero()[:, 0].tolist()) == reached


def test_special_tokens_are_global_and_keep_their_numbers_among_the_patches():
    mixer = LongformerMixer(LongformerMixerSettings(heads=2, window=2, global_tokens=5), Context(GRID, width=32))
    assert mixer.plan(ROW.with_special((0, 8))).places == (0, 3, 8, 9, 14)


@torch.no_grad()
def test_a_low_precision_run_is_near_float32():
    model = build(norm="post")
    exact = model(tokens(), ROW).summary_BD
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = model(tokens(), ROW).summary_BD
    assert (near.float() - exact).norm() <= 2e-2 * exact.norm()
    half = model.to(torch.bfloat16)(tokens().bfloat16(), ROW).summary_BD
    assert (half.float() - exact).norm() <= 3e-2 * exact.norm()


def test_the_papers_base_model_has_its_number_of_parameters():
    """107.68 M in the paper's table: patch embedding, class token, 12 layers, head; positions have none."""
    settings = LongformerSettings(width=768, depth=12, heads=12, window=14, norm="post")
    with torch.device("meta"):
        model = LongformerBackbone(settings, Context(Grid(14, 14), width=768))
        outside = nn.ModuleList([nn.Conv2d(3, 768, 16, 16), nn.Linear(768, 1000)])
    count = sum(values.numel() for part in (model, outside) for values in part.parameters())
    assert count == 107_677_672


@pytest.mark.parametrize("prefix", ["", "longformer."])
@torch.no_grad()
def test_published_weights_give_the_published_model(tmp_path, prefix):
    """Tokens through Hugging Face's whole encoder, and through ours with its weights."""
    from transformers import LongformerConfig, LongformerModel

    config = LongformerConfig(
        vocab_size=11,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        attention_window=4,
        max_position_embeddings=40,
        pad_token_id=1,
        layer_norm_eps=1e-5,  # as in the published models
    )
    theirs = LongformerModel(config).eval()
    torch.save({prefix + name: value for name, value in theirs.state_dict().items()}, tmp_path / "longformer.pt")
    model = build(norm="post", weights=str(tmp_path / "longformer.pt"))
    sequence_BLD = torch.cat([model.cls_token.expand(2, -1, -1), tokens()], dim=1)
    global_BL = torch.zeros(2, 16, dtype=torch.int64)
    global_BL[:, 0] = 1
    embedded_BLD = theirs.embeddings.LayerNorm(sequence_BLD)
    expected_BLD = theirs.encoder(embedded_BLD, attention_mask=global_BL, padding_len=0).last_hidden_state
    features = model(tokens(), ROW)
    torch.testing.assert_close(features.summary_BD, expected_BLD[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(features.levels[0].tokens_BND, expected_BLD[:, 1:], rtol=0, atol=1e-5)


def test_weights_of_another_shape_are_named(tmp_path):
    torch.save(build(depth=1, width=16).state_dict(), tmp_path / "small.pt")
    with pytest.raises(UsageError, match=r"blocks.0.norm1.weight is \[16\] and should be \[32\]"):
        build(depth=1, weights=str(tmp_path / "small.pt"))


def test_own_weights_come_back(tmp_path):
    torch.save(build(seed=5).state_dict(), tmp_path / "own.pt")
    model = build(weights=str(tmp_path / "own.pt"))
    assert torch.equal(model(tokens(), ROW).summary_BD, build(seed=5)(tokens(), ROW).summary_BD)


class Summary(nn.Module):
    """A backbone with its order baked in."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("perm_GN", ORDER[None])

    def forward(self, tokens_BND):
        layout = Layout(GRID, self.perm_GN)
        return self.backbone(layout.order(tokens_BND), layout).summary_BD


@pytest.mark.parametrize("settings", [{}, {"dilation": 2, "norm": "post", "global_tokens": 4}], ids=str)
def test_exports_with_a_fixed_order(settings):
    model = Summary(build(**settings)).eval()
    program = torch.export.export(model, (tokens(),), strict=False)
    torch.testing.assert_close(program.module()(tokens(seed=5)), model(tokens(seed=5)), rtol=0, atol=1e-5)
    kinds = {str(node.target).split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert not any("reorder" in kind for kind in kinds), "an exported graph must run without this package"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter's own making
def test_goes_to_onnx_with_its_order_as_a_constant(tmp_path):
    """With as many images as heads: the exporter's optimiser mistook one for the other in an earlier form."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed here")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed here")
    model = Summary(build(depth=1)).eval()
    torch.onnx.export(model, (tokens(),), tmp_path / "longformer.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "longformer.onnx")
    (summary,) = session.run(None, {session.get_inputs()[0].name: tokens(seed=5).numpy()})
    torch.testing.assert_close(torch.from_numpy(summary), model(tokens(seed=5)).detach(), rtol=0, atol=1e-5)


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler here")
def test_compiles_without_a_graph_break():
    model = build(depth=1)
    compiled = torch.compile(model, fullgraph=True)
    tokens_BND, twin_BND = tokens().requires_grad_(), tokens().requires_grad_()
    summary, expected = compiled(tokens_BND, ROW).summary_BD, model(twin_BND, ROW).summary_BD
    torch.testing.assert_close(summary, expected, rtol=0, atol=1e-5)
    summary.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(tokens_BND.grad, twin_BND.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"window": 16}, "window: a window of 16 slots is larger than the sequence of 15 patches: choose at most 15"),
        (
            {"window": 6, "dilation": 5},
            "window: a window of 6 slots, every 5 apart, reaches 15 to each side, which no token of a sequence of "
            "15 patches has: choose a smaller window or dilation",
        ),
        ({"heads": 5}, "heads: a width of 32 is not divisible by 5 heads: choose 4, or change the width"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(settings, sentence):
    (problem,) = LongformerSettings(**(SMALL | settings)).problems(FACTS)
    assert f"{problem.key}: {problem.message}" == sentence
    sentence = re.escape(problem.message)
    with pytest.raises(UsageError, match=sentence):
        build(**settings)


def test_a_mixer_whose_global_tokens_do_not_exist_says_so():
    mixer = LongformerMixer(
        LongformerMixerSettings(heads=2, window=4, global_tokens="special"), Context(GRID, width=32)
    )
    with pytest.raises(UsageError, match="no special tokens that could be global"):
        mixer.plan(ROW)


def test_flex_attention_by_name_is_refused_where_it_can_not_run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="there is no CUDA device here; choose attention_backend: auto or banded"):
        build(attention_backend="flex")
    with pytest.raises(RunError, match="needs tensors on a CUDA device, not on cpu; choose 'auto' or 'banded'"):
        choose_backend("flex", torch.device("cpu"), torch.float32, 16)


def test_auto_says_once_what_runs(caplog):
    from reorder_longformer import sliding_window

    sliding_window._say.cache_clear()
    with caplog.at_level("INFO", logger="reorder_longformer.sliding_window"):
        for _ in range(2):
            assert choose_backend("auto", torch.device("cpu"), torch.float32, 16) == "banded"
    assert [record.getMessage() for record in caplog.records] == [
        "sliding-window attention on cpu: banded, in pure torch"
    ]
