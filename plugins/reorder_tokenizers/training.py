"""How the VQ-VAE learns: reconstruction and commitment by Adam, the codebook by moving averages.

B images, C channels, H W pixels, M latents, K codes, D numbers of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from reorder_core import RunError
from reorder_core.interfaces.dataset import evenly
from reorder_core.pixels import Pixels
from reorder_tokenizers.interface import Progress
from reorder_tokenizers.settings import VqvaeSettings
from reorder_tokenizers.source import batches

if TYPE_CHECKING:
    from reorder_tokenizers.vqvae import Autoencoder

_LATENTS_A_CODE = 4  # that the first codes are chosen from
_LEAST_LATENTS = 4096
_LEAST_IMAGES = 256  # whose pixels give the variance
_LEAST_VARIANCE = 1 / 255**2  # of the pixels of images that are all alike


def cosine(step: int, steps: int) -> float:
    """From 1 at the first step to 0 after the last."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def train(
    model: Autoencoder,
    pixels: Pixels,
    settings: VqvaeSettings,
    generator: torch.Generator,
    device: torch.device,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    """Train in place, and leave the model in evaluation mode.

    The loss is |x - x'|² / variance of the pixels + commitment · |z - sg(e)|² (equation 3; its middle term is replaced
    by moving averages, appendix A.1), both means. In the first steps (`warm_up`) latents pass without the codebook,
    which then starts among latents that say something. Raises `RunError` where the loss is not finite.
    """
    variance = _variance(pixels, settings.batch_size)
    optimizer = Adam(model.parameters(), settings.learning_rate)
    steps = settings.epochs * math.ceil(len(pixels) / settings.batch_size)
    schedule = LambdaLR(optimizer, lambda step: cosine(step, steps))
    warm = int(settings.warm_up * steps)
    total, step = settings.epochs * len(pixels), 0
    model.train()
    for epoch in range(settings.epochs):
        for images_BCHW in batches(pixels, settings.batch_size, generator):
            if step == warm:
                _begin(model, pixels, settings, generator, device)
            image_BCHW = torch.from_numpy(images_BCHW).to(device)
            if step < warm:
                squared, revived = _step_without_codes(model, image_BCHW, variance), 0
            else:
                squared, revived = _step(model, image_BCHW, variance, settings.commitment, generator)
            if not math.isfinite(squared):
                raise RunError(
                    f"the loss is not finite in step {step + 1}: lower learning_rate ({settings.learning_rate:g})"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            step += 1
            codes = f"{revived} codes revived" if step > warm else "warming up"
            say(f"epoch {epoch + 1}, {decibels(squared):.1f} dB, {codes}")
            progress(min(step * settings.batch_size, (epoch + 1) * len(pixels)), total)
    if step <= warm:  # so many images were skipped that the training ended before its codebook began
        raise RunError(f"only {step} of {steps} batches hold an image that can be read: look at the images")
    progress(total, total)
    model.eval()


def decibels(squared: float) -> float:
    """PSNR of pixels in [0, 1]: -10 log10 of the mean squared error; infinite for none."""
    return -10 * math.log10(squared) if squared > 0 else math.inf


def _step(
    model: Autoencoder, image_BCHW: Tensor, variance: float, commitment: float, generator: torch.Generator
) -> tuple[float, int]:
    """Gradients of one batch, and the codebook's own step; returns (mean squared error of pixels, codes revived)."""
    coded = model(image_BCHW)
    squared = (coded.image_BCHW - image_BCHW).square().mean()
    loss = squared / variance + commitment * coded.error_M.mean() / coded.latent_MD.shape[1]
    if not bool(loss.isfinite()):
        return math.nan, 0
    loss.backward()
    latent_MD = coded.latent_MD.detach()
    model.codebook.learn(latent_MD, coded.code_M)
    return float(squared.detach()), model.codebook.revive(latent_MD, coded.error_M, generator)


def _step_without_codes(model: Autoencoder, image_BCHW: Tensor, variance: float) -> float:
    """Gradients of one batch of the plain autoencoder; returns the mean squared error of pixels."""
    squared = (model.decoder(model.latents(image_BCHW)) + 0.5 - image_BCHW).square().mean()
    (squared / variance).backward()
    return float(squared.detach())


@torch.no_grad()
def _begin(
    model: Autoencoder, pixels: Pixels, settings: VqvaeSettings, generator: torch.Generator, device: torch.device
) -> None:
    """Choose the first codes among the latents of some images."""
    enough = max(_LEAST_LATENTS, _LATENTS_A_CODE * settings.codes)
    latents: list[Tensor] = []
    for images_BCHW in batches(pixels, settings.batch_size, generator):
        latent_BDhw = model.latents(torch.from_numpy(images_BCHW).to(device))
        latents.append(latent_BDhw.permute(0, 2, 3, 1).flatten(0, 2))
        if sum(map(len, latents)) >= enough:
            break
    if sum(map(len, latents)) < settings.codes:
        raise RunError(
            f"the images that can be read have {sum(map(len, latents))} patches, fewer than {settings.codes} codes: "
            f"lower 'codes'"
        )
    if not all(bool(each.isfinite().all()) for each in latents):
        raise RunError(f"the latents are not finite: lower learning_rate ({settings.learning_rate:g})")
    model.codebook.begin(torch.cat(latents), len(latents[0]), generator)


def _variance(pixels: Pixels, size: int) -> float:
    """Of the pixels of some images, evenly spread."""
    images_BCHW = pixels.load(evenly(len(pixels), max(size, _LEAST_IMAGES))).images_BCHW
    return max(float(images_BCHW.var()) if len(images_BCHW) else 0.0, _LEAST_VARIANCE)
