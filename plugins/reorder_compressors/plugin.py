"""What this room promises: the kind `compressor`, and four of them."""

from __future__ import annotations

from reorder_core import Component, Kind, hookimpl


@hookimpl
def kinds() -> tuple[Kind, ...]:
    return (
        Kind(
            name="compressor",
            plural="compressors",
            protocol="reorder_compressors.interface:Compressor",
            summary="makes a string of bytes shorter, and gives it back",
            contract="reorder_compressors.conformance:check_compressor",
            template="reorder_compressors.templates:compressor",
        ),
    )


def _compressor(name: str, target: str, summary: str, paper: str) -> Component:
    return Component(
        kind="compressor",
        name=name,
        target=f"reorder_compressors.{target}",
        summary=summary,
        settings=f"reorder_compressors.settings:{target.partition(':')[2]}Settings",
        paper=paper,
    )


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        _compressor(
            "lzma",
            "lzma2:Lzma",
            "LZMA2 without a container, its dictionary no larger than the payload: the paper's measure",
            "Pavlov 1998 (7-Zip); Kutscher et al., NeurIPS 2025, arXiv 2505.23751",
        ),
        _compressor("zlib", "deflate:Zlib", "raw deflate: LZ77 and Huffman codes", "Deutsch 1996, RFC 1951"),
        _compressor(
            "bz2",
            "bzip2:Bz2",
            "bzip2: block sorting and Huffman codes; its headers are part of every string",
            "Burrows and Wheeler 1994, SRC report 124",
        ),
        _compressor(
            "zstd",
            "zstd:Zstd",
            "Zstandard without magic number, size and checksum: LZ77 and finite-state entropy codes",
            "Collet and Kucherawy 2021, RFC 8878",
        ),
    )
