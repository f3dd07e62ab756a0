"""Composing pictures: one whole digit among fragments of others.

B pictures, F fragments a picture, S side of a picture, d side of a digit, f side of a fragment, P digits of the split.
Every choice is a pure function of (key, number of the picture), and none depends on how many pictures are made at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_digits.draws import Draws
from reorder_digits.settings import ClutteredDigitsSettings, PlaceSettings
from reorder_digits.source import Pool

# One stream of random numbers for each choice.
_TARGET, _PLACE, _INK, _FRAGMENT, _CUT, _LAID, _NOISE, _CORNER = range(8)
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Composed:
    """pixels_BSS: uint8, 255 is full ink. place_B2: row and column of the target's first pixel.

    source_B and fragment_BF: which digits (numbers in load_digits) the target and the fragments come from.
    """

    pixels_BSS: NDArray[np.uint8]
    target_B: NDArray[np.int64]
    place_B2: NDArray[np.int64]
    source_B: NDArray[np.int64]
    fragment_BF: NDArray[np.int64]


def enlarged(ink_PHW: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Bilinear, half-pixel centres: float32 [P, side, side]."""
    old = ink_PHW.shape[-1]
    centre_s = np.clip((np.arange(side) + 0.5) * old / side - 0.5, 0, old - 1)
    weight_so = np.maximum(0.0, 1.0 - np.abs(centre_s[:, None] - np.arange(old)[None])).astype(np.float32)
    enlarged_PHW: NDArray[np.float32] = weight_so @ ink_PHW @ weight_so.T
    return enlarged_PHW


def places(draws: Draws, settings: PlaceSettings, room: int) -> NDArray[np.int64]:
    """Row and column, 0 … room, of the targets: int64 [B, 2]."""
    if settings.kind == "uniform":
        return draws.integers(_PLACE, 2, room + 1)
    if settings.kind == "corner":
        off_B2 = settings.spread * draws.uniform(_PLACE, 2)
        share_B2 = np.where(draws.integers(_CORNER, 2, 2) == 1, 1.0 - off_B2, off_B2)
    else:
        share_B2 = np.asarray(settings.centre) + settings.spread * draws.normal(_PLACE, 2)
    place_B2: NDArray[np.int64] = np.rint(np.clip(share_B2, 0.0, 1.0) * room).astype(np.int64)
    return place_B2


class Composer:
    """Makes pictures of one split; `compose` may be called for any numbers, in any order."""

    def __init__(self, pool: Pool, settings: ClutteredDigitsSettings) -> None:
        self.pool = pool
        self.settings = settings
        self._ink_Pdd = enlarged(pool.ink_PHW, settings.digit)

    def compose(self, key: int, image_B: NDArray[np.int64]) -> Composed:
        """The pictures with these numbers, for this key (of seed, split and epoch)."""
        parts = [self._chunk(key, image_B[at : at + _CHUNK]) for at in range(0, max(1, len(image_B)), _CHUNK)]
        return Composed(
            pixels_BSS=np.concatenate([part.pixels_BSS for part in parts]),
            target_B=np.concatenate([part.target_B for part in parts]),
            place_B2=np.concatenate([part.place_B2 for part in parts]),
            source_B=np.concatenate([part.source_B for part in parts]),
            fragment_BF=np.concatenate([part.fragment_BF for part in parts]),
        )

    def _chunk(self, key: int, image_B: NDArray[np.int64]) -> Composed:
        settings, draws, count = self.settings, Draws(key, image_B), len(image_B)
        low, high = settings.contrast
        ink_BF = (low + (high - low) * draws.uniform(_INK, 1 + settings.clutter)).astype(np.float32)
        canvas_BSS = np.zeros((count, settings.size, settings.size), np.float32)

        chosen_B = draws.integers(_TARGET, 1, len(self.pool))[:, 0]
        fragment_BF = self._scatter(draws, canvas_BSS, chosen_B, ink_BF[:, 1:])
        place_B2 = places(draws, settings.place, settings.size - settings.digit)
        _lay(canvas_BSS, self._ink_Pdd[chosen_B] * ink_BF[:, :1, None], place_B2)

        if settings.noise > 0:
            noise_BSS = draws.bell(_NOISE, settings.size**2).reshape(canvas_BSS.shape)
            canvas_BSS += np.float32(settings.noise) * noise_BSS
        np.clip(canvas_BSS, 0.0, 1.0, out=canvas_BSS)
        return Composed(
            pixels_BSS=np.rint(canvas_BSS * np.float32(255)).astype(np.uint8),
            target_B=self.pool.target_P[chosen_B],
            place_B2=place_B2,
            source_B=self.pool.source_P[chosen_B],
            fragment_BF=self.pool.source_P[fragment_BF],
        )

    def _scatter(
        self,
        draws: Draws,
        canvas_BSS: NDArray[np.float32],
        chosen_B: NDArray[np.int64],
        ink_BF: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        """Lay the fragments; returns which digits of the pool they were cut from, never the target's: [B, F]."""
        settings, count = self.settings, self.settings.clutter
        from_BF = draws.integers(_FRAGMENT, count, len(self.pool) - 1)
        from_BF += from_BF >= chosen_B[:, None]
        cut_BF2 = draws.integers(_CUT, 2 * count, settings.digit - settings.fragment + 1).reshape(
            len(chosen_B), count, 2
        )
        laid_BF2 = draws.integers(_LAID, 2 * count, settings.size - settings.fragment + 1).reshape(
            len(chosen_B), count, 2
        )
        span_f = np.arange(settings.fragment)
        for number in range(count):
            row_Bf1 = (cut_BF2[:, number, :1] + span_f)[:, :, None]
            column_B1f = (cut_BF2[:, number, 1:] + span_f)[:, None, :]
            piece_Bff = self._ink_Pdd[from_BF[:, number, None, None], row_Bf1, column_B1f]
            _lay(canvas_BSS, piece_Bff * ink_BF[:, number, None, None], laid_BF2[:, number])
        return from_BF


def _lay(canvas_BSS: NDArray[np.float32], piece_Bhh: NDArray[np.float32], place_B2: NDArray[np.int64]) -> None:
    """Put a piece on each picture, in place; where strokes cross, the darker one stays."""
    count, side = canvas_BSS.shape[0], canvas_BSS.shape[-1]
    span_h = np.arange(piece_Bhh.shape[-1])
    first_B = np.arange(count) * side**2 + place_B2[:, 0] * side + place_B2[:, 1]
    flat_Bhh = first_B[:, None, None] + (span_h[:, None] * side + span_h[None])
    flat = canvas_BSS.reshape(-1)
    flat[flat_Bhh] = np.maximum(flat[flat_Bhh], piece_Bhh)
