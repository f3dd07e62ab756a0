"""What stands beside an image: the targets that data sets give and tasks read, one item an image.

`DataFacts.target` names the type; `Batch.target` holds it for a batch. O objects of an image, K classes, H W pixels.

| `DataFacts.target` | `Batch.target` |
|---|---|
| `class` | int64 [B] |
| `classes` | float32 [B, K]: 1 for each class that the image shows, else 0 |
| `mask` | int64 [B, H, W]: the class of each pixel; `IGNORED` where none is known |
| `boxes` | list of B `Objects` |
| `captions` | list of B tuples of texts |
| `questions` | list of B `Question`s; an item of the split is a question, and its image comes with it |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: The class of a pixel that no loss and no metric counts.
IGNORED = 255

Captions = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one image, as the image is loaded (after resizing, cropping, flipping).

    boxes_O4: float32, (left, top, right, bottom) in pixels, 0 ≤ left < right ≤ W. label_O: int64, 0 … classes-1.
    masks_OHW: bool, or None where there are none. crowd_O: bool, True for a region of many objects, which is no
    target, and in which no detection is wrong; None where there are none. area_O: float32, in pixels, for metrics by
    size; None: that of the boxes. name: the file or number by which a person finds the image.
    """

    boxes_O4: Tensor
    label_O: Tensor
    masks_OHW: Tensor | None = None
    crowd_O: Tensor | None = None
    area_O: Tensor | None = None
    name: str = ""

    def __len__(self) -> int:
        return int(self.label_O.shape[0])

    def to(self, device: Any, non_blocking: bool = False) -> Objects:
        """The same with its tensors on `device`."""
        moved = {
            field: value.to(device, non_blocking=non_blocking)
            for field in ("boxes_O4", "label_O", "masks_OHW", "crowd_O", "area_O")
            if (value := getattr(self, field)) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image. answers: what people said, the most frequent first. kind: for accuracy by type.

    name: the number by which a person finds it.
    """

    text: str
    answers: tuple[str, ...]
    kind: str = "other"
    name: str = ""
