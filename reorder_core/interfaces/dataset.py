"""A data set: a train and a validation split of images with targets.

B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from reorder_core.settings import DataFacts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """images_BCHW: float32, normalised. target: what the task reads (`interfaces/targets.py`). index_B: which images.

    target may be replaced by a task's `prepare` (mixup turns classes into probabilities, float32 [B, K]).
    """

    images_BCHW: Tensor
    target: Any
    index_B: Tensor

    def __len__(self) -> int:
        return int(self.images_BCHW.shape[0])


def evenly(count: int, wanted: int) -> Sequence[int]:
    """`wanted` of the numbers 0 … count - 1, evenly spread and ascending; all of them where there are no more.

    Data sets lie on disk class by class: their first images are of one class.
    """
    return range(count) if wanted >= count else [place * count // wanted for place in range(wanted)]


@runtime_checkable
class Split(Protocol):
    """One split. Augmentation is a pure function of (seed, epoch, index), so that a resume sees the same pixels.

    Optional: `targets() -> Iterable`, the target of every image in order, without reading pixels: from it a task
    learns its vocabulary (captions, questions and answers); `object_counts() -> Iterable[tuple[str, int]]`, where the
    target is `boxes`: the name and the number of objects of every image, crowds apart, before augmentation, which adds
    none.
    """

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int], epoch: int) -> Batch:
        """The images with these numbers, as they are in this epoch. Raises `RunError` naming an unreadable file."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """facts: what its settings' `describe()` said. in_memory: loading is so cheap that worker processes do not pay.

    classes: the names of the classes, in order of their numbers, where the target has classes.
    """

    facts: DataFacts
    in_memory: bool
    classes: tuple[str, ...]
    train: Split
    validation: Split
