"""What a run came to, saved, read back and set beside its controls."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from reorder_core.errors import UsageError
from reorder_core.training.report import (
    RunResult,
    closing_table,
    closing_text,
    compare,
    print_closing,
    show_difference,
    show_metric,
    show_seconds,
)


def _result(folder: Path, name: str, right: int, primary: str = "top1") -> RunResult:
    score_B = np.zeros(200, dtype=np.float32)
    score_B[:right] = 1
    result = RunResult(
        name=name,
        order=np.arange(16)[::-1].copy(),
        metrics={primary: right / 200, "loss": 1.25},
        score_B=score_B,
        seconds=75.4,
        folder=folder,
        images_per_second=1830.4,
        primary=primary,
        steps=1536,
    )
    result.save()
    order = {"grid": "4x4", "permutation": result.order.tolist()}
    (folder / "order.json").write_text(json.dumps(order))
    return result


def test_a_saved_run_is_read_back(tmp_path: Path) -> None:
    saved = _result(tmp_path, "learned", 150)
    back = RunResult.load(tmp_path)
    assert np.array_equal(back.order, saved.order)
    assert np.array_equal(back.score_B, saved.score_B)
    assert back.as_dict() == saved.as_dict()
    assert back.value == 0.75
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("lost", ["result.json", "order.json", "scores.npy"])
def test_an_unfinished_run_is_no_result(tmp_path: Path, lost: str) -> None:
    _result(tmp_path, "learned", 150)
    (tmp_path / lost).unlink()
    with pytest.raises(UsageError, match="does not hold a finished run"):
        RunResult.load(tmp_path)


def test_the_table_shows_every_run_and_the_lead_over_each(tmp_path: Path) -> None:
    main = _result(tmp_path / "main", "learned", 150)
    controls = [_result(tmp_path / "row", "row_major", 100), _result(tmp_path / "hil", "hilbert", 150)]
    text = closing_text(main, controls)
    lines = text.splitlines()
    assert lines[2].split()[:3] == ["learned", "75.0", "%"]
    assert "+25.0 [+" in lines[3]
    assert "+0.0 [+0.0, +0.0]" in lines[4]
    assert "1:15" in lines[2]
    assert "1,830" in lines[2]
    assert "200 validation images" in lines[-1]
    console = Console(file=io.StringIO(), force_terminal=True, width=110)
    console.print(closing_table(main, controls))
    drawn = console.file.getvalue()
    for word in ("learned", "row_major", "hilbert", "75.0 %", "50.0 %", "+25.0"):
        assert word in drawn


def test_the_comparison_is_saved_with_the_main_run(tmp_path: Path) -> None:
    main = _result(tmp_path / "main", "learned", 150)
    control = _result(tmp_path / "row", "row_major", 100)
    console = Console(file=io.StringIO(), width=40)
    print_closing(main, [control], console)
    (row,) = json.loads((tmp_path / "main" / "result.json").read_text())["comparison"]
    assert row["control"] == "row_major"
    assert row["difference"]["mean"] == 0.25
    assert row["difference"]["low"] < 0.25 < row["difference"]["high"]
    printed = console.file.getvalue()
    assert f"saved in {tmp_path / 'main'}\n" in printed, "a path is never wrapped or cut"
    assert "\x1b" not in printed


def test_one_run_without_controls(tmp_path: Path) -> None:
    main = _result(tmp_path, "hilbert", 120)
    assert compare(main, []) == []
    assert "bootstrap" not in closing_text(main, [])


def test_numbers_are_written_as_people_read_them(tmp_path: Path) -> None:
    main, control = _result(tmp_path / "a", "learned", 150, "dice"), _result(tmp_path / "b", "row", 100, "dice")
    (found,) = compare(main, [control])
    assert show_difference("dice", found.difference).startswith("+0.2500 [")
    assert show_metric("dice", 0.75) == "0.75"
    assert show_metric("top5", 0.75) == "75.0 %"
    assert [show_seconds(value) for value in (0.2, 75.4, 11_100)] == ["0:00", "1:15", "3:05:00"]
