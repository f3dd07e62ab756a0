"""The task `captioning`: its words, losses, scores, checkpoint, and what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reorder_captioning.metrics import CaptionMetrics, scores, words
from reorder_captioning.settings import CaptioningSettings
from reorder_captioning.task import Captioning, Said
from reorder_captioning.vocabulary import END, MARKS, PAD, Vocabulary

from reorder_core import Batch, Context, DataFacts, Features, Grid, Layout, Level, RunFacts, TaskResult, UsageError
from reorder_core.conformance import check_task, context

CAPTIONS = [
    ("a red cat on the mat", "one cat sits"),
    ("two dogs run to the left of a cat",),
    ("a dog above three cats", "three cats below a dog", "a dog, and cats"),
    ("nothing but a mat on the left",),
    ("two red dogs on a mat", "dogs on a mat"),
]
WIDTH, SIDE = 12, 8
GRID = Grid(2, 2)


def dataset(captions: Sequence[tuple[str, ...]] = CAPTIONS) -> Any:
    facts = DataFacts(SIDE, SIDE, 1, target="captions", train=len(captions), validation=4)
    return SimpleNamespace(facts=facts, train=SimpleNamespace(targets=lambda: iter(captions)))


def task_of(captions: Sequence[tuple[str, ...]] = CAPTIONS, **given_settings: Any) -> Captioning:
    where = context(GRID, patch=4, width=WIDTH, dataset=dataset(captions))
    return Captioning(CaptioningSettings(**{"vocabulary": 80, "max_words": 12, **given_settings}), where)


def batch_of(images: int, captions: Sequence[tuple[str, ...]] = CAPTIONS) -> Batch:
    draw = torch.Generator().manual_seed(1)
    pixels_BCHW = torch.randn(images, 1, SIDE, SIDE, generator=draw)
    return Batch(pixels_BCHW, [captions[b % len(captions)] for b in range(images)], torch.arange(images))


def run(images_BCHW: torch.Tensor, order: Any, text_BTD: torch.Tensor | None = None) -> Features:
    """A model that adds what an image is to each word."""
    tokens_BND = images_BCHW.flatten(2)[..., : 4 * WIDTH].unflatten(2, (4, WIDTH))[:, 0]
    text_BTD = None if text_BTD is None else text_BTD + tokens_BND.mean(1, keepdim=True)
    return Features((Level(tokens_BND, order),), tokens_BND.mean(1), text_BTD=text_BTD)


ORDER = Layout.fixed(GRID, torch.arange(4))
each_reader = pytest.mark.parametrize("reader", ["prefix", "cross_attention"])


SHORT = [("a cat", "cat"), ("a dog",), ("two dogs",)]


@pytest.mark.parametrize(
    ("given_settings", "learnable"),
    [
        ({"reader": "prefix", "label_smoothing": 0.1}, True),
        ({"reader": "prefix", "tied": False, "beam": 2}, False),
        ({"reader": "cross_attention", "heads": 2, "depth": 1, "slot_positions": True, "tied": False}, False),
        ({"reader": "cross_attention", "dropout": 0.1, "depth": 1}, True),
    ],
)
def test_contract(given_settings: dict[str, Any], learnable: bool) -> None:
    where = context(GRID, patch=4, width=24, dataset=dataset(SHORT))
    short = {"vocabulary": 20, "max_words": 3, **given_settings}
    check_task(
        "captioning",
        short,
        batch=lambda images: batch_of(images, SHORT),
        where=where,
        score_is_mean=False,
        learnable=learnable,
    )


@given(st.lists(st.sampled_from([text for texts in CAPTIONS for text in texts]), min_size=1, max_size=9))
@settings(max_examples=10, deadline=None)
def test_what_was_learned_is_read_and_said_again(texts: list[str]) -> None:
    one, two = (Vocabulary.learned([(text,) for text in texts], 70) for _ in range(2))
    assert one.state() == two.state(), "the same captions give the same pieces"
    assert len(one) <= 70
    assert one.state()["pieces"][: len(MARKS)] == list(MARKS)
    for text in texts:
        assert one.text(one.numbers(text)) == text
        assert min(one.numbers(text)) >= len(MARKS)


def test_pieces() -> None:
    known = Vocabulary.learned(CAPTIONS, 80)
    assert known.text(known.numbers("  A  RED\tcat ")) == "a red cat"
    assert known.numbers("zzz") != [], "a character that no caption had is unknown, and is left out of what is said"
    assert known.text(known.numbers("a zzz cat")) == "a  cat"
    assert END not in known.numbers("a <eos> cat"), "a mark that stands in a text is a text"
    assert known.targets_BT(["a cat", "a cat on the mat"], 4).tolist() == [
        [*known.numbers("a cat"), END, PAD],
        known.numbers("a cat on the mat")[:4],
    ]
    upper = Vocabulary.learned([("A Cat",)], 20, lower_case=False)
    assert upper.text(upper.numbers("A Cat")) == "A Cat"
    assert copy.deepcopy(known).state() == json.loads(json.dumps(known.state()))


@pytest.mark.parametrize(
    ("captions", "size", "says"),
    [
        ([("a cat",), ("a dog", " \t ")], 50, "caption 1 of training image 1 has no words"),
        ([("a cat",), ()], 50, "training image 1 has no caption"),
        ([("abcdefg",)], 9, "fewer than the 8 characters"),
        ([], 50, "no captions to learn words from"),
    ],
)
def test_words_that_cannot_be_learned(captions: Any, size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Vocabulary.learned(captions, size)


@each_reader
def test_the_loss_is_the_mean_over_pieces_then_captions(reader: str) -> None:
    task, batch = task_of(reader=reader, label_smoothing=0.2), batch_of(5)
    task.eval()
    loss_B = task.step(run, batch, ORDER).loss_B
    for b, texts in enumerate(batch.target):
        found = []
        for text in texts:
            target_BT = task.vocabulary.targets_BT([text], 13)
            read_BT = torch.cat([torch.tensor([[1]]), target_BT[:, :-1]], 1)
            logits_BTV = task.reader(run, batch.images_BCHW[b : b + 1], ORDER).logits(read_BT)
            log_prob_T = logits_BTV.log_softmax(-1)[0].gather(1, target_BT.T)[:, 0]
            found.append(-log_prob_T[target_BT[0] != PAD].mean())
        torch.testing.assert_close(loss_B[b], torch.stack(found).mean())
    task.train()
    assert not torch.allclose(task.step(run, batch, ORDER).loss_B, loss_B), "smoothing counts in training"


def test_training_draws_a_caption_of_each_image() -> None:
    task, batch = task_of(), batch_of(5)
    drawn = [task.prepare(batch, torch.Generator().manual_seed(seed)).target for seed in range(60)]
    assert drawn[3] == task.prepare(batch, torch.Generator().manual_seed(3)).target
    for b, texts in enumerate(batch.target):
        assert {targets[b] for targets in drawn} == {(text,) for text in texts}
    single = batch_of(3, [("a cat",)])
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert task.prepare(single, generator) is single
    assert torch.equal(before, generator.get_state())


def perfect(batch: Batch) -> TaskResult:
    return TaskResult(torch.zeros(len(batch)), Said(lambda: [texts[0] for texts in batch.target]))


def test_a_perfect_prediction_scores_one() -> None:
    captions = [("a red cat on the mat",), ("two dogs run to the left",), ("nothing but a mat here",)]
    task, batch = task_of(captions), batch_of(30, captions)
    metrics = task.metrics()
    metrics.update(perfect(batch), batch)
    found = metrics.compute()
    ones = {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "exact_match"}
    assert {name: found[name] for name in ones} == pytest.approx(dict.fromkeys(ones, 1.0))
    assert found["cider"] == pytest.approx(10.0)
    assert (task.score_B(perfect(batch), batch) == 1).all()
    assert task.score == "rouge_l"


def test_words_that_metrics_compare() -> None:
    assert words("A man's T-shirt, (red)... 'quoted' 7") == ["a", "man's", "t-shirt", "red", "quoted", "7"]
    assert scores(["A Cat!"], [["a cat", "dogs"]])["exact_match"] == 1
    assert scores(["a"], [["a cat"]])["exact_match"] == 0
    assert scores(["...", ""], [["?!"], ["a"]])["rouge_l"] == 0


def test_metrics_are_asked_again_after_reset() -> None:
    metrics, batch = CaptionMetrics(), batch_of(4)
    metrics.update(perfect(batch), batch)
    one = metrics.compute()
    metrics.reset()
    metrics.update(perfect(batch), batch)
    assert metrics.compute() == one


def test_captions_are_said_when_asked_and_in_evaluation_mode_only() -> None:
    task, batch = task_of(), batch_of(3)
    task.train()
    with pytest.raises(UsageError, match="evaluation mode"):
        task.step(run, batch, ORDER).prediction.texts
    task.eval()
    texts = task.step(run, batch, ORDER).prediction.texts
    assert [type(text) for text in texts] == [str] * 3


@each_reader
def test_under_autocast_losses_are_float32_and_the_same_is_said(reader: str) -> None:
    task, batch = task_of(reader=reader), batch_of(6)
    task.eval()
    plain = task.step(run, batch, ORDER)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.step(run, batch, ORDER)
        assert found.loss_B.dtype == torch.float32
        assert len(found.prediction.texts) == 6
    torch.testing.assert_close(found.loss_B, plain.loss_B, atol=0.1, rtol=0.1)


def test_a_checkpoint_carries_its_words() -> None:
    task, same, other = task_of(), task_of(), task_of([("an entirely different text",)], vocabulary=40)
    with torch.no_grad():
        task.reader.words.table_VD.add_(1)
    state = task.state_dict()
    assert json.loads(json.dumps(state["_extra_state"])) == state["_extra_state"]
    same.load_state_dict(state)
    torch.testing.assert_close(same.reader.words.table_VD, task.reader.words.table_VD)
    with pytest.raises(UsageError, match=r"words are not those .* use the captions, task.vocabulary") as caught:
        other.load_state_dict(state)
    assert str(caught.value.__cause__) == str(caught.value), "said also where only the cause is shown"


def test_picture(tmp_path: Path) -> None:
    task, batch = task_of(), batch_of(5)
    orders = Layout(GRID, torch.stack([torch.arange(4), torch.arange(4).flip(0)]), torch.arange(5) % 2)
    for layout in (None, orders):
        task.draw_prediction(batch, perfect(batch), layout, tmp_path / "captions.png")
        with Image.open(tmp_path / "captions.png") as picture:
            assert picture.size[0] >= 800


@pytest.mark.parametrize(
    ("target", "given_settings", "key", "says"),
    [
        ("boxes", {}, "name", "set data.target to captions"),
        ("captions", {"depth": 2}, "depth", "leave it out"),
        ("captions", {"slot_positions": False}, "slot_positions", "only reader 'cross_attention'"),
        ("captions", {"length_penalty": 1.0}, "length_penalty", "raise beam"),
    ],
)
def test_problems(target: str, given_settings: dict[str, Any], key: str, says: str) -> None:
    facts = RunFacts(DataFacts(SIDE, SIDE, 1, target=target), GRID, 4, 4, "learned")
    (problem,) = CaptioningSettings(**given_settings).problems(facts)
    assert problem.key == key
    assert says in problem.message


def test_no_problems_in_a_good_run() -> None:
    facts = RunFacts(dataset().facts, GRID, 4, 4, "learned")
    assert list(CaptioningSettings(beam=3, length_penalty=0.7).problems(facts)) == []
    assert list(CaptioningSettings(reader="cross_attention", depth=1).problems(facts)) == []


def test_refusals() -> None:
    with pytest.raises(UsageError, match="captioning needs data with captions"):
        Captioning(CaptioningSettings(), Context(GRID, width=WIDTH))
    with pytest.raises(UsageError, match="targets"):
        Captioning(CaptioningSettings(), Context(GRID, width=WIDTH, data=dataset().facts))
    with pytest.raises(UsageError, match="heads"):
        task_of(reader="cross_attention", heads=5)
    with pytest.raises(UsageError, match="caption 0 of image 1 has no words"):
        task_of().step(run, batch_of(2, [("a",), (" ",)]), ORDER)
