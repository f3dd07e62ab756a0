"""The head `detr`: queries that read the sequence as it is (Carion et al. 2020, arXiv 2005.12872).

B images, N patches or slots, D width of the backbone, E of the decoder, Q queries, K classes.
"""

from __future__ import annotations

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from reorder_core import Context, Features, Layout, UsageError, seeded, uneven_heads
from reorder_core.grid import Grid
from reorder_core.model import sincos1d, sincos2d
from reorder_detection.detections import Detections, Wanted
from reorder_detection.matching import Said, loss_B
from reorder_detection.settings import DetrSettings


class DecoderLayer(nn.Module):
    """Queries look at each other and at the sequence, then an MLP; norms come after, as published.

    first: queries have seen nothing yet, and do not look at each other (which the paper says can be left out).
    """

    def __init__(self, width: int, heads: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.among = None if first else nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm_among = None if first else nn.LayerNorm(width)
        self.across = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.mlp = Mlp(width, 4 * width, act_layer=nn.ReLU, drop=dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm_across, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, state_BQE: Tensor, query_QE: Tensor, key_BNE: Tensor, value_BNE: Tensor) -> Tensor:
        """query_QE, and the positions in key_BNE, are added where something is looked for, not to what is found."""
        if self.among is not None and self.norm_among is not None:
            asking = state_BQE + query_QE
            seen, _ = self.among(asking, asking, state_BQE, need_weights=False)
            state_BQE = self.norm_among(state_BQE + self.dropout(seen))
        seen, _ = self.across(state_BQE + query_QE, key_BNE, value_BNE, need_weights=False)
        state_BQE = self.norm_across(state_BQE + self.dropout(seen))
        found: Tensor = self.norm_mlp(state_BQE + self.dropout(self.mlp(state_BQE)))
        return found


class DetrHead(nn.Module):
    """A set of predictions without a grid: the last level's tokens stay in the order in which they were read.

    `forward` gives what is said after each decoder layer (in evaluation after the last only). Crowds are no targets.
    """

    def __init__(self, settings: DetrSettings, context: Context, classes: int) -> None:
        super().__init__()
        if said := uneven_heads(settings.width, settings.heads):
            raise UsageError(f"task.head.heads: {said}")
        self.settings = settings
        E = settings.width
        self.pixels = (context.grid.rows * context.patch, context.grid.columns * context.patch)
        with seeded(context.generator):
            self.to_memory = nn.Linear(context.width, E)
            self.query_QE = nn.Parameter(torch.randn(settings.queries, E))
            self.layers = nn.ModuleList(
                DecoderLayer(E, settings.heads, settings.dropout, first=k == 0) for k in range(settings.layers)
            )
            self.norm = nn.LayerNorm(E)
            self.to_classes = nn.Linear(E, classes + 1)
            self.to_box = nn.Sequential(nn.Linear(E, E), nn.ReLU(), nn.Linear(E, E), nn.ReLU(), nn.Linear(E, 4))
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1 and name != "query_QE":
                    nn.init.xavier_uniform_(parameter)
        self.query_QE._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, features: Features) -> list[Said]:
        """What the queries say, in float32 also under autocast, the last layer last."""
        level = features.levels[-1]
        value_BNE = self.to_memory(level.tokens_BND)
        key_BNE = value_BNE + self._positions(level.layout).to(value_BNE)
        state_BQE = value_BNE.new_zeros(value_BNE.shape[0], *self.query_QE.shape)
        said = []
        for number, layer in enumerate(self.layers, start=1):
            state_BQE = layer(state_BQE, self.query_QE, key_BNE, value_BNE)
            if number == len(self.layers) or (self.training and self.settings.auxiliary):
                read_BQE = self.norm(state_BQE)
                said.append(Said(self.to_classes(read_BQE).float(), self.to_box(read_BQE).float().sigmoid()))
        return said

    def _positions(self, layout: Layout) -> Tensor:
        """What is added to the keys: [N, E], or [B, N, E] where images are read in different orders."""
        grid, E = layout.grid, self.settings.width
        if self.settings.positions == "none":
            return torch.zeros(1, E)
        if self.settings.positions == "slot":
            return sincos1d(Grid(1, layout.perm_GN.shape[1]), E).to(layout.perm_GN.device)
        place_GNE = sincos2d(grid, E).to(layout.perm_GN.device)[layout.perm_GN]
        return place_GNE[0] if layout.group_B is None else place_GNE[layout.group_B]

    def loss_B(self, said: list[Said], targets: Wanted) -> Tensor:
        """Of the last layer's predictions, and of the earlier ones', each matched anew. Raises `UsageError` where an
        image has more objects than there are queries."""
        most = int(targets.there_BM.sum(dim=1).max())
        if most > self.settings.queries:
            raise UsageError(
                f"an image has {most} objects, and task.head.queries is {self.settings.queries}: raise it above the "
                f"number of objects that any image has"
            )
        height, width = self.pixels
        scale_4 = targets.boxes_BM4.new_tensor([width, height, width, height])
        boxes_BM4 = box_convert(targets.boxes_BM4 / scale_4, "xyxy", "cxcywh")
        layers = len(said)
        every = Said(torch.cat([each.logits_BQK1 for each in said]), torch.cat([each.boxes_BQ4 for each in said]))
        loss_KB = loss_B(every, targets.repeated(layers), boxes_BM4.repeat(layers, 1, 1), self.settings)
        *earlier, last = loss_KB.chunk(layers)
        return last + self.settings.auxiliary * sum(earlier, torch.zeros_like(last))

    def table(self, said: list[Said]) -> Tensor:
        """The box and the probability of each class of each query, [B, Q, 4 + K]."""
        height, width = self.pixels
        boxes_BQ4 = box_convert(said[-1].boxes_BQ4, "cxcywh", "xyxy")
        scale_4 = torch.tensor([width, height, width, height], device=boxes_BQ4.device)
        return torch.cat([boxes_BQ4 * scale_4, said[-1].logits_BQK1.softmax(dim=2)[..., :-1]], dim=2)

    def decode(self, said: list[Said]) -> list[Detections]:
        """One detection a query, of its likeliest class but "no object", the best first; nothing is suppressed."""
        table = self.table(said)
        boxes_BQ4, (score_BQ, label_BQ) = clip_boxes_to_image(table[..., :4], self.pixels), table[..., 4:].max(dim=2)
        found = []
        for boxes_Q4, score_Q, label_Q in zip(boxes_BQ4, score_BQ, label_BQ, strict=True):
            best = score_Q.argsort(descending=True)
            best = best[(boxes_Q4[best, 2:] > boxes_Q4[best, :2]).all(dim=1)]
            found.append(Detections(boxes_Q4[best], score_Q[best], label_Q[best]))
        return found
