"""The task `visual_reasoning`: words, answers, readers, losses of each image, accuracy by kind, checkpoint, picture."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from reorder_hierarchical.backbone import HierarchicalBackbone
from reorder_hierarchical.settings import HierarchicalSettings
from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.settings import MambaSettings
from reorder_visual_reasoning.answers import Answers, credit, plain
from reorder_visual_reasoning.metrics import AccuracyByKind, named
from reorder_visual_reasoning.settings import VisualReasoningSettings
from reorder_visual_reasoning.task import VisualReasoning
from reorder_visual_reasoning.words import Words
from reorder_vit.backbone import VitBackbone
from reorder_vit.settings import VitSettings

from reorder_core import Batch, ComponentRef, DataFacts, Draw, Grid, Layout, RunFacts, TaskResult, UsageError
from reorder_core.cli.main import main
from reorder_core.conformance import check_task, context
from reorder_core.interfaces.targets import Question
from reorder_core.model import Model
from reorder_core.opened import open_recipe, open_run
from reorder_core.recipe import load_recipe
from reorder_core.training.build import Learner
from reorder_core.training.checkpoint import take_trained

GRID, PATCH, WIDTH = Grid(2, 2), 4, 16
TEXTS = ["how many?", "is there a 7?", "what is left of the 7, if anything?"]
QUESTIONS = [
    Question(TEXTS[0], ("2",), "count"),
    Question(TEXTS[1], ("yes",), "exist"),
    Question(TEXTS[2], ("3",), "side"),
    Question(TEXTS[0], ("4",), "count"),
    Question(TEXTS[1], ("no",), "exist"),
]


def where_of(questions=None, target="questions"):
    asked = QUESTIONS if questions is None else questions
    split = SimpleNamespace(targets=lambda: iter(asked))
    facts = DataFacts(8, 8, 1, target=target, train=len(asked))
    given = context(GRID, patch=PATCH, width=WIDTH)
    return given.changed(data=facts, dataset=SimpleNamespace(train=split, validation=split, facts=facts))


def task_of(questions=None, **settings):
    return VisualReasoning(VisualReasoningSettings(**settings), where_of(questions)).eval()


def model_of(kind="mamba"):
    where = context(GRID, width=WIDTH)
    if kind == "mamba":
        backbone = MambaBackbone(MambaSettings(width=WIDTH, depth=1, state=4), where)
    else:
        backbone = VitBackbone(VitSettings(width=WIDTH, depth=1, heads=2), where)
    return Model(backbone, GRID, PATCH, 1).eval()


def batch_of(count=5, questions=None):
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    asked = QUESTIONS if questions is None else questions
    return Batch(images, [asked[b % len(asked)] for b in range(count)], torch.arange(count))


def order_of(seed=1):
    return Layout.fixed(GRID, torch.randperm(4, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "soft"},
        {"words": "bpe", "length": 4},
        {"reader": "cross_attention", "depth": 1, "heads": 2, "width": 8},
        {"reader": "cross_attention", "depth": 1, "answers": 3},
    ],
)
def test_holds_the_contract_of_tasks(settings):
    check_task("visual_reasoning", settings, batch=batch_of, where=where_of())


@pytest.mark.parametrize("reader", ["suffix", "cross_attention"])
@pytest.mark.parametrize("kind", ["mamba", "vit"])
def test_the_loss_of_an_image_is_its_own_beside_longer_questions_and_other_orders(reader, kind):
    task, model, batch = task_of(reader=reader), model_of(kind), batch_of()
    perm_GN = torch.stack([order_of(seed).perm_GN[0] for seed in range(2)])
    group_B = torch.tensor([1, 0, 1, 0, 0])
    with torch.no_grad():
        together = task.step(model, batch, Draw(perm_GN, group_B)).loss_B
        for b in range(5):
            one = Batch(batch.images_BCHW[b : b + 1], batch.target[b : b + 1], batch.index_B[b : b + 1])
            alone = task.step(model, one, Layout.fixed(GRID, perm_GN[group_B[b]])).loss_B
            torch.testing.assert_close(together[b : b + 1], alone)
    task.step(model, batch, order_of()).loss_B.mean().backward()
    assert {name for name, value in task.named_parameters() if not value.grad.abs().sum() > 0} == set()


@torch.no_grad()
@pytest.mark.parametrize("reader", ["suffix", "cross_attention"])
def test_the_order_matters_where_the_backbone_is_sensitive_to_it_only(reader):
    task, batch = task_of(reader=reader), batch_of()
    task.head.weight *= 1000  # before training, little of the image reaches the question
    for kind, same in (("vit", True), ("mamba", False)):
        model = model_of(kind)
        one, two = (task.step(model, batch, order_of(seed)).prediction for seed in (0, 1))
        assert torch.allclose(one, two, atol=1e-3) is same


@torch.no_grad()
def test_the_answer_depends_on_image_and_question():
    for reader in ("suffix", "cross_attention"):
        task, model = task_of(reader=reader), model_of()
        task.head.weight *= 1000  # before training, little of the image reaches the question
        images = 30 * torch.randn(1, 1, 8, 8).repeat(2, 1, 1, 1)
        asked = [QUESTIONS[0], QUESTIONS[2]]
        said = task.step(model, Batch(images, asked, torch.arange(2)), order_of()).prediction
        assert not torch.allclose(said[0], said[1], atol=1e-3)
        images[1] = 30 * torch.randn(1, 8, 8)
        said = task.step(model, Batch(images, [QUESTIONS[0]] * 2, torch.arange(2)), order_of()).prediction
        assert not torch.allclose(said[0], said[1], atol=1e-3)


def test_a_soft_order_gets_the_gradient_of_the_loss():
    perm_N = order_of().perm_GN[0]
    for reader in ("suffix", "cross_attention"):
        soft_NN = torch.nn.functional.one_hot(perm_N, 4).float().requires_grad_()
        draw = Draw(
            perm_N[None], torch.zeros(5, dtype=torch.int64), soft=lambda tokens, soft_NN=soft_NN: soft_NN @ tokens
        )
        task_of(reader=reader).step(model_of(), batch_of(), draw).loss_B.mean().backward()
        assert soft_NN.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_words_are_the_same_every_time_and_end_with_the_question(kind):
    words, again = (Words.trained(TEXTS, kind, 200, None) for _ in range(2))
    assert words.as_text() == again.as_text()
    ids_BT = words.encode(TEXTS)
    assert ids_BT.shape == (3, words.length)
    assert words.length == max(len(words.tokenizer.encode(text).ids) for text in TEXTS)
    assert (ids_BT[2] != 0).all()
    first = int((ids_BT[0] == 0).sum())
    assert first > 0
    assert (ids_BT[0, first:] != 0).all()
    assert words.encode(["HOW  many?"]).tolist() == words.encode(["how many?"]).tolist()
    alone = Words.trained(TEXTS, kind, 200, 3)
    assert torch.equal(alone.encode([TEXTS[2]])[0], ids_BT[2, :3])
    assert alone.encode([]).shape == (0, 3)


def test_unknown_words_are_one_word_and_the_vocabulary_has_a_limit():
    words = Words.trained(TEXTS, "word", 5, None)
    assert len(words) == 5
    assert words.encode(["elephant zebra"])[0, -2:].tolist() == [1, 1]


def test_answers_are_the_most_frequent_ones():
    asked = [Question("?", (said,)) for said in ["b", "a", "c", "a", " B ", "d"]]
    assert Answers.of(asked, 3).known == ("a", "b", "c")
    answers = Answers.of(asked, 2)
    assert answers.class_B([Question("?", ("B",)), Question("?", ("c",)), Question("?", ())]).tolist() == [1, 2, 2]
    assert answers.right_BK([Question("?", ("B",)), Question("?", ("c",))]).tolist() == [[0, 1], [0, 0]]
    assert plain("  Two  Dogs ") == "two dogs"


@pytest.mark.parametrize(("count", "right"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_ten_people_give_credit_by_three(count, right):
    given = ["yes"] * count + ["no"] * (10 - count)
    assert credit("yes", given) == pytest.approx(right)
    question = Question("?", tuple(given))
    answers = Answers(["yes", "no"])
    assert answers.right_BK([question]).tolist()[0] == pytest.approx([right, min((10 - count) / 3, 1)])


def test_few_people_are_right_with_their_first_answer():
    assert [credit(answer, ["a", "a", "b"]) for answer in "abc"] == [1, 0, 0]
    assert credit("a", []) == 0


def result_of(task, batch, right):
    """The right answer where `right` says so, else another one."""
    logits = torch.zeros(len(batch), len(task.answers))
    class_B = task.answers.class_B(batch.target)
    for b, good in enumerate(right):
        logits[b, class_B[b] if good else (class_B[b] + 1) % len(task.answers)] = 9
    return TaskResult(torch.arange(len(batch)).float(), logits)


def test_a_perfect_prediction_scores_one_and_accuracy_is_told_by_kind():
    task, batch = task_of(), batch_of()
    whole = task.metrics()
    whole.update(result_of(task, batch, [True] * 5), batch)
    found = whole.compute()
    assert found == {"accuracy": 1, "accuracy_count": 1, "accuracy_exist": 1, "accuracy_side": 1, "loss": 2}
    assert (task.score_B(result_of(task, batch, [True] * 5), batch) == 1).all()
    half = task.metrics()
    half.update(result_of(task, batch, [True, True, False, True, False]), batch)
    found = half.compute()
    assert (found["accuracy_count"], found["accuracy_exist"], found["accuracy_side"]) == (1, 0.5, 0)
    assert found["accuracy"] == pytest.approx(0.6)


def test_kinds_that_another_process_met_are_counted(monkeypatch):
    task, batch = task_of(), batch_of()
    parts = []
    for images, right in ((slice(0, 2), [True, False]), (slice(2, 5), [False, True, True])):
        part = Batch(batch.images_BCHW[images], batch.target[images], batch.index_B[images])
        parts.append(AccuracyByKind(task.score_B))
        parts[-1].update(result_of(task, part, right), part)
    monkeypatch.setattr(
        "reorder_visual_reasoning.metrics._of_all_processes", lambda own: [part._sums for part in parts]
    )
    for part in parts:
        found = part.compute()
        assert found["accuracy"] == pytest.approx(0.6)
        assert (found["accuracy_count"], found["accuracy_exist"], found["accuracy_side"]) == (1, 0.5, 0)


def test_kinds_become_names_of_metrics():
    assert [named(kind) for kind in ("yes/no", "What color?", "", "left")] == [
        "accuracy_yes_no",
        "accuracy_what_color",
        "accuracy_other",
        "accuracy_left",
    ]


def test_a_rare_answer_is_wrong_and_has_a_loss():
    task, batch = task_of(answers=1), batch_of()
    (known,) = task.answers.known
    with torch.no_grad():
        result = task.step(model_of(), batch, order_of())
    assert result.prediction.shape == (5, 1)
    assert result.loss_B.isfinite().all()
    assert task.score_B(result, batch).tolist() == [float(question.answers[0] == known) for question in batch.target]


@torch.no_grad()
def test_the_soft_loss_judges_each_answer_by_itself():
    asked = [Question("what?", ("yes",) * 8 + ("no",) * 2, "a"), Question("what?", ("no",), "a")]
    task, batch = task_of(asked, loss="soft"), batch_of(2, asked)
    result = task.step(model_of(), batch, order_of())
    chance = result.prediction.sigmoid()
    right = torch.tensor([[2 / 3, 1.0], [1.0, 0.0]])  # the columns are no, yes
    assert task.answers.known == ("no", "yes")
    wanted = -(right * chance.log() + (1 - right) * (1 - chance).log()).sum(1)
    torch.testing.assert_close(result.loss_B, wanted)


def test_words_and_answers_are_kept_with_the_weights_and_others_are_refused():
    task, same = task_of(), task_of()
    state = json.loads(json.dumps(task.get_extra_state()))
    same.set_extra_state(state)
    same.load_state_dict(task.state_dict())
    more = [*QUESTIONS, Question("which one?", ("5",), "which")]
    with pytest.raises(
        UsageError, match="trained with other words and answers than this data's training questions give"
    ):
        task_of(more).load_state_dict(task.state_dict())
    with pytest.raises(UsageError, match="trained with other length"):
        task_of(length=3).set_extra_state(state)


def test_the_picture_tells_question_and_answers(tmp_path):
    asked = [*QUESTIONS, Question("how much is $5 and $6, " * 3, ("a $ sign",))]
    task, batch = task_of(asked), batch_of(18, asked)
    orders = Layout(GRID, torch.stack([torch.arange(4), torch.arange(4).flip(0)]), torch.arange(18) % 2)
    result = task.step(model_of(), batch, orders)
    for layout in (orders, None):
        task.draw_prediction(batch, result, layout, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size[0] >= 800


@pytest.mark.parametrize(
    ("target", "given", "says"),
    [
        ("class", {}, "name: visual_reasoning answers questions, and this data gives 'class': set data.target"),
        ("questions", {"depth": 3}, "depth: only the reader 'cross_attention' has blocks of its own"),
        ("questions", {"reader": "cross_attention", "width": 6}, "heads: a width of 6 is not divisible by 4 heads"),
    ],
)
def test_settings_that_contradict_each_other_are_a_problem(target, given, says):
    facts = RunFacts(DataFacts(8, 8, 1, target=target), GRID, PATCH, 8, "learned")
    (problem,) = VisualReasoningSettings(**given).problems(facts)
    assert f"{problem.key}: {problem.message}".startswith(says)


def test_refusals():
    with pytest.raises(UsageError, match=r"set data\.target to questions"):
        VisualReasoning(VisualReasoningSettings(), where_of(target="class"))
    with pytest.raises(UsageError, match=r"set data\.target to questions"):
        VisualReasoning(VisualReasoningSettings(), context(GRID, width=WIDTH))
    with pytest.raises(UsageError, match="no training question has any"):
        task_of([Question("what?", ())])
    with pytest.raises(UsageError, match="a width of 16 is not divisible by 3 heads"):
        task_of(reader="cross_attention", heads=3)


def test_a_backbone_that_reads_no_text_is_refused_by_the_suffix_and_read_by_cross_attention():
    model = model_of()
    model.backbone.takes_text = HierarchicalBackbone.takes_text
    with pytest.raises(UsageError, match=r"set task\.reader to cross_attention, or choose another backbone"):
        task_of().refuse_model(model)
    assert task_of(reader="cross_attention").step(model, batch_of(), order_of()).loss_B.shape == (5,)


def test_of_a_hierarchy_whose_levels_differ_in_width_the_last_one_is_looked_at():
    where = context(GRID, width=8)
    mixer = ComponentRef("mixer", "vit", {"heads": 2})
    backbone = HierarchicalBackbone(HierarchicalSettings(mixer=mixer, widths=(8, WIDTH), depths=(1, 1)), where)
    task, model = task_of(reader="cross_attention", depth=1), Model(backbone, GRID, PATCH, 1).eval()
    assert task.step(model, batch_of(), order_of()).loss_B.shape == (5,)


RECIPE = """
name: asked
seed: 0
data: {name: digit_scenes, target: questions, train: 48, validation: 16, size: 32, digits: [1, 2], side: [12, 14],
       kinds: KINDS}
