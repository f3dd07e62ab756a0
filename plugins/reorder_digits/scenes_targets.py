"""What a data set of scenes gives beside the pictures, by its setting `target`: one target a scene, or one a question.

B scenes, O digits of a scene, K = 10 classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reorder_core.interfaces.targets import Objects
from reorder_digits import scenes_captions, scenes_questions
from reorder_digits.draws import Draws
from reorder_digits.scenes_composition import Scenes
from reorder_digits.scenes_facts import Scene
from reorder_digits.settings import DigitScenesSettings
from reorder_digits.source import CLASSES

# Streams of random numbers, apart from those of `scenes_composition` and `scenes_placing`.
_WORDING, _CHOICE = 64, 65


def objects(scenes: Scenes, number_B: NDArray[np.int64]) -> list[Objects]:
    """Boxes, labels and masks of each scene; area_O counts the mask's pixels."""
    found = []
    for place, (number, count) in enumerate(zip(number_B.tolist(), scenes.count_B.tolist(), strict=True)):
        bits_O11 = np.arange(count, dtype=np.uint8)[:, None, None]
        masks_OHW = torch.from_numpy((scenes.member_BSS[place][None] >> bits_O11 & 1).astype(bool))
        found.append(
            Objects(
                boxes_O4=torch.from_numpy(scenes.box_BO4[place, :count].astype(np.float32)),
                label_O=torch.from_numpy(scenes.label_BO[place, :count].copy()),
                masks_OHW=masks_OHW,
                area_O=masks_OHW.flatten(1).sum(1).float(),
                name=f"scene {number}",
            )
        )
    return found


def classes(scenes: Scenes) -> NDArray[np.float32]:
    """1 for each digit that the scene has, else 0: float32 [B, K]."""
    class_BK: NDArray[np.float32] = (scenes.label_BO[:, :, None] == np.arange(len(CLASSES))).any(1).astype(np.float32)
    return class_BK


def read(scenes: Scenes, size: int) -> Iterator[Scene]:
    """The scenes one by one, in plain numbers."""
    rows = zip(scenes.count_B.tolist(), scenes.label_BO.tolist(), scenes.box_BO4.tolist(), strict=True)
    for count, label_O, box_O4 in rows:
        yield Scene(size, tuple(label_O[:count]), tuple(tuple(box) for box in box_O4[:count]))


def texts(
    scenes: Scenes, key: int, number_B: NDArray[np.int64], settings: DigitScenesSettings
) -> list[tuple[Any, ...]]:
    """The captions of each scene, or its `Question`s; a pure function of (key, number of the scene)."""
    draws, plain = Draws(key, number_B), settings.wording == "plain"
    said: list[tuple[Any, ...]] = []
    if settings.target == "captions":
        wording_B = draws.uniform(_WORDING, scenes_captions.TEMPLATES * scenes_captions.DRAWS)
        wording_BCn = wording_B.reshape(len(scenes), scenes_captions.TEMPLATES, scenes_captions.DRAWS).tolist()
        for place, scene in enumerate(read(scenes, settings.size)):
            said.append(scenes_captions.captions(scene, settings.captions, None if plain else wording_BCn[place]))
        return said
    count = settings.questions_per_scene
    choice_Bn = draws.uniform(_CHOICE, scenes_questions.DRAWS).tolist()
    wording_Bn = draws.uniform(_WORDING, count).tolist()
    for place, scene in enumerate(read(scenes, settings.size)):
        wording = None if plain else wording_Bn[place]
        name = f"scene {number_B[place]}"
        said.append(tuple(scenes_questions.questions(scene, count, settings.kinds, choice_Bn[place], wording, name)))
    return said


def targets(
    scenes: Scenes, said: Sequence[tuple[Any, ...]], number_B: NDArray[np.int64], item_B: NDArray[np.int64], target: str
) -> Any:
    """The batch's target. said: the texts of these scenes, where the target is text; item_B: which question of each."""
    if target == "boxes":
        return objects(scenes, number_B)
    if target == "mask":
        return torch.from_numpy(scenes.classes_BSS())
    if target == "classes":
        return torch.from_numpy(classes(scenes))
    if target == "captions":
        return list(said)
    return [questions[item] for questions, item in zip(said, item_B.tolist(), strict=True)]
