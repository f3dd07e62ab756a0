"""The task `arm_pretraining`: predict the next cluster of patches in the order that is given.

B images, C channels, H W pixels, N patches or slots, K patches of a cluster, M = N - K slots that are predicted,
P pixels of a patch (side² × C), D width of the backbone, E width of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torchmetrics import MeanMetric

from reorder_arm.settings import ArmPretrainingSettings
from reorder_core import Batch, Context, Draw, Features, Layout, TaskResult, UsageError, uneven_heads
from reorder_core.model import sincos2d
from reorder_core.patch_pixels import normalise_patches, patchify

if TYPE_CHECKING:
    from reorder_core.interfaces.task import Run


def sees_NN(N: int, cluster: int) -> Tensor:
    """Which slots the prediction of a slot may look at, bool [N, N]: those of all clusters before its own."""
    of_N = torch.arange(N) // cluster
    return of_N[None, :] < of_N[:, None]


class Prediction(NamedTuple):
    """pixels_BMP: normalised pixels, predicted for the slots from the second cluster on. layout: of the batch."""

    pixels_BMP: Tensor
    layout: Layout


class DecoderBlock(nn.Module):
    """Queries look at the backbone's tokens (there is no self-attention), then an MLP; pre-norm, with residuals."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_query, self.norm_token, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, queries_BME: Tensor, tokens_BSE: Tensor, hidden_MS: Tensor) -> Tensor:
        tokens_BSE = self.norm_token(tokens_BSE)
        queries = self.norm_query(queries_BME)
        seen_BME, _ = self.attention(queries, tokens_BSE, tokens_BSE, attn_mask=hidden_MS, need_weights=False)
        queries_BME = queries_BME + seen_BME
        output_BME: Tensor = queries_BME + self.mlp(self.norm_mlp(queries_BME))
        return output_BME


