"""Composing pictures of tiles: pure functions of (settings, split, number of the picture).

B pictures, K classes, T tiles of a picture, C carriers, t side of a tile, S side of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reorder_planted.settings import PlantedSettings

_PATTERNS, _PLACES, _SPLITS = 0, 1, 2  # what a generator is for; a split's own stands at _SPLITS + its number


@dataclass(frozen=True, slots=True)
class Composed:
    """pixels_BSS: float32. target_B: int64. carrier_BC: the tiles that carry each picture's class, row by row."""

    pixels_BSS: NDArray[np.float32]
    target_B: NDArray[np.int64]
    carrier_BC: NDArray[np.int64]


def _generator(seed: int, purpose: int, number: int = 0) -> np.random.Generator:
    """A generator of its own for each purpose and number: they are words of Philox's counter, no streams in a row."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, number]))


def patterns(settings: PlantedSettings) -> NDArray[np.float32]:
    """A different pattern of plus and minus 1 for each class, float32 [K, t, t]."""
    rng, side = _generator(settings.seed, _PATTERNS), settings.tile
    found: dict[bytes, NDArray[np.float32]] = {}
    while len(found) < settings.classes:
        pattern_tt = rng.choice(np.array([-1, 1], np.float32), size=(side, side))
        found.setdefault(pattern_tt.tobytes(), pattern_tt)
    return np.stack([*found.values()])


def carriers(settings: PlantedSettings) -> NDArray[np.int64]:
    """The tiles that carry the class before jitter, numbered row by row, ascending, int64 [C]."""
    side = settings.side
    if settings.place == "scattered":
        order_T = _generator(settings.seed, _PLACES).permutation(settings.tiles)
    else:
        row_T, column_T = np.divmod(np.arange(settings.tiles), side)
        row, column = (share * (side - 1) for share in settings.centre)
        order_T = np.argsort(((row_T - row) ** 2 + (column_T - column) ** 2).round(9), kind="stable")
    return np.sort(order_T[: settings.carriers])


def compose(settings: PlantedSettings, split: int, numbers: Iterable[int]) -> Composed:
    """The pictures of a split with these numbers, in this order."""
    pattern_Ktt, home_C = patterns(settings) * np.float32(settings.strength), carriers(settings)
    pattern_Ktt = np.concatenate([pattern_Ktt, np.zeros_like(pattern_Ktt[:1])])  # the last one: no pattern
    made = [_one(settings, _generator(settings.seed, _SPLITS + split, number), home_C) for number in numbers]
    shown_BT = np.stack([shown_T for shown_T, *_ in made])
    side, tile, size = settings.side, settings.tile, settings.size
    tiles_BTtt = pattern_Ktt[shown_BT].reshape(-1, side, side, tile, tile)
    clean_BSS = tiles_BTtt.transpose(0, 1, 3, 2, 4).reshape(-1, size, size)
    noise_BSS = np.stack([noise_SS for *_, noise_SS in made])
    return Composed(
        clean_BSS + np.float32(settings.noise) * noise_BSS,
        np.array([target for _, target, _, _ in made], np.int64),
        np.stack([carrier_C for _, _, carrier_C, _ in made]),
    )


def _one(
    settings: PlantedSettings, rng: np.random.Generator, home_C: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int, NDArray[np.int64], NDArray[np.float32]]:
    """Which pattern each tile shows [T] (K: none), the class, the carriers [C], and unit noise [S, S].

    Everything is drawn whatever the settings make of it, so that a setting changes only what it is about.
    """
    target = int(rng.integers(settings.classes))
    move_row, move_column = rng.integers(-settings.jitter, settings.jitter + 1, size=2)
    other_T = rng.integers(settings.classes, size=settings.tiles)
    lot_T = rng.random(settings.tiles)
    noise_SS = rng.standard_normal((settings.size, settings.size), dtype=np.float32)
    row_C, column_C = np.divmod(home_C, settings.side)
    carrier_C = (row_C + move_row) % settings.side * settings.side + (column_C + move_column) % settings.side
    shown_T = np.where(lot_T < settings.distractors, other_T, settings.classes)
    shown_T[carrier_C] = target
    return shown_T, target, carrier_C, noise_SS
