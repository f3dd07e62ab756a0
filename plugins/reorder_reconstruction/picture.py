"""A picture of reconstructions: images as they are, what was left of them, and what was said of the rest.

B images, C channels, H W pixels, N patches, P pixels of a patch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from reorder_core import Grid, Layout
from reorder_core.drawing.predictions import draw_image, draw_order, panels, save_figure
from reorder_core.patch_pixels import patchify, unpatchify
from reorder_reconstruction.task import Prediction

_MOST = 8


def completed(images_BCHW: Tensor, prediction: Prediction, grid: Grid, patch: int, normalised: bool) -> Tensor:
    """The images with the predicted pixels in place of the masked patches, [B, C, H, W].

    A prediction of normalised patches has no mean and no contrast: both are the true patch's, as in MAE's figures.
    """
    true_BNP = patchify(images_BCHW.float(), grid, patch)
    said_BNP = prediction.said_BNP
    if normalised:
        said_BNP = said_BNP * true_BNP.std(dim=-1, keepdim=True) + true_BNP.mean(dim=-1, keepdim=True)
    filled_BNP = torch.where(prediction.mask_BN.unsqueeze(-1), said_BNP, true_BNP)
    return unpatchify(filled_BNP, grid, patch)


def draw_prediction(
    images_BCHW: Tensor,
    prediction: Prediction,
    grid: Grid,
    patch: int,
    normalised: bool,
    layout: Layout | None,
    path: Path,
) -> None:
    """Write a PNG of up to 8 images in three rows: the image, masked with the order it was read in, completed.

    Masked patches are as dark as the image's darkest pixel; predicted pixels stay within the image's range.
    """
    count = min(_MOST, len(images_BCHW))
    shown_BCHW = images_BCHW[:count].float()
    part = Prediction(*(tensor[:count] for tensor in prediction))
    low_B, high_B = (bound(shown_BCHW, dim=(1, 2, 3), keepdim=True) for bound in (torch.amin, torch.amax))
    said_BCHW = completed(shown_BCHW, part, grid, patch, normalised).clamp(low_B, high_B)
    hidden_BNP = part.mask_BN.unsqueeze(-1).expand(-1, -1, said_BCHW.shape[1] * patch**2)
    masked_BCHW = torch.where(unpatchify(hidden_BNP, grid, patch), low_B, shown_BCHW)
    figure, every = panels(3 * count, columns=count)
    for number in range(count):
        rows = (("image", shown_BCHW), ("masked", masked_BCHW), ("said", said_BCHW))
        for row, (title, pictures_BCHW) in enumerate(rows):
            panel = every[row * count + number]
            draw_image(panel, pictures_BCHW[number])
            if number == 0:
                panel.set_title(title, fontsize=8)
        if layout is not None:
            draw_order(every[count + number], layout, number, *images_BCHW.shape[-2:])
    save_figure(figure, path)
