"""The segments at once, shifted, against the unshifted twin over all pairs and against the recurrence as published."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_transformer_xl.backbone import TransformerXLBackbone
from reorder_transformer_xl.mixer import TransformerXLMixer
from reorder_transformer_xl.reference import mixer_reference, recurrent_reference
from reorder_transformer_xl.settings import TransformerXLMixerSettings, TransformerXLSettings

from reorder_core import Context, Grid, Layout

WIDTH = 12


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def layout_of(count, special=(), valid_BN=None):
    return Layout(Grid(1, count), torch.arange(count)[None], special=special, valid_BN=valid_BN)


def build_mixer(count, special=0, class_sees_all=False, **given):
    torch.manual_seed(0)
    mixer = TransformerXLMixer(
        TransformerXLMixerSettings(**{"heads": 3} | given),
        Context(Grid(1, count), width=WIDTH),
        special=special,
        class_sees_all=class_sees_all,
    )
    return moved(mixer)


def moved(module):
    """Weights large enough that attention is far from uniform."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module


def tokens(L, B=2):
    return torch.randn(B, L, WIDTH, generator=torch.Generator().manual_seed(2)).requires_grad_()


def output_and_gradients(function, tokens_BLD, module, valid_BL=None):
    output = function(tokens_BLD)
    weight = torch.linspace(-1, 1, output.numel()).view_as(output)
    if valid_BL is not None:
        weight = weight * valid_BL.unsqueeze(-1)
        output = output * valid_BL.unsqueeze(-1)
    inputs = [tokens_BLD, *(value for value in module.parameters())]
    return output.detach(), torch.autograd.grad((output * weight).sum(), inputs)


def assert_equal(ours, twins):
    torch.testing.assert_close(ours, twins, rtol=1e-9, atol=1e-10)


SHAPES = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(0, 16)).filter(
    lambda drawn: drawn[1] <= drawn[0]
)


@given(SHAPES, st.booleans(), st.booleans(), st.sampled_from(["sinusoid", "learned"]), st.data())
@settings(max_examples=60, deadline=None)
def test_equals_the_unshifted_twin_in_value_and_gradient(shape, causal, relative, distances, data):
    """Any length, segment and memory; class tokens at any place; the last segment short; padding at the end."""
    L, segment, memory = shape
    place = data.draw(st.none() | st.integers(0, L - 1)) if L > 1 else None
    count, special = (L, ()) if place is None else (L - 1, (place,))
    valid_BN = None
    if data.draw(st.booleans()):
        valid_BN = torch.arange(count).expand(2, count) < torch.tensor([[max(1, count - 3)], [count]])
    if not relative:
        distances = "sinusoid"
    layout = layout_of(count, special, valid_BN)
    mixer = build_mixer(
        count, len(special), segment=segment, memory=memory, causal=causal, relative=relative, distances=distances
    )
    x, plan = tokens(L), mixer.plan(layout)
    assert_equal(
        output_and_gradients(lambda t: mixer(t, plan), x, mixer, layout.valid_BL),
        output_and_gradients(lambda t: mixer_reference(mixer, t, layout), x, mixer, layout.valid_BL),
    )


@pytest.mark.parametrize("distances", ["sinusoid", "learned"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_released_form_equals_its_twin(count, distances):
    """The class token sees all, with the row of the released code's shift."""
    layout = layout_of(count, (0,))
    mixer = build_mixer(count, 1, class_sees_all=True, faithful=True, distances=distances)
    x, plan = tokens(count + 1), mixer.plan(layout)
    assert_equal(
        output_and_gradients(lambda t: mixer(t, plan), x, mixer),
        output_and_gradients(lambda t: mixer_reference(mixer, t, layout), x, mixer),
    )


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("segment", "memory"), [(3, 5), (4, 2), (5, 100), ("auto", 128), (13, 4), (3, 0)])
def test_a_stack_equals_the_recurrence_segment_after_segment(norm, causal, segment, memory):
    """Three layers: each reads the memory of its own input, and the gradient stops there, in the norms too."""
    given = TransformerXLSettings(
        width=WIDTH, depth=3, heads=3, segment=segment, memory=memory, causal=causal, norm=norm, readout="mean"
    )
    backbone = moved(TransformerXLBackbone(given, Context(Grid(1, 13), generator=torch.Generator().manual_seed(0))))
    backbone.norm.requires_grad_(False)
    x, layout = tokens(13), layout_of(13)

    def ours(t):
        return backbone(t, layout).levels[0].tokens_BND

    module = torch.nn.ModuleList([backbone.blocks, *([backbone.relative] if backbone.relative else [])])
    assert_equal(
        output_and_gradients(ours, x, module),
        output_and_gradients(lambda t: backbone.norm(recurrent_reference(backbone, t)), x, module),
    )


@pytest.mark.parametrize("causal", [True, False])
def test_one_segment_without_memory_is_full_attention_with_relative_positions(causal):
    """Against torch's own attention, with the terms (b), (c) and (d) of section 3.3 as its bias."""
    from reorder_transformer_xl.distances import sinusoid

    L, H, E = 9, 3, WIDTH // 3
    mixer = build_mixer(L, segment=L, memory=0, causal=causal)
    x = tokens(L)
    q, k, v = mixer.qkv_net(x).view(2, L, 3, H, E).permute(2, 0, 3, 1, 4)
    place = torch.arange(L)
    distance_LL = place[:, None] - place[None, :]
    r_LLHE = mixer.r_net(sinusoid(distance_LL.flatten(), WIDTH).double()).view(L, L, H, E)
    u, v_bias = mixer.relative.r_w_bias[None, :, None], mixer.relative.r_r_bias[None, :, None]
    bias = (torch.einsum("bhie,ijhe->bhij", q + v_bias, r_LLHE) + u @ k.mT) / E**0.5
    if causal:
        bias = bias.masked_fill(distance_LL < 0, float("-inf"))
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    expected = mixer.o_net(full.transpose(1, 2).flatten(2))
    assert_equal(mixer(x, mixer.plan(layout_of(L))), expected)


def test_no_gradient_flows_through_the_memory_though_values_do():
    mixer = build_mixer(10, segment=4, memory=4)
    plan, x = mixer.plan(layout_of(10)), tokens(10)
    output = mixer(x, plan)
    (gradient,) = torch.autograd.grad(output[:, 4:8].square().sum(), x)
    assert torch.equal(gradient[:, :4], torch.zeros_like(gradient[:, :4]))
    assert gradient[:, 4:8].abs().amin() > 0
    changed = x.detach().clone()
    changed[:, 1] += 1
    with torch.no_grad():
        moved_by = (mixer(changed, plan) - mixer(x, plan)).abs().amax(dim=(0, 2))
    assert moved_by[1:8].min() > 1e-6
    assert torch.equal(moved_by[[0, 8, 9]], torch.zeros(3))


def test_the_weights_do_get_a_gradient_through_the_memory():
    mixer = build_mixer(8, segment=4, memory=4)
    x = tokens(8).detach()
    with_memory = torch.autograd.grad(mixer(x, mixer.plan(layout_of(8)))[:, 4:].square().sum(), mixer.qkv_net.weight)
    twin = torch.autograd.grad(mixer_reference(mixer, x, layout_of(8))[:, 4:].square().sum(), mixer.qkv_net.weight)
    torch.testing.assert_close(with_memory, twin)
    x[:, :4] = 0
    without = torch.autograd.grad(mixer(x, mixer.plan(layout_of(8)))[:, 4:].square().sum(), mixer.qkv_net.weight)
    assert not torch.allclose(with_memory[0], without[0])
