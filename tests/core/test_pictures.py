"""The pictures of a run are made from the files of its folder alone."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reorder_core.errors import UsageError
from reorder_core.training import pictures, tensorboard
from reorder_core.training.history import History, final_order, first_order
from reorder_core.training.report import RunResult, compare, write_comparison
from reorder_core.training.tensorboard import TensorBoard

N = 12
STEPS = 60


def _rows(policy: bool, means: bool) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for step in range(1, STEPS + 1):
        phase = ("warm_up", "learn", "frozen")[(step - 1) // 20] if policy else "fixed"
        learning = phase == "learn"
        row = {"event": "step", "step": step, "epoch": step // 10, "phase": phase, "loss": 2 / step, "lr": 1e-3}
        row |= {"temperature": 0.1 if learning else None, "reward": -2 / step if learning else None}
        rows.append(row)
        if step % 10 == 0:
            rows.append({"event": "validation", "step": step, "epoch": step // 10, "top1": step / 100})
            if policy or step == 10:
                rows.append({"event": "order", "step": step, "permutation": rng.permutation(N).tolist()})
            if means:
                rows.append({"event": "policy_slots", "step": step, "slots": (rng.random(N) * N).tolist()})
    return rows


def _run(folder: Path, name: str, right: int, policy: bool = False, means: bool = False) -> RunResult:
    folder.mkdir(parents=True)
    lines = [json.dumps(row) for row in _rows(policy, means)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "order.json").write_text(json.dumps({"grid": "3x4", "permutation": list(range(N))[::-1]}))
    score_B = (np.arange(100) < right).astype(np.float32)
    result = RunResult(name, np.arange(N)[::-1], {"top1": right / 100}, score_B, 60.0, folder, 1800.0, steps=STEPS)
    result.save()
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    main = _run(tmp_path / "run", "learned", 75, policy=True, means=True)
    controls = [
        _run(main.folder / "controls" / name, name, right) for name, right in (("row_major", 60), ("snake", 74))
    ]
    write_comparison(main, compare(main, controls))
    return main.folder


def _is_a_picture(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 200
    assert 0.005 < (pixels < 200).mean() < 0.9, "neither blank nor black"


def test_every_picture_of_a_run(folder: Path) -> None:
    drawn = pictures.draw_pictures(folder)
    assert [path.name for path in drawn] == ["curves.png", "order.png", "policy_slots.png", "comparison.png"]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == sorted(path.name for path in drawn)
    for path in drawn:
        _is_a_picture(path)


@pytest.mark.parametrize("draw", [pictures.draw_curves, pictures.draw_policy_slots, pictures.draw_comparison])
def test_pictures_that_need_no_order_drawn(folder: Path, tmp_path: Path, draw: object) -> None:
    _is_a_picture(draw(folder, tmp_path / "picture.png"))


def test_a_fixed_order_has_no_policy_to_draw(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "hilbert", 70)
    drawn = pictures.draw_pictures(run.folder)
    assert [path.name for path in drawn] == ["curves.png", "order.png"]
    with pytest.raises(UsageError, match="no history of a policy"):
        pictures.draw_policy_slots(run.folder, tmp_path / "slots.png")


def test_slots_are_the_inverse_of_the_orders_where_no_means_were_written(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "learned", 70, policy=True)
    history = History.load(run.folder)
    step_T, slot_TN, means = history.mean_slots()
    assert not means
    assert step_T.tolist() == [10, 20, 30, 40, 50, 60]
    order_N = np.asarray(history.orders[2]["permutation"])
    assert np.array_equal(slot_TN[2][order_N], np.arange(N))
    assert np.array_equal(first_order(run.folder), history.orders[0]["permutation"])


def test_phases_and_series(folder: Path) -> None:
    history = History.load(folder)
    assert history.phases() == [("warm_up", 1, 20), ("learn", 20, 40), ("frozen", 40, 60)]
    step_T, reward_T = history.series("reward")
    assert step_T.tolist() == list(range(21, 41))
    assert len(reward_T) == 20
    assert history.series("nothing")[0].size == 0


def test_a_line_that_a_kill_left_unfinished_is_left_out(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    whole = History.load(folder)
    with path.open("a") as file:
        file.write('{"event": "step", "st')
    assert History.load(folder) == whole
    path.write_text('{"event"\n' + path.read_text())
    with pytest.raises(UsageError, match=r"metrics\.jsonl:1"):
        History.load(folder)


def test_a_folder_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the folder of a run"):
        History.load(tmp_path)
    with pytest.raises(UsageError, match="holds no order"):
        final_order(tmp_path)


def test_tensorboard_events_or_one_line_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    tensorboard._say_missing.cache_clear()
    with caplog.at_level(logging.INFO):
        for name in ("main", "control"):  # said once for all runs of a command
            with TensorBoard(tmp_path / name) as events:
                events.write({"event": "step", "step": 1, "loss": 1.0})
            assert not events.writing
    assert len(caplog.records) == 1
    assert "reorder[tensorboard]" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_hides_the_steps_of_a_run_that_was_cut_off(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, last, loss in ((0, 6, 1.0), (4, 8, 2.0)):
        with TensorBoard(tmp_path, done_steps=done) as events:
            for step in range(done + 1, last + 1):
                events.write(
                    {"event": "step", "step": step, "epoch": 0, "phase": "fixed", "loss": loss, "reward": None}
                )
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert reader.Tags()["scalars"] == ["train/loss"]
    shown = [(event.step, event.value) for event in reader.Scalars("train/loss")]
    assert shown == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0), (7, 2.0), (8, 2.0)]
