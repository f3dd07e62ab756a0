"""The picture of a tokenizer: originals above reconstructions, and the codebook.

B images, C channels, H W pixels, K codes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reorder_core import written_aside
from reorder_tokenizers.learned import Learned
from reorder_tokenizers.usage import Usage

IMAGES = 10
_CODES = 1024  # shown at most, the most frequent ones
_DPI = 130


def draw(tokenizer: Learned, images_BCHW: NDArray[np.float32], usage: Usage, title: str, path: Path) -> Path:
    """Write a PNG: the first images, below each what its codes draw; then the codes, the most frequent first."""
    images_BCHW = images_BCHW[:IMAGES]
    pairs = sheet(np.concatenate([images_BCHW, tokenizer.reconstruct(images_BCHW)]), len(images_BCHW))
    order_K = np.argsort(-usage.count_K, kind="stable")[: min(_CODES, max(1, usage.used))]
    codes = sheet(tokenizer.code_patches()[order_K], max(16, math.ceil(math.sqrt(2.5 * len(order_K)))))
    tall = [10 * part.shape[0] / part.shape[1] for part in (pairs, codes)]
    figure = Figure(figsize=(10, sum(tall) + 1.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=tall)
    above.imshow(pairs, interpolation="nearest")
    above.set_title("originals above, reconstructions below", fontsize=9)
    below.imshow(codes, interpolation="nearest")
    shown = f"{len(order_K)} most frequent" if len(order_K) < usage.used else f"{usage.used} used"
    below.set_title(f"the codes, most frequent first ({shown} of {usage.codes})", fontsize=9)
    for axis in (above, below):
        axis.set_axis_off()
    figure.suptitle(title, fontsize=11)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=_DPI, format="png")
    return path


def sheet(images_BCHW: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Images side by side with a thin white line between them, row by row: [H, W, 3] in [0, 1]."""
    B, C, H, W = images_BCHW.shape
    gap = max(1, min(H, W) // 8)
    rows = math.ceil(B / columns)
    found = np.ones((rows * (H + gap) - gap, columns * (W + gap) - gap, 3), np.float32)
    for number, image_CHW in enumerate(images_BCHW):
        top, left = (H + gap) * (number // columns), (W + gap) * (number % columns)
        shown_CHW = image_CHW if C == 3 else image_CHW.mean(axis=0, keepdims=True)
        found[top : top + H, left : left + W] = shown_CHW.transpose(1, 2, 0)
    return found
