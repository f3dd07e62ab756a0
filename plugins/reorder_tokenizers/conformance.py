"""The contract of a tokenizer.

B images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reorder_core import Context, Grid, UsageError
from reorder_core.conformance.building import Buildable, Given, build, context, leaves_global_random_state, require

_GRID, _PATCH = Grid(3, 5), 4


def check_tokenizer(component: Buildable, settings: Given = None, *, images: int = 48, channels: int = 3) -> None:
    """One code a patch, row by row, always the same, learned from the run's generator alone.

    Everything is asked of a grid of 3 x 5 patches of 4 pixels; the images are drawn, half of their patches of one
    colour and half with noise.

    - `codes` is a whole number of at least 1, and `fitted` True or False. Where it is False, `tokens` raises
      `UsageError`, and `fit` makes it True.
    - `progress`, where it is called, never goes back and ends with everything done.
    - `tokens` gives int64 [B, N] in 0 … K-1, the same at every call, an image's whatever stands beside it, and none for
      none; it leaves the images as they are.
    - Patches are numbered row by row: where one patch turns from dark to light or back, no other code changes more
      often than its own. (Not asked of a tokenizer with `needs_numbers`, which does not look at images.)
    - Two that are built and fitted with the same seed give the same codes; no global random state is touched.
    - Images of another number of channels or of patches are refused with `UsageError`, and so are too few to learn
      from. `reconstruct`, where there is one, gives images of the same shape in [0, 1].
    - With the `state_dict` of another one, where there is one, it is fitted and gives that one's codes.
    """
    drawn_BCHW = _drawn(images, channels)
    with leaves_global_random_state("a tokenizer"):
        made, where = _made(component, settings, channels, drawn_BCHW)
        codes_BN = _tokens(made, drawn_BCHW)
        again, _ = _made(component, settings, channels, drawn_BCHW)
    _check_codes(made, codes_BN, images)
    require(
        np.array_equal(_tokens(again, drawn_BCHW), codes_BN),
        "two tokenizers that were built and fitted with the same seed must give the same codes",
    )
    _check_calls(made, drawn_BCHW, codes_BN)
    if not _by_number(made):
        _check_places(made, drawn_BCHW)
        _check_refusals(made, where, channels)
    if hasattr(made, "state_dict"):
        taken: Any = build("tokenizer", component, settings, where)
        taken.load_state_dict(made.state_dict())
        require(
            taken.fitted and np.array_equal(_tokens(taken, drawn_BCHW), codes_BN),
            "a tokenizer that takes another one's state must be fitted and give its codes",
        )
    if hasattr(made, "reconstruct"):
        back_BCHW = made.reconstruct(drawn_BCHW)
        require(back_BCHW.shape == drawn_BCHW.shape, "reconstruct must give images of the same shape")
        require(0 <= back_BCHW.min() <= back_BCHW.max() <= 1, "reconstruct must give pixels in [0, 1]")


def _drawn(images: int, channels: int) -> NDArray[np.float32]:
    """Images [B, C, H, W] in [0, 1]; the first is black, the second white."""
    rng = np.random.default_rng(0)
    shape = (images, channels, _GRID.rows, 1, _GRID.columns, 1)
    colour = rng.random(shape)
    noise = rng.random((images, channels, _GRID.rows, _PATCH, _GRID.columns, _PATCH))
    found = np.where(rng.random((images, 1, *shape[2:])) < 0.5, colour, 0.5 * (colour + noise))
    found[0], found[1] = 0, 1
    return found.reshape(images, channels, _GRID.rows * _PATCH, _GRID.columns * _PATCH).astype(np.float32)


def _made(
    component: Buildable, settings: Given, channels: int, images_BCHW: NDArray[np.float32]
) -> tuple[Any, Context]:
    """Built, and fitted where it has to be."""
    where = context(_GRID, patch=_PATCH, channels=channels)
    made: Any = build("tokenizer", component, settings, where)
    require(isinstance(made.codes, int) and made.codes >= 1, f"codes must be a whole number, not {made.codes!r}")
    require(isinstance(made.fitted, bool), f"fitted must be True or False, not {made.fitted!r}")
    if not made.fitted:
        _require_refused(lambda: _tokens(made, images_BCHW), "tokens before fit")
        if made.codes > _GRID.size:
            _require_refused(lambda: made.fit(images_BCHW[:1]), f"{_GRID.size} patches for {made.codes} codes")
        reports: list[tuple[int, int]] = []
        made.fit(images_BCHW, lambda done, total: reports.append((done, total)))
        done = [each for each, _ in reports]
        require(done == sorted(done), "progress must never go back")
        require(not reports or reports[-1][0] == reports[-1][1], "progress must end with everything done")
        require(made.fitted is True, "fitted must be True after fit")
    return made, where


def _by_number(made: Any) -> bool:
    return bool(getattr(made, "needs_numbers", False))


def _tokens(made: Any, images_BCHW: NDArray[np.float32], start: int = 0) -> NDArray[np.int64]:
    """The codes of images that are numbered from `start` on."""
    if _by_number(made):
        found: NDArray[np.int64] = made.tokens(images_BCHW, numbers=np.arange(start, start + len(images_BCHW)))
    else:
        found = made.tokens(images_BCHW)
    return found


def _check_codes(made: Any, codes_BN: NDArray[np.int64], images: int) -> None:
    wanted = (images, _GRID.size)
    require(
        isinstance(codes_BN, np.ndarray) and codes_BN.dtype == np.int64 and codes_BN.shape == wanted,
        f"tokens must return int64 {list(wanted)}, not {getattr(codes_BN, 'dtype', type(codes_BN))} "
        f"{list(np.shape(codes_BN))}",
    )
    lowest, highest = int(codes_BN.min()), int(codes_BN.max())
    require(
        lowest >= 0 and highest < made.codes, f"codes must lie in 0 … {made.codes - 1}, not in {lowest} … {highest}"
    )


def _check_calls(made: Any, images_BCHW: NDArray[np.float32], codes_BN: NDArray[np.int64]) -> None:
    kept = images_BCHW.copy()
    require(np.array_equal(_tokens(made, images_BCHW), codes_BN), "tokens must answer alike at every call")
    require(np.array_equal(kept, images_BCHW), "tokens must leave the images as they are")
    for number in range(0, len(images_BCHW), 5):
        alone = _tokens(made, images_BCHW[number : number + 1], number)
        require(np.array_equal(alone[0], codes_BN[number]), "an image's codes must not depend on what stands beside it")
    require(_tokens(made, images_BCHW[:0]).shape == (0, _GRID.size), "no images must have no codes, [0, N]")


def _check_places(made: Any, images_BCHW: NDArray[np.float32]) -> None:
    """A code may look around: what is asked is that no other changes more often than that of the changed patch."""
    before_BN = _tokens(made, images_BCHW)
    dark_BHW = images_BCHW.mean(axis=1) < 0.5
    for patch in range(_GRID.size):
        row, column, _ = _GRID.place(patch)
        place = (..., slice(row * _PATCH, (row + 1) * _PATCH), slice(column * _PATCH, (column + 1) * _PATCH))
        changed_BCHW = images_BCHW.copy()
        changed_BCHW[place] = np.where(dark_BHW[place].mean(axis=(1, 2)) > 0.5, 1, 0)[:, None, None, None]
        often_N = (_tokens(made, changed_BCHW) != before_BN).mean(axis=0)
        require(
            often_N[patch] > 0 and often_N[patch] == often_N.max(),
            f"patches must be numbered row by row: where patch {patch} changes between dark and light, its own code "
            f"must change the most often, not that of patch {int(often_N.argmax())}",
        )


def _check_refusals(made: Any, where: Context, channels: int) -> None:
    height, width = _GRID.rows * _PATCH, _GRID.columns * _PATCH
    for shape in ((1, channels + 1, height, width), (1, channels, height + _PATCH, width)):
        wrong = np.zeros(shape, np.float32)
        _require_refused(lambda wrong=wrong: made.tokens(wrong), f"images of shape {list(shape)}")


def _require_refused(call: Any, what: str) -> None:
    try:
        call()
    except UsageError:
        return
    require(False, f"{what} must be refused with a UsageError")
