"""The contracts hold for what is installed, and catch what is wrong: each broken component breaks one promise."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reorder_core import conformance
from reorder_core.catalogue import Catalogue, import_string
from reorder_core.conformance import (
    ContractBroken,
    check_backbone,
    check_control,
    check_dataset,
    check_ordering,
    check_policy,
    check_task,
)
from reorder_core.conformance.strategies import for_all
from reorder_core.errors import UnsupportedGrid
from reorder_core.grid import Grid
from reorder_core.interfaces.backbone import Features, Level
from reorder_core.interfaces.control import Control
from reorder_core.interfaces.dataset import Batch
from reorder_core.interfaces.policy import Draw, PolicyStep
from reorder_core.interfaces.task import TaskResult
from reorder_core.plugin import kinds
from reorder_core.settings import DataFacts, DatasetSettings

SMALL = {
    ("backbone", "arm"): {"width": 24, "depth": 2, "state": 4},
    ("backbone", "hierarchical"): {"widths": [24, 48], "depths": [1, 1]},
    ("backbone", "image_transformer"): {"width": 24, "depth": 2, "heads": 2, "query": 2, "memory": 2},
    ("backbone", "longformer"): {"width": 24, "depth": 2, "heads": 2, "window": 4},
    ("backbone", "mamba"): {"width": 24, "depth": 2},
    ("backbone", "mamba2"): {"width": 24, "depth": 2, "head_width": 8, "state": 4},
    ("backbone", "sparse_transformer"): {"width": 24, "depth": 2, "heads": 2},
    ("backbone", "transformer_xl"): {"width": 24, "depth": 2, "heads": 2},
    ("backbone", "vit"): {"width": 24, "depth": 2, "heads": 2},
    ("mixer", "image_transformer"): {"heads": 2, "query": 2, "memory": 2},
    ("mixer", "longformer"): {"heads": 2, "window": 4},
    ("mixer", "mamba2"): {"head_width": 16, "state": 4},
    ("mixer", "transformer_xl"): {"heads": 2},
    ("mixer", "vit"): {"heads": 2},
    ("task", "arm_pretraining"): {"cluster": 2, "width": 32, "depth": 1, "heads": 2},
    ("dataset", "cluttered_digits"): {"train": 64, "validation": 32},
}


#: Tasks that need another target than a class, or images with something to mask: their rooms' tests hold them to the
#: contract, with batches of their own.
ELSEWHERE = ("captioning", "detection", "multilabel", "reconstruction", "segmentation", "visual_reasoning")


def _installed() -> list[tuple[str, str]]:
    """Own components that can be built without naming a file or a data set."""
    catalogue = Catalogue.load()
    found = []
    for entry in catalogue.entries():
        chosen = catalogue.settings_class(entry) if entry.distribution == "reorder" else None
        required = chosen is not None and any(field.is_required() for field in chosen.model_fields.values())
        elsewhere = entry.component.kind == "task" and entry.component.name in ELSEWHERE
        if entry.distribution == "reorder" and not required and not elsewhere:
            found.append((entry.component.kind, entry.component.name))
    return found


@pytest.mark.parametrize(("kind", "name"), _installed())
def test_every_installed_component_keeps_its_contract(kind, name):
    _contract(kind)(name, SMALL.get((kind, name)))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_task_with_another_target_is_held_to_its_contract_by_its_room(name):
    assert Catalogue.load().find("task", name)
    assert "check_task(" in (Path(__file__).parents[1] / "plugins" / f"test_{name}.py").read_text()


def _contract(kind: str):
    """The check that a kind names: of the core's conformance, or of the room that brought the kind."""
    promised = Catalogue.load().kinds[kind].contract
    return import_string(promised, f"the contract of the kind '{kind}'")


def test_every_kind_has_its_contract():
    for kind in Catalogue.load().kinds.values():
        assert kind.contract.endswith(f".conformance:check_{kind.name}")
        assert callable(_contract(kind.name))
    for kind in kinds():
        assert kind.contract == f"reorder_core.conformance:check_{kind.name}"
        assert callable(getattr(conformance, f"check_{kind.name}"))


