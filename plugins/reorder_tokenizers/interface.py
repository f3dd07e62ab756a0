"""A tokenizer turns each patch of an image into one of K codes.

B images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Told how much of the work is done: (done, of how much in all), in any unit that stays the same.
Progress = Callable[[int, int], None]


@runtime_checkable
class Tokenizer(Protocol):
    """Built as `target(settings, context)`, for images of `context.grid` patches of `context.patch` pixels a side.

    codes: K; the codes are 0 … K-1. fitted: whether `tokens` can be called: from the start where nothing is learned or
    weights came from a file, else after `fit`.

    Images are float32 [B, `context.channels`, H, W] in [0, 1]. Random numbers come from `context.generator` only.

    Optional members:

    `needs_numbers: bool`: the codes are looked up by the images' numbers, so that `tokens` wants them as the keyword
    `numbers`, int64 [B]: the place of each image in its split, or among the sorted paths of a folder. Whoever calls
    `tokens` gives them to a tokenizer that has it True.

    `state_dict() -> dict[str, Tensor]`, `load_state_dict(state)`: what was learned, on the CPU, and how another one
    with the same settings and context takes it over, as if fitted itself. With them several processes learn once: the
    first one fits and hands it to the others; without, each fits for itself, and they must come to the same codes.

    `reconstruct(images_BCHW) -> images_BCHW`: the images as their codes alone would draw them, in [0, 1].
    """

    codes: int
    fitted: bool

    def fit(self, images_BCHW: NDArray[np.float32], progress: Progress | None = None) -> None:
        """Learn the codes from these images; does nothing where there is nothing to learn.

        Raises `UsageError` for fewer patches than codes, and for images that the context does not describe.
        """
        ...

    def tokens(self, images_BCHW: NDArray[np.float32]) -> NDArray[np.int64]:
        """The code of each patch, int64 [B, N], patches numbered row by row; deterministic, image by image.

        Raises `UsageError` before `fit`, and for images that the context does not describe.
        """
        ...
