"""A whole training step of a Mamba against timm's ViT of the same width and depth: images/s, side by side.

    python benchmarks/train_step_vs_vit.py [--threads 2] [--repeats 9] [--out train_step_vs_vit.md]

Forward, cross-entropy, backward and AdamW, on the same pictures in one process, the models in turn; medians, after one
warm-up step of each. Both ViT's and Mamba's tokens are cut from the picture by one convolution and have learned
positions; ViT reads its class token, Mamba its last one. Mamba runs with the compiled scan and with the eager one.

A Mamba block has half of a ViT block's parameters, so a Mamba of twice the depth stands beside the one of the same
depth. Two pictures: 32x32 in patches of 4 (64 tokens), as in the recipes here, and 224x224 in patches of 16 (196).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.compiled_scan import SWITCH, why_not
from reorder_mamba.settings import MambaSettings
from torch import Tensor, nn
from torch.nn import functional

from reorder_core import Context, Grid, Layout
from reorder_core.model import Model

CLASSES = 10
INPUTS = {(32, 4): 64, (224, 16): 16}  # pixels of a side and of a patch's side: pictures in a batch
Step = Callable[[], None]


class Classifier(nn.Module):
    """Mamba with a patch embedding, learned positions and a linear head; patches are read row by row."""

    def __init__(self, pixels: int, patch: int, width: int, depth: int) -> None:
        super().__init__()
        grid = Grid(pixels // patch, pixels // patch)
        context = Context(grid, width=width, generator=torch.Generator().manual_seed(0))
        backbone = MambaBackbone(MambaSettings(width=width, depth=depth), context)
        self.model = Model(backbone, grid, patch, channels=3)
        self.head = nn.Linear(width, CLASSES)
        self.layout = Layout.fixed(grid, torch.arange(grid.size))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.model(images_BCHW, self.layout).summary_BD)
        return logits_BK


def vit(pixels: int, patch: int, width: int, depth: int) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(
        img_size=pixels, patch_size=patch, embed_dim=width, depth=depth, num_heads=width // 64, num_classes=CLASSES
    )


def step_of(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, form: str) -> Step:
    """One training step as a call; `form` is the scan's."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def step() -> None:
        os.environ[SWITCH] = form
        functional.cross_entropy(model(images_BCHW), labels_B).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds_of(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Medians, the steps taking turns."""
    rows: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                rows[name].append(time.perf_counter() - start)
    return {name: statistics.median(row) for name, row in rows.items()}


def table(pixels: int, patch: int, batch: int, width: int, depth: int, repeats: int, threads: int) -> str:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, pixels, pixels, generator=draw)
    labels = torch.randint(CLASSES, (batch,), generator=draw)
    forms = ["eager"] if why_not() else ["compiled", "eager"]
    steps, sizes = {}, {}
    for name, model, used in (
        (f"timm's ViT, depth {depth}", vit(pixels, patch, width, depth), ["eager"]),
        (f"mamba, depth {depth}", Classifier(pixels, patch, width, depth), forms),
        (f"mamba, depth {2 * depth}", Classifier(pixels, patch, width, 2 * depth), forms),
    ):
        for form in used:
            title = name if model.__class__ is not Classifier else f"{name}, {form} scan"
            steps[title] = step_of(model, images, labels, form)
            sizes[title] = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    seconds = seconds_of(steps, repeats)
    of_vit = next(iter(seconds.values()))
    lines = [
        f"{pixels}x{pixels} in patches of {patch} ({(pixels // patch) ** 2} tokens), batch {batch}, width {width}, "
        f"float32, {threads} threads, torch {torch.__version__}, timm {timm.__version__}, {platform.machine()}",
        "",
        "| model | parameters, M | ms a step | images/s | of ViT's |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, took in seconds.items():
        lines.append(f"| {name} | {sizes[name]:.2f} | {took * 1e3:.1f} | {batch / took:.0f} | {of_vit / took:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tables = [
        table(pixels, patch, batch, given.width, given.depth, given.repeats, given.threads)
        for (pixels, patch), batch in INPUTS.items()
    ]
    text = "\n\n".join(tables)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
