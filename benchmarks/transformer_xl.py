"""Transformer-XL's attention by length: against its unshifted twin over all pairs, and against full attention.

    OMP_NUM_THREADS=1 python benchmarks/transformer_xl.py [--repeats 5] [--lengths 256 1024 4096 16384]

One mixer, forward and backward, segments of 64 and a memory of 128. Three rivals take turns in one process: the room's
mixer; its twin `mixer_reference` (all L×L pairs, every distance written out; to 256 tokens, it needs L×L×D numbers);
and full causal attention with the same projections and no positions, in torch's fused kernel (to 4,096 tokens).
Peak memory is counted over the tensors that autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from reorder_transformer_xl.mixer import TransformerXLMixer
from reorder_transformer_xl.reference import mixer_reference
from reorder_transformer_xl.settings import TransformerXLMixerSettings
from rich.console import Console
from rich.table import Table
from torch import Tensor

from reorder_core import Context, Grid, Layout

WIDTH, HEADS, SEGMENT, MEMORY = 192, 3, 64, 128
TWIN_UP_TO, FULL_UP_TO = 256, 4096
TOKENS = 4096  # of a batch, so that every length does the same number of tokens, and at least one sequence

Rival = Callable[[Tensor], Tensor]


def full_attention(mixer: TransformerXLMixer, tokens_BLD: Tensor) -> Tensor:
    """Causal attention of all tokens to all before them, by content alone."""
    B, L, D = tokens_BLD.shape
    query, key, value = mixer.qkv_net(tokens_BLD).view(B, L, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
    mixed_BHLE = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    output: Tensor = mixer.o_net(mixed_BHLE.transpose(1, 2).reshape(B, L, D))
    return output


def rivals(length: int) -> dict[str, Rival]:
    grid = Grid(1, length)
    given = TransformerXLMixerSettings(heads=HEADS, segment=SEGMENT, memory=MEMORY)
    torch.manual_seed(0)
    mixer = TransformerXLMixer(given, Context(grid, width=WIDTH))
    bare = TransformerXLMixer(given.model_copy(update={"relative": False}), Context(grid, width=WIDTH))
    layout = Layout.fixed(grid, torch.arange(length))
    found: dict[str, Rival] = {
        "segments": lambda tokens_BLD: mixer(tokens_BLD, mixer.plan(layout)),
        "segments, no positions": lambda tokens_BLD: bare(tokens_BLD, bare.plan(layout)),
    }
    if length <= TWIN_UP_TO:
        found["twin"] = lambda tokens_BLD: mixer_reference(mixer, tokens_BLD, layout)
    if length <= FULL_UP_TO:
        found["full attention"] = lambda tokens_BLD: full_attention(mixer, tokens_BLD)
    return found


def step(rival: Rival, tokens_BLD: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    begin = time.perf_counter()
    rival(tokens_BLD).sum().backward()
    return time.perf_counter() - begin


def kept_megabytes(rival: Rival, tokens_BLD: Tensor) -> float:
    """What the forward pass keeps for the backward pass, each storage counted once."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = rival(tokens_BLD)
    del output
    return sum(kept.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="repetitions, of which the median is shown")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096, 16384], help="tokens of a sequence")
    given = parser.parse_args()
    title = f"width {WIDTH}, {HEADS} heads, segment {SEGMENT}, memory {MEMORY}; {platform.processor() or 'CPU'}"
    table = Table(
        "tokens", "images", "rival", "ms", "µs/token", "× segments", "kept, MB", "kept, kB/token", title=title
    )
    for length in given.lengths:
        batch = max(1, TOKENS // length)
        tokens_BLD = torch.randn(batch, length, WIDTH).requires_grad_()
        found = rivals(length)
        times: dict[str, list[float]] = {name: [] for name in found}
        for turn in range(given.repeats + 1):
            for name, rival in found.items():
                seconds = step(rival, tokens_BLD)
                if turn:
                    times[name].append(seconds)
        for name, rival in found.items():
            median, ours = statistics.median(times[name]), statistics.median(times["segments"])
            kept = kept_megabytes(rival, tokens_BLD)
            tokens = batch * length
            row = (f"{1e3 * median:,.1f}", f"{1e6 * median / tokens:.2f}", f"{median / ours:.2f}")
            table.add_row(f"{length:,}", str(batch), name, *row, f"{kept:,.1f}", f"{kept * 1024 / tokens:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
