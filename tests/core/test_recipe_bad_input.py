"""Bad input, each with its exact one-line answer: path:line: key: advice."""

from __future__ import annotations

import pytest

from reorder_core.recipe import RecipeError, load_recipe, recipe_from_mapping

GOOD = """\
name: good
seed: 3
data: {name: digits}
patch: {size: 2}
positions: {kind: learned}
ordering: {name: row_major}
backbone: {name: mamba, width: 16, depth: 1}
policy: {name: reinforce, orders: 4}
task: {name: classification}
controls: [row_major]
training:
  epochs: 3
  batch_size: 32
  phases: {warm_up: 1, learn: 1}
  optimizer: {lr: 1.0e-3}
"""


@pytest.fixture
def errors(tmp_path, monkeypatch):
    """The lines of what is wrong when `old` is written as `new` in the good recipe."""
    monkeypatch.chdir(tmp_path)

    def read(*changes: tuple[str, str], overrides=()):
        text = GOOD
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe("x.yaml", overrides)
        assert caught.value.exit_code == 2
        assert str(caught.value) == "\n".join(caught.value.lines)
        return list(caught.value.lines)

    return read


ONE_LINE = [
    (
        "name: mamba",
        "name: mambo",
        "x.yaml:7: backbone.name: there is no backbone called 'mambo'; did you mean 'mamba'?",
    ),
    (
        "controls: [row_major]",
        "controls: [row_major, random_fixd]",
        "x.yaml:10: controls.1: there is no control or ordering called 'random_fixd'; did you mean 'random_fixed'?",
    ),
    (
        "orders: 4",
        "tempreature: 4",
        "x.yaml:8: policy.tempreature: no such setting; did you mean 'temperature'?",
    ),
    ("seed: 3", "sed: 3", "x.yaml:2: sed: no such key; did you mean 'seed'?"),
    (
        "  batch_size: 32",
        "  batchsize: 32\n  batch_size: 32",
        "x.yaml:13: training.batchsize: no such setting; did you mean 'batch_size'?",
    ),
    (
        "lr: 1.0e-3",
        "lr: 1, lr: 2",
        "x.yaml:15: training.optimizer.lr: this key stands here twice (first in line 15): keep one",
    ),
    ("seed: 3", "seed: 3\nname: again", "x.yaml:3: name: this key stands here twice (first in line 1): keep one"),
    ("width: 16", "width: wide", "x.yaml:7: backbone.width: must be a whole number, not 'wide'"),
    ("width: 16", "width: 1.5", "x.yaml:7: backbone.width: must be a whole number, not 1.5"),
    ("width: 16", "width: true", "x.yaml:7: backbone.width: must be a number, not true"),
    ("width: 16", "width: [16]", "x.yaml:7: backbone.width: must be a whole number, not [16]"),
    ("width: 16", "width: -16", "x.yaml:7: backbone.width: must be at least 1, not -16"),
    ("size: 2", "size: -2", "x.yaml:4: patch.size: must be at least 1, not -2"),
    ("batch_size: 32", "batch_size: -32", "x.yaml:13: training.batch_size: must be at least 1, not -32"),
    ("seed: 3", "seed: no", "x.yaml:2: seed: must be a whole number, not 'no'"),
    ("lr: 1.0e-3", "lr: fast", "x.yaml:15: training.optimizer.lr: must be a number, not 'fast'"),
    ("lr: 1.0e-3", "lr: .nan", "x.yaml:15: training.optimizer.lr: must be a finite number, not .nan"),
    ("lr: 1.0e-3", "lr: 0", "x.yaml:15: training.optimizer.lr: must be more than 0, not 0"),
    (
        "kind: learned",
        "kind: lerned",
        "x.yaml:5: positions.kind: must be learned, sincos2d, sincos1d or none, not 'lerned'; did you mean 'learned'?",
    ),
    (
        "batch_size: 32",
        "batch_size: 32\n  workers: some",
        "x.yaml:14: training.workers: must be a whole number or auto, not 'some'",
    ),
    ("patch: {size: 2}", "patch: 2", "x.yaml:4: patch: must be a mapping, as {size: …}, not 2"),
    (
        "controls: [row_major]",
        "controls: row_major",
        "x.yaml:10: controls: must be a list, as [row_major, hilbert], not row_major",
    ),
    (
        "controls: [row_major]",
        "controls: [row_major, {name: row_major}]",
        "x.yaml:10: controls.1: 'row_major' is named twice: keep one, or call one otherwise with as: …",
    ),
    (
        "{name: row_major}",
        "{name: row_major, of: x}",
        "x.yaml:6: ordering.of: the ordering 'row_major' takes no settings: remove it",
    ),
    (
        "{size: 2}",
        "{size: 3}",
        "x.yaml:4: patch.size: an image of 8x8 pixels is not divisible by patches of 3: "
        "choose a patch size that divides both sides, or resize the images",
    ),
    (
        "orders: 4",
        "orders: 64",
        "x.yaml:8: policy.orders: 64 orders do not fit a batch of 32: lower orders or raise the batch size",
    ),
    (
        "{name: digits}",
        "{name: image_folder, root: nowhere, size: 8, resize: 8}",
        "x.yaml:3: data: root: there is no folder nowhere; set data.root to the folder of your images",
    ),
    (
        "learn: 1}",
        "learn: 4}",
        "x.yaml:14: training.phases: warm_up and learn take 5 epochs, but the run has 3: "
        "shorten them, or raise training.epochs",
    ),
    (
        "learn: 1}",
        "learn: 200, unit: steps}",
        "x.yaml:14: training.phases: warm_up and learn take 201 steps, but the run has 132: "
        "shorten them, or raise training.epochs",
    ),
    (
        "learn: 1}",
        "learn: 0}",
        "x.yaml:14: training.phases.learn: the policy would never learn: give it a share of the run, "
        "or take it away with policy: null",
    ),
    (
        "batch_size: 32",
        "batch_size: 5000",
        "x.yaml:13: training.batch_size: the training split has 1437 images, fewer than one batch of 5000: lower it",
    ),
    (
        "epochs: 3",
        "epochs: 3\n  steps_per_epoch: 100",
        "x.yaml:13: training.steps_per_epoch: 1437 images make only 44 batches of 32: "
        "lower it, or leave it out for the whole data set",
    ),
    (
        "epochs: 3",
        "epochs: 3\n  schedule: {warm_up: 4}",
        "x.yaml:13: training.schedule.warm_up: the run has 3 epochs, fewer than this warm-up: shorten it",
    ),
    (
        "{name: digits}",
        "!!python/object/apply:os.system [ls]",
        "x.yaml:3: data: the tag '!!python/object/apply:os.system' asks for code to be run, which a recipe never does: "
        "write a plain value",
    ),
    ("seed: 3", "seed: !!set {3}", "x.yaml:2: seed: the tag '!!set' is not for recipes: write a plain value"),
    (
        "policy: {",
        "policy: {temperature: .inf, ",
        "x.yaml:8: policy.temperature: must be a finite number, not .inf",
    ),
    (
        "controls: [",
        "controls: [{name: hilbert, as: learned}, ",
        "x.yaml:10: controls.0: 'learned' is the main run's own name: call this one otherwise",
    ),
    ("seed: 3", "seed: &a 3\nx: *a", "x.yaml:3: this is not valid YAML: a recipe has no aliases: write it out"),
    (
        "orders: 4",
        "prior: hilbertt",
        "x.yaml:8: policy.prior: there is no ordering called 'hilbertt'; did you mean 'hilbert'?",
    ),
    (
        "orders: 4",
        "prior: {name: reverse, of: {name: spiral, inwards: false}}",
        "x.yaml:8: policy.prior.of.inwards: no such setting; did you mean 'inward'?",
    ),
    (
        "orders: 4",
        "orders: 4, curves: [hilbert, {name: reverse, of: snak}]",
        "x.yaml:8: policy.curves.1.of: there is no ordering called 'snak'; did you mean 'snake'?",
    ),
]


