"""What a head says of an image, and what it is to say: detections, and the targets of a batch.

B images, O objects or detections of an image, M objects of the image that has most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from reorder_core import RunError
from reorder_core.interfaces.targets import Objects


@dataclass(frozen=True, slots=True)
class Detections:
    """Of one image, the best first: boxes_O4 (left, top, right, bottom) in pixels, score_O from 0 to 1, label_O."""

    boxes_O4: Tensor
    score_O: Tensor
    label_O: Tensor

    def __len__(self) -> int:
        return int(self.label_O.shape[0])

    def best(self, most: int) -> Detections:
        """The best so many."""
        return Detections(self.boxes_O4[:most], self.score_O[:most], self.label_O[:most])

    def at_least(self, score: float) -> Detections:
        """Those of this score or more."""
        sure_O = self.score_O >= score
        return Detections(self.boxes_O4[sure_O], self.score_O[sure_O], self.label_O[sure_O])


class Decoded(Sequence[Detections]):
    """The detections of a batch, one `Detections` an image, made when they are first asked for.

    In a training step nobody asks, and to suppress overlapping boxes takes longer there than the step itself.
    """

    def __init__(self, images: int, decode: Callable[[], list[Detections]]) -> None:
        self._images = images
        self._decode = decode

    @cached_property
    def _every(self) -> list[Detections]:
        with torch.no_grad():
            return self._decode()

    def __len__(self) -> int:
        return self._images

    @overload
    def __getitem__(self, image: int) -> Detections: ...
    @overload
    def __getitem__(self, image: slice) -> list[Detections]: ...
    def __getitem__(self, image: Any) -> Any:
        return self._every[image]

    def __iter__(self) -> Iterator[Detections]:
        return iter(self._every)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The objects of a batch that are to be found, padded with boxes of no area, and the crowds, padded alike.

    boxes_BM4: float32, pixels. label_BM: int64. there_BM: True where an object is. crowds_BM4: regions of many objects.
    """

    boxes_BM4: Tensor
    label_BM: Tensor
    there_BM: Tensor
    crowds_BM4: Tensor

    def repeated(self, times: int) -> Wanted:
        """The whole batch so many times, one after another."""
        every = (self.boxes_BM4, self.label_BM, self.there_BM, self.crowds_BM4)
        return Wanted(*(each.repeat(times, *[1] * (each.ndim - 1)) for each in every))


def wanted(target: Sequence[Objects], device: torch.device, classes: int) -> Wanted:
    """The targets of a batch; crowds are none. Raises `RunError` for a class that the data did not announce."""
    boxes, labels, crowds = [], [], []
    for objects in target:
        if len(objects) and not 0 <= int(objects.label_O.min()) <= int(objects.label_O.max()) < classes:
            raise RunError(
                f"the image {objects.name or '(without a name)'} has an object of a class beyond the {classes} that "
                f"the data described: make its describe() and its labels agree"
            )
        crowd_O = torch.zeros_like(objects.label_O, dtype=torch.bool) if objects.crowd_O is None else objects.crowd_O
        boxes.append(objects.boxes_O4[~crowd_O].float())
        labels.append(objects.label_O[~crowd_O])
        crowds.append(objects.boxes_O4[crowd_O].float())
    there = [torch.ones_like(label_O, dtype=torch.bool) for label_O in labels]
    padded = (_padded(part).to(device) for part in (boxes, labels, there, crowds))
    return Wanted(*padded)


def _padded(parts: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
