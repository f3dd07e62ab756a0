"""What `reorder new tokenizer NAME` writes: equally frequent levels of brightness, with tests that pass."""

from __future__ import annotations

from importlib.resources import files

from reorder_core.distribution import distribution


def tokenizer(name: str) -> dict[str, str]:
    """The files of one distribution, by path; their texts stand in the folder `template`."""
    return distribution("tokenizer", name, files("reorder_tokenizers") / "template")