@pytest.mark.parametrize(("old", "new", "answer"), ONE_LINE, ids=[new[:40] for _, new, _ in ONE_LINE])
def test_the_answer(errors, old, new, answer):
    found = errors((old, new))
    assert answer in found
    unread = [line for line in found if line != answer]
    # A key that was lost on the way is missing as well, which a second line says; nothing else does.
    assert all("this is needed" in line for line in unread), unread
    assert len(unread) <= 1


def test_a_missing_part_and_a_missing_key(errors):
    assert errors(("data: {name: digits}", "")) == ["x.yaml: data: this is needed, and missing: name a dataset"]
    assert errors(("  epochs: 3\n", "")) == ["x.yaml:11: training.epochs: this is needed, and missing: add it"]
    assert errors(("patch: {size: 2}", "")) == ["x.yaml: patch: this is needed, and missing: add it"]


def test_a_part_without_a_name(errors):
    (line,) = errors(("policy: {name: reinforce, orders: 4}", "policy: {orders: 4}"))
    assert line.startswith("x.yaml:8: policy: name a policy, as {name: …} (there is: ")
    assert " reinforce, " in line


def test_all_errors_come_at_once_in_the_order_of_the_file(errors):
    found = errors(
        ("size: 2", "size: 0"), ("width: 16", "widht: 16"), ("orders: 4", "order: 4"), ("epochs: 3", "epochs: x")
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["x.yaml:4", "patch.size"],
        ["x.yaml:7", "backbone.widht"],
        ["x.yaml:8", "policy.order"],
        ["x.yaml:12", "training.epochs"],
    ]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"", "x.yaml: this recipe is empty: start from one in recipes/, or see docs/recipes.md"),
        (b"# only a comment\n", "x.yaml: this recipe is empty: start from one in recipes/, or see docs/recipes.md"),
        (b"[1, 2]", "x.yaml: this recipe holds no `key: value` lines: start from one in recipes/, or see docs/recipes.md"),  # noqa: E501
        (b"name: x\nseed: \xff\n", "x.yaml:2: this is not UTF-8 text: save the file as UTF-8"),
        (b"a: {b: [1\n", "x.yaml:2: this is not valid YAML: expected ',' or ']', but got '<stream end>' "
         "(while parsing a flow sequence)"),
        (b"[" * 3000, "x.yaml:1: this is nested too deeply to be a recipe"),
    ],
    ids=["empty", "comment", "list", "latin-1", "syntax", "deep"],
)  # fmt: skip
def test_a_file_that_is_no_recipe(tmp_path, monkeypatch, content, answer):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe("x.yaml")
    assert str(caught.value) == answer