def breaks(check, target, said, **options):
    with pytest.raises(ContractBroken, match=said):
        check(lambda settings, context: target(context), options.pop("settings", None), **options)


class Rows:
    def permutation(self, grid):
        return np.arange(grid.size, dtype=np.int64)


class Never(Rows):
    def permutation(self, grid):
        raise UnsupportedGrid("this one wants another grid")


class Twice(Rows):
    def permutation(self, grid):
        return np.arange(grid.size) // 2


class Floats(Rows):
    def permutation(self, grid):
        return np.arange(grid.size, dtype=np.float64)


class Seeds(Rows):
    def permutation(self, grid):
        random.seed(0)
        return super().permutation(grid)


class Counts(Rows):
    calls = 0

    def permutation(self, grid):
        Counts.calls += 1
        return np.roll(super().permutation(grid), Counts.calls)


class Shares(Rows):
    kept: dict[Grid, np.ndarray] = {}  # noqa: RUF012

    def permutation(self, grid):
        return self.kept.setdefault(grid, super().permutation(grid))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Never, "at least one of the grids"),
        (Twice, "name each of the patches"),
        (Floats, "must be int64"),
        (Seeds, "global random state of Python"),
        (Counts, "deterministic"),
        (Shares, "must not change the next one"),
    ],
)
def test_an_ordering_that_breaks_its_contract_is_caught(target, said):
    breaks(check_ordering, lambda context: target(), said)


class Recurrent(nn.Module):
    """A backbone that keeps its contract; those below break one promise each."""

    width, attention, order_sensitive, orders = 12, "causal", True, 1

    def __init__(self, context):
        super().__init__()
        self.cells = nn.GRU(12, 12, batch_first=True)

    def forward(self, tokens_BND, layout):
        states_BND = self.cells(tokens_BND)[0]
        return Features((Level(states_BND, layout),), states_BND[:, -1])


class Means(Recurrent):
    order_sensitive = True

    def forward(self, tokens_BND, layout):
        features = super().forward(tokens_BND, layout)
        every_BND = self.cells(tokens_BND.flatten(0, 1)[:, None])[0].view_as(tokens_BND)
        return replace(features, levels=(Level(every_BND, layout),), summary_BD=every_BND.mean(1))


class Insensitive(Recurrent):
    order_sensitive = False


class LooksAhead(Recurrent):
    def forward(self, tokens_BND, layout):
        return super().forward(tokens_BND + tokens_BND.mean(1, keepdim=True), layout)


class MixesImages(Recurrent):
    def forward(self, tokens_BND, layout):
        return super().forward(tokens_BND - tokens_BND.mean(0, keepdim=True), layout)


class OneOrderOnly(Recurrent):
    def forward(self, tokens_BND, layout):
        features = super().forward(tokens_BND, layout)
        places_N = layout.perm_GN[0].float() / 100
        return replace(features, summary_BD=features.summary_BD + (places_N * tokens_BND[..., 0]).sum(1)[:, None])


class Unused(Recurrent):
    def __init__(self, context):
        super().__init__(context)
        self.spare = nn.Linear(2, 2)


class WrongShape(Recurrent):
    def forward(self, tokens_BND, layout):
        features = super().forward(tokens_BND, layout)
        return replace(features, summary_BD=features.summary_BD[:, :5])


class Drops(Recurrent):
    def forward(self, tokens_BND, layout):
        return super().forward(nn.functional.dropout(tokens_BND, 0.5), layout)


def test_a_good_backbone_passes():
    check_backbone(lambda settings, context: Recurrent(context))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Means, "order_sensitive is True"),
        (Insensitive, "order_sensitive is False"),
        (LooksAhead, "attention is causal"),
        (MixesImages, "alone as beside others"),
        (OneOrderOnly, "several orders in a batch"),
        (Unused, "'spare.weight' has none"),
        (WrongShape, "summary_BD must be"),
        (Drops, "global random state of torch"),
    ],
)
def test_a_backbone_that_breaks_its_contract_is_caught(target, said):
    breaks(check_backbone, target, said)