class ArmPretraining(nn.Module):
    """Autoregressive pretraining (Ren et al., arXiv 2406.07537, section 3.2), in any order.

    K patches that follow each other in the order are a cluster. A query for every patch from the second cluster on,
    one learned vector and the position of that patch, looks at the backbone's tokens of all clusters before, and says
    its pixels, each patch normalised; the loss of an image is the mean squared error over all that is predicted. The
    backbone must be causal, or it would have seen what it is asked. With a soft order, pixels are in the hard one.

    Published: clusters are squares of 4 × 4 patches row by row; here they follow the order. The last cluster is not
    read by anything, there it is left out of the backbone's input. Each decoder block reads its own projection of the
    tokens of four depths; here of `levels` of the backbone's levels.
    """

    primary = "loss"
    higher_is_better = False
    batch_coupled = False

    def __init__(self, settings: ArmPretrainingSettings, context: Context) -> None:
        super().__init__()
        grid, E = context.grid, settings.width
        if settings.cluster >= grid.size:
            raise UsageError(
                f"task.cluster: {grid.size} patches are no two clusters of {settings.cluster}: take smaller clusters"
            )
        if said := uneven_heads(E, settings.heads):
            raise UsageError(f"task.heads: {said}")
        self.settings, self.grid, self.patch = settings, grid, context.patch
        self.norms = nn.ModuleList(nn.LayerNorm(context.width) for _ in range(settings.levels))
        self.to_decoder = nn.Linear(settings.levels * context.width, settings.depth * E)
        self.query = nn.Parameter(torch.empty(1, 1, E))
        self.blocks = nn.ModuleList(DecoderBlock(E, settings.heads, settings.mlp_ratio) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(E)
        self.to_pixels = nn.Linear(E, context.patch**2 * context.channels)
        self._initialise(context.generator)
        self.query._no_weight_decay = True  # type: ignore[attr-defined]
        hidden_MS = ~sees_NN(grid.size, settings.cluster)[settings.cluster :, : self.read]
        self.register_buffer("position_NE", sincos2d(grid, E), persistent=False)
        self.register_buffer("hidden_MS", hidden_MS, persistent=False)

    def _initialise(self, generator: torch.Generator | None) -> None:
        """Xavier-uniform weights and zero biases, as published for the decoder's blocks."""
        nn.init.trunc_normal_(self.query, std=0.02, generator=generator)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def read(self) -> int:
        """How many slots predictions look at: all but the last cluster."""
        return self.grid.size - ((self.grid.size - 1) % self.settings.cluster + 1)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch itself."""
        return batch

    def refuse_model(self, model: Any) -> None:
        """Raise `UsageError` for a backbone that is not causal."""
        attention = model.backbone.attention
        if attention != "causal":
            raise UsageError(
                f"arm_pretraining needs a causal backbone, as one with {attention} attention has seen the patches "
                f"that it is to predict: set backbone.direction to causal"
            )

    def step(self, run: Run, batch: Batch, order: Layout | Draw) -> TaskResult:
        """One causal pass; the normalised pixels of every cluster but the first; mean squared error of each image."""
        layout = (order.layout(self.grid) if isinstance(order, Draw) else order).to(batch.images_BCHW.device)
        pixels_BMP = self.predict_pixels(run(batch.images_BCHW, order), layout)
        patches_BNP = patchify(batch.images_BCHW.float(), self.grid, self.patch)
        target_BMP = layout.order(normalise_patches(patches_BNP))[:, self.settings.cluster :]
        loss_B = (pixels_BMP - target_BMP).square().mean(dim=(1, 2))
        return TaskResult(loss_B, Prediction(pixels_BMP, layout))

    def predict_pixels(self, features: Features, layout: Layout) -> Tensor:
        """Normalised pixels of the slots from the second cluster on, float32 [B, M, P]."""
        tokens_BSF = self._tokens(features)
        decoded = self.to_decoder(tokens_BSF).chunk(self.settings.depth, dim=-1)
        place_BNE = layout.order(self.position_NE.expand(tokens_BSF.shape[0], -1, -1))
        queries_BME = self.query + place_BNE[:, self.settings.cluster :]
        for block, tokens_BSE in zip(self.blocks, decoded, strict=True):
            queries_BME = block(queries_BME, tokens_BSE, self.hidden_MS)
        pixels_BMP: Tensor = self.to_pixels(self.norm(queries_BME))
        return pixels_BMP.float()

    def _tokens(self, features: Features) -> Tensor:
        """The tokens of all depths side by side, each normed, without the last cluster."""
        wanted = len(self.norms)
        if len(features.levels) != wanted or any(
            level.tokens_BND.shape[1] != self.grid.size for level in features.levels
        ):
            raise UsageError(
                f"task.levels is {wanted}, and the backbone gives {len(features.levels)} "
                f"with {[level.tokens_BND.shape[1] for level in features.levels]} tokens: "
                f"give task and backbone the same number of levels, all of {self.grid.size} tokens"
            )
        read = zip(self.norms, features.levels, strict=True)
        return torch.cat([norm(level.tokens_BND[:, : self.read]) for norm, level in read], dim=-1)

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def score_B(self, result: TaskResult, batch: Batch) -> Tensor:
        """The loss of each image, float32 [B]; lower is better."""
        return result.loss_B.detach().float()

    def metrics(self) -> LossMetric:
        """Fresh: the mean `loss`, on the task's device."""
        return LossMetric().to(self.query.device)

    def draw_prediction(self, batch: Batch, result: TaskResult, layout: Layout | None, path: Path) -> None:
        """A PNG of up to 16 images, each above what was predicted of it; see `picture.draw_predictions`."""
        from reorder_arm.picture import draw_predictions

        prediction: Prediction = result.prediction
        pixels_BNP = patchify(batch.images_BCHW.float(), self.grid, self.patch)
        draw_predictions(batch.images_BCHW, pixels_BNP, prediction, self.settings.cluster, self.patch, path)


class LossMetric:
    """The mean loss over a split, by torchmetrics (which adds up over processes when it computes)."""

    def __init__(self) -> None:
        self._loss = MeanMetric(nan_strategy="disable", dist_sync_on_step=False)

    def to(self, device: torch.device) -> LossMetric:
        """The same metric with its sums on `device`."""
        self._loss.to(device)
        return self

    def update(self, result: TaskResult, batch: Batch) -> None:
        """Count one batch."""
        self._loss.update(result.loss_B.detach())

    def compute(self) -> Mapping[str, float]:
        """Over all processes: {"loss": …}."""
        return {"loss": float(self._loss.compute())}

    def reset(self) -> None:
        """Forget every batch."""
        self._loss.reset()
