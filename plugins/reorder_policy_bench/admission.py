"""Whether a policy can run under some conditions, with which of its swept settings, and for how many steps."""

from __future__ import annotations

from dataclasses import replace

from reorder_core import ReorderError, RunFacts, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.recipe_sections import TrainingSection
from reorder_policy_bench.contenders import Contender
from reorder_policy_bench.trial import IMAGES, Conditions, built, planted


def admitted(contender: Contender, conditions: Conditions, budget: int | None) -> tuple[Contender, Conditions]:
    """The contender and the conditions as they are run.

    A number of orders that the bench put in and that the policy refuses falls away: it then draws as many as it does
    by itself, and the row says how many those were. budget: samples of a run, which set the number of steps.
    Raises `ReorderError` where the policy cannot run.
    """
    try:
        samples = _samples_a_step(contender, conditions)
    except ReorderError:
        if contender.plain == contender:
            raise
        contender = contender.plain
        samples = _samples_a_step(contender, conditions)
    if budget is not None:
        conditions = replace(conditions, steps=max(1, budget // samples))
    return contender, conditions


def _samples_a_step(contender: Contender, conditions: Conditions) -> int:
    """Build the policy once, as a recipe would: its settings checked against the run, then its target called."""
    catalogue = Catalogue.load()
    settings = catalogue.settings(catalogue.find("policy", contender.name), contender.ref.settings)
    _, context = planted(conditions, 0)
    assert context.data is not None
    a_epoch = max(1, IMAGES // conditions.batch)
    training = TrainingSection(
        epochs=-(-conditions.steps // a_epoch), steps_per_epoch=a_epoch, batch_size=conditions.batch
    )
    facts = RunFacts(context.data, context.grid, 1, conditions.batch, "learned", training)
    for problem in settings.problems(facts) if settings is not None else ():
        raise UsageError(f"{contender.name}: {problem.key}: {problem.message}")
    return conditions.batch * int(built(contender.ref, context).orders_per_image)
