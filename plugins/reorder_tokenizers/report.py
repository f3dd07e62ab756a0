"""What a training comes to: how many codes are used, and how much of the images they keep.

B images, C channels, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from reorder_core.pixels import Pixels
from reorder_tokenizers.learned import Learned
from reorder_tokenizers.source import batches
from reorder_tokenizers.training import decibels
from reorder_tokenizers.usage import Usage

_AT_ONCE = 64


@dataclass(frozen=True)
class Figures:
    """usage: of the training images. psnr: in dB, over all pixels of `measured` images; infinite without any error.

    held_out: whether those images took no part in the training. skipped: images that could not be read.
    """

    usage: Usage
    psnr: float
    measured: int
    held_out: bool
    images: int
    skipped: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """`psnr` is null where there is no error at all."""
        return {
            "used": self.usage.used,
            "perplexity": self.usage.perplexity,
            "psnr": self.psnr if math.isfinite(self.psnr) else None,
            "measured": self.measured,
            "held_out": self.held_out,
            "images": self.images,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "warning": self.usage.warning,
        }


def psnr(tokenizer: Learned, images: Pixels) -> tuple[float, int]:
    """(dB of the mean squared error over all pixels, how many images could be read)."""
    total, pixels, count = 0.0, 0, 0
    for images_BCHW in batches(images, _AT_ONCE):
        error_BCHW = tokenizer.reconstruct(images_BCHW) - images_BCHW
        total += float(np.square(error_BCHW, dtype=np.float64).sum())
        pixels += error_BCHW.size
        count += len(images_BCHW)
    return decibels(total / max(pixels, 1)), count


def print_figures(figures: Figures, tokenizer: Learned, file: Path, picture: Path, console: Console) -> None:
    """A small table, and where things were written."""
    usage, of = figures.usage, "images kept aside" if figures.held_out else "images it was trained on"
    table = Table("what", "value", title=f"{tokenizer.kind}, {tokenizer.context.patch} pixels a patch", box=None)
    skipped = f" ({figures.skipped} unreadable, skipped)" if figures.skipped else ""
    table.add_row("images", f"{figures.images}{skipped}")
    table.add_row("codes used", f"{usage.used} of {usage.codes} ({usage.used / usage.codes:.1%})")
    table.add_row("perplexity", f"{usage.perplexity:.1f}")
    shown = f"{figures.psnr:.2f} dB" if math.isfinite(figures.psnr) else "no error at all"
    table.add_row("reconstruction PSNR", f"{shown}, over {figures.measured} {of}")
    table.add_row("seconds", f"{figures.seconds:.1f}")
    console.print(table)
    if usage.warning is not None:
        console.print(f"warning: {usage.warning}", style="yellow", markup=False)
    console.print(f"wrote {file} and {picture}", markup=False, soft_wrap=True)
    console.print(f"use it: {{name: {tokenizer.kind}, path: {file}}}", markup=False, soft_wrap=True)
