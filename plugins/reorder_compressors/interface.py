"""A compressor makes a string of bytes shorter, and gives it back."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Compressor(Protocol):
    """Built as `target(settings, context)`; holds no state that one payload leaves for the next.

    What it returns is what the compression itself costs: no container, checksum or length where the format allows to
    leave them out, for on a string of 64 tokens they would weigh as much as the tokens.

    releases_gil: whether threads compress side by side. All methods may be called from several threads at once.
    """

    releases_gil: bool

    def compress(self, payload: bytes) -> bytes:
        """The payload in fewer bytes, if it can be; deterministic. Takes any length, and any bytes."""
        ...

    def decompress(self, data: bytes, length: int) -> bytes:
        """The payload again, from what `compress` returned; `length` is the payload's, in bytes.

        Raises `RunError` where `data` is damaged, or does not hold `length` bytes.
        """
        ...

    def size(self, payload: bytes) -> int:
        """`len(compress(payload))`, in bytes, by the quickest way there is."""
        ...
