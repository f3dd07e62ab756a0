"""The head `detr`: queries that read the sequence as it is (Carion et al. 2020, arXiv 2005.12872).

B images, N patches or slots, D width of the backbone, E of the decoder, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from reorder_core import Context, Features, Layout, UsageError, seeded, uneven_heads
from reorder_core.grid import Grid
from reorder_core.model import sincos1d
from reorder_detection.decoder import Asked, DecoderLayer, Seen, sines
from reorder_detection.detections import Detections, Wanted
from reorder_detection.matching import Said, loss_B, scores_BQK
from reorder_detection.pyramid import stride_of
from reorder_detection.settings import DetrSettings

#: Sides of the anchors before training, as shares of the image's.
_ANCHOR = 0.25
#: Probability of a class before training, with focal loss (Lin et al. 2017, arXiv 1708.02002, section 3.3).
_RARE = 0.01


class DetrHead(nn.Module):
    """A set of predictions without a grid: the last level's tokens stay in the order in which they were read.

    With anchors each query is a box, which a layer looks around and moves (Liu et al. 2022, arXiv 2201.12329, without
    its scaling of the attention by the box's sides); without, a vector, as published for DETR.

    `forward` gives what is said after each decoder layer (in evaluation after the last only). Crowds are no targets.
    """

    def __init__(self, settings: DetrSettings, context: Context, classes: int) -> None:
        super().__init__()
        if said := uneven_heads(settings.width, settings.heads):
            raise UsageError(f"task.head.heads: {said}")
        self.settings, self.grid = settings, context.grid
        _refuse_too_few_queries(settings.queries, context)
        E, Q = settings.width, settings.queries
        self.pixels = (context.grid.rows * context.patch, context.grid.columns * context.patch)
        with seeded(context.generator):
            self.to_memory = nn.Linear(context.width, E)
            self.query_QE = nn.Parameter(torch.randn(Q, E))
            self.layers = nn.ModuleList(
                DecoderLayer(E, settings.heads, settings.dropout, first=k == 0, anchors=settings.anchors)
                for k in range(settings.layers)
            )
            self.norm = nn.LayerNorm(E)
            self.to_classes = nn.Linear(E, classes + (settings.classes == "softmax"))
            self.to_box = nn.Sequential(nn.Linear(E, E), nn.ReLU(), nn.Linear(E, E), nn.ReLU(), nn.Linear(E, 4))
            several = settings.anchors and settings.layers > 1  # in the first queries do not look at each other
            self.to_query = Mlp(2 * E, E, E, act_layer=nn.ReLU) if several else None
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1 and name != "query_QE":
                    nn.init.xavier_uniform_(parameter)
            self.anchor_Q4 = nn.Parameter(_anchors(Q)) if settings.anchors else None
            if settings.anchors:  # a layer that has learned nothing hardly moves them
                self.to_box[-1].weight.data.mul_(0.01)
                nn.init.zeros_(self.to_box[-1].bias)
        if settings.classes == "focal":
            nn.init.constant_(self.to_classes.bias, torch.tensor(_RARE).logit().item())
        for queries in (self.query_QE, self.anchor_Q4):
            if queries is not None:
                queries._no_weight_decay = True  # type: ignore[attr-defined]

    def refuse_grids(self, grids: Sequence[Grid]) -> None:
        """Raise `UsageError` where places are looked for and the last level has left the grid of patches."""
        if stride_of(grids[-1], self.grid) is None and (self.settings.anchors or self.settings.positions == "place"):
            raise UsageError(
                f"task.head.anchors: they and positions: place look for places on the grid of {self.grid} patches, and "
                f"the backbone ends on {grids[-1]}: set anchors to false and positions to slot, or choose a backbone "
                f"that keeps the grid"
            )

    def forward(self, features: Features) -> list[Said]:
        """What the queries say, in float32 also under autocast, the last layer last."""
        level = features.levels[-1]
        self.refuse_grids((level.layout.grid,))
        seen, stride = self._seen(level.tokens_BND, level.layout), stride_of(level.layout.grid, self.grid)
        query_BQE = self.query_QE.expand(level.tokens_BND.shape[0], -1, -1)
        state_BQE, box_BQ4 = torch.zeros_like(query_BQE), None
        if self.anchor_Q4 is not None:
            state_BQE, box_BQ4 = query_BQE, self.anchor_Q4.float().expand(*query_BQE.shape[:2], 4)
        said = []
        for number, layer in enumerate(self.layers, start=1):
            asked = Asked(query_BQE, None) if box_BQ4 is None else self._around(box_BQ4, stride or 1, number > 1)
            state_BQE = layer(state_BQE, asked, seen)
            read_BQE = self.norm(state_BQE)
            found_BQ4 = self.to_box(read_BQE).float()
            if box_BQ4 is not None:
                found_BQ4 = found_BQ4 + box_BQ4
                box_BQ4 = found_BQ4.detach()
            if number == len(self.layers) or (self.training and self.settings.auxiliary):
                said.append(Said(self.to_classes(read_BQE).float(), found_BQ4.sigmoid()))
        return said

    def _seen(self, tokens_BND: Tensor, layout: Layout) -> Seen:
        value_BNE, E = self.to_memory(tokens_BND), self.settings.width
        place_BNE, key_BNE = None, value_BNE
        if self.settings.anchors or self.settings.positions == "place":
            perm_BN = layout.perm_GN if layout.group_B is None else layout.perm_GN[layout.group_B]
            columns = layout.grid.columns
            place_BNE = sines(torch.stack([perm_BN // columns, perm_BN % columns], dim=2), E).to(value_BNE)
        if self.settings.positions == "slot":
            key_BNE = value_BNE + sincos1d(Grid(1, layout.perm_GN.shape[1]), E).to(value_BNE)
        elif self.settings.positions == "place":
            key_BNE = value_BNE + place_BNE
        return Seen(key_BNE, value_BNE, place_BNE, layout.valid_BN)

    def _around(self, box_BQ4: Tensor, stride: int, among: bool) -> Asked:
        """The queries of these anchors, whose sides and places are counted in cells of so many patches.

        among: the queries will look at each other, and are told their own boxes.
        """
        cells_2 = torch.tensor([self.grid.columns / stride, self.grid.rows / stride], device=box_BQ4.device)
        across_BQ2, sides_BQ2 = (box_BQ4.sigmoid().unflatten(2, (2, 2)) * cells_2).unbind(dim=2)
        E = self.settings.width
        centre_BQE = sines(across_BQ2.flip(2) - 0.5, E)
        if self.to_query is None or not among:
            return Asked(None, centre_BQE)
        return Asked(self.to_query(torch.cat([centre_BQE, sines(sides_BQ2.flip(2), E)], dim=2)), centre_BQE)

    def loss_B(self, said: list[Said], targets: Wanted) -> Tensor:
        """Of the last layer's predictions, and of the earlier ones', each matched anew. Raises `UsageError` where an
        image has more objects than there are queries."""
        _refuse_more_than(self.settings.queries, int(targets.there_BM.sum(dim=1).max()), "an image")
        height, width = self.pixels
        scale_4 = targets.boxes_BM4.new_tensor([width, height, width, height])
        boxes_BM4 = box_convert(targets.boxes_BM4 / scale_4, "xyxy", "cxcywh")
        layers = len(said)
        every = Said(torch.cat([each.logits_BQC for each in said]), torch.cat([each.boxes_BQ4 for each in said]))
        loss_KB = loss_B(every, targets.repeated(layers), boxes_BM4.repeat(layers, 1, 1), self.settings)
        *earlier, last = loss_KB.chunk(layers)
        return last + self.settings.auxiliary * sum(earlier, torch.zeros_like(last))

    def table(self, said: list[Said]) -> Tensor:
        """The box and the probability of each class of each query, [B, Q, 4 + K]."""
        height, width = self.pixels
        boxes_BQ4 = box_convert(said[-1].boxes_BQ4, "cxcywh", "xyxy")
        scale_4 = torch.tensor([width, height, width, height], device=boxes_BQ4.device)
        return torch.cat([boxes_BQ4 * scale_4, scores_BQK(said[-1], self.settings)], dim=2)

    def decode(self, said: list[Said]) -> list[Detections]:
        """One detection a query, of its likeliest class, the best first; nothing is suppressed."""
        table = self.table(said)
        boxes_BQ4, (score_BQ, label_BQ) = clip_boxes_to_image(table[..., :4], self.pixels), table[..., 4:].max(dim=2)
        found = []
        for boxes_Q4, score_Q, label_Q in zip(boxes_BQ4, score_BQ, label_BQ, strict=True):
            best = score_Q.argsort(descending=True)
            best = best[(boxes_Q4[best, 2:] > boxes_Q4[best, :2]).all(dim=1)]
            found.append(Detections(boxes_Q4[best], score_Q[best], label_Q[best]))
        return found


def _anchors(queries: int) -> Tensor:
    """Logits of (centre across, centre down, width, height): centres anywhere but at the edge, sides all the same."""
    centre_Q2 = 0.05 + 0.9 * torch.rand(queries, 2)
    return torch.cat([centre_Q2, torch.full((queries, 2), _ANCHOR)], dim=1).logit()


def _refuse_too_few_queries(queries: int, context: Context) -> None:
    """Raise `UsageError` where the data counts an image with more objects: in training it would be met hours later."""
    for part in ("train", "validation"):
        counts = getattr(getattr(context.dataset, part, None), "object_counts", None)
        if counts is not None:
            name, most = max(counts(), key=lambda counted: counted[1], default=("", 0))
            _refuse_more_than(queries, most, f"the {part} image {name}")


def _refuse_more_than(queries: int, objects: int, image: str) -> None:
    """Raise `UsageError` where an image has more objects than there are queries."""
    if objects > queries:
        raise UsageError(
            f"{image} has {objects} objects, and task.head.queries is {queries}: raise it to the largest number of "
            f"objects that an image has, or higher"
        )
