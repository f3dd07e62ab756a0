"""LZMA2 without a container, its dictionary no larger than the payload needs.

What `lzma.compress` costs on a short string is not the compression but the memory: preset 6 has a dictionary of 8 MiB
and a hash table of 16 MiB, taken from the system and given back for every string. A match cannot reach farther back
than the payload is long, so that a dictionary of the payload's length finds the same matches. 4 KiB is the least that
liblzma takes.

What is left, 1.3 MiB an encoder, still goes back to the system and comes again for every string in a process that
never freed anything large: glibc gives back what is free at the top of its heap, beyond twice the largest block that it
ever mapped and freed. So one large block is freed once, untouched; on other systems that does nothing.
"""

from __future__ import annotations

import lzma
from functools import cached_property
from typing import Any

from reorder_compressors.settings import LzmaSettings
from reorder_core import Context, RunError

LEAST_DICTIONARY = 4096
"""bytes: liblzma's LZMA_DICT_SIZE_MIN"""

DICTIONARY_OF_PRESET = tuple(1 << bits for bits in (18, 20, 21, 22, 22, 23, 23, 24, 25, 26))
"""bytes, as liblzma's presets 0 … 9 have them"""

KEPT = 8 << 20
"""bytes, the block that is freed once: some encoders fit twice that, and glibc learns from no more than 32 MiB"""


class Lzma:
    """The size of a string is that of its LZMA2 chunks and the one byte that ends them."""

    releases_gil = True

    def __init__(self, settings: LzmaSettings, context: Context) -> None:
        self.preset = settings.preset | (lzma.PRESET_EXTREME if settings.extreme else 0)
        bytes(KEPT)  # zeroed by the system, and freed at once: the allocator keeps what encoders take from now on
        self.most = DICTIONARY_OF_PRESET[settings.preset]

    def dictionary(self, length: int) -> int:
        """Bytes of dictionary for a payload of `length` bytes: as long as it, within what the preset would take."""
        return min(max(length, LEAST_DICTIONARY), self.most)

    def compress(self, payload: bytes) -> bytes:
        filters = self._short if len(payload) <= LEAST_DICTIONARY else self._filters(len(payload))
        return lzma.compress(payload, format=lzma.FORMAT_RAW, filters=filters)

    def decompress(self, data: bytes, length: int) -> bytes:
        try:
            payload = lzma.decompress(data, format=lzma.FORMAT_RAW, filters=self._filters(length))
        except lzma.LZMAError as error:
            raise RunError(f"these {len(data)} bytes are no LZMA2 string: compress the payload again") from error
        if len(payload) != length:
            raise RunError(f"an LZMA2 string holds {len(payload)} bytes where {length} are due: compress it again")
        return payload

    def size(self, payload: bytes) -> int:
        return len(self.compress(payload))

    @cached_property
    def _short(self) -> list[dict[str, Any]]:
        return self._filters(0)

    def _filters(self, length: int) -> list[dict[str, Any]]:
        return [{"id": lzma.FILTER_LZMA2, "preset": self.preset, "dict_size": self.dictionary(length)}]