class Keeps(nn.Module):
    """A policy that keeps its contract: it draws its prior or one exchange of it."""

    orders_per_image, learning_rate = 1, None

    def __init__(self, context):
        super().__init__()
        self.generator = context.generator
        self.register_buffer("prior_N", torch.as_tensor(context.prior_N).clone())

    def temperature(self, clock):
        return clock.progress

    def draw(self, batch, tokens_BND, temperature):
        pair = torch.randint(len(self.prior_N), (2,), generator=self.generator)
        other_N = self.prior_N.clone()
        other_N[pair] = other_N[pair.flip(0)]
        return Draw(torch.stack([self.prior_N, other_N]), torch.arange(batch) % 2)

    def best(self, tokens_BND=None):
        return self.prior_N.clone()

    def observe(self, draw, outcome):
        return PolicyStep()


class Inverts(Keeps):
    def best(self, tokens_BND=None):
        return self.prior_N.argsort()


class DrawsGlobally(Keeps):
    def draw(self, batch, tokens_BND, temperature):
        torch.rand(1)
        return super().draw(batch, tokens_BND, temperature)


class Repeats(Keeps):
    def draw(self, batch, tokens_BND, temperature):
        return replace(super().draw(batch, tokens_BND, temperature), perm_GN=torch.zeros(2, 12, dtype=torch.int64))


class Outside(Keeps):
    def draw(self, batch, tokens_BND, temperature):
        return replace(super().draw(batch, tokens_BND, temperature), group_B=torch.arange(batch))


class Forgets(Keeps):
    """Learns, but keeps what it learned outside its state."""

    def __init__(self, context):
        super().__init__(context)
        self.found_N = None

    def best(self, tokens_BND=None):
        return super().best() if self.found_N is None else self.found_N

    def observe(self, draw, outcome):
        self.found_N = self.best().roll(1)
        return PolicyStep()


class Unmoved(Keeps):
    def __init__(self, context):
        super().__init__(context)
        self.scores_N = nn.Parameter(torch.zeros(12))


class Ticks(Keeps):
    calls = 0.0

    def temperature(self, clock):
        self.calls += 1
        return self.calls


class Looks(Keeps):
    """Which of its two orders comes first depends on the images."""

    reads_tokens = True

    def draw(self, batch, tokens_BND, temperature):
        drawn = super().draw(batch, tokens_BND, temperature)
        return replace(drawn, group_B=(tokens_BND.mean((1, 2)) > 0).long())

    def best(self, tokens_BND=None):
        best_N = super().best(None)
        return best_N if tokens_BND is None else best_N.expand(len(tokens_BND), -1).clone()


class LooksUnasked(Looks):
    reads_tokens = False


@pytest.mark.parametrize("policy", [Keeps, Looks])
def test_a_good_policy_passes(policy):
    check_policy(lambda settings, context: policy(context))


def test_a_policy_that_reads_tokens_without_saying_so_gets_none():
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'mean'"):
        check_policy(lambda settings, context: LooksUnasked(context))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Inverts, "best.. must be the prior order"),
        (DrawsGlobally, "global random state of torch"),
        (Repeats, "each drawn order must name every patch once"),
        (Outside, "group_B must be from 0 to 1"),
        (Forgets, "all that best.. depends on"),
        (Unmoved, "must reach every parameter of a policy"),
        (Ticks, "pure function of the clock"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_caught(target, said):
    breaks(check_policy, target, said)


class Classifies(nn.Module):
    """A task that keeps its contract."""

    primary, higher_is_better, batch_coupled = "accuracy", True, False

    def __init__(self, context):
        super().__init__()
        self.head = nn.Linear(context.width, context.data.classes)

    def prepare(self, batch, generator):
        return batch

    def step(self, run, batch, order):
        logits_BK = self.head(run(batch.images_BCHW, order).summary_BD)
        return TaskResult(nn.functional.cross_entropy(logits_BK, batch.target, reduction="none"), logits_BK)

    def after_step(self, step):
        return None

    def score_B(self, result, batch):
        return (result.prediction.argmax(1) == batch.target).float()

    def metrics(self):
        return Share(self)


class Share:
    def __init__(self, task):
        self.task = task
        self.reset()

    def update(self, result, batch):
        self.right += float(self.task.score_B(result, batch).sum())
        self.all += len(batch)

    def compute(self):
        return {"accuracy": self.right / self.all}

    def reset(self):
        self.right = self.all = 0


class MeanLoss(Classifies):
    def step(self, run, batch, order):
        result = super().step(run, batch, order)
        return replace(result, loss_B=result.loss_B.mean())


class Couples(Classifies):
    def step(self, run, batch, order):
        result = super().step(run, batch, order)
        return replace(result, loss_B=result.loss_B + result.loss_B.mean())


class Upside(Classifies):
    higher_is_better = False


class Percent(Classifies):
    def score_B(self, result, batch):
        return 100 * super().score_B(result, batch) if isinstance(result, TaskResult) else None

    def metrics(self):
        share = Share(self)
        share.compute = lambda: {"accuracy": share.right / share.all / 100}
        return share


def test_a_good_task_passes():
    check_task(lambda settings, context: Classifies(context))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (MeanLoss, "loss_B must be .20."),
        (Couples, "the loss of an image must be its own"),
        (Upside, "must improve 'accuracy'"),
        (Percent, "mean of score_B"),
    ],
)
def test_a_task_that_breaks_its_contract_is_caught(target, said):
    breaks(check_task, target, said)


