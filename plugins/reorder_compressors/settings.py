"""Settings of the compressors."""

from __future__ import annotations

from pydantic import Field

from reorder_core import Settings


class LzmaSettings(Settings):
    """LZMA2, as liblzma has it."""

    preset: int = Field(default=6, ge=0, le=9)
    """how much is tried, as in `xz -0` … `xz -9`; for short strings presets differ little"""
    extreme: bool = False
    """try still more, as `xz --extreme`"""


class ZlibSettings(Settings):
    """Raw deflate, as zlib has it."""

    level: int = Field(default=9, ge=1, le=9)
    """how much is tried, as in `gzip -1` … `gzip -9`"""


class Bz2Settings(Settings):
    """bzip2."""

    level: int = Field(default=9, ge=1, le=9)
    """the size of a block in units of 100,000 bytes: strings shorter than that come out equally long at every level"""


class ZstdSettings(Settings):
    """Zstandard."""

    level: int = Field(default=19, ge=1, le=22)
    """how much is tried, as in `zstd -1` … `zstd --ultra -22`"""
