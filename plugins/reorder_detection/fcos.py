"""The head `fcos`: torchvision's layers of FCOS on a simple feature pyramid.

B images, L locations of all maps, K classes, E channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from reorder_core import Context, Features, Grid, seeded
from reorder_detection.detections import Detections, Wanted
from reorder_detection.fcos_loss import Fields, Locations, parts_B3
from reorder_detection.pyramid import SimplePyramid, centres_L2, stride_of
from reorder_detection.settings import FcosSettings

#: Of each map, the best so many candidates of an image are looked at (as published).
_CANDIDATES = 1000


class FcosHead(nn.Module):
    """Dense predictions: at each location of each map the classes, the distances to the sides of a box, and how well
    the location is centred in it (Tian et al. 2019).

    Locations are the centres of cells, (i + 0.5) · stride, as in the paper; torchvision's stand half a stride up left.
    """

    def __init__(self, settings: FcosSettings, context: Context, classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.patch, self.pixels = (
            context.patch,
            (context.grid.rows * context.patch, context.grid.columns * context.patch),
        )
        with seeded(context.generator):
            self.pyramid = SimplePyramid(context.width, settings.channels, settings.strides, context.grid)
            self.layers = FCOSHead(settings.channels, 1, classes, settings.convolutions)

    def refuse_grids(self, grids: Sequence[Grid]) -> None:
        """Raise `UsageError` where no map can be made of levels on these grids."""
        own = {stride for grid in grids if (stride := stride_of(grid, self.pyramid.grid)) is not None}
        self.pyramid.refuse_without(own, grids)

    def forward(self, features: Features) -> Fields:
        """What is said at each location, in float32 also under autocast."""
        maps = self.pyramid(features)
        said = self.layers(maps)
        sizes = [(map_BEhw.shape[2], map_BEhw.shape[3]) for map_BEhw in maps]
        strides = [stride * self.patch for stride in self.settings.strides]
        lengths = tuple(rows * columns for rows, columns in sizes)
        device = maps[0].device
        cells = zip(lengths, strides, strict=True)
        stride_L = torch.cat([torch.full((many,), stride, device=device) for many, stride in cells])
        locations = Locations(centres_L2(sizes, strides, device), stride_L.float(), lengths)
        return Fields(
            said["cls_logits"].float(),
            said["bbox_regression"].float(),
            said["bbox_ctrness"].float().squeeze(2),
            locations,
        )

    def loss_B(self, fields: Fields, targets: Wanted) -> Tensor:
        """Classes, boxes and centredness, each normalised by the image's own positive locations."""
        return parts_B3(fields, targets, self.settings.radius).sum(dim=1)

    def table(self, fields: Fields) -> Tensor:
        """Boxes and the score of each class at each location, before any suppression, [B, L, 4 + K]."""
        return torch.cat([fields.boxes_BL4(), _score_BLK(fields)], dim=2)

    def decode(self, fields: Fields) -> list[Detections]:
        """The detections of each image, the best first, after suppression of overlapping boxes of a class."""
        boxes_BL4 = clip_boxes_to_image(fields.boxes_BL4(), self.pixels)
        return [self._one(*image, fields.locations) for image in zip(boxes_BL4, _score_BLK(fields), strict=True)]

    def _one(self, boxes_L4: Tensor, score_LK: Tensor, locations: Locations) -> Detections:
        classes, start = score_LK.shape[1], 0
        places, scores = [], []
        for length in locations.lengths:
            score_C, place_C = score_LK[start : start + length].flatten().topk(min(_CANDIDATES, length * classes))
            places.append(start * classes + place_C)
            scores.append(score_C)
            start += length
        place_C, score_C = torch.cat(places), torch.cat(scores)
        boxes_C4 = boxes_L4[place_C // classes]
        real_C = (score_C > self.settings.least) & (boxes_C4[:, 2:] > boxes_C4[:, :2]).all(dim=1)
        found = Detections(boxes_C4[real_C], score_C[real_C], (place_C % classes)[real_C])
        kept = batched_nms(found.boxes_O4, found.score_O, found.label_O, self.settings.nms)
        return Detections(found.boxes_O4[kept], found.score_O[kept], found.label_O[kept])


def _score_BLK(fields: Fields) -> Tensor:
    """√(class · centredness), as torchvision's."""
    return (fields.logits_BLK.sigmoid() * fields.centredness_BL.sigmoid().unsqueeze(2)).sqrt()
