"""The skeleton that backbones share: special tokens in, blocks, final norm, special tokens out, readout.

A room brings its mixer; `SequenceBackbone` makes a backbone of it. B images, N patches, S special tokens, T tokens of a
text, L = N + S + T, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reorder_core.errors import UsageError
from reorder_core.interfaces.backbone import Attention, Features, Level
from reorder_core.interfaces.context import Context
from reorder_core.layout import Layout, insert, take_apart
from reorder_core.reading import Reading as Reading
from reorder_core.sequence_settings import SequenceSettings
from reorder_core.weights import load_weights

Layouts = Layout | tuple[Layout, ...]


@contextmanager
def seeded(generator: torch.Generator | None) -> Iterator[None]:
    """Inside, torch's initialisers draw from a seed of the run's generator; outside, nothing of it is seen."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        yield


class SequenceModel(nn.Module):
    """The base of backbones: everything around the blocks.

    A subclass sets `attention`, `order_sensitive` and `orders`, makes its blocks and calls `make_class_token()` inside
    `seeded(context.generator)`, and says `blocks_in_order()` and `final_norm()`. Blocks are called as
    `block(tokens_BLD, plan)`. `between(k, tokens_BND, layout)` (`interfaces/between.py`), where the settings name it or
    it is set, is called after each block with the patches alone. `exits_after`: numbers of blocks after which the
    summary is read too (`Features.exits`), as at the end; the exits of `between` come besides.

    A forward pass is `finish(advance(start(tokens, layout)))`, which a caller may take apart, to stop for some images.

    A text goes after the last patch: its tokens are special tokens at the end of the sequence that are not the model's
    own. A subclass that cannot have any says `takes_text = False`.
    """

    takes_text: bool = True

    orders: int = 1
    order_sensitive: bool = True
    attention: Attention = "full"
    cls_token: Tensor

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__()
        self.settings = settings
        self.width: int = settings.width
        self.between: Any = _build_between(settings, context)
        self.exits_after: tuple[int, ...] = ()

    def blocks_in_order(self) -> Iterable[nn.Module]:
        """The blocks, from the first to the last."""
        raise TypeError(f"{type(self).__name__} must say what its blocks are: define blocks_in_order()")

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        """The norm after the last block."""
        return tokens_BLD

    def plan(self, layout: Layouts) -> Any:
        """What all blocks share for this layout; by default what the first block's mixer makes of it."""
        return next(iter(self.blocks_in_order())).mixer.plan(layout)  # type: ignore[operator, union-attr]

    def make_class_token(self, std: float = 0.02) -> None:
        """The parameter `cls_token` [1, 1, D], where the readout wants one."""
        if self.settings.readout == "class":
            self.cls_token = nn.Parameter(torch.empty(1, 1, self.width).normal_(std=std))
            self.cls_token._no_weight_decay = True  # type: ignore[attr-defined]

    def special_tokens(self) -> Tensor | None:
        """[1, S, D], or None."""
        return self.cls_token if self.settings.readout == "class" else None

    def special_places(self, N: int) -> tuple[int, ...]:
        """Where the special tokens stand among N patches: ascending places in the whole sequence."""
        if self.settings.readout != "class":
            return ()
        usual = "end" if self.attention == "causal" else "start"
        return ({"start": 0, "middle": N // 2, "end": N}[self.settings.class_position or usual],)

    def summarise(self, patches_BND: Tensor, special_BSD: Tensor, layout: Layout) -> Tensor:
        """The summary [B, D] where the readout says: class token, mean of the patches, or last patch."""
        readout, valid_BN = self.settings.readout, layout.valid_BN
        if readout == "class":
            return special_BSD[:, 0]
        if readout == "mean":
            if valid_BN is None:
                return patches_BND.mean(dim=1)
            weight_BN1 = valid_BN.to(patches_BND.dtype).unsqueeze(-1)
            return (patches_BND * weight_BN1).sum(dim=1) / weight_BN1.sum(dim=1).clamp(min=1)
        if valid_BN is None:
            return patches_BND[:, -1]
        slot_N = torch.arange(valid_BN.shape[1], device=valid_BN.device)
        last_B = torch.where(valid_BN, slot_N, 0).amax(dim=1)
        return patches_BND.take_along_dim(last_B[:, None, None], dim=1)[:, 0]

    def forward(self, tokens_BND: Tensor, layout: Layouts, text_BTD: Tensor | None = None) -> Features:
        """tokens_BND in reading order (of the first layout), positions added. The summary is read as settings say."""
        return self.finish(self.advance(self.start(tokens_BND, layout, text_BTD)))

    def start(self, tokens_BND: Tensor, layout: Layouts, text_BTD: Tensor | None = None) -> Reading:
        """Before the first block: special tokens stand among the patches, a text after all of them."""
        layouts = layout if isinstance(layout, tuple) else (layout,)
        tokens_BLD = self._with_special(tokens_BND, self.special_places(tokens_BND.shape[1]), text_BTD)
        text = 0 if text_BTD is None else text_BTD.shape[1]
        return Reading(0, tokens_BLD, tuple(one.with_special() for one in layouts), text=text)

    def advance(self, reading: Reading, until: int | None = None) -> Reading:
        """Go on until so many blocks are done; left out: all of them."""
        tokens_BLD, exits = reading.tokens_BLD, list(reading.exits)
        special = self.places(reading)
        layouts = tuple(one.with_special(special) for one in reading.layouts)
        plan = self._plan(layouts)
        blocks = list(self.blocks_in_order())[reading.done : until]
        for k, block in enumerate(blocks, start=reading.done):
            tokens_BLD = block(tokens_BLD, plan)
            if k in self.exits_after:
                exits.append(self._read(self.final_norm(tokens_BLD), layouts[0])[1])
            if self.between is not None:
                if k in getattr(self.between, "exits_after", ()):
                    exits.append(self._weighted_exit(k, tokens_BLD, layouts[0]))
                tokens_BLD, after = self._reorder(k, tokens_BLD, layouts[0])
                if after is not layouts[0]:
                    layouts = (after, *layouts[1:])
                    plan = self._plan(layouts)
        layouts = tuple(one.with_special() for one in layouts)
        return Reading(reading.done + len(blocks), tokens_BLD, layouts, tuple(exits), reading.text)

    def places(self, reading: Reading) -> tuple[int, ...]:
        """Where special tokens stand in the whole sequence: the model's own, then those of the text."""
        length = reading.tokens_BLD.shape[1]
        own = self.special_places(reading.layouts[0].perm_GN.shape[1])
        return (*own, *range(length - reading.text, length))

    def finish(self, reading: Reading) -> Features:
        """After the last block: the final norm, special tokens out, the summary."""
        layout, tokens_BLD = reading.layouts[0], self.final_norm(reading.tokens_BLD)
        patches_BND, summary_BD = self._read(tokens_BLD, layout.with_special(self.places(reading)))
        text_BTD = tokens_BLD[:, tokens_BLD.shape[1] - reading.text :] if reading.text else None
        return Features((Level(patches_BND, layout),), summary_BD, reading.exits, text_BTD)

    def _reorder(self, k: int, tokens_BLD: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """What `between` makes of the patches after block k, the special tokens where they stood."""
        patches_BND, special_BSD = take_apart(tokens_BLD, layout.special)
        given = layout.with_special() if layout.special else layout
        after_BND, after = self.between(k, patches_BND, given)
        if after_BND.shape != patches_BND.shape or after.perm_GN.shape[1] != given.perm_GN.shape[1]:
            raise UsageError(
                f"backbone.between: after block {k} it gave {after_BND.shape[1]} tokens back for "
                f"{patches_BND.shape[1]}, and a layout of {after.perm_GN.shape[1]}: it may reorder them only"
            )
        if after is given:
            return (tokens_BLD if after_BND is patches_BND else self._joined(after_BND, special_BSD, layout)), layout
        return self._joined(after_BND, special_BSD, layout), after.with_special(layout.special)

    def _joined(self, patches_BND: Tensor, special_BSD: Tensor, layout: Layout) -> Tensor:
        return insert(patches_BND, special_BSD, layout.special) if layout.special else patches_BND

    def _weighted_exit(self, k: int, tokens_BLD: Tensor, layout: Layout) -> Tensor:
        """The summary that `between` reads after block k: Σ weight · final_norm(token) over the patches, [B, D]."""
        patches_BND, _ = take_apart(tokens_BLD, layout.special)
        weight_BN = self.between.exit_weights(k, patches_BND, layout.with_special())
        normed_BND, _ = take_apart(self.final_norm(tokens_BLD), layout.special)
        return torch.einsum("bn,bnd->bd", weight_BN.to(normed_BND.dtype), normed_BND)

    def _plan(self, layouts: tuple[Layout, ...]) -> Any:
        return self.plan(layouts if self.orders > 1 else layouts[0])

    def _with_special(self, tokens_BND: Tensor, special: tuple[int, ...], text_BTD: Tensor | None = None) -> Tensor:
        tokens_1SD, tokens_BLD = self.special_tokens(), tokens_BND
        if tokens_1SD is not None:
            tokens_BLD = insert(
                tokens_BND, tokens_1SD.to(tokens_BND.dtype).expand(tokens_BND.shape[0], -1, -1), special
            )
        return tokens_BLD if text_BTD is None else torch.cat([tokens_BLD, text_BTD.to(tokens_BLD.dtype)], dim=1)

    def _read(self, tokens_BLD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        patches_BND, special_BSD = take_apart(tokens_BLD, layout.special)
        own_BSD = special_BSD[:, : len(self.special_places(patches_BND.shape[1]))]
        return patches_BND, self.summarise(patches_BND, own_BSD, layout.with_special())


def _build_between(settings: Any, context: Context) -> Any:
    """What the settings name to stand between the blocks, or None."""
    ref = getattr(settings, "between", None)
    if ref is None:
        return None
    made = context.build(ref, width=settings.width)
    made._keep_init = True  # its first weights are its own business
    made.prepare(settings.depth)
    return made


class Block(nn.Module):
    """`x + mixer(norm1(x))`, then `x + mlp(norm2(x))`; a branch is dropped for a whole image with `drop_path`."""

    def __init__(
        self, mixer: nn.Module, width: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.mixer = mixer
        self.drop = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6) if mlp_ratio else None
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=dropout) if mlp_ratio else None

    def forward(self, tokens_BLD: Tensor, plan: Any) -> Tensor:
        tokens_BLD = tokens_BLD + self.drop_path(self.drop(self.mixer(self.norm1(tokens_BLD), plan)))
        if self.mlp is not None and self.norm2 is not None:
            tokens_BLD = tokens_BLD + self.drop_path(self.mlp(self.norm2(tokens_BLD)))
        return tokens_BLD


class SequenceBackbone(SequenceModel):
    """The standard backbone around a mixer: `blocks.{k}.norm1/mixer/norm2/mlp`, `norm`, `cls_token`.

    make_mixer: called once a block with a context whose width is the settings'. Linear layers start from a truncated
    normal of 0.02 with zero biases, as in timm's ViT, except below a module with `_keep_init = True`.
    """

    def __init__(
        self, settings: SequenceSettings, context: Context, make_mixer: Callable[[Context], nn.Module]
    ) -> None:
        super().__init__(settings, context)
        inner = context.changed(width=settings.width)
        with seeded(context.generator):
            rates = [settings.drop_path * k / max(1, settings.depth - 1) for k in range(settings.depth)]
            self.blocks = nn.ModuleList(
                Block(make_mixer(inner), settings.width, settings.mlp_ratio, rate, settings.dropout) for rate in rates
            )
            self.norm = nn.LayerNorm(settings.width, eps=1e-6)
            self.make_class_token()
            initialise(self)
        mixer: Any = self.blocks[0].mixer
        self.attention, self.orders = mixer.attention, mixer.orders
        self.order_sensitive = mixer.order_sensitive or settings.readout == "last"
        refuse_blind_class_token(self)
        if settings.weights is not None:
            load_weights(self, settings.weights, self.rename_weight)

    def blocks_in_order(self) -> Iterable[nn.Module]:
        return self.blocks

    def final_norm(self, tokens_BLD: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens_BLD)
        return normed

    def rename_weight(self, name: str) -> str | None:
        """This model's name of a tensor in a file of weights; None for one that is not wanted. Override to adapt."""
        return name


def refuse_blind_class_token(model: SequenceModel) -> None:
    """Raise `UsageError` for a class token that stands before every patch of a causal model."""
    settings = model.settings
    if model.attention == "causal" and settings.readout == "class" and settings.class_position == "start":
        raise UsageError(
            "backbone.class_position: a causal model has read no patch yet at its first token: "
            "put the class token at the middle or the end"
        )


def initialise(module: nn.Module) -> None:
    """timm's rule for the linear layers below `module`; a module with `_keep_init = True` is left as it is."""
    if getattr(module, "_keep_init", False):
        return
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for child in module.children():
        initialise(child)
