"""Sparse attention against an explicit mask of all pairs, and BigBird's blocks against Hugging Face's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_sparse_transformer.big_bird import random_blocks
from reorder_sparse_transformer.mixer import SparseTransformerMixer
from reorder_sparse_transformer.reference import big_bird_set, fixed_sets, mask_of, masked_attention, strided_sets
from reorder_sparse_transformer.settings import SparseTransformerSettings

from reorder_core import Grid, Layout
from reorder_core.conformance import context

examples = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def build(grid: Grid, number: int = 0, heads: int = 2, **written) -> SparseTransformerMixer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chosen = SparseTransformerSettings(heads=heads, width=4 * heads, **written)
        return SparseTransformerMixer(chosen, context(grid, width=4 * heads), number, depth=2).double()


def tokens(layout: Layout, width: int, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, layout.length, width, dtype=torch.float64, generator=draw).requires_grad_()


def blocks_at_random(mixer: SparseTransformerMixer, grid: Grid) -> list[list[set[int]]]:
    """Of each head and block of the sequence (empty for global ones): its random blocks, as the mixer has them."""
    pattern = mixer._patterns(grid)[mixer.number]
    n, edges = -(-grid.size // pattern.block), pattern.global_blocks
    drawn = random_blocks(n, mixer.heads, edges, pattern.random_blocks, pattern.seed, torch.device("cpu"))
    return [[set()] * (edges > 0) + [set(row) for row in head] + [set()] * (edges > 1) for head in drawn.tolist()]


def sets_of(mixer: SparseTransformerMixer, grid: Grid) -> list[list[set[int]]]:
    """What each slot sees, a list for each head, by the papers' definitions."""
    written, N = mixer.settings, grid.size
    if written.pattern == "bigbird":
        block, (edges, _) = written.block, written.global_and_random
        return [
            [big_bird_set(i, N, block, edges, sorted(drawn[i // block])) for i in range(N)]
            for drawn in blocks_at_random(mixer, grid)
        ]
    stride = written.stride_on(grid)
    if written.pattern == "strided":
        both = [strided_sets(i, N, stride, written.causal) for i in range(N)]
    else:
        both = [fixed_sets(i, N, stride, written.summary, written.causal) for i in range(N)]
    first, second = [one for one, _ in both], [two for _, two in both]
    if written.factorised == "merged":
        return [[one | two for one, two in both]] * mixer.heads
    if written.factorised == "heads":
        return [first] * (mixer.heads // 2) + [second] * (mixer.heads // 2)
    return [(first, second)[mixer.number % 2]] * mixer.heads


def all_pairs(mixer: SparseTransformerMixer, layout: Layout) -> torch.Tensor:
    """Who sees whom, [H, L, L]: the sets, and special tokens that see and are seen."""
    L, sets = layout.length, sets_of(mixer, layout.grid)
    mask = torch.ones(mixer.heads, L, L, dtype=torch.bool)
    where = torch.tensor(layout.patch_places())
    mask[:, where[:, None], where] = torch.stack([mask_of(head) for head in sets])
    if not mixer.settings.causal:
        return mask
    mask = mask.tril()
    for head, seen in enumerate(sets):
        for i, place in enumerate(where.tolist()):
            if not seen[i] and any(special < place for special in layout.special):
                mask[head, place, place] = False  # it sees a special token, and so not itself
    return mask


def twin(mixer: SparseTransformerMixer, tokens_BLD: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = mixer.qkv(tokens_BLD).unflatten(2, (3, mixer.heads, -1)).permute(2, 0, 3, 1, 4)
    return mixer.proj(masked_attention(q, k, v, mask).transpose(1, 2).flatten(2))


def assert_equal(mixer, ours, theirs, tokens_BLD, rows=slice(None)):
    torch.testing.assert_close(ours[rows], theirs[rows], rtol=1e-10, atol=1e-10)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    inputs = (tokens_BLD, *mixer.parameters())
    gradients = [torch.autograd.grad((y * weight)[rows].sum(), inputs) for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def layouts(draw, grid: Grid) -> Layout:
    special = draw(st.sets(st.integers(0, grid.size - 1), max_size=3))
    return Layout.fixed(grid, torch.arange(grid.size)).with_special(tuple(sorted(special)))


@st.composite
def factorised(draw):
    grid = Grid(draw(st.integers(1, 5)), draw(st.integers(1, 7)))
    stride = draw(st.integers(1, grid.size))
    written = {
        "pattern": draw(st.sampled_from(["strided", "fixed"])),
        "stride": stride,
        "factorised": draw(st.sampled_from(["merged", "heads", "alternating"])),
        "causal": draw(st.booleans()),
    }
    if written["pattern"] == "fixed":
        written["summary"] = draw(st.integers(1, stride))
    heads = draw(st.sampled_from([2, 4] if written["factorised"] == "heads" else [1, 2, 3]))
    return layouts(draw, grid), heads, draw(st.integers(0, 1)), written


@st.composite
def big_birds(draw):
    block, edges, random = draw(st.integers(1, 4)), draw(st.integers(0, 2)), draw(st.integers(0, 3))
    slots = draw(st.integers(block * (2 + edges + random) + 1, block * (5 + edges + random)))
    written = {"pattern": "bigbird", "block": block, "global_blocks": edges, "random_blocks": random}
    written["seed"] = draw(st.integers(0, 9))
    return layouts(draw, Grid(1, slots)), draw(st.integers(1, 3)), draw(st.integers(0, 1)), written


@examples
@given(st.one_of(factorised(), big_birds()))
def test_equals_the_twin_in_value_and_gradient(case):
    layout, heads, number, written = case
    mixer = build(layout.grid, number, heads, **written)
    tokens_BLD = tokens(layout, 4 * heads)
    ours = mixer(tokens_BLD, mixer.plan(layout))
    assert_equal(mixer, ours, twin(mixer, tokens_BLD, all_pairs(mixer, layout)), tokens_BLD)


@pytest.mark.parametrize(
    "written",
    [
        {"pattern": "strided", "stride": 4},
        {"pattern": "strided", "stride": 4, "factorised": "heads", "causal": True},
        {"pattern": "fixed", "stride": 4, "summary": 2},
        {"pattern": "fixed", "stride": 4, "summary": 1, "factorised": "heads"},
        {"pattern": "bigbird", "block": 2, "global_blocks": 2, "random_blocks": 1},
    ],
)
@pytest.mark.parametrize("special", [(), (0,), (7,)])
def test_padding_is_not_looked_at(written, special):
    grid = Grid(3, 5)
    mixer = build(grid, **written)
    plain = Layout.fixed(grid, torch.arange(15)).with_special(special)
    padded = dataclasses.replace(plain, valid_BN=torch.arange(15) < torch.tensor([[15], [9]]))
    tokens_BLD = tokens(plain, 8)
    ours = mixer(tokens_BLD, mixer.plan(padded))
    mask = all_pairs(mixer, plain) & padded.valid_BL[:, None, None, :]
    mask = mask | (~mask.any(dim=-1, keepdim=True) & torch.eye(plain.length, dtype=torch.bool))
    assert ours.isfinite().all()
    assert_equal(mixer, ours, twin(mixer, tokens_BLD, mask), tokens_BLD, padded.valid_BL)


@pytest.mark.parametrize("random", [1, 2])
def test_bigbirds_blocks_are_hugging_faces(random, monkeypatch):
    """The same weights and the same random blocks (theirs are drawn anew at each pass, so ours are put in)."""
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    B, L, block, heads = 2, 44, 4, 2
    config = BigBirdConfig(
        hidden_size=8, num_attention_heads=heads, block_size=block, num_random_blocks=random, use_bias=True
    )
    theirs = BigBirdBlockSparseAttention(config, seed=0).double()
    grid = Grid(1, L)
    mixer = build(grid, heads=heads, pattern="bigbird", block=block, global_blocks=2, random_blocks=random, seed=5)
    mixer.proj = torch.nn.Identity()
    drawn = [np.array([sorted(row) for row in head[1:-1]]) for head in blocks_at_random(mixer, grid)]
    monkeypatch.setattr(theirs, "_bigbird_block_rand_mask_with_head", lambda **_: drawn)
    with torch.no_grad():
        for linear, part in zip((theirs.query, theirs.key, theirs.value), range(3), strict=True):
            linear.weight.copy_(mixer.qkv.weight.unflatten(0, (3, 8))[part])
            linear.bias.copy_(mixer.qkv.bias.unflatten(0, (3, 8))[part])
    layout = Layout.fixed(grid, torch.arange(L))
    tokens_BLD = tokens(layout, 8, B)
    blocked, band, from_mask, to_mask = BigBirdModel.create_masks_for_block_sparse_attn(
        torch.ones(B, L, dtype=torch.float64), block
    )
    y_theirs = theirs(tokens_BLD, band, from_mask, to_mask, blocked, blocked)[0]
    y_ours = mixer(tokens_BLD, mixer.plan(layout))
    torch.testing.assert_close(y_ours, y_theirs, rtol=1e-10, atol=1e-10)
    weight = torch.linspace(-1, 1, y_ours.numel(), dtype=torch.float64).view_as(y_ours)
    ours, others = (torch.autograd.grad((y * weight).sum(), tokens_BLD)[0] for y in (y_ours, y_theirs))
    torch.testing.assert_close(ours, others, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_every_earlier_slot_is_reached_in_two_steps(pattern):
    """Child et al. 2019, section 4.2: what makes a factorisation a valid one."""
    N, stride = 30, 6
    if pattern == "strided":
        both = [strided_sets(i, N, stride, causal=True) for i in range(N)]
    else:
        both = [fixed_sets(i, N, stride, 1, causal=True) for i in range(N)]
    first, second = (mask_of([sets[part] for sets in both]).float() for part in (0, 1))
    reached = (first + second + second @ first) > 0
    assert torch.equal(reached, torch.ones(N, N, dtype=torch.bool).tril())


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ({"pattern": "strided", "stride": 45}, 3 * 45 + 46),
        ({"pattern": "fixed", "stride": 45, "summary": 1}, 45 + 46),
        ({"pattern": "bigbird", "block": 32}, 7 * 32),
    ],
)
def test_no_square_of_scores_is_kept(written, seen):
    """What is saved for the backward pass grows with N × √N (bigbird: N), never with N × N."""
    grid, kept = Grid(1, 2048), []
    mixer = build(grid, **written)
    layout = Layout.fixed(grid, torch.arange(2048))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        mixer(tokens(layout, 8, batch=1), mixer.plan(layout))
    assert max(kept) <= mixer.heads * 2100 * max(seen, 4)