def test_a_mixer_is_checked_on_every_stage_that_holds_it(errors):
    holder = "backbone: {{name: hierarchical, widths: [48, 96], depths: [1, 1], mixer: {}}}"
    old = "backbone: {name: mamba, width: 16, depth: 1}"
    assert errors((old, holder.format("{name: longformer, window: 12, heads: 5}"))) == [
        "x.yaml:7: backbone.mixer.heads: a width of 48 is not divisible by 5 heads: choose 4, or change the width",
        "x.yaml:7: backbone.mixer.heads: a width of 96 is not divisible by 5 heads: choose 4, or change the width",
        "x.yaml:7: backbone.mixer.window: a window of 12 slots is larger than the sequence of 8 patches: "
        "choose at most 8",
    ]
    assert errors((old, holder.format("{name: mamba2, head_width: 36}"))) == [
        "x.yaml:7: backbone.mixer.head_width: an inner width of 96 (expand 2 · width 48) is not divisible by heads of "
        "36: change one of them",
        "x.yaml:7: backbone.mixer.head_width: an inner width of 192 (expand 2 · width 96) is not divisible by heads of "
        "36: change one of them",
    ]


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=r"^smok\.yaml: there is no such file; did you mean 'smoke\.yaml'\?$"):
        load_recipe("smok.yaml")
    with pytest.raises(RecipeError, match=r"this is a folder: name the recipes in it"):
        load_recipe(tmp_path)


def test_code_is_never_run(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(GOOD + f"x: !!python/object/apply:pathlib.Path.touch [{tmp_path}/touched]\n")
    with pytest.raises(RecipeError, match="asks for code"):
        load_recipe(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("policy.tempreature=1", "-o policy.tempreature=1: policy.tempreature: no such setting; did you mean 'temperature'?"),  # noqa: E501
        ("policy.orders=-1", "-o policy.orders=-1: policy.orders: must be at least 1, not -1"),
        ("backbone.name=mambo", "-o backbone.name=mambo: backbone.name: there is no backbone called 'mambo'; did you mean 'mamba'?"),  # noqa: E501
        ("policy", "-o policy: write it as key=value"),
        ("=3", "-o =3: '' is no key: write it as policy.temperature=0.5"),
        ("seed.x=3", "-o seed.x=3: 'seed' holds no keys, but 3"),
        ("controls.7=hilbert", "-o controls.7=hilbert: 'controls' is a list of 1: there is no item 7"),
        ("data=null", "-o data=null: data: name a dataset, as {name: …}"),
        ("seed=[1", "-o seed=[1: this is not valid YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)"),  # noqa: E501
    ],
)  # fmt: skip
def test_an_override_says_its_own_name(errors, override, answer):
    assert errors(overrides=[override]) == [answer]


def test_an_order_for_another_grid_or_with_a_repeated_patch(errors, tmp_path):
    for content, about in [
        ('{"grid": [3, 3], "permutation": [0,1,2,3,4,5,6,7,8]}', "3x3"),
        ('{"permutation": [0, 0]}', ""),
    ]:
        (tmp_path / "order.json").write_text(content)
        (line,) = errors(("ordering: {name: row_major}", "ordering: {name: file, path: order.json}"))
        assert line.startswith("x.yaml:6: ordering.path: ")
        assert about in line


def test_a_mapping_is_checked_like_a_file():
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({"name": "x", "sed": 1})
    assert "x: sed: no such key; did you mean 'seed'?" in caught.value.lines
