"""The task `reconstruction`: patches are masked, and their pixels predicted.

B images, C channels, H W pixels, N patches, p side of a patch, P = p² · C pixels of a patch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reorder_core import Batch, Context, Draw, Features, Layout, TaskResult, UsageError, seeded
from reorder_core.patch_pixels import normalise_patches, patchify
from reorder_reconstruction.masks import Masks, covered
from reorder_reconstruction.metrics import ReconstructionMetrics
from reorder_reconstruction.settings import ReconstructionSettings

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


@dataclass(frozen=True, slots=True)
class Masked:
    """The target of a training batch. mask_BN: bool, True where a patch is masked."""

    mask_BN: Tensor


class Prediction(NamedTuple):
    """What was said of every patch, masked or not, in patch order; without gradient.

    said_BNP, true_BNP: float32, normalised where the settings say so. mask_BN: bool.
    """

    said_BNP: Tensor
    true_BNP: Tensor
    mask_BN: Tensor


class Reconstruction(nn.Module):
    """Masked image modelling by the pixels: SimMIM (Xie et al. 2022, arXiv 2111.09886, section 3) with the target of
    MAE (He et al. 2022, arXiv 2111.06377, section 3), in any order.

    A share of the patches is replaced *before* the patch embedding by one patch of learned pixels [C, p, p]. With a
    linear embedding that is SimMIM's mask token (published: a token after the embedding), and it needs nothing of the
    backbone, so that its weights serve any other task. Each token, back in its place on the grid, says the pixels of
    its patch; the loss of an image is the mean squared error over its masked patches. No target is read.
    """

    primary = "loss"
    higher_is_better = False
    batch_coupled = False

    def __init__(self, settings: ReconstructionSettings, context: Context) -> None:
        super().__init__()
        C, p = context.channels, context.patch
        if settings.normalise and p * p * C < 2:
            raise UsageError("task.normalise: a patch of one number has no variance: write normalise: false")
        if settings.block >= max(context.grid.rows, context.grid.columns):
            raise UsageError(
                f"task.block: one square of {settings.block} patches covers the whole grid of {context.grid}"
            )
        self.settings, self.grid, self.patch, self.width = settings, context.grid, p, context.width
        self.masks = Masks(context.grid, settings.mask, settings.block)
        fill_CPP = torch.zeros(C, p, p)
        self.fill_CPP: Tensor
        if settings.fill == "learned":
            self.fill_CPP = nn.Parameter(nn.init.trunc_normal_(fill_CPP, std=0.02, generator=context.generator))
            self.fill_CPP._no_weight_decay = True  # type: ignore[attr-defined]
        else:
            self.register_buffer("fill_CPP", fill_CPP, persistent=False)
        with seeded(context.generator):
            self.head: nn.Module = (
                nn.Linear(context.width, p * p * C)
                if settings.head == "linear"
                else Mlp(context.width, int(context.width * settings.mlp_ratio), p * p * C)
            )
            for module in self.head.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The same images, with fresh masks as their target."""
        mask_BN = self.masks.drawn(len(batch), generator).to(batch.images_BCHW.device)
        return replace(batch, target=Masked(mask_BN))

    def mask_of(self, batch: Batch) -> Tensor:
        """The masks that `prepare` drew; without them, those that an image has by its number; bool [B, N]."""
        if isinstance(batch.target, Masked):
            return batch.target.mask_BN
        return self.masks.of_images(batch.index_B).to(batch.images_BCHW.device)

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """One pass over the masked images, the pixels of every patch, the mean squared error of each image."""
        mask_BN = self.mask_of(batch)
        images_BCHW = covered(batch.images_BCHW, mask_BN, self.fill_CPP, self.grid)
        said_BNP = self.pixels_BNP(run(images_BCHW, order))
        true_BNP = patchify(batch.images_BCHW.float(), self.grid, self.patch)
        if self.settings.normalise:
            true_BNP = normalise_patches(true_BNP)
        counted_BN = mask_BN if self.settings.loss == "masked" else torch.ones_like(mask_BN)
        loss_B = mean_error(said_BNP, true_BNP, counted_BN)
        return TaskResult(loss_B, Prediction(said_BNP.detach(), true_BNP, mask_BN))

    def pixels_BNP(self, features: Features) -> Tensor:
        """What the tokens say, float32 in patch order.

        Raises `UsageError` for a backbone whose finest level merges patches, or is of another width than its last.
        """
        level = features.levels[0]
        if level.tokens_BND.shape[1] != self.grid.size:
            raise UsageError(
                f"reconstruction reads a token for each of the {self.grid.size} patches, and the finest level of this "
                f"backbone has {level.tokens_BND.shape[1]}: choose a backbone whose first level merges no patches"
            )
        if (width := level.tokens_BND.shape[-1]) != self.width:
            raise UsageError(
                f"reconstruction reads the finest level of the backbone, whose tokens have {width} numbers, and those "
                f"of its last level {self.width}: choose a backbone of one width (a hierarchy of equal widths)"
            )
        said_BNP: Tensor = self.head(level.layout.restore(level.tokens_BND))
        return said_BNP.float()

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """The loss of each image, float32 [B]; lower is better, 0 for a perfect prediction."""
        return result.loss_B.detach().float()

    def metrics(self) -> ReconstructionMetrics:
        """Fresh: `loss`, `baseline`, `explained`, and `psnr` where pixels are not normalised; on the task's device."""
        return ReconstructionMetrics(self.settings).to(self.fill_CPP.device)

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 8 images: as they are, masked, and with what was predicted; see `picture.draw_prediction`."""
        from reorder_reconstruction.picture import draw_prediction

        prediction: Any = result.prediction
        draw_prediction(batch.images_BCHW, prediction, self.grid, self.patch, self.settings.normalise, layout, path)


def mean_error(said_BNP: Tensor, true_BNP: Tensor, counted_BN: Tensor) -> Tensor:
    """The squared error of the counted patches of each image, mean over its own patches and their pixels, [B]."""
    error_BN = (said_BNP - true_BNP).square().mean(dim=-1)
    return (error_BN * counted_BN).sum(dim=1) / counted_BN.sum(dim=1)
