"""bzip2. Its format has no raw form: four bytes of header and the checksums of each block belong to every string."""

from __future__ import annotations

import bz2

from reorder_compressors.settings import Bz2Settings
from reorder_core import Context, RunError


class Bz2:
    """The size of a string is that of a whole bzip2 stream, of 14 bytes at least."""

    releases_gil = True

    def __init__(self, settings: Bz2Settings, context: Context) -> None:
        self.level = settings.level

    def compress(self, payload: bytes) -> bytes:
        return bz2.compress(payload, self.level)

    def decompress(self, data: bytes, length: int) -> bytes:
        try:
            payload = bz2.decompress(data)
        except (OSError, ValueError) as error:
            raise RunError(f"these {len(data)} bytes are no bzip2 stream: compress the payload again") from error
        if len(payload) != length:
            raise RunError(f"a bzip2 stream holds {len(payload)} bytes where {length} are due: compress it again")
        return payload

    def size(self, payload: bytes) -> int:
        return len(self.compress(payload))
