"""The codebook of a VQ-VAE: nearest codes, moving averages, dead codes placed anew.

M latents of a batch, K codes, D numbers each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reorder_tokenizers.nearest import nearest

_EPSILON = 1e-5


def ema_update(
    count_K: Tensor, sum_KD: Tensor, latents_MD: Tensor, code_M: Tensor, decay: float
) -> tuple[Tensor, Tensor]:
    """One step of the moving averages (van den Oord et al. 2017, appendix A.1, equations 6 and 7).

    N_k <- g N_k + (1 - g) n_k and m_k <- g m_k + (1 - g) Σ z over the n_k latents of code k. The code is m_k / N_k.
    """
    one_hot_MK = nn.functional.one_hot(code_M, len(count_K)).to(latents_MD)
    count_K = decay * count_K + (1 - decay) * one_hot_MK.sum(dim=0)
    return count_K, decay * sum_KD + (1 - decay) * one_hot_MK.T @ latents_MD


class Codebook(nn.Module):
    """code_KD: the codes' vectors, all that a file keeps. count_K, sum_KD: the moving averages they come from."""

    code_KD: Tensor
    count_K: Tensor
    sum_KD: Tensor

    def __init__(self, codes: int, width: int, decay: float, revive_below: float) -> None:
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("code_KD", torch.zeros(codes, width))
        self.register_buffer("count_K", torch.zeros(codes), persistent=False)
        self.register_buffer("sum_KD", torch.zeros(codes, width), persistent=False)

    def begin(self, latents_MD: Tensor, batch: float, generator: torch.Generator) -> None:
        """Spread the codes over the data: K of these latents, chosen as k-means++ does (Arthur & Vassilvitskii 2007).

        batch: the latents of a training step, to which the moving counts belong.
        """
        from sklearn.cluster import kmeans_plusplus

        seed = int(torch.randint(2**31, (1,), generator=generator))
        chosen_KD, _ = kmeans_plusplus(latents_MD.cpu().numpy(), len(self.code_KD), random_state=seed)
        self.code_KD.copy_(torch.from_numpy(chosen_KD))
        count_K = torch.bincount(nearest(latents_MD, self.code_KD), minlength=len(self.code_KD))
        self.count_K.copy_(count_K * (batch / len(latents_MD)))
        self.sum_KD.copy_(self.code_KD * self.count_K[:, None])

    def forward(self, latents_MD: Tensor) -> tuple[Tensor, Tensor]:
        """(code_M, chosen_MD): the number of each latent's nearest code, and its vector."""
        code_M = nearest(latents_MD.detach(), self.code_KD)
        return code_M, self.code_KD[code_M]

    @torch.no_grad()
    def learn(self, latents_MD: Tensor, code_M: Tensor) -> None:
        """Move the codes; a code that was never chosen keeps its place."""
        count_K, sum_KD = ema_update(self.count_K, self.sum_KD, latents_MD, code_M, self.decay)
        self.count_K.copy_(count_K)
        self.sum_KD.copy_(sum_KD)
        alive_K1 = (count_K > _EPSILON)[:, None]
        self.code_KD.copy_(torch.where(alive_K1, sum_KD / count_K.clamp(min=_EPSILON)[:, None], self.code_KD))

    @torch.no_grad()
    def revive(self, latents_MD: Tensor, error_M: Tensor, generator: torch.Generator) -> int:
        """Place dead codes onto latents of the batch, the worse represented the likelier; returns how many were.

        Dead is a code whose moving count is below `revive_below` of the mean, M / K. Latents that are represented
        without error attract none: where there is nothing to tell apart, a dead code stays dead. It starts with the
        mean count, so that it has time to find its latents.
        """
        mean = len(latents_MD) / len(self.code_KD)
        dead_J = (self.count_K < self.revive_below * mean).nonzero()[:, 0]
        weight_M = error_M.detach().cpu().double()
        weight_M = weight_M.where(weight_M > _EPSILON * float(latents_MD.square().mean()) * latents_MD.shape[1], 0.0)
        count = min(len(dead_J), int((weight_M > 0).sum()))
        if count == 0:
            return 0
        chosen_J = torch.multinomial(weight_M, count, generator=generator).to(latents_MD.device)
        place_J = dead_J[:count]
        self.code_KD[place_J] = latents_MD[chosen_J]
        self.count_K[place_J] = mean
        self.sum_KD[place_J] = latents_MD[chosen_J] * mean
        return count

    def extra_repr(self) -> str:
        return f"{len(self.code_KD)} codes of width {self.code_KD.shape[1]}, decay {self.decay:g}"
