"""The sections of a recipe that are not components: patch, positions and training, every key with its meaning."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from reorder_core.settings import Settings

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Section(Settings):
    """A part of a recipe that belongs to the core: frozen, unknown keys refused, numbers finite."""


class HeadSection(Section):
    """What stands at the top of a recipe."""

    name: RunName
    """the run's name and folder: letters, digits, `_`, `-` and `.`"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """the seed of everything random in the run, its controls included"""


class PatchSection(Section):
    """How an image is cut."""

    size: Positive
    """side of a square patch in pixels; must divide both sides of the image"""


class PositionsSection(Section):
    """What tells the model where a patch stood."""

    kind: Literal["learned", "sincos2d", "sincos1d", "none"] = "learned"
    """learned vectors, fixed sines and cosines of row and column, or of the patch number, or nothing"""
    follow: Literal["patch", "slot"] = "patch"
    """the position belongs to the place in the image and travels with the patch, or to the slot of the sequence"""


class PhasesSection(Section):
    """The policy's phases: warm-up with its first order, learning, and the frozen best order for the rest."""

    unit: Literal["epochs", "steps"] = "epochs"
    """what warm_up and learn are counted in"""
    warm_up: NotNegative = 0.0
    """how long the model trains with the policy's first order before the policy learns"""
    learn: NotNegative = 0.0
    """how long the policy learns; with a policy it must be more than 0"""


class OptimizerSection(Section):
    """How weights are updated. No weight decay on biases, norms, positions and the policy."""

    name: Literal["adamw"] = "adamw"
    """the optimiser: AdamW"""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """peak learning rate"""
    weight_decay: NotNegative = 0.05
    """decoupled weight decay"""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """decay of the running means of the gradient and of its square"""
    clip: Annotated[float, Field(gt=0)] | None = 5.0
    """largest norm of the gradient; null: no clipping"""


class ScheduleSection(Section):
    """The learning rate over the run, as a share of `optimizer.lr`."""

    warm_up: NotNegative = 0.0
    """epochs in which the learning rate rises from 0"""
    hold: Literal["policy", "none"] = "policy"
    """policy: stay at the peak until the policy is frozen (the paper's way); none: fall from the end of the warm-up"""
    final: Share = 0.01
    """share of the peak that is left at the end"""
    shape: Literal["cosine", "constant"] = "cosine"
    """how it falls; constant: not at all"""


class CheckpointSection(Section):
    """When the run is saved. It is always saved at its end and on Ctrl-C."""

    every_steps: Positive | None = None
    """optimiser steps between two checkpoints; null: one at the end of every epoch"""
    keep: Positive = 2
    """how many of the newest checkpoints stay"""


class ValidateSection(Section):
    """When the validation images are looked at. The end of the run always is."""

    every: Positive = 1
    """epochs between two validations"""
    batch_size: Positive | None = None
    """images at a time in validation; null: as in training"""


with warnings.catch_warnings():
    # pydantic keeps a deprecated class method called `validate`; here it is a key of the recipe.
    warnings.filterwarnings("ignore", message='Field name "validate"')

    class TrainingSection(Section):
        """How long, how much at a time, and with what."""

        epochs: Positive
        """how often the training images are seen"""
        steps_per_epoch: Positive | None = None
        """optimiser steps in an epoch; null: the whole training split, the last incomplete batch dropped"""
        batch_size: Positive
        """images in a batch of each process"""
        phases: PhasesSection = PhasesSection()
        """warm-up, learning and frozen phase of the policy; not read without a policy"""
        optimizer: OptimizerSection = OptimizerSection()
        """how weights are updated"""
        schedule: ScheduleSection = ScheduleSection()
        """the learning rate over the run"""
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
        """numbers of the forward pass; auto: bf16 on a GPU that has it, else fp32"""
        compile: bool = False
        """run the backbone through torch.compile; orders are drawn outside of it"""
        ema: Annotated[float, Field(gt=0, lt=1)] | None = None
        """decay of a moving average of the weights, which is what is validated; null: none"""
        workers: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
        """processes that load images; auto: as many as there are cores, up to 8; data held in memory needs none"""
        log_every: Positive = 10
        """optimiser steps between two rows of metrics.jsonl"""
        checkpoint: CheckpointSection = CheckpointSection()
        """when the run is saved"""
        validate: ValidateSection = ValidateSection()  # type: ignore[assignment]
        """when the validation images are looked at"""
