"""The tokenizer `vqvae` (van den Oord, Vinyals and Kavukcuoglu 2017, Neural Discrete Representation Learning).

B images, C channels, H W pixels, N patches, M latents of a batch, K codes, D numbers of a latent.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reorder_core import Context, UsageError, seeded
from reorder_core.pixels import Pixels
from reorder_tokenizers.codebook import Codebook
from reorder_tokenizers.interface import Progress
from reorder_tokenizers.learned import Learned
from reorder_tokenizers.network import decoder, encoder
from reorder_tokenizers.settings import VqvaeSettings
from reorder_tokenizers.training import train

_CODES_AT_ONCE = 256
_AROUND = 5  # patches a side: enough that the middle one does not see the edge


class Coded(NamedTuple):
    """What a batch becomes. latent_MD before, chosen_MD after the codebook; error_M: |z - e|² of each latent."""

    image_BCHW: Tensor
    latent_MD: Tensor
    code_M: Tensor
    error_M: Tensor


class Autoencoder(nn.Module):
    """Encoder, codebook and decoder. Pixels are centred at 1/2, inside."""

    def __init__(self, settings: VqvaeSettings, context: Context) -> None:
        super().__init__()
        sizes = (context.patch, context.channels, settings.width, settings.depth, settings.code_width)
        self.encoder = encoder(*sizes)
        self.codebook = Codebook(settings.codes, settings.code_width, settings.decay, settings.revive_below)
        self.decoder = decoder(*sizes)

    def latents(self, image_BCHW: Tensor) -> Tensor:
        """[B, D, rows, columns]."""
        latent: Tensor = self.encoder(image_BCHW - 0.5)
        return latent

    def forward(self, image_BCHW: Tensor) -> Coded:
        """Through the codebook; the gradient passes it straight (equation 2 and the text below)."""
        latent_BDhw = self.latents(image_BCHW)
        latent_MD = latent_BDhw.permute(0, 2, 3, 1).flatten(0, 2)
        code_M, chosen_MD = self.codebook(latent_MD)
        straight_MD = latent_MD + (chosen_MD - latent_MD).detach()
        error_M = (latent_MD - chosen_MD).square().sum(dim=1)
        B, D, h, w = latent_BDhw.shape
        straight_BDhw = straight_MD.view(B, h, w, D).permute(0, 3, 1, 2)
        return Coded(self.decoder(straight_BDhw) + 0.5, latent_MD, code_M, error_M)

    def draw(self, code_Bhw: Tensor) -> Tensor:
        """The images [B, C, H, W] of these codes."""
        image: Tensor = self.decoder(self.codebook.code_KD[code_Bhw].permute(0, 3, 1, 2)) + 0.5
        return image


class Vqvae(Learned):
    """The grid of latents is the grid of patches: one code a patch, which knows a little of the patches around it."""

    kind: ClassVar[str] = "vqvae"
    settings: VqvaeSettings

    def __init__(self, settings: VqvaeSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.device = _device(settings.device)
        with seeded(self.generator):
            self.model = Autoencoder(self.settings, context).to(self.device).eval()
        if settings.path is not None:
            self._load(settings.path)

    def _learn(self, pixels: Pixels, progress: Progress) -> None:
        def say(status: str) -> None:
            self.status = status

        train(self.model, pixels, self.settings, self.generator, self.device, progress, say)

    @torch.no_grad()
    def _codes_of(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.int64]:
        latent_BDhw = self.model.latents(torch.from_numpy(images_BCHW).to(self.device))
        code_M, _ = self.model.codebook(latent_BDhw.permute(0, 2, 3, 1).flatten(0, 2))
        codes_BN: NDArray[np.int64] = code_M.view(len(images_BCHW), -1).cpu().numpy()
        return codes_BN

    @torch.no_grad()
    def _drawn(self, codes_BN: NDArray[np.int64]) -> NDArray[np.float32]:
        grid = self.context.grid
        code_Bhw = torch.from_numpy(codes_BN).view(-1, grid.rows, grid.columns)
        parts = [self.model.draw(part.to(self.device)).cpu() for part in torch.split(code_Bhw, _CODES_AT_ONCE)]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def code_patches(self) -> NDArray[np.float32]:
        """The middle patch of an image in which all patches have the code."""
        patch, start = self.context.patch, self.context.patch * (_AROUND // 2)
        code_K11 = torch.arange(self.codes)[:, None, None].expand(-1, _AROUND, _AROUND)
        parts = [self.model.draw(part.to(self.device)).cpu() for part in torch.split(code_K11, _CODES_AT_ONCE)]
        middle = torch.cat(parts)[:, :, start : start + patch, start : start + patch]
        return middle.clamp(0, 1).contiguous().numpy()

    def _state(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())

    def _take(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(tensors)


def _device(name: str) -> torch.device:
    """Raises `UsageError` for a device that is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[name]:
        raise UsageError(f"device: this machine has no '{name}': write cpu, or auto")
    return torch.device(name)
