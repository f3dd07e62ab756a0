"""Random numbers that are a pure function of (key, image, stream, position).

A counter-based generator (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) with SplitMix64's mixing
function (Steele et al., OOPSLA 2014): any image of any split can be drawn alone, in any order, and the numbers do not
change with NumPy's version. B images, n numbers an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_STREAM = 0xD1B54A32D192ED03
_WORD = (1 << 64) - 1


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, a bijection of 64 bits; works in a copy."""
    mixed = bits + _STEP
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def key_of(*parts: int) -> int:
    """One 64-bit key out of whole numbers (seed, split, epoch), whose order matters."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix(key ^ mix(np.array([part & _WORD], np.uint64)))
    return int(key[0])


class Draws:
    """The random numbers of some images: each stream of each image is independent of every other."""

    def __init__(self, key: int, image_B: NDArray[np.int64]) -> None:
        self._row_B1 = mix(mix(image_B.astype(np.uint64)) ^ np.uint64(key))[:, None]

    def bits(self, stream: int, count: int) -> NDArray[np.uint64]:
        """uint64 [B, count]."""
        start_B1 = mix(self._row_B1 ^ np.uint64((stream + 1) * _STREAM & _WORD))
        return mix(start_B1 + np.arange(count, dtype=np.uint64)[None] * _STEP)

    def uniform(self, stream: int, count: int) -> NDArray[np.float64]:
        """In [0, 1), float64 [B, count]."""
        return (self.bits(stream, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, stream: int, count: int, below: int) -> NDArray[np.int64]:
        """0 … below-1, int64 [B, count]; below < 2**32."""
        high = self.bits(stream, count) >> np.uint64(32)
        return ((high * np.uint64(below)) >> np.uint64(32)).astype(np.int64)

    def normal(self, stream: int, count: int) -> NDArray[np.float64]:
        """Standard normal, float64 [B, count] (Box and Muller)."""
        one, two = np.split(self.uniform(stream, 2 * count), 2, axis=1)
        return np.sqrt(-2.0 * np.log1p(-one)) * np.cos(2.0 * np.pi * two)

    def bell(self, stream: int, count: int) -> NDArray[np.float32]:
        """Mean 0, variance 1, nearly normal, float32 [B, count]: four uniforms of 16 bits added (Irwin-Hall)."""
        lanes = self.bits(stream, count).view(np.uint16).reshape(len(self._row_B1), count, 4)
        total = lanes[..., 0].astype(np.float32)
        for lane in range(1, 4):
            total += lanes[..., lane]
        total -= np.float32(2 * 65535)
        total *= np.float32(1.0 / np.sqrt(4 * (65536.0**2 - 1) / 12))
        return total
