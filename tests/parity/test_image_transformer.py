"""Local attention against an explicit mask of all pairs: outputs and gradients, in the sequence and on the grid."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_image_transformer.mixer import ImageTransformerMixer
from reorder_image_transformer.reference import allowed_pairs, masked_attention
from reorder_image_transformer.settings import ImageTransformerMixerSettings
from torch.nn import functional

from reorder_core import Grid, Layout
from reorder_core.conformance import context
from reorder_core.conformance import permutations as permutations_of

examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def build(grid: Grid, heads: int = 2, **written) -> ImageTransformerMixer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        where = context(grid, width=4 * heads)
        return ImageTransformerMixer(ImageTransformerMixerSettings(heads=heads, **written), where).double()


def tokens(layout: Layout, width: int, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, layout.length, width, dtype=torch.float64, generator=draw).requires_grad_()


def all_pairs(mixer: ImageTransformerMixer, layout: Layout) -> torch.Tensor:
    """Who sees whom, [L, L], in the order of the sequence: the twin's pairs; special tokens see and are seen."""
    written, grid = mixer.settings, layout.grid
    N, patch = grid.size, layout.perm_GN[0].tolist()
    places = {
        "sequence": [(0, slot) for slot in range(N)],
        "grid": [divmod(slot, grid.columns) for slot in range(N)],
        "places": [divmod(patch[slot], grid.columns) for slot in range(N)],
    }[written.blocks]
    pairs = allowed_pairs(places, range(N), written.query_shape, written.memory_reach, written.causal)
    mask = torch.ones(layout.length, layout.length, dtype=torch.bool)
    where = torch.tensor(layout.patch_places())
    mask[where[:, None], where] = pairs
    return mask.tril() if written.causal else mask


def twin(mixer: ImageTransformerMixer, tokens_BLD: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = mixer.qkv(tokens_BLD).unflatten(2, (3, mixer.heads, -1)).permute(2, 0, 3, 1, 4)
    return mixer.proj(masked_attention(q, k, v, mask).transpose(1, 2).flatten(2))


def assert_equal(mixer, layout, ours, theirs, tokens_BLD, rows=slice(None)):
    torch.testing.assert_close(ours[rows], theirs[rows], rtol=1e-10, atol=1e-10)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    inputs = (tokens_BLD, *mixer.parameters())
    gradients = [torch.autograd.grad((y * weight)[rows].sum(), inputs) for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@st.composite
def cases(draw):
    grid = Grid(draw(st.integers(1, 6)), draw(st.integers(1, 7)))
    blocks = draw(st.sampled_from(["sequence", "grid", "places"]))
    whole = (grid.rows, grid.columns) if blocks != "sequence" else (1, grid.size)
    query = tuple(draw(st.integers(1, side)) for side in whole)
    memory = tuple(draw(st.integers(0, side)) for side in whole)
    if blocks == "sequence":
        query, memory = query[1], memory[1]
    layout = Layout.fixed(grid, torch.from_numpy(draw(permutations_of(grid.size))))
    special = draw(st.sets(st.integers(0, grid.size - 1), max_size=3))
    written = {"blocks": blocks, "query": query, "memory": memory, "causal": draw(st.booleans())}
    return layout.with_special(tuple(sorted(special))), draw(st.integers(1, 3)), written


@examples
@given(cases())
def test_equals_the_twin_in_value_and_gradient(case):
    layout, heads, written = case
    mixer = build(layout.grid, heads, **written)
    tokens_BLD = tokens(layout, 4 * heads)
    ours = mixer(tokens_BLD, mixer.plan(layout))
    assert_equal(mixer, layout, ours, twin(mixer, tokens_BLD, all_pairs(mixer, layout)), tokens_BLD)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("blocks", "query", "memory"), [("sequence", 4, 3), ("grid", (2, 3), (1, 1)), ("places", (2, 3), (1, 1))]
)
def test_padding_is_not_looked_at(blocks, query, memory, causal):
    grid = Grid(3, 5)
    mixer = build(grid, blocks=blocks, query=query, memory=memory, causal=causal)
    valid_BN = torch.arange(15) < torch.tensor([[15], [9]])
    plain = Layout.fixed(grid, torch.randperm(15, generator=torch.Generator().manual_seed(2))).with_special((4,))
    padded = dataclasses.replace(plain, valid_BN=valid_BN)
    tokens_BLD = tokens(plain, 8)
    ours = mixer(tokens_BLD, mixer.plan(padded))
    mask = all_pairs(mixer, plain) & padded.valid_BL[:, None, None, :]
    mask = mask | ~mask.any(dim=-1, keepdim=True)
    assert ours.isfinite().all()
    assert_equal(mixer, plain, ours, twin(mixer, tokens_BLD, mask), tokens_BLD, padded.valid_BL)


@pytest.mark.parametrize("causal", [False, True])
def test_an_order_for_each_image_moves_the_rectangles_of_each(causal):
    grid = Grid(4, 5)
    mixer = build(grid, blocks="places", query=(2, 2), memory=(1, 1), causal=causal)
    perm_GN = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(g)) for g in range(2)])
    together = Layout(grid, perm_GN, torch.tensor([1, 0])).with_special((0,))
    tokens_BLD = tokens(together, 8)
    ours = mixer(tokens_BLD, mixer.plan(together))
    alone = [Layout(grid, perm_GN[g : g + 1]).with_special((0,)) for g in (1, 0)]
    theirs = torch.cat([twin(mixer, tokens_BLD[b : b + 1], all_pairs(mixer, one)) for b, one in enumerate(alone)])
    assert_equal(mixer, together, ours, theirs, tokens_BLD)


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_as_long_as_the_sequence_is_full_attention(causal):
    grid = Grid(3, 4)
    mixer = build(grid, query=12, memory=0, causal=causal)
    layout = Layout.fixed(grid, torch.arange(12))
    tokens_BLD = tokens(layout, 8)
    q, k, v = mixer.qkv(tokens_BLD).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    full = functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixer(tokens_BLD, mixer.plan(layout)), mixer.proj(full))
    assert mixer.order_sensitive == causal


def test_the_papers_generation_order_is_an_ordering_that_runs_block_by_block():
    """2-D, causal: with blocks of places read one after the other, what is seen is the block so far and what was read
    above, to the left and to the right of it (Parmar et al. 2018, figure 2)."""
    grid = Grid(4, 4)
    order = [4 * (2 * R + r) + 2 * C + c for R in (0, 1) for C in (0, 1) for r in (0, 1) for c in (0, 1)]
    layout = Layout.fixed(grid, torch.tensor(order))
    mixer = build(grid, blocks="places", query=(2, 2), memory=(1, 1), causal=True)
    tokens_BLD = tokens(layout, 8, batch=1)
    seen = torch.autograd.grad(mixer(tokens_BLD, mixer.plan(layout))[0, -1].sum(), tokens_BLD)[0].abs().sum(-1)[0]
    patches = sorted(order[slot] for slot in range(16) if seen[slot] > 0)
    assert patches == [5, 6, 7, 9, 10, 11, 13, 14, 15]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_square_of_scores_is_kept(dtype):
    """What is saved for the backward pass grows with N × m, never with N × N."""
    grid, kept = Grid(1, 2048), []
    mixer = build(grid, query=32, memory=32).to(dtype)
    layout = Layout.fixed(grid, torch.arange(2048))
    tokens_BLD = tokens(layout, 8, batch=1).detach().to(dtype)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        mixer(tokens_BLD, mixer.plan(layout))
    assert max(kept) <= 2048 * 96 * 2