class Noise(DatasetSettings):
    """A tiny data set of noise."""

    def describe(self):
        return DataFacts(8, 8, 1, classes=2, train=20, validation=10)


class Split:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return self.images

    def load(self, indices, epoch):
        pictures = [torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(index)) for index in indices]
        return Batch(torch.stack(pictures), torch.tensor(indices) % 2, torch.tensor(indices))


class Data:
    """A data set that keeps its contract, of splits of the class `split`."""

    in_memory, classes, split = True, ("even", "odd"), Split

    def __init__(self, context):
        self.facts = Noise().describe()
        self.train, self.validation = self.split(20), self.split(10)


class ByPlace(Split):
    def load(self, indices, epoch):
        batch = super().load(indices, epoch)
        return replace(batch, images_BCHW=batch.images_BCHW + torch.arange(len(indices)).view(-1, 1, 1, 1))


class ByEpoch(Split):
    def load(self, indices, epoch):
        batch = super().load(indices, epoch)
        return replace(batch, images_BCHW=batch.images_BCHW + epoch)


class Larger(Split):
    def load(self, indices, epoch):
        batch = super().load(indices, epoch)
        return replace(batch, images_BCHW=batch.images_BCHW.repeat(1, 1, 2, 2))


class Third(Split):
    def load(self, indices, epoch):
        batch = super().load(indices, epoch)
        return replace(batch, target=batch.target + 1)


def test_a_good_data_set_passes():
    check_dataset(lambda settings, context: Data(context), Noise())


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (ByPlace, "order in which they are loaded"),
        (ByEpoch, "the same in every epoch"),
        (Larger, "promises images of"),
        (Third, "targets must be from 0 to 1"),
    ],
)
def test_a_data_set_that_breaks_its_contract_is_caught(split, said):
    broken = type("Broken", (Data,), {"split": split})
    breaks(check_dataset, broken, said, settings=Noise())


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Control("idle"), "change the order or override"),
        (Control("same", lambda context, learned_N: learned_N, needs="finished"), "copy it"),
        (Control("dice", lambda context, learned_N: np.random.permutation(15)), "random state of NumPy"),
        (Control("zeros", lambda context, learned_N: np.zeros(15, dtype=np.int64)), "name every patch once"),
    ],
)
def test_a_control_that_breaks_its_contract_is_caught(control, said):
    breaks(check_control, lambda context: control, said)


def test_strategies_give_what_they_say():
    @for_all(20, conformance.grids(6, max_frames=2, min_size=2), conformance.permutations(7))
    def shapes(grid, perm_N):
        assert 2 <= grid.size <= 72
        assert sorted(perm_N.tolist()) == list(range(7))
        assert perm_N.dtype == np.int64

    @for_all(20, conformance.score_vectors(5), conformance.token_batches(6, width=3))
    def values(score_N, tokens_BND):
        assert score_N.shape == (5,)
        assert abs(score_N).max() <= 150
        assert tokens_BND.shape[1:] == (6, 3)
