"""What a person sees while a run trains, in a terminal and anywhere else."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console

from reorder_core.training.display import sparkline
from reorder_core.training.progress import Progress, StepReport, wants_live


@pytest.fixture(autouse=True)
def _a_capable_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REORDER_PLAIN", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


class _Utf8(io.StringIO):
    encoding = "utf-8"


def _terminal(width: int = 100) -> Console:
    return Console(file=_Utf8(), force_terminal=True, width=width, height=30, color_system=None)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _report(step: int, phase: str = "learn") -> StepReport:
    return StepReport(
        step=step,
        epoch=step // 10,
        phase=phase,
        loss=2.0 / step,
        accuracy=0.5,
        temperature=0.15,
        reward=-1.5,
        lr=2e-3,
        images_per_second=1830.0,
        policy_metrics={"entropy": 3.25},
    )


def test_the_display_shows_every_number() -> None:
    console, clock = _terminal(), _Clock()
    with Progress(runs=4, console=console, clock=clock) as progress:
        assert progress.live
        progress.start(100, 10, "learned order")
        progress.start(100, 10, "control row_major")
        for step in range(1, 51):
            clock.now += 0.5
            progress.step(_report(step))
        progress.validation(5, {"top1": 0.671, "loss": 1.25})
        progress._display.refresh()
    drawn = console.file.getvalue()
    for text in (
        "run 2 of 4: control row_major",
        "learning",
        "50 %",
        "0:25 gone, 0:25 left (2:05 in all)",
        "epoch 6/10",
        "step 50/100",
        "accuracy 50.0%",
        "temperature 0.150",
        "reward -1.5000",
        "lr 2.00e-03",
        "images/s 1,830",
        "entropy 3.25",
        "loss 0.0400",
        "validation after epoch 5 top1 67.1 %",
        "█",
    ):
        assert text in drawn, text


def test_it_fits_a_narrow_terminal() -> None:
    console = _terminal(width=40)
    with Progress(console=console) as progress:
        progress.start(100, 10, "learned order")
        progress.step(_report(1))
        progress._display.refresh()
    assert "learned order" in console.file.getvalue()


def _broken_run(console: Console, error: type[BaseException]) -> None:
    with Progress(console=console) as progress:
        progress.start(100, 10, "learned order")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_terminal_is_given_back_whatever_happens(error: type[BaseException]) -> None:
    console, out = _terminal(), sys.stdout
    with pytest.raises(error):
        _broken_run(console, error)
    assert "\x1b[?25h" in console.file.getvalue(), "the cursor is shown again"
    assert sys.stdout is out


def test_messages_and_log_lines_stay_above_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    console = _terminal()
    handler = logging.StreamHandler(sys.__stderr__)
    logger = logging.getLogger("test_progress")
    logger.addHandler(handler)
    try:
        with Progress(console=console) as progress:
            progress.start(10, 10, "learned order")
            logger.warning("the scan runs in torch")
            progress.message("resumed at step 3")
            progress.finish()
        assert handler.stream is sys.__stderr__
    finally:
        logger.removeHandler(handler)
    drawn = console.file.getvalue()
    assert "the scan runs in torch" in drawn
    assert "resumed at step 3" in drawn
    assert "done: learned order" in drawn


def test_plain_lines_are_few_and_whole() -> None:
    console, clock = Console(file=io.StringIO(), width=20), _Clock()
    with Progress(console=console, every=5.0, clock=clock) as progress:
        assert not progress.live
        progress.start(100, 10, "learned order")
        for step in range(1, 101):
            clock.now += 0.5
            progress.step(_report(step, "warm_up" if step <= 50 else "learn"))
        progress.validation(10, {"top1": 0.671})
        progress.finish()
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "learned order: 100 steps"
    assert 10 <= sum("step " in line for line in lines[1:]) <= 14
    assert "step 1/100" in lines[1]
    assert "0:50 left" in lines[1]
    assert any("step 51/100" in line and "learning" in line for line in lines), "a new phase is always told"
    assert "step 100/100" in lines[-3]
    assert lines[-2] == "  validation after epoch 10: top1 67.1 %"
    assert lines[-1] == "done: learned order: top1 67.1 %, in 0:50"
    assert "\x1b" not in console.file.getvalue()
    assert console.file.getvalue().isascii()


def test_other_processes_print_nothing() -> None:
    console = _terminal()
    with Progress(console=console, enabled=False) as progress:
        progress.start(10, 10, "learned order")
        progress.step(_report(1))
        progress.validation(1, {"top1": 0.5})
        progress.message("a line")
        progress.finish()
    assert console.file.getvalue() == ""


@pytest.mark.parametrize(("name", "value"), [("REORDER_PLAIN", "1"), ("TERM", "dumb")])
def test_plain_on_request(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert wants_live(_terminal())
    monkeypatch.setenv(name, value)
    assert not wants_live(_terminal())


def test_a_resumed_run_counts_its_pace_from_where_it_went_on() -> None:
    console, clock = Console(file=io.StringIO()), _Clock()
    with Progress(console=console, clock=clock) as progress:
        progress.start(100, 10, "learned order", first_step=90)
        clock.now += 5
        progress.step(_report(95))
    assert "0:05 left" in console.file.getvalue()


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([1.0, 1.0], 5) == "▁▁"
    assert sparkline([], 5) == ""
    assert len(sparkline(list(range(1000)), 30)) == 30


def test_what_our_rooms_log_is_a_line_and_other_chatter_is_not():
    console = Console(record=True, width=120, force_terminal=False)
    level = logging.getLogger().level
    with Progress(console=console):
        logging.getLogger("reorder_mamba.selective_scan").info("selective scan on cpu: pure torch")
        logging.getLogger("somebody.else").info("chatter")
        logging.getLogger("somebody.else").warning("beware")
    logging.getLogger("reorder_mamba").info("after the run")
    text = console.export_text()
    assert "selective scan on cpu: pure torch" in text
    assert "warning: beware" in text
    assert "chatter" not in text
    assert "after the run" not in text
    assert logging.getLogger().level == level
