"""Errors that a reader can act on, and nothing else.

Whatever can go wrong because of something a person wrote, typed or left out is a `ReorderError`: one clear sentence
that says what to do. The command line prints it without a traceback and exits with its `exit_code`: 2 for whatever is
found before the first step, 1 for a run that failed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class ReorderError(Exception):
    """One sentence for the reader; found before anything was started (exit code 2)."""

    exit_code = 2


class UsageError(ReorderError):
    """What was asked for cannot be: a bad recipe, name, file or option (exit code 2)."""


class UnsupportedGrid(ReorderError):
    """An ordering that has no answer for this grid says so, and what grid it needs."""


class RunError(ReorderError):
    """A run that had started could not go on (exit code 1)."""

    exit_code = 1


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an exception says, on one line of `most` characters; its type where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or an empty string."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
