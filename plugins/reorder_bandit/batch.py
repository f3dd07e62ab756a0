"""How the images of a batch are shared out between orders, and what each order was worth.

B images, M orders an image, K orders, N patches, A things that are compared, C blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reorder_core import Draw, UsageError


def share_out(perm_KN: Tensor, batch: int, orders_per_image: int, generator: torch.Generator | None) -> Draw:
    """Image i reads order i % K, and its further orders are those 1 … K-1 places on, drawn anew for every batch.

    Raises `UsageError` where the batch has fewer images than there are orders.
    """
    k = len(perm_KN)
    if batch < k:
        raise UsageError(f"{k} orders do not fit a batch of {batch} images: lower policy.orders")
    image_B = torch.arange(batch)
    extra_MB = None
    if orders_per_image > 1:
        shift_M = 1 + torch.randperm(k - 1, generator=generator)[: orders_per_image - 1]
        extra_MB = ((image_B + shift_M[:, None]) % k).to(perm_KN.device)
    return Draw(perm_KN, (image_B % k).to(perm_KN.device), extra_MB)


def reads(draw: Draw) -> Tensor:
    """Which order each image was read in, [M, B]; row 0 is the trained one."""
    own_1B = draw.group_B[None]
    return own_1B if draw.extra_MB is None else torch.cat([own_1B, draw.extra_MB])


def blocks(reward_MB: Tensor, arm_MB: Tensor, arms: int) -> tuple[Tensor, Tensor, Tensor]:
    """The normal equations of the additive model reward = block + arm, with the blocks taken out.

    A block is what shares a difficulty: the whole batch where each image is read once (batches differ as the model
    learns), each image where it is read several times (images differ far more). With n_CA the reads of each arm in
    each block, the effects solve  L effect = r  (Cochran & Cox 1957, incomplete blocks):

        L = diag(Σ_c n_c) − Σ_c n_c n_cᵀ / |c|          r = Σ_c (rewards of each arm in c − n_c · mean of c)

    Returns L [A, A], r [A], and the sum of squares within blocks (a scalar).
    """
    m, batch = arm_MB.shape
    block_MB = torch.zeros_like(arm_MB) if m == 1 else torch.arange(batch, device=arm_MB.device).expand(m, batch)
    count = 1 if m == 1 else batch
    reads_CA = reward_MB.new_zeros(count * arms)
    reads_CA.index_add_(0, (block_MB * arms + arm_MB).reshape(-1), torch.ones_like(reward_MB).reshape(-1))
    reads_CA = reads_CA.view(count, arms)
    within_MB = reward_MB - reward_MB.mean(1 if m == 1 else 0, keepdim=True)
    size = m * batch // count
    laplacian_AA = reads_CA.sum(0).diag() - reads_CA.T @ reads_CA / size
    sum_A = reward_MB.new_zeros(arms).index_add_(0, arm_MB.reshape(-1), within_MB.reshape(-1))
    return laplacian_AA, sum_A, within_MB.square().sum()


def effects(reward_MB: Tensor, arm_MB: Tensor, arms: int) -> Tensor:
    """What each arm was worth within this batch, [A], centred on 0: least squares with the blocks taken out."""
    laplacian_AA, sum_A, _ = blocks(reward_MB, arm_MB, arms)
    if len(arm_MB) == 1:  # one block: the mean of each arm, centred
        mean_A = sum_A / torch.bincount(arm_MB[0], minlength=arms)
        return mean_A - mean_A.mean()
    solved: Tensor = torch.linalg.pinv(laplacian_AA, hermitian=True) @ sum_A
    return solved
