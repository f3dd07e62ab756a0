"""The picture of what a trained model says of some validation images: `pictures/predictions.png`, drawn by its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reorder_core.errors import one_line
from reorder_core.interfaces.dataset import evenly
from reorder_core.training.evaluate import to_device
from reorder_core.training.trainer import Trainer

_IMAGES = 16


def draw_predictions(t: Trainer, folder: Path) -> str:
    """Draw, where the task can; returns why there is no picture, or nothing where there is one or none was to be.

    16 validation images, evenly spread, read in the best order with the averaged weights where there are any. A picture
    that cannot be drawn must not take a finished run with it.
    """
    learner: Any = t.learner if t.ema is None else t.ema.module
    draw = getattr(learner.task, "draw_prediction", None)
    if draw is None:
        return ""
    was_training = learner.training
    learner.eval()
    try:
        split = t.parts.dataset.validation
        loaded = split.load(list(evenly(len(split), _IMAGES)), 0)
        batch = to_device(loaded, t.accelerator.device)
        layout = t.best_layout(batch.images_BCHW, learner)
        with torch.no_grad(), t.accelerator.autocast():
            result = learner(batch, layout)
        pictures = folder / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        draw(batch, result, layout, pictures / "predictions.png")
    except Exception as error:
        return one_line(error)
    finally:
        learner.train(was_training)
    return ""
