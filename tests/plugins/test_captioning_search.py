"""Saying captions: greedy and beam search, and that cached states say what reading anew says."""

from __future__ import annotations

import itertools
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_captioning.prefix import Rereading, StepByStep, goes_by_steps
from reorder_captioning.rows import taken
from reorder_captioning.search import search
from reorder_captioning.settings import CaptioningSettings
from reorder_captioning.task import Captioning
from reorder_captioning.vocabulary import BEGIN, END, PAD, UNKNOWN
from torch import Tensor

from reorder_core import Batch, DataFacts, Draw, Grid, Layout, UsageError
from reorder_core.conformance import context
from reorder_core.conformance.building import build
from reorder_core.model import Model

V, PLACES = 7, 4
GRID, PATCH, WIDTH = Grid(3, 3), 2, 24
CAPTIONS = [("a red cat", "a cat"), ("two dogs",), ("a cat and two red dogs",)]


class Table:
    """A speaker whose next piece depends on the last two: logits [B, V, V, V]."""

    def __init__(self, images: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.logits_BVVV = 2 * torch.randn(images, V, V, V, generator=draw)

    def start(self) -> tuple[Tensor, Any]:
        image_B = torch.arange(len(self.logits_BVVV))
        begin_B = torch.full_like(image_B, BEGIN)
        return self.logits_BVVV[image_B, begin_B, begin_B], (image_B, begin_B)

    def next(self, word_R: Tensor, state: Any) -> tuple[Tensor, Any]:
        image_R, last_R = state
        return self.logits_BVVV[image_R, last_R, word_R], (image_R, word_R)

    def taken(self, state: Any, row_R: Tensor) -> Any:
        return tuple(part[row_R] for part in state)

    def log_prob(self, image: int, line: tuple[int, ...]) -> float:
        found, before = 0.0, (BEGIN, BEGIN)
        for word in line:
            found += float(self.logits_BVVV[image, before[0], before[1]].log_softmax(0)[word])
            before = (before[1], word)
        return found


def every_line() -> list[tuple[int, ...]]:
    """All captions of one word up to PLACES - 1 words, with their end."""
    words = [word for word in range(V) if word not in (PAD, BEGIN, END, UNKNOWN)]
    return [(*line, END) for length in range(1, PLACES) for line in itertools.product(words, repeat=length)]


def pieces(row: list[int]) -> tuple[int, ...]:
    return tuple(row[: row.index(END) + 1])


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.7, 1.5]))
@settings(max_examples=25, deadline=None)
def test_a_beam_that_is_wide_enough_finds_the_best_of_all(seed: int, penalty: float) -> None:
    table = Table(3, seed)
    found = search(table, PLACES, beam=64, length_penalty=penalty)
    for image in range(3):
        best = max(every_line(), key=lambda line: table.log_prob(image, line) / len(line) ** penalty)
        said = pieces(found.word_BT[image].tolist())
        assert said == best
        assert float(found.log_prob_B[image]) == pytest.approx(table.log_prob(image, best), abs=1e-4)
        assert int(found.length_B[image]) == len(best)


@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([0.0, 1.0]))
@settings(max_examples=40, deadline=None)
def test_a_beam_says_nothing_worse_than_greedy(seed: int, beam: int, penalty: float) -> None:
    table = Table(4, seed)
    greedy, wide = search(table, PLACES), search(table, PLACES, beam, penalty)
    of_greedy_B = greedy.log_prob_B / greedy.length_B**penalty
    assert (wide.log_prob_B / wide.length_B**penalty >= of_greedy_B - 1e-5).all()


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_greedy_takes_the_likeliest_piece_that_may_be_said(seed: int) -> None:
    table = Table(2, seed)
    found = search(table, PLACES, beam=1)
    for image in range(2):
        line, before = [], (BEGIN, BEGIN)
        while END not in line:
            banned = {PAD, BEGIN, UNKNOWN} | ({END} if not line else set())
            if len(line) == PLACES - 1:
                banned = set(range(V)) - {END}
            logits_V = table.logits_BVVV[image, before[0], before[1]].clone()
            logits_V[list(banned)] = float("-inf")
            line.append(int(logits_V.argmax()))
            before = (before[1], line[-1])
        assert pieces(found.word_BT[image].tolist()) == tuple(line)
        assert float(found.log_prob_B[image]) == pytest.approx(table.log_prob(image, tuple(line)), abs=1e-4)


