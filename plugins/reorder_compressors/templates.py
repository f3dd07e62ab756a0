"""What `reorder new compressor NAME` writes: a compressor by run lengths, with tests that pass."""

from __future__ import annotations

from importlib.resources import files

from reorder_core.distribution import distribution


def compressor(name: str) -> dict[str, str]:
    """The files of one distribution, by path; their texts stand in the folder `template`."""
    return distribution("compressor", name, files("reorder_compressors") / "template")
