"""Sliding-window attention against Hugging Face's Longformer and against every score with a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_longformer import banded as module
from reorder_longformer.banded import banded, banded_backward
from reorder_longformer.mixer import LongformerMixer
from reorder_longformer.reference import sliding_window_attention_reference, window_mask
from reorder_longformer.settings import LongformerMixerSettings
from reorder_longformer.sliding_window import sliding_window_attention

from reorder_core import Context, Grid, Layout


def heads(B, H, L, E, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, L, E, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]


def output_and_gradients(function, tensors, *how, **more):
    output = function(*tensors, *how, **more)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output.detach(), *torch.autograd.grad((output * weight).sum(), tensors)


@st.composite
def patterns(draw):
    L = draw(st.integers(1, 90))
    window = 2 * draw(st.integers(1, 12))
    dilation = draw(st.integers(1, 5))
    places = draw(st.sets(st.integers(0, L - 1), max_size=min(L, 4)))
    padding = draw(st.sets(st.integers(0, L - 1), max_size=L // 2)) - places
    return L, window, dilation, sorted(places), sorted(padding)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(patterns())
def test_equals_the_twin_in_value_and_gradient(pattern):
    L, window, dilation, places, padding = pattern
    valid_BL = None
    if padding:
        valid_BL = torch.ones(2, L, dtype=torch.bool)
        valid_BL[1, padding] = False
    tensors = heads(2, 3, L, 4)
    ours = output_and_gradients(sliding_window_attention, tensors, window, dilation, places, valid_BL)
    twins = output_and_gradients(sliding_window_attention_reference, tensors, window, dilation, places, valid_BL)
    torch.testing.assert_close(ours, twins, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tile", [1, 1 << 12, 1 << 30])
def test_tiles_of_any_size_give_the_same(monkeypatch, tile):
    monkeypatch.setattr(module, "TILE", tile)
    tensors = heads(3, 4, 75, 8)
    ours = output_and_gradients(sliding_window_attention, tensors, 10, 2, [0, 7])
    twins = output_and_gradients(sliding_window_attention_reference, tensors, 10, 2, [0, 7])
    torch.testing.assert_close(ours, twins, rtol=1e-10, atol=1e-10)


def test_a_window_over_everything_is_full_attention():
    tensors = heads(2, 2, 21, 8)
    full = torch.nn.functional.scaled_dot_product_attention
    ours = output_and_gradients(sliding_window_attention, tensors, 40)
    torch.testing.assert_close(ours, output_and_gradients(full, tensors), rtol=1e-10, atol=1e-10)


def test_the_twins_mask_is_the_papers_pattern():
    mask_LL = window_mask(7, window=4, dilation=2, global_places=[3])
    rows = ["".join(".x"[seen] for seen in row) for row in mask_LL.int().tolist()]
    assert rows == [
        "x.xxx..",
        ".x.x.x.",
        "x.x.x.x".replace("x.x.x", "x.xxx"),
        ".x.x.x.",
        "x.xxx.x",
        ".x.x.x.",
        "..xxx.x",
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    half = [tensor.detach().to(dtype).requires_grad_() for tensor in heads(2, 2, 80, 8)]
    single = [tensor.detach().float().requires_grad_() for tensor in half]
    ours = output_and_gradients(sliding_window_attention, half, 6, 1, [0])
    exact = output_and_gradients(sliding_window_attention, single, 6, 1, [0])
    assert all(tensor.dtype == dtype for tensor in ours)
    torch.testing.assert_close(ours[0], exact[0].to(dtype))


def test_gradients_under_autocast_are_those_of_float32_scores():
    """With large scores, sums over scores of half precision would not belong to the weights of the backward pass."""
    generator = torch.Generator().manual_seed(0)
    exact = [(torch.randn(2, 2, 40, 16, generator=generator) * 3).bfloat16().double().requires_grad_() for _ in "qkv"]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    twins = torch.autograd.grad(sliding_window_attention_reference(*exact, 8).square().sum(), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output_BHLE = sliding_window_attention(*half, 8, backend="banded")
    found = torch.autograd.grad(output_BHLE.double().square().sum(), half)
    for one, twin in zip(found, twins, strict=True):
        assert (one.double() - twin).norm() <= 0.02 * twin.norm()


def test_what_is_kept_in_inference_mode_serves_training():
    exact = [torch.randn(1, 1, 37, 8, dtype=torch.float64) for _ in "qkv"]
    with torch.inference_mode():
        before = sliding_window_attention(*exact, 6, backend="banded")
    query = exact[0].requires_grad_()
    after = sliding_window_attention(*exact, 6, backend="banded")
    assert torch.equal(before, after.detach())
    assert torch.autograd.grad(after.sum(), query)[0].isfinite().all()


def test_extreme_scores_stay_finite():
    tensors = [1e3 * tensor.detach().float() for tensor in heads(1, 2, 70, 8)]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    for values in output_and_gradients(sliding_window_attention, tensors, 6, 1, [0]):
        assert values.isfinite().all()


def test_operators_hold_to_torchs_rules_for_operators():
    query, key, value = (tensor.detach().transpose(1, 2).requires_grad_() for tensor in heads(2, 2, 40, 4))
    valid_BL = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) > 0.2
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(banded, (query, key, value, valid_BL, 6, 2, [0, 5]), test_utils=tests)
    plain = [tensor.detach() for tensor in (query, key, value)]
    out_BLHE, log_BHt = banded(*plain, None, 6, 2, [0, 5])
    arguments = (out_BLHE, *plain, log_BHt, None, 6, 2, [0, 5])
    torch.library.opcheck(banded_backward, arguments, test_utils=("test_schema", "test_faketensor"))


def test_memory_is_linear_in_the_length():
    """What is kept for the backward pass, and the largest buffer, grow with L and not with L x L."""
    for L in (1100, 2200):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):  # noqa: B023
            sliding_window_attention(*heads(1, 1, L, 4, torch.float32), 8, 1, [0])
        assert max(kept) == 4 * L


def their_attention(window, dtype):
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=32, num_attention_heads=4, attention_window=[window], attention_probs_dropout_prob=0.0
    )
    return LongformerSelfAttention(config, layer_id=0).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [0, 2])  # of more, their gradients are NaN: rows without any key
@pytest.mark.parametrize("places", [(), (0,), (0, 3, 11), tuple(range(0, 24, 2))])
@pytest.mark.parametrize("window", [4, 12])
def test_equals_hugging_faces_attention_with_its_weights(window, places, padding, dtype):
    """Outputs and gradients of tokens and weights, with few and with many global tokens (two ways to compute them)."""
    torch.manual_seed(0)
    theirs = their_attention(window, dtype)
    chosen = LongformerMixerSettings(heads=4, window=window, global_tokens="special" if places else "none")
    ours = LongformerMixer(chosen, Context(Grid(1, 24 - len(places) or 1), width=32)).to(dtype)
    state = {name: value for name, value in theirs.state_dict().items() if places or "global" not in name}
    left = ours.load_state_dict(state, strict=False)
    assert left.missing_keys == ["proj.weight", "proj.bias"]
    assert not left.unexpected_keys

    L = 24
    valid_BL = torch.ones(2, L, dtype=torch.bool)
    valid_BL[1, L - padding :] = padding == 0
    valid_BL[:, list(places)] = True
    how_BL = torch.where(valid_BL, 0.0, -10000.0)
    how_BL[:, list(places)] = 10000.0
    patches = [place for place in range(L) if place not in places]
    layout = Layout(
        Grid(1, len(patches)),
        torch.arange(len(patches))[None],
        special=places,
        valid_BN=valid_BL[:, patches] if padding else None,
    )

    tokens_BLD = torch.randn(2, L, 32, dtype=dtype, requires_grad=True)
    (expected_BLD,) = theirs(tokens_BLD, how_BL, how_BL < 0, how_BL > 0, bool(places))
    mixed_BLD = ours.mix(tokens_BLD, ours.plan(layout))
    tolerance = 1e-5
    torch.testing.assert_close(mixed_BLD, expected_BLD, rtol=0, atol=tolerance)

    weight_BLD = torch.randn(2, L, 32, dtype=dtype) / 32
    own = dict(ours.named_parameters())
    named = [(value, own[name]) for name, value in theirs.named_parameters() if name in own]
    expected = torch.autograd.grad((expected_BLD * weight_BLD).sum(), [tokens_BLD, *(pair[0] for pair in named)])
    gradients = torch.autograd.grad((mixed_BLD * weight_BLD).sum(), [tokens_BLD, *(pair[1] for pair in named)])
    torch.testing.assert_close(gradients, expected, rtol=0, atol=tolerance)


def test_flex_attentions_mask_is_the_same_pattern():
    """Its blocks and its rule, looked at without computing anything: on a CPU flex attention is no faster form."""
    from reorder_longformer.flex import BLOCK, flex_mask

    L, window, dilation, places = 300, 40, 3, [0, 290]
    mask = flex_mask(L, window, dilation, places, None, torch.device("cpu"))
    place = torch.arange(L)
    rule_LL = mask.mask_mod(torch.tensor(0), torch.tensor(0), place[:, None], place[None])
    expected_LL = window_mask(L, window, dilation, places)
    assert torch.equal(rule_LL, expected_LL)
    blocks_nn = mask.to_dense()[0, 0].bool()
    reached_LL = blocks_nn.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:L, :L]
    assert not (expected_LL & ~reached_LL).any(), "a block that is looked at must be listed"
    assert not blocks_nn.all() or L <= 3 * BLOCK


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same_values():
    from reorder_longformer.flex import flex_attention, flex_mask

    query, key, value = (tensor.detach() for tensor in heads(2, 2, 140, 16, torch.float32))
    valid_BL = torch.arange(140).expand(2, 140) < torch.tensor([[140], [100]])
    mask = flex_mask(140, 12, 2, [0], valid_BL, torch.device("cpu"))
    flexed = flex_attention(query, key, value, block_mask=mask).masked_fill(~valid_BL[:, None, :, None], 0)
    expected = sliding_window_attention(query, key, value, 12, 2, [0], valid_BL)
    torch.testing.assert_close(flexed, expected, rtol=0, atol=1e-5)