def learner(backbone: str, given_backbone: dict[str, Any], **given_task: Any) -> tuple[Captioning, Model]:
    facts = DataFacts(6, 6, 1, target="captions")
    train = SimpleNamespace(targets=lambda: iter(CAPTIONS))
    where = context(GRID, patch=PATCH, width=WIDTH, dataset=SimpleNamespace(facts=facts, train=train))
    torch.manual_seed(0)
    model = Model(build("backbone", backbone, given_backbone, where), GRID, PATCH, 1)
    task = Captioning(CaptioningSettings(vocabulary=40, max_words=7, **given_task), where)
    with torch.no_grad():
        for parameter in task.parameters():  # far from uniform, so that a wrong state is seen
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task.eval(), model.eval()


def batch_of(images: int) -> Batch:
    pixels_BCHW = torch.randn(images, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    return Batch(pixels_BCHW, [CAPTIONS[b % 3] for b in range(images)], torch.arange(images))


def orders(images: int) -> Layout:
    draw = torch.Generator().manual_seed(3)
    perm_GN = torch.stack([torch.randperm(GRID.size, generator=draw) for _ in range(2)])
    return Layout(GRID, perm_GN, torch.arange(images) % 2)


SMALL = {"width": WIDTH, "depth": 2}
BY_STEPS = [
    ("mamba", {**SMALL, "state": 4}),
    ("mamba2", {**SMALL, "state": 8, "head_width": 8}),
    ("transformer_xl", {**SMALL, "heads": 2, "causal": True, "readout": "last"}),
    ("transformer_xl", {**SMALL, "heads": 2, "causal": True, "readout": "last", "segment": 5, "memory": 5}),
]


@pytest.mark.parametrize(
    ("backbone", "given_backbone"), BY_STEPS, ids=["mamba", "mamba2", "transformer_xl", "segments"]
)
@pytest.mark.parametrize("beam", [1, 3])
def test_cached_states_say_what_reading_anew_says(backbone: str, given_backbone: dict[str, Any], beam: int) -> None:
    task, model = learner(backbone, given_backbone, tied=False)  # a tied head would say what it reads, and no more
    batch = batch_of(4)
    with torch.no_grad():
        seen = task.reader(model, batch.images_BCHW, orders(4))
        cached = seen.speaker()
        assert isinstance(cached, StepByStep)
        anew = Rereading(task.reader.words, seen._through_run, batch.images_BCHW)
        one, two = (search(speaker, 8, beam) for speaker in (cached, anew))
    assert one.word_BT.tolist() == two.word_BT.tolist()
    torch.testing.assert_close(one.log_prob_B, two.log_prob_B, atol=1e-4, rtol=1e-4)
    assert float(one.log_prob_B.std()) > 1e-2, "what is said depends on the image"


@pytest.mark.parametrize("beam", [1, 3])
def test_a_decoder_with_its_cache_says_what_it_says_without(beam: int) -> None:
    task, model = learner("vit", {**SMALL, "heads": 2}, reader="cross_attention", heads=2, slot_positions=True)
    batch = batch_of(4)
    with torch.no_grad():
        seen = task.reader(model, batch.images_BCHW, orders(4))
        lines = search(seen.speaker(), 8, beam)
        target_BT = torch.where(torch.arange(lines.word_BT.shape[1]) < lines.length_B[:, None], lines.word_BT, PAD)
        read_BT = torch.cat([torch.full((4, 1), BEGIN), target_BT[:, :-1]], dim=1)
        log_prob_BT = seen.logits(read_BT).log_softmax(-1).gather(2, target_BT[..., None])[..., 0]
        total_B = (log_prob_BT * (target_BT != PAD)).sum(1)
    torch.testing.assert_close(total_B, lines.log_prob_B, atol=1e-4, rtol=1e-4)
    if beam == 1:
        sayable_BTV = seen.logits(read_BT)
        sayable_BTV[..., [PAD, BEGIN, UNKNOWN]] = float("-inf")
        sayable_BTV[:, 0, END] = float("-inf")
        inner_BT = (target_BT != PAD) & (torch.arange(target_BT.shape[1]) < 7)
        assert (sayable_BTV.argmax(-1)[inner_BT] == target_BT[inner_BT]).all()


@pytest.mark.parametrize(
    ("backbone", "given_backbone"),
    [
        ("mamba", {**SMALL, "readout": "class"}),
        ("image_transformer", {**SMALL, "heads": 2, "causal": True}),
    ],
    ids=["mamba", "image_transformer"],
)
def test_a_backbone_that_goes_by_no_steps_reads_anew(backbone: str, given_backbone: dict[str, Any]) -> None:
    task, model = learner(backbone, given_backbone)
    assert not goes_by_steps(model.backbone)
    result = task.step(model, batch_of(3), orders(3))
    assert len(result.prediction.texts) == 3


@pytest.mark.parametrize(
    ("backbone", "given_backbone", "says"),
    [
        ("mamba", {**SMALL, "direction": "bidirectional"}, "full attention the patches would see the caption"),
        ("vit", {**SMALL, "heads": 2}, "task.reader: cross_attention"),
        ("hierarchical", {}, "takes no text after the patches"),
    ],
)
def test_backbones_that_the_reader_prefix_refuses(backbone: str, given_backbone: dict[str, Any], says: str) -> None:
    if backbone == "hierarchical":
        stands_for = SimpleNamespace(backbone=SimpleNamespace(takes_text=False, attention="causal"))
        task, model = learner("mamba", SMALL)[0], stands_for
    else:
        task, model = learner(backbone, given_backbone)
    with pytest.raises(UsageError, match=says):
        task.refuse_model(model)


@pytest.mark.parametrize("reader", ["prefix", "cross_attention"])
def test_drawn_and_soft_orders_are_learned_through(reader: str) -> None:
    task, model = learner("mamba", SMALL, reader=reader)
    batch, layout = batch_of(4), orders(4)
    assert layout.group_B is not None
    plain_B = task.step(model, batch, layout).loss_B
    drawn_B = task.step(model, batch, Draw(layout.perm_GN, layout.group_B)).loss_B
    torch.testing.assert_close(plain_B, drawn_B)
    matrix_NN = torch.eye(GRID.size)[layout.perm_GN[0]].requires_grad_()
    soft = Draw(layout.perm_GN[:1], torch.zeros(4, dtype=torch.int64), soft=lambda tokens_BND: matrix_NN @ tokens_BND)
    result = task.step(model, batch, soft)
    result.loss_B.mean().backward()
    assert matrix_NN.grad is not None
    assert float(matrix_NN.grad.abs().sum()) > 0
    hard = task.step(model, batch, Layout.fixed(GRID, layout.perm_GN[0]))
    torch.testing.assert_close(result.loss_B, hard.loss_B, atol=1e-5, rtol=1e-5)
    assert list(result.prediction.texts) == list(hard.prediction.texts)


def test_the_loss_of_an_image_is_its_own_whatever_stands_beside_it() -> None:
    task, model = learner("transformer_xl", {**SMALL, "heads": 2, "causal": True, "readout": "last"})
    batch, layout = batch_of(3), orders(3)
    together_B = task.step(model, batch, layout).loss_B
    for b in range(3):
        alone = Batch(batch.images_BCHW[b : b + 1], batch.target[b : b + 1], batch.index_B[b : b + 1])
        row = torch.tensor([b])
        torch.testing.assert_close(task.step(model, alone, layout.part(row)).loss_B[0], together_B[b])


@dataclass(frozen=True)
class State:
    plan: Any
    kept: Any
    place: int


Pair = namedtuple("Pair", "one two")


def test_rows_of_a_state_are_taken_and_a_shared_plan_is_left() -> None:
    plan, row_R = torch.eye(3), torch.tensor([2, 0, 2, 1])
    fresh = State(plan, [torch.zeros(3, 1), {"a": torch.zeros(3)}], 0)
    now = State(plan, [torch.arange(3.0)[:, None], {"a": torch.arange(3.0)}], 5)
    wanted = State(torch.eye(3), [torch.zeros(4, 1), {"a": torch.zeros(4)}], 0)
    found = taken(now, fresh, wanted, row_R)
    assert found.plan is wanted.plan
    assert found.kept[0][:, 0].tolist() == found.kept[1]["a"].tolist() == [2, 0, 2, 1]
    assert found.place == 5
    pair = taken(Pair(torch.arange(3), None), Pair(None, None), Pair(None, None), row_R)
    assert isinstance(pair, Pair)
    assert pair.one.tolist() == [2, 0, 2, 1]
    grown = taken([torch.arange(3)], [], [], row_R)
    assert grown[0].tolist() == [2, 0, 2, 1]
    with pytest.raises(UsageError, match=r"holds a object: set task.beam to 1"):
        taken([object()], [None], [None], row_R)
