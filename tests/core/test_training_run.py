"""`reorder run` from end to end on a tiny recipe: results, resume, Ctrl-C, what is refused, two processes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reorder_core.cli.main import main
from reorder_core.training import checkpoint, loop

RECIPE = """
name: tiny
seed: 3
data: {name: digits}
patch: {size: 2}
ordering: {name: row_major}
backbone: {name: mamba, width: 16, depth: 1}
policy: {name: reinforce, orders: 4, temperature: 0.3, learning_rate: 0.05}
task: {name: classification}
controls: [column_major, random_fixed]
training:
  epochs: 3
  steps_per_epoch: 8
  batch_size: 32
  log_every: 1
  phases: {warm_up: 1, learn: 1}
  optimizer: {lr: 1.0e-3}
  checkpoint: {every_steps: 3}
"""
NO_CONTROLS = ("-o", "controls=[]")
TOTAL = 24


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def arguments(recipe, tmp_path) -> Callable[..., list[str]]:
    def make(*more: str, out: str = "runs") -> list[str]:
        return ["run", str(recipe), "--device", "cpu", "--out", str(tmp_path / out), *more]

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(RECIPE)
    assert main(["run", str(folder / "tiny.yaml"), "--device", "cpu", "--out", str(folder)]) == 0
    return only(folder / "tiny")


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(folder: Path, other: Path, weights: bool = True) -> None:
    """Bit-identical metrics, order, scores and, at the end, weights."""
    for name in ("metrics.jsonl", "scores.npy"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    orders = [json.loads((each / "order.json").read_text())["permutation"] for each in (folder, other)]
    assert orders[0] == orders[1]
    if weights:
        path = f"checkpoints/step-{TOTAL:08d}/tensors.safetensors"
        assert (folder / path).read_bytes() == (other / path).read_bytes()


def background(arguments: list[str], **environment: str) -> subprocess.Popen:
    threads = str(torch.get_num_threads())
    return subprocess.Popen(
        [sys.executable, "-m", "reorder_core", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, **environment},
    )


def test_a_run_leaves_everything_behind(whole):
    for folder in (whole, whole / "controls/column_major", whole / "controls/random_fixed"):
        for name in ("recipe.yaml", "environment.json", "metrics.jsonl", "order.json", "result.json", "scores.npy"):
            assert (folder / name).exists(), name
    assert (whole / "pictures/curves.png").exists()
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-00000021", "step-00000024"]
    order = json.loads((whole / "order.json").read_text())
    assert sorted(order["permutation"]) == list(range(16))
    assert order["grid"] == "4x4"
    found = rows(whole)
    steps = [row for row in found if row["event"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, TOTAL + 1))
    assert [row["phase"] for row in steps] == ["warm_up"] * 8 + ["learn"] * 8 + ["frozen"] * 8
    assert [row["epoch"] for row in found if row["event"] == "validation"] == [1, 2, 3]
    assert next(row for row in found if row["event"] == "order")["permutation"] == list(range(16))
    assert [row for row in found if row["event"] == "order"][-1]["permutation"] == order["permutation"]
    assert {row["control"] for row in json.loads((whole / "result.json").read_text())["comparison"]} == {
        "column_major",
        "random_fixed",
    }
    column = json.loads((whole / "controls/column_major/order.json").read_text())["permutation"]
    assert column == np.arange(16).reshape(4, 4).T.flatten().tolist()
    assert {row["phase"] for row in rows(whole / "controls/column_major") if row["event"] == "step"} == {"fixed"}


def test_the_control_starts_from_the_same_weights_and_reads_the_same_images(whole):
    """Before its first update a control with the main run's order would have the main run's loss."""
    main_first, control_first = (
        next(row for row in rows(folder) if row["event"] == "step")
        for folder in (whole, whole / "controls/column_major")
    )
    assert main_first["lr"] == control_first["lr"]
    assert abs(main_first["loss"] - control_first["loss"]) < 0.1


def test_resume_after_sigkill_is_bit_identical(whole, arguments, tmp_path, capfd):
    killed_after = random.randrange(4, TOTAL)
    process = background(arguments())
    metrics = None
    while metrics is None or metrics.read_text().count('"event": "step"') < killed_after:
        metrics = next(iter(tmp_path.glob("runs/tiny/*/metrics.jsonl")), None)
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.kill()
    process.communicate()
    folder = only(tmp_path / "runs/tiny")
    assert main(arguments("--resume")) == 0, f"killed after step {killed_after}"
    said = capfd.readouterr().out
    assert f"of {TOTAL} ({folder})" in said
    assert "resumed at step" in said
    for part in ("", "controls/column_major", "controls/random_fixed"):
        same(folder / part, whole / part)


def stop_at(monkeypatch, step: int, times: int = 1) -> None:
    """Ctrl-C while this step is taken."""
    take = loop.train_step

    def interrupted(t, *rest, **options):
        if t.step == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return take(t, *rest, **options)

    monkeypatch.setattr(loop, "train_step", interrupted)


def test_ctrl_c_saves_and_stops_and_a_resume_goes_on(whole, arguments, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        stop_at(patch, step=10)
        assert main(arguments(*NO_CONTROLS)) == 130
    said = capfd.readouterr().out
    assert "stopping: saving first" in said
    stopped = 12  # the signal came during step 11, and was seen after the next
    assert f"stopped at step {stopped} of {TOTAL}, which is saved: go on with --resume" in said
    assert main(arguments(*NO_CONTROLS, "--resume")) == 0
    assert f"resumed at step {stopped} of {TOTAL}" in capfd.readouterr().out
    same(only(tmp_path / "runs/tiny"), whole)
    assert main(arguments(*NO_CONTROLS, "--resume")) == 0
    assert "is finished" in capfd.readouterr().out


def test_ctrl_c_twice_stops_at_once(arguments, tmp_path, monkeypatch):
    stop_at(monkeypatch, step=4, times=2)
    assert main(arguments(*NO_CONTROLS)) == 130
    assert [path.name for path in tmp_path.glob("runs/tiny/*/checkpoints/*")] == ["step-00000003"]


def test_what_cannot_be_resumed_says_why(whole, arguments, tmp_path, monkeypatch, capfd):
    assert main(arguments("--resume")) == 2
    assert "there is no run of 'tiny' to resume" in capfd.readouterr().err
    stop_at(monkeypatch, step=10)
    assert main(arguments(*NO_CONTROLS)) == 130
    monkeypatch.undo()
    folder = only(tmp_path / "runs/tiny")
    assert main(arguments(*NO_CONTROLS, "--resume", "-o", "training.optimizer.lr=2e-3")) == 2
    assert "was made with other settings" in capfd.readouterr().err
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    assert main(arguments(*NO_CONTROLS, "--resume")) == 0
    said = capfd.readouterr().out
    assert f"{newest.name} is refused: tensors.safetensors was cut or altered" in said
    assert f"resumed at step 9 of {TOTAL}" in said
    same(folder, whole)


def test_without_a_whole_checkpoint_the_run_starts_anew_and_says_so(arguments, tmp_path, monkeypatch, capfd):
    stop_at(monkeypatch, step=4)
    assert main(arguments(*NO_CONTROLS)) == 130
    monkeypatch.undo()
    for state in only(tmp_path / "runs/tiny").glob("checkpoints/*/state.json"):
        state.write_text("{}")
    assert main(arguments(*NO_CONTROLS, "--resume")) == 0
    refused = [line for line in capfd.readouterr().out.splitlines() if "is refused" in line]
    assert all(line.endswith("; the one before it is tried") for line in refused[:-1])
    assert refused[-1].endswith("; there is none before it")


def test_a_checkpoint_of_another_recipe_is_refused(arguments, tmp_path, monkeypatch, capfd):
    stop_at(monkeypatch, step=4)
    assert main(arguments(*NO_CONTROLS)) == 130
    assert main(arguments(*NO_CONTROLS, "-o", "seed=4", out="other")) == 130
    monkeypatch.undo()
    here, there = (only(tmp_path / out / "tiny") / "checkpoints" for out in ("runs", "other"))
    for path in here.iterdir():
        for file in path.iterdir():
            file.write_bytes((there / path.name / file.name).read_bytes())
    assert main(arguments(*NO_CONTROLS, "--resume")) == 2
    error = capfd.readouterr().err
    assert "the checkpoint belongs to another recipe" in error
    assert error.count("\n") == 1


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint(arguments, tmp_path, monkeypatch, capfd):
    write = checkpoint.write_through

    def full(path, content):
        if "00000006" in str(path):
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_through", full)
    assert main(arguments(*NO_CONTROLS)) == 1
    assert "the disk is full; the checkpoint of step 3 is kept" in capfd.readouterr().err
    assert [path.name for path in tmp_path.glob("runs/tiny/*/checkpoints/*")] == ["step-00000003"]


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(arguments, monkeypatch, capfd):
    take = loop.train_step

    def poisoned(t, batch, *rest, **options):
        if t.step == 4:
            batch.images_BCHW.fill_(float("nan"))
        return take(t, batch, *rest, **options)

    monkeypatch.setattr(loop, "train_step", poisoned)
    assert main(arguments(*NO_CONTROLS)) == 1
    error = capfd.readouterr().err
    assert "the loss is not finite in step 5" in error
    assert "the last good checkpoint is" in error
    assert "step-00000003" in error


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("-o", "training.ema=0.9", "-o", "policy=null"),
        ("-o", "policy={name: reinforce, faithful: paper}"),
        ("-o", "policy={name: reinforce, faithful: released}"),
    ],
    ids=["as it is", "no policy", "paper", "released"],
)
def test_a_dry_run_writes_nothing(arguments, tmp_path, capfd, more):
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments("--dry-run", *more)) == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = capfd.readouterr().out
    assert said.count("one training step") == 3
    assert "column_major" in said


def test_half_precision_runs_where_the_device_has_it(arguments, capfd):
    # in a process of its own: Accelerate takes one precision for a process
    process = background(arguments("--dry-run", *NO_CONTROLS, "-o", "training.precision=bf16"))
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "one training step" in said
    assert main(arguments("--dry-run", *NO_CONTROLS, "-o", "training.precision=fp16")) == 2
    assert capfd.readouterr().err == "training.precision: fp16 needs a GPU: use auto, bf16 or fp32\n"


@pytest.mark.slow
def test_a_compiled_run_goes_from_end_to_end(arguments):
    """The real compiler, half a minute of it, in a process of its own: its warnings are not ours."""
    process = background(arguments("--dry-run", *NO_CONTROLS, "-o", "training.compile=true"))
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "one training step" in said


def test_every_control_builds(arguments, capfd):
    controls = (
        "[initial, learned_static, inverse, reverse, random_fixed, random_each_batch, {name: spiral, inward: false}]"
    )
    assert main(arguments("--dry-run", "-o", f"controls={controls}")) == 0
    assert capfd.readouterr().out.count("one training step") == 8


def test_what_is_found_before_the_first_step_leaves_no_folder(arguments, tmp_path, capfd):
    assert main(arguments(*NO_CONTROLS, "-o", "training.steps_per_epoch=1000")) == 2
    assert "make only 44 batches of 32" in capfd.readouterr().err
    (tmp_path / "order.json").write_text('{"grid": "2x2", "permutation": [0, 1, 2, 3]}')
    control = f"controls=[{{name: file, path: {tmp_path}/order.json}}]"
    assert main(arguments("-o", control)) == 2
    assert "2x2" in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/tiny/*"))


def test_losses_that_depend_on_the_batch_are_no_reward(arguments, monkeypatch, capfd):
    from reorder_classification.task import Classification

    monkeypatch.setattr(Classification, "batch_coupled", True)
    assert main(arguments("--dry-run", *NO_CONTROLS)) == 2
    assert "the images of a batch depend on each other in the task 'classification'" in capfd.readouterr().err
    assert main(arguments("--dry-run", *NO_CONTROLS, "-o", "policy=null")) == 0


def test_averaged_weights_are_validated_and_resumed(arguments, tmp_path, monkeypatch):
    ema = (*NO_CONTROLS, "-o", "training.ema=0.9")
    assert main(arguments(*ema, out="straight")) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, step=13)
        assert main(arguments(*ema)) == 130
    assert main(arguments(*ema, "--resume")) == 0
    same(only(tmp_path / "runs/tiny"), only(tmp_path / "straight/tiny"))


def test_two_processes_train_as_one_with_the_double_batch(whole, arguments, tmp_path):
    command = arguments(*NO_CONTROLS, "-o", "training.batch_size=16")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "-m", "reorder_core", *command], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("loading torch") == 1
    folder = only(tmp_path / "runs/tiny")
    one, two = rows(whole), rows(folder)
    assert [row["event"] for row in one] == [row["event"] for row in two]
    for alone, together in zip(one, two, strict=True):
        if alone["event"] == "order":
            assert alone["permutation"] == together["permutation"]
        for key in ("loss", "reward", "lr", "temperature", "policy/entropy"):
            if alone.get(key) is not None:
                assert together[key] == pytest.approx(alone[key], rel=1e-4, abs=1e-6), key
    np.testing.assert_allclose(np.load(folder / "scores.npy").mean(), np.load(whole / "scores.npy").mean(), atol=0.01)
    saved = [load_file(each / f"checkpoints/step-{TOTAL:08d}/tensors.safetensors") for each in (whole, folder)]
    for name, tensor in saved[0].items():
        if name.startswith(("policy/", "learner/")):
            torch.testing.assert_close(saved[1][name], tensor, atol=1e-4, rtol=1e-3)
