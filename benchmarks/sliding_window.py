"""Time and memory of sliding-window attention on a CPU, forward and backward.

    python benchmarks/sliding_window.py core      # the banded form against SDPA with a mask
    python benchmarks/sliding_window.py module    # the Longformer's attention against Hugging Face's
    python benchmarks/sliding_window.py growth    # time a token and peak memory, 256 to 16,384 tokens

Both sides run in one process, in turn, on the same float32 inputs (`--threads`); times are medians of `--repeats`,
after one pass that is not counted. The class token, at the start, is global. Hugging Face's attention wants a multiple
of the window, so it gets the tokens filled up and masked as its model does; ours computes the same without the last
projection. Peak memory is that of a process of its own for each length: the highest resident set (VmHWM of
/proc/self/status, Linux) while one pass runs, less the resident set just before.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reorder_longformer.mixer import LongformerMixer
from reorder_longformer.reference import window_mask
from reorder_longformer.settings import LongformerMixerSettings
from reorder_longformer.sliding_window import sliding_window_attention
from torch import Tensor
from torch.nn import functional

from reorder_core import Context, Grid, Layout

Way = Callable[[], tuple[Tensor, ...]]
LENGTHS = {"core": (257, 1025, 4097), "module": (197, 1025), "growth": (256, 512, 1024, 2048, 4096, 8192, 16384)}


def core(given: argparse.Namespace, length: int, against: bool = True) -> dict[str, Way]:
    """One pass each, forward and backward, of the attention alone; its inputs lie as linear layers leave them."""
    draw = torch.Generator().manual_seed(0)
    shape = (given.batch, length, given.heads, given.head_width)
    tensors = [torch.randn(shape, generator=draw).transpose(1, 2).requires_grad_() for _ in range(3)]
    out_grad = torch.randn(shape, generator=draw).transpose(1, 2)

    def ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(sliding_window_attention(*tensors, given.window, 1, (0,)), tensors, out_grad)

    if not against:
        return {"banded": ours}
    mask_LL = window_mask(length, given.window, 1, (0,))

    def masked() -> tuple[Tensor, ...]:
        output = functional.scaled_dot_product_attention(*tensors, attn_mask=mask_LL)
        return torch.autograd.grad(output, tensors, out_grad)

    return {"banded": ours, "SDPA with a mask": masked}


def module(given: argparse.Namespace, length: int) -> dict[str, Way]:
    """One pass each, forward and backward, of the attention with its projections, without the last one."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    width, filled = given.heads * given.head_width, -(-length // given.window) * given.window
    config = LongformerConfig(
        hidden_size=width,
        num_attention_heads=given.heads,
        attention_window=[given.window],
        attention_probs_dropout_prob=0.0,
    )
    theirs = LongformerSelfAttention(config, layer_id=0)
    settings = LongformerMixerSettings(heads=given.heads, window=given.window, global_tokens="special")
    grid = Grid(1, length - 1)
    ours = LongformerMixer(settings, Context(grid, width=width))
    ours.load_state_dict(theirs.state_dict(), strict=False)
    plan = ours.plan(Layout.fixed(grid, torch.arange(length - 1)).with_special((0,)))
    tokens_BLD = torch.randn(given.batch, length, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    how_BL = torch.zeros(given.batch, filled)
    how_BL[:, 0], how_BL[:, length:] = 10000.0, -10000.0
    own = [*(value for name, value in ours.named_parameters() if not name.startswith("proj")), tokens_BLD]

    def run_ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(ours.mix(tokens_BLD, plan).sum(), own)

    def run_theirs() -> tuple[Tensor, ...]:
        filled_BLD = functional.pad(tokens_BLD, (0, 0, 0, filled - length))
        (output_BLD,) = theirs(filled_BLD, how_BL, how_BL < 0, how_BL > 0, True)
        return torch.autograd.grad(output_BLD[:, :length].sum(), [*theirs.parameters(), tokens_BLD])

    return {"ours": run_ours, "Hugging Face": run_theirs}


def seconds(ways: dict[str, Way], repeats: int) -> dict[str, float]:
    """The median of each way, taken in turn."""
    rows: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                rows[name].append(time.perf_counter() - start)
    return {name: statistics.median(row) for name, row in rows.items()}


def resident(key: str) -> float:
    """A size of this process in MiB, as the kernel counts it."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def print_peak(given: argparse.Namespace) -> None:
    """MiB that one pass adds; run in a process of its own."""
    core(given, 64, against=False)["banded"]()  # what torch sets up at its first pass does not count
    way = core(given, given.peak, against=False)["banded"]
    before = resident("VmRSS")
    way()
    print(resident("VmHWM") - before)


def peak(given: argparse.Namespace, length: int) -> str:
    if not Path("/proc/self/status").exists():
        return "n/a"
    numbers = {name: getattr(given, name) for name in ("threads", "batch", "heads", "head_width", "window")}
    options = [part for name, value in numbers.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, __file__, "growth", "--peak", str(length), *options]
    return f"{float(subprocess.run(command, check=True, capture_output=True, text=True).stdout):.0f}"


def compared(given: argparse.Namespace) -> list[str]:
    make = core if given.what == "core" else module
    lines = ["| tokens | way | ms | times ours | us a token |", "|---:|---|---:|---:|---:|"]
    for length in given.lengths:
        times = seconds(make(given, length), given.repeats)
        own = next(iter(times.values()))
        lines += [
            f"| {length} | {name} | {1e3 * taken:.1f} | {taken / own:.2f} | {1e6 * taken / length:.1f} |"
            for name, taken in times.items()
        ]
    return lines


def growth(given: argparse.Namespace) -> list[str]:
    ways = {str(length): core(given, length, against=False)["banded"] for length in given.lengths}
    times = seconds(ways, given.repeats)
    lines = ["| tokens | ms | us a token | peak MiB |", "|---:|---:|---:|---:|"]
    for length in given.lengths:
        taken = times[str(length)]
        lines.append(f"| {length} | {1e3 * taken:.1f} | {1e6 * taken / length:.1f} | {peak(given, length)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=LENGTHS)
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-width", type=int, default=64)
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print_peak(given)
        return
    given.lengths = given.lengths or LENGTHS[given.what]
    head = (
        f"{given.what}: {given.batch} images, {given.heads} heads of {given.head_width}, window {given.window}, "
        f"float32, forward and backward, {given.threads} threads, torch {torch.__version__}, {platform.machine()}"
    )
    text = "\n".join([head, "", *(growth(given) if given.what == "growth" else compared(given))])
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
