"""From a recipe to the parts of a run: data, grid, order, policy, backbone, task, model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reorder_core import permutation
from reorder_core.errors import UsageError
from reorder_core.grid import Grid
from reorder_core.interfaces.context import Context
from reorder_core.interfaces.dataset import Batch, Dataset, evenly
from reorder_core.interfaces.task import Task, TaskResult
from reorder_core.model import Model, Order
from reorder_core.recipe_checks import one_order_a_batch

if TYPE_CHECKING:
    from reorder_core.catalogue import Catalogue
    from reorder_core.recipe import Recipe
    from reorder_core.settings import ComponentRef

_FIT_IMAGES = 1024  # training images that an ordering which learns from data may look at
OrderFrom = Callable[[Context], NDArray[np.int64]]


class Learner(nn.Module):
    """Model and task as one module, so that one forward pass is all that several processes have to agree on."""

    def __init__(self, model: Model, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, batch: Batch, order: Order) -> TaskResult:
        return self.task.step(self.model, batch, order)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    order_N: the fixed order, or the policy's first one, int64 [N]. order_name: who made it. policy: None where the
    order is fixed. generator: the run's own (CPU); every draw of every component comes from it.
    """

    recipe: Recipe
    grid: Grid
    dataset: Dataset
    order_N: NDArray[np.int64]
    order_name: str
    policy: Any
    learner: Learner
    generator: torch.Generator


def base_context(recipe: Recipe, catalogue: Catalogue) -> Context:
    """The context of a run: its grid, its data's facts, a fresh generator with its seed, and the catalogue."""
    return Context.of_data(recipe.facts.data, recipe.facts.patch, recipe.seed, catalogue.build)


def build_dataset(recipe: Recipe, catalogue: Catalogue) -> Dataset:
    """The data set, with a generator of its own: a run and its controls share it, whenever it was built."""
    dataset: Dataset = catalogue.build(recipe.data.ref, base_context(recipe, catalogue))
    return dataset


def build_parts(
    recipe: Recipe, catalogue: Catalogue, dataset: Dataset, order_from: OrderFrom | None = None, order_name: str = ""
) -> Parts:
    """Build all parts with the recipe's seed. The policy comes last: the weights are the same with and without it.

    order_from: the fixed order of a control, in place of the recipe's ordering.
    """
    torch.manual_seed(recipe.seed)
    context = base_context(recipe, catalogue).changed(dataset=dataset)
    assert context.generator is not None
    prior = prior_of(recipe)
    order_N, chosen = fitted(prior, catalogue, context, dataset) if order_from is None else (order_from(context), "")
    made_by = order_name or str(catalogue.find(prior.kind, prior.name))
    permutation.validate(order_N, recipe.facts.grid.size, what=made_by)
    further_from = partial(_further_orders, recipe, catalogue, context, dataset)
    learner = build_learner(recipe, catalogue, context, further_from)
    return Parts(
        recipe=recipe,
        grid=context.grid,
        dataset=dataset,
        order_N=np.asarray(order_N, dtype=np.int64),
        order_name=order_name or (f"{prior.name} ({chosen})" if chosen else prior.name),
        policy=_build_policy(recipe, catalogue, context, learner, order_N),
        learner=learner,
        generator=context.generator,
    )


def build_learner(
    recipe: Recipe, catalogue: Catalogue, context: Context, further_from: Callable[[int], torch.Tensor | None]
) -> Learner:
    """Model and task with fresh weights, which come from torch's global generator: seed it first.

    further_from: given how many orders the backbone reads, those besides the first, int64 [R, N], or None for one.
    """
    backbone = catalogue.build(recipe.backbone.ref, context)
    further_RN = further_from(backbone.orders)
    positions = recipe.positions
    model = Model(backbone, context.grid, context.patch, context.channels, positions.kind, positions.follow, further_RN)
    task = catalogue.build(recipe.task.ref, context.changed(width=backbone.width))
    if hasattr(task, "refuse_model"):
        task.refuse_model(model)
    return Learner(model, task)


def _build_policy(
    recipe: Recipe, catalogue: Catalogue, context: Context, learner: Learner, order_N: NDArray[np.int64]
) -> Any:
    """The policy, starting from `order_N`; None where there is none. Raises `UsageError` where it cannot learn."""
    if recipe.policy is None:
        return None
    if learner.task.batch_coupled:
        raise UsageError(
            f"the images of a batch depend on each other in the task '{recipe.task.ref.name}', so that no loss is "
            f"the reward of one image's order: take the policy away (-o policy=null)"
        )
    backbone = learner.model.backbone
    policy = catalogue.build(recipe.policy.ref, context.changed(prior_N=order_N, width=token_width(backbone)))
    _refuse_one_order_a_batch(recipe, backbone, policy)
    return policy


def token_width(backbone: Any) -> int:
    """D of the tokens that a backbone takes, which are what a policy that `reads_tokens` is shown."""
    return int(getattr(backbone, "token_width", backbone.width))


def _refuse_one_order_a_batch(recipe: Recipe, backbone: Any, policy: Any) -> None:
    """Raise `UsageError` for a policy that gives each image its own order, with a backbone that needs one a batch."""
    if not getattr(policy, "reads_tokens", False):
        return
    if backbone.orders > 1 or not getattr(backbone, "order_per_image", True):
        assert recipe.policy is not None
        raise UsageError(one_order_a_batch(recipe.policy.ref.name, recipe.backbone.ref.name, backbone.orders))


def _further_orders(
    recipe: Recipe, catalogue: Catalogue, context: Context, dataset: Dataset, wanted: int
) -> torch.Tensor | None:
    """The orders that the backbone reads besides the first, int64 [R, N]. Raises `UsageError` for a wrong number."""
    given = 1 + len(recipe.further_orderings)
    if given != wanted:
        advice = "name one ordering" if wanted == 1 else f"write ordering: as a list of {wanted}"
        raise UsageError(
            f"ordering: the backbone '{recipe.backbone.ref.name}' reads {wanted} "
            f"{'order' if wanted == 1 else 'orders at once'}, and the recipe gives {given}: {advice}"
        )
    if wanted == 1:
        return None
    orders = [permutation_of(part.ref, catalogue, context, dataset) for part in recipe.further_orderings]
    return torch.from_numpy(np.stack(orders))


def prior_of(recipe: Recipe) -> ComponentRef:
    """The ordering that a run starts from: the policy's own prior where it names one, else the recipe's."""
    own = None if recipe.policy is None else getattr(recipe.policy.settings, "prior", None)
    return own or recipe.ordering.ref


def permutation_of(ref: ComponentRef, catalogue: Catalogue, context: Context, dataset: Dataset) -> NDArray[np.int64]:
    """The order that an ordering gives on this grid, fitted first where it learns from data."""
    return fitted(ref, catalogue, context, dataset)[0]


def fitted(
    ref: ComponentRef, catalogue: Catalogue, context: Context, dataset: Dataset
) -> tuple[NDArray[np.int64], str]:
    """`permutation_of`, and the name of the ordering that an ordering which chooses among others took (`chosen`)."""
    ordering = catalogue.build(ref, context)
    if hasattr(ordering, "fit"):
        indices = evenly(len(dataset.train), _FIT_IMAGES)
        ordering.fit(dataset.train.load(list(indices), 0).images_BCHW.numpy(), context.grid, context.generator)
    order_N: NDArray[np.int64] = ordering.permutation(context.grid)
    return order_N, str(getattr(ordering, "chosen", ""))
