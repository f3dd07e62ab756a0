"""The contract of a compressor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import strategies as st

from reorder_core.conformance.building import Buildable, Given, build, context, leaves_global_random_state, require
from reorder_core.conformance.strategies import for_all

TOKENS = st.binary(max_size=400) | st.text("ab", max_size=400).map(str.encode)
"""any bytes, and strings of two symbols, which compress well"""


def check_compressor(component: Buildable, settings: Given = None, *, examples: int = 60) -> None:
    """What goes in comes out, always the same, from any thread, and what is all alike gets short.

    - `decompress(compress(payload), len(payload)) == payload` for any bytes, none too, drawn by Hypothesis.
    - `compress` answers alike at every call and whatever came before it; `size` is the length of its answer.
    - `releases_gil` is True or False, and four threads at once get the answers that one alone gets.
    - 4,000 equal bytes come out as 400 at most: a compressor that only stores is none.
    - No global random state is touched.
    """
    made: Any = build("compressor", component, settings, context())
    require(isinstance(made.releases_gil, bool), "releases_gil must be True or False")

    @for_all(examples, TOKENS)
    def drawn(payload: bytes) -> None:
        _check_payload(made, payload)

    blank = b"a" * 4000
    with leaves_global_random_state("a compressor"):  # Hypothesis puts the state back after each of its examples
        _check_payload(made, blank)
    require(made.size(blank) <= 400, "4,000 equal bytes must come out as 400 at most")
    _check_threads(made)


def _check_payload(made: Any, payload: bytes) -> None:
    data = made.compress(payload)
    require(isinstance(data, bytes), f"compress must return bytes, not {type(data).__name__}")
    require(made.decompress(data, len(payload)) == payload, f"decompress must give back {payload!r}")
    require(made.compress(payload) == data, f"compress must answer alike at every call (asked for {payload!r})")
    require(made.size(payload) == len(data), f"size must be the length of what compress returns, {len(data)}")


def _check_threads(made: Any) -> None:
    payloads = [bytes(i * k % 251 % 7 for i in range(200)) for k in range(64)]
    alone = [made.compress(payload) for payload in payloads]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(made.compress, payloads))
    require(alone == beside, "threads that compress at once must get what each would get alone")
