"""The names that Hugging Face's Longformer gives to the same parameters."""

from __future__ import annotations

import re

_LAYER = re.compile(r"(?:longformer\.)?encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_NORM = re.compile(r"(?:longformer\.)?embeddings\.LayerNorm\.(weight|bias)")
_IN_LAYER = {
    "attention.output.dense": "mixer.proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}
_NOT_WANTED = re.compile(r"(?:longformer\.)?(?:embeddings|pooler)\.|lm_head\.|classifier\.|qa_outputs\.")


class Names:
    """From the names of a file to ours; names that are no Longformer's of Hugging Face pass through.

    Such a file has words where we have patches: its embeddings, pooler and heads are left out, and it may lack the
    class token, which then keeps its initial values.
    """

    def __init__(self) -> None:
        self.theirs = False

    def here(self, name: str) -> str | None:
        """Our name of a tensor, or None for one that is not wanted."""
        if found := _NORM.fullmatch(name):
            self.theirs = True
            return f"embed_norm.{found[1]}"
        if found := _LAYER.fullmatch(name):
            self.theirs = True
            part = found[2]
            ours = _IN_LAYER.get(part, part.replace("attention.self.", "mixer."))
            return f"blocks.{found[1]}.{ours}.{found[3]}"
        return None if _NOT_WANTED.match(name) else name

    def may_lack(self, name: str) -> bool:
        """Whether the file may be without our tensor of this name."""
        return self.theirs and name == "cls_token"
