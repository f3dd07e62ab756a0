"""What can be wrong with a recipe whose every key is right by itself: images and patches, phases and the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reorder_core.catalogue import Catalogue
from reorder_core.errors import ReorderError
from reorder_core.grid import Grid
from reorder_core.recipe_parts import Part
from reorder_core.recipe_sections import TrainingSection
from reorder_core.recipe_source import Complaint
from reorder_core.settings import ComponentRef, DataFacts, DatasetSettings, Settings

#: What the main run of a recipe with a policy is called, in the table and in the pictures.
MAIN_RUN = "learned"


def data_facts(data: Part) -> DataFacts | Complaint:
    """What the data set says of itself."""
    if not isinstance(data.settings, DatasetSettings):
        return Complaint(("data",), f"the settings of {data.entry} describe no data: derive them from DatasetSettings")
    try:
        return data.settings.describe()
    except ReorderError as error:
        return Complaint(("data",), str(error))
    except Exception as error:
        return Complaint(("data",), f"{data.entry} cannot describe its data: {type(error).__name__}: {error}")


def grid_of(facts: DataFacts, patch: int) -> Grid | Complaint:
    """The grid that the images are cut into."""
    try:
        return Grid.of_image(facts.height, facts.width, patch)
    except ReorderError as error:
        return Complaint(("patch", "size"), str(error))


def steps_in_epoch(training: TrainingSection, facts: DataFacts | None) -> int | None:
    """Optimiser steps in an epoch of one process, or None where the data set does not say how many images it has."""
    if training.steps_per_epoch is not None:
        return training.steps_per_epoch
    return None if facts is None or facts.train is None else facts.train // training.batch_size


def training_complaints(training: TrainingSection, facts: DataFacts | None, policy: bool) -> Iterator[Complaint]:
    """The run against the data set and the phases of the policy."""
    images = None if facts is None else facts.train
    if images is not None and images < training.batch_size:
        message = f"the training split has {images} images, fewer than one batch of {training.batch_size}: lower it"
        yield Complaint(("training", "batch_size"), message)
    elif images is not None and (training.steps_per_epoch or 0) > images // training.batch_size:
        yield Complaint(
            ("training", "steps_per_epoch"),
            f"{images} images make only {images // training.batch_size} batches of {training.batch_size}: "
            f"lower it, or leave it out for the whole data set",
        )
    if training.schedule.warm_up > training.epochs:
        message = f"the run has {training.epochs} epochs, fewer than this warm-up: shorten it"
        yield Complaint(("training", "schedule", "warm_up"), message)
    if policy:
        yield from _phase_complaints(training, steps_in_epoch(training, facts))


def _phase_complaints(training: TrainingSection, steps: int | None) -> Iterator[Complaint]:
    phases = training.phases
    if phases.learn == 0:
        message = "the policy would never learn: give it a share of the run, or take it away with policy: null"
        yield Complaint(("training", "phases", "learn"), message)
    whole = training.epochs if phases.unit == "epochs" else None if steps is None else training.epochs * steps
    if whole is not None and phases.warm_up + phases.learn > whole:
        yield Complaint(
            ("training", "phases"),
            f"warm_up and learn take {phases.warm_up + phases.learn:g} {phases.unit}, but the run has {whole}: "
            f"shorten them, or raise training.epochs",
        )


def ordering_complaints(settings: object, given: int) -> Iterator[Complaint]:
    """How many orders the backbone wants, by `orders_read` of its settings, against how many the recipe gives.

    Settings without it read one; None is known only when the backbone is built (it holds a mixer, say).
    """
    wanted = getattr(settings, "orders_read", 1)
    if wanted is not None and wanted != given:
        advice = "name one ordering" if wanted == 1 else f"write a list of {wanted}"
        yield Complaint(
            ("ordering",),
            f"this backbone reads {wanted} {'order' if wanted == 1 else 'orders at once'}, and the recipe "
            f"gives {given}: {advice}",
        )


def one_order_a_batch(policy: str, backbone: str, orders: int) -> str:
    """What to say of a policy with an order for each image and a backbone that cannot read them so."""
    needs = f"reads {orders} orders at once, the same for a whole batch" if orders > 1 else "needs one order a batch"
    return (
        f"policy: '{policy}' gives each image an order of its own, and the backbone '{backbone}' {needs}: "
        f"take a policy whose orders images share, or a backbone that reads one order at a time"
    )


def order_complaints(policy: Part | None, backbone: Part | None, catalogue: Catalogue) -> Iterator[Complaint]:
    """A policy that looks at the images, itself or one that it holds, with a backbone of several orders."""
    if policy is None or backbone is None or not _reads_images(policy.settings, catalogue):
        return
    orders = getattr(backbone.settings, "orders_read", 1)
    if orders is not None and orders > 1:
        sentence = one_order_a_batch(policy.ref.name, backbone.ref.name, orders)
        yield Complaint(("policy", "name"), sentence.removeprefix("policy: "))


def _reads_images(settings: object, catalogue: Catalogue) -> bool:
    """`reads_images` of a policy's settings, or of those of a policy inside them."""
    if getattr(settings, "reads_images", False):
        return True
    inside = [value for _, value in settings] if isinstance(settings, Settings) else []
    held = [value for value in inside if isinstance(value, ComponentRef) and value.kind == "policy"]
    return any(_reads_images(catalogue.settings(catalogue.find("policy", r.name), r.settings), catalogue) for r in held)


def control_complaints(controls: Sequence[Part]) -> Iterator[Complaint]:
    """Each control has a folder and a row of its own, so each name stands once."""
    seen: set[str] = set()
    for number, control in enumerate(controls):
        if control.name in seen:
            yield Complaint(
                ("controls", number), f"'{control.name}' is named twice: keep one, or call one otherwise with as: …"
            )
        if control.name == MAIN_RUN:
            yield Complaint(("controls", number), f"'{MAIN_RUN}' is the main run's own name: call this one otherwise")
        seen.add(control.name)
