"""What a tokenizer's file says about itself, read without torch: the header of a safetensors file.

The format: eight bytes of length (little endian), then as much JSON, then the tensors.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reorder_core import UsageError

FORMAT = "reorder tokenizer 1"
_MOST_BYTES = 100_000_000  # of a header, as safetensors itself allows


@dataclass(frozen=True)
class Header:
    """kind: the component that reads the file. patch: pixels. figures: what the report of the training said."""

    kind: str
    patch: int
    channels: int
    codes: int
    settings: dict[str, Any]
    figures: dict[str, Any]

    def as_metadata(self) -> dict[str, str]:
        """Strings only, as safetensors wants them."""
        numbers = {name: str(getattr(self, name)) for name in ("patch", "channels", "codes")}
        texts = {"settings": json.dumps(self.settings), "figures": json.dumps(self.figures)}
        return {"format": FORMAT, "kind": self.kind, **numbers, **texts}

    def misfit(self, path: Path, kind: str, patch: int, channels: int) -> str | None:
        """One sentence where a component of this kind cannot read the file for such images, else None."""
        if self.kind != kind:
            return f"{path} holds a tokenizer of the kind '{self.kind}': write {{name: {self.kind}, path: {path}}}"
        for name, own, wanted in (
            ("patches of {} pixels", self.patch, patch),
            ("{} channels", self.channels, channels),
        ):
            if own != wanted:
                return (
                    f"{path} was trained on {name.format(own)}, and these images have {name.format(wanted)}: "
                    f"train another with `reorder tokenizer train`"
                )
        return None


def read_header(path: Path) -> Header:
    """Raises `UsageError` where there is no such file, or it is no tokenizer's."""
    try:
        with path.expanduser().open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MOST_BYTES:
                raise ValueError("its header is too long")
            found = json.loads(file.read(length))["__metadata__"]
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}")
        settings, figures = json.loads(found["settings"]), json.loads(found["figures"])
        patch, channels, codes = (int(found[name]) for name in ("patch", "channels", "codes"))
        return Header(found["kind"], patch, channels, codes, settings, figures)
    except OSError as error:
        raise UsageError(
            f"the tokenizer {path} cannot be read ({error.strerror}): make one with `reorder tokenizer train`"
        ) from error
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no tokenizer's file ({type(error).__name__}: {error}): make one with `reorder tokenizer train`"
        ) from error
