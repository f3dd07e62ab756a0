"""Composing scenes: several whole digits on a canvas, and what is known of each.

B scenes, O digits a scene at most, F fragments, S side of the canvas, d side of a digit, P digits of the split. Every
choice is a pure function of (key, number of the scene), and none depends on how many scenes are made at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from reorder_digits.composition import enlarged
from reorder_digits.draws import Draws
from reorder_digits.scenes_placing import placed
from reorder_digits.settings import DigitScenesSettings
from reorder_digits.source import Pool

# One stream of random numbers for each choice; `scenes_placing` and the texts have theirs.
_COUNT, _SOURCE, _SIDE, _INK, _NOISE, _FRAGMENT, _CUT, _LAID, _FRAGMENT_INK = range(9)
_CHUNK = 512

#: The ink of a stroke, from 0 to 1 before it is weakened by `contrast`, from which a pixel belongs to its digit.
#: Just under a quarter: whole regions are inked by exactly a quarter, and rounding must not decide about them.
INKED = 0.24937


@dataclass(frozen=True, slots=True)
class Scenes:
    """Some scenes. Past the count_B digits of a scene, label and source are -1 and boxes are 0.

    pixels_BSS: uint8, 255 is full ink. member_BSS: uint8, bit o is set where digit o has ink. box_BO4: left, top,
    right, bottom in pixels, tight around that ink. source_BO, fragment_BF: numbers in load_digits.
    """

    pixels_BSS: NDArray[np.uint8]
    member_BSS: NDArray[np.uint8]
    count_B: NDArray[np.int64]
    label_BO: NDArray[np.int64]
    box_BO4: NDArray[np.int64]
    source_BO: NDArray[np.int64]
    fragment_BF: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.count_B)

    def take(self, index_B: NDArray[np.int64]) -> Scenes:
        """Some of them."""
        return Scenes(*(getattr(self, field.name)[index_B] for field in fields(self)))

    def classes_BSS(self) -> NDArray[np.int64]:
        """0 for background, else 1 + the digit; where strokes cross, the digit laid last."""
        class_BSS = np.zeros(self.member_BSS.shape, np.int64)
        for number in range(self.label_BO.shape[1]):
            inked_BSS = (self.member_BSS >> number & 1).astype(bool)
            class_BSS = np.where(inked_BSS, 1 + self.label_BO[:, number, None, None], class_BSS)
        return class_BSS


class SceneComposer:
    """Makes scenes of one split; `compose` may be called for any numbers, in any order."""

    def __init__(self, pool: Pool, settings: DigitScenesSettings) -> None:
        self.pool = pool
        self.settings = settings

    def compose(self, key: int, image_B: NDArray[np.int64]) -> Scenes:
        """The scenes with these numbers, for this key (of seed, split and epoch)."""
        parts = [self._chunk(key, image_B[at : at + _CHUNK]) for at in range(0, max(1, len(image_B)), _CHUNK)]
        if len(parts) == 1:
            return parts[0]
        return Scenes(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Scenes)))

    def _chunk(self, key: int, image_B: NDArray[np.int64]) -> Scenes:
        look, size = self.settings.look(), self.settings.size
        draws, count, most = Draws(key, image_B), len(image_B), look.digits[1]
        count_B = look.digits[0] + draws.integers(_COUNT, 1, most - look.digits[0] + 1)[:, 0]
        chosen_BO = draws.integers(_SOURCE, most, len(self.pool))
        side_BO = look.side[0] + draws.integers(_SIDE, most, look.side[1] - look.side[0] + 1)
        ink_BO = _between(look.contrast, draws.uniform(_INK, most))
        place_BO2 = placed(draws, side_BO, count_B, size, look.overlap)

        canvas_BSS = np.zeros((count, size, size), np.float32)
        member_BSS = np.zeros((count, size, size), np.uint8)
        box_BO4 = np.zeros((count, most, 4), np.int64)
        fragment_BF = self._scatter(draws, canvas_BSS)
        for number in range(most):
            for side in range(look.side[0], look.side[1] + 1):
                at_b = np.flatnonzero((number < count_B) & (side_BO[:, number] == side))
                stroke_bdd = enlarged(self.pool.ink_PHW[chosen_BO[at_b, number]], side)
                place_b2, inked_bdd = place_BO2[at_b, number], stroke_bdd >= INKED
                flat_bdd = _flat(at_b, place_b2, side, size)
                _darken(canvas_BSS, flat_bdd, stroke_bdd * ink_BO[at_b, number, None, None])
                member_BSS.reshape(-1)[flat_bdd] |= inked_bdd.astype(np.uint8) << np.uint8(number)
                box_BO4[at_b, number] = _tight(inked_bdd) + place_b2[:, [1, 0, 1, 0]]

        if look.noise > 0:
            canvas_BSS += np.float32(look.noise) * draws.bell(_NOISE, size**2).reshape(canvas_BSS.shape)
        np.clip(canvas_BSS, 0.0, 1.0, out=canvas_BSS)
        there_BO = np.arange(most) < count_B[:, None]
        return Scenes(
            pixels_BSS=np.rint(canvas_BSS * np.float32(255)).astype(np.uint8),
            member_BSS=member_BSS,
            count_B=count_B,
            label_BO=np.where(there_BO, self.pool.target_P[chosen_BO], -1),
            box_BO4=box_BO4,
            source_BO=np.where(there_BO, self.pool.source_P[chosen_BO], -1),
            fragment_BF=self.pool.source_P[fragment_BF],
        )

    def _scatter(self, draws: Draws, canvas_BSS: NDArray[np.float32]) -> NDArray[np.int64]:
        """Lay the fragments, cut from any digits of the pool; returns which: [B, F]."""
        look, size, count = self.settings.look(), self.settings.size, len(canvas_BSS)
        from_BF = draws.integers(_FRAGMENT, look.clutter, len(self.pool))
        cut_BF2 = draws.integers(_CUT, 2 * look.clutter, look.side[1] - look.fragment + 1).reshape(count, -1, 2)
        laid_BF2 = draws.integers(_LAID, 2 * look.clutter, size - look.fragment + 1).reshape(count, -1, 2)
        ink_BF = _between(look.contrast, draws.uniform(_FRAGMENT_INK, look.clutter))
        span_f = np.arange(look.fragment)
        for number in range(look.clutter):
            stroke_Bdd = enlarged(self.pool.ink_PHW[from_BF[:, number]], look.side[1])
            row_Bf1 = (cut_BF2[:, number, :1] + span_f)[:, :, None]
            column_B1f = (cut_BF2[:, number, 1:] + span_f)[:, None, :]
            piece_Bff = stroke_Bdd[np.arange(count)[:, None, None], row_Bf1, column_B1f]
            flat_Bff = _flat(np.arange(count), laid_BF2[:, number], look.fragment, size)
            _darken(canvas_BSS, flat_Bff, piece_Bff * ink_BF[:, number, None, None])
        return from_BF


def _between(span: tuple[float, float], share: NDArray[np.float64]) -> NDArray[np.float32]:
    return (span[0] + (span[1] - span[0]) * share).astype(np.float32)


def _flat(at_b: NDArray[np.int64], place_b2: NDArray[np.int64], side: int, size: int) -> NDArray[np.int64]:
    """Where a square lies in the flattened canvases: int64 [b, side, side]."""
    span_d = np.arange(side)
    first_b = at_b * size**2 + place_b2[:, 0] * size + place_b2[:, 1]
    flat_bdd: NDArray[np.int64] = first_b[:, None, None] + (span_d[:, None] * size + span_d[None])
    return flat_bdd


def _darken(canvas_BSS: NDArray[np.float32], flat_bdd: NDArray[np.int64], stroke_bdd: NDArray[np.float32]) -> None:
    """In place; where strokes cross, the darker one stays."""
    flat = canvas_BSS.reshape(-1)
    flat[flat_bdd] = np.maximum(flat[flat_bdd], stroke_bdd)


def _tight(inked_bdd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """left, top, right, bottom of the ink inside its square: int64 [b, 4]; right and bottom are past the last pixel."""
    side = inked_bdd.shape[-1]
    column_bd: NDArray[np.bool_] = np.any(inked_bdd, axis=1)
    row_bd: NDArray[np.bool_] = np.any(inked_bdd, axis=2)
    first = [column_bd.argmax(1), row_bd.argmax(1)]
    last = [side - column_bd[:, ::-1].argmax(1), side - row_bd[:, ::-1].argmax(1)]
    return np.stack(first + last, axis=1)
