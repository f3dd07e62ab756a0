"""Raw deflate: zlib without its header and checksum (RFC 1951)."""

from __future__ import annotations

import zlib

from reorder_compressors.settings import ZlibSettings
from reorder_core import Context, RunError

RAW = -zlib.MAX_WBITS
"""a window of 32 KiB, and by its sign neither header nor checksum"""


class Zlib:
    """The size of a string is that of its deflate blocks."""

    releases_gil = True

    def __init__(self, settings: ZlibSettings, context: Context) -> None:
        self.level = settings.level

    def compress(self, payload: bytes) -> bytes:
        return zlib.compress(payload, self.level, wbits=RAW)

    def decompress(self, data: bytes, length: int) -> bytes:
        try:
            payload = zlib.decompress(data, wbits=RAW, bufsize=max(length, 1))
        except zlib.error as error:
            raise RunError(f"these {len(data)} bytes are no deflate string: compress the payload again") from error
        if len(payload) != length:
            raise RunError(f"a deflate string holds {len(payload)} bytes where {length} are due: compress it again")
        return payload

    def size(self, payload: bytes) -> int:
        return len(self.compress(payload))