patch: {size: 8}
ordering: {name: snake}
backbone: {name: mamba, width: 16, depth: 1, state: 4}
policy: {name: reinforce, orders: 4}
task: {name: visual_reasoning}
training: {epochs: 1, batch_size: 16, phases: {warm_up: 0, learn: 1}, optimizer: {lr: 3.0e-3}}
"""


def recipe_of(folder: Path, name: str, kinds: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.replace("KINDS", kinds), encoding="utf-8")
    return path


def test_a_run_with_a_policy_is_opened_again_and_one_with_other_answers_is_not(tmp_path, capsys):
    recipe = recipe_of(tmp_path, "one", "[count, exist]")
    assert main(["run", str(recipe), "--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    (folder,) = (tmp_path / "runs" / "asked").iterdir()
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert {"accuracy", "accuracy_count", "accuracy_exist", "loss"} <= metrics.keys()
    assert (folder / "pictures" / "predictions.png").is_file()
    opened = open_run(folder)
    assert opened.task.answers.known
    other = open_recipe(load_recipe(recipe_of(tmp_path, "two", "[count, exist, where]")), "cpu")
    with pytest.raises(UsageError, match=r"not those of this recipe's .* other words and answers than this data's"):
        take_trained(Learner(other.model, other.task), folder)
    capsys.readouterr()
