"""Settings of the ordering `compressibility`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from reorder_core import ComponentRef, Problem, Ref, RunFacts, Settings, UsageError
from reorder_core.settings import OrderingRef

if TYPE_CHECKING:
    TokenizerRef = CompressorRef = ComponentRef
else:
    TokenizerRef, CompressorRef = Ref["tokenizer"], Ref["compressor"]


_UNIFORM, _LZMA = ComponentRef("tokenizer", "uniform"), ComponentRef("compressor", "lzma")


class CompressibilitySettings(Settings):
    """Compress the training images in several orders, and read them in the one that came out smallest (or largest)."""

    pick: Literal["winner", "loser"] = "winner"
    """winner: the most compressible order; loser: the least, since models may like that better"""
    orderings: tuple[OrderingRef, ...] | None = None
    """the orderings to choose from; left out: all that need no settings, do not learn and are not drawn by chance"""
    tokenizer: TokenizerRef = _UNIFORM
    """what turns patches into codes"""
    compressor: CompressorRef = _LZMA
    """what compresses the codes of an image"""
    ngram: Literal[1, 2] = 1
    """1: each code is a symbol; 2: each pair of codes that follow each other"""
    together: int = Field(default=1, ge=1)
    """how many images are compressed as one stream; 1: each alone. A few dozen codes alone hardly repeat: raise it"""
    ranking: Path | None = None
    """a ranking saved by `reorder prior --write`, from the working directory: taken instead of measuring the training
    images, so that only `pick` goes with it"""

    @field_validator("orderings")
    @classmethod
    def _choice(cls, given: tuple[ComponentRef, ...] | None) -> tuple[ComponentRef, ...] | None:
        if given is not None and not given:
            raise ValueError("an empty list leaves no order to choose: name orderings, or leave the setting out")
        if given is not None and any(each.name == "compressibility" for each in given):
            raise ValueError("compressibility cannot be one of its own candidates: name other orderings")
        if given is not None and len({(each.name, repr(each.settings)) for each in given}) < len(given):
            raise ValueError("an ordering is named twice: keep one")
        return given

    @model_validator(mode="after")
    def _of_file(self) -> CompressibilitySettings:
        fields = type(self).model_fields
        given = [key for key in ("orderings", "ngram", "together") if getattr(self, key) != fields[key].default]
        given += [key for key in ("tokenizer", "compressor") if getattr(self, key).name != fields[key].default.name]
        if self.ranking is not None and given:
            raise ValueError(f"{', '.join(given)}: the ranking was made without; leave out one or the other")
        return self

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """A ranking that cannot be read, or that was made for another grid, is found before anything starts."""
        if self.ranking is not None:
            try:
                read_ranking(self.ranking, facts.grid.rows, facts.grid.columns)
            except UsageError as error:
                yield Problem("ranking", str(error))


def read_ranking(path: Path, rows: int, columns: int) -> list[tuple[str, list[int] | None]]:
    """The orderings of a file of `reorder prior --write`, most compressible first, each with its order.

    The order is None where the file names an ordering only. Raises `UsageError`: no such file, no ranking in it, made
    for another grid than `rows` x `columns`.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        grid = [int(side) for side in content["grid"]]
        orders = content.get("orders", {})
        ranked = [(str(row["ordering"]), orders.get(row["ordering"])) for row in content["ranking"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{path} holds no ranking ({reason}): save one with `reorder prior … --write {path}`"
        ) from error
    if grid != [rows, columns]:
        shown = "x".join(map(str, grid))
        raise UsageError(f"{path} ranks orders of a {shown} grid, not of {rows}x{columns}: make one for this grid")
    if not ranked:
        raise UsageError(f"{path} ranks no ordering: save another with `reorder prior … --write {path}`")
    return ranked
