"""Zstandard (RFC 8878) by whichever package has it, without what says nothing about the payload.

Python has it from 3.14 on (`compression.zstd`); before, `backports.zstd` has the same interface, and `zstandard` has
another one. All hold the same C library. A frame is written without content size, checksum and dictionary number, and
its magic number, four bytes that are always the same, is taken off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from reorder_compressors.settings import ZstdSettings
from reorder_core import Context, RunError, UsageError

MAGIC = b"\x28\xb5\x2f\xfd"


class Codec(NamedTuple):
    """One package's way: whole frames, made by an encoder that one thread uses again and again."""

    package: str
    encoder: Callable[[int], Callable[[bytes], bytes]]  # level -> payload -> frame
    decode: Callable[[bytes, int], bytes]  # frame, length -> payload
    damaged: type[Exception]


def _of_python(module: str) -> Codec:
    """`compression.zstd` and `backports.zstd`."""
    zstd: Any = import_module(module)
    bare = {zstd.CompressionParameter[f"{name}_flag"]: 0 for name in ("content_size", "checksum", "dict_id")}

    def encoder(level: int) -> Callable[[bytes], bytes]:
        made = zstd.ZstdCompressor(options={zstd.CompressionParameter.compression_level: level, **bare})
        return lambda payload: made.compress(payload, made.FLUSH_FRAME)

    return Codec(module, encoder, lambda frame, length: zstd.decompress(frame), zstd.ZstdError)


def _of_zstandard(module: str) -> Codec:
    zstandard: Any = import_module(module)

    def encoder(level: int) -> Callable[[bytes], bytes]:
        return zstandard.ZstdCompressor(
            level=level, write_content_size=False, write_checksum=False, write_dict_id=False
        ).compress

    def decode(frame: bytes, length: int) -> bytes:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=max(length, 1))

    return Codec(module, encoder, decode, zstandard.ZstdError)


SOURCES: tuple[tuple[str, Callable[[str], Codec]], ...] = (
    ("compression.zstd", _of_python),
    ("backports.zstd", _of_python),
    ("zstandard", _of_zstandard),
)


def find_codec() -> Codec:
    """The first package that is there. Raises `UsageError` where none is."""
    for module, codec in SOURCES:
        try:
            return codec(module)
        except ImportError:
            continue
    raise UsageError(
        "the compressor 'zstd' needs Python 3.14 or a package: pip install 'backports.zstd', or choose 'lzma'"
    )


class Zstd:
    """The size of a string is that of its frame, less the magic number."""

    releases_gil = True

    def __init__(self, settings: ZstdSettings, context: Context) -> None:
        self.level = settings.level
        self.codec = find_codec()
        self._own = threading.local()

    def compress(self, payload: bytes) -> bytes:
        try:
            encode = self._own.encode
        except AttributeError:  # the first payload of this thread: an encoder serves one thread at a time
            encode = self._own.encode = self.codec.encoder(self.level)
        return encode(payload)[len(MAGIC) :]

    def decompress(self, data: bytes, length: int) -> bytes:
        try:
            payload = self.codec.decode(MAGIC + data, length)
        except self.codec.damaged as error:
            raise RunError(f"these {len(data)} bytes are no zstd frame: compress the payload again") from error
        if len(payload) != length:
            raise RunError(f"a zstd frame holds {len(payload)} bytes where {length} are due: compress it again")
        return payload

    def size(self, payload: bytes) -> int:
        return len(self.compress(payload))
