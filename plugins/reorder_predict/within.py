"""Within one data set: are images whose consecutive patches are more alike classified better or worse?

S images, V variables, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from reorder_predict.between import ALPHA
from reorder_predict.correlation import Estimate, holm
from reorder_predict.logistic import Slope, logistic_slope
from reorder_predict.table import Cell
from reorder_predict.variation import Variation

_CELLS_AT_ONCE = 4_000_000  # counts of a resample held at a time
_ROW_BY_ROW = "variation row by row"
_SAME = 1e-6  # share of a variable that its controls leave over, below which it is one of them
_TOO_LITTLE = 0.1  # share left over, below which nothing is said: what is left is mostly rounding of the controls
_CLASSES = 50  # of more classes the logistic regression is left out


@dataclass(frozen=True)
class Likeness:
    """One model in one order. spearman: of an image's variation along the order with its score; partial: the same with
    `controls` held fixed (ranks; the class, where images have one, among them); slope: log-odds for one deviation of
    variation, controls held fixed, None where scores are no shares, the fit does not settle or classes are too many.
    left_over: the share of the variation's rank variance that the controls do not explain. p: of `partial`, by its
    bootstrap error; corrected: after Holm over all rows.
    """

    model: str
    order: str
    images: int
    seeds: int
    controls: tuple[str, ...]
    spearman: Estimate
    partial: Estimate
    slope: Slope | None
    left_over: float
    p: float
    corrected: float = 1.0

    @property
    def verdict(self) -> str:
        """About images that vary *less* along the order, with the controls held fixed."""
        agrees = self.slope is None or (self.slope.value > 0) == (self.partial.value > 0)
        if self.left_over < _TOO_LITTLE:
            return "no verdict: the controls say nearly the same"
        sure = self.corrected < ALPHA
        if self.partial.excludes_zero and agrees and sure:
            said = "alike is better" if self.partial.value < 0 else "alike is worse"
            return said if _ROW_BY_ROW in self.controls else f"{said} (contrast held fixed only)"
        return "no difference shown"

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "order": self.order,
            "images": self.images,
            "seeds": self.seeds,
            "controls": [*self.controls],
            "spearman": self.spearman.as_json(),
            "partial": self.partial.as_json(),
            "slope": None if self.slope is None else asdict(self.slope),
            "left_over": self.left_over,
            "p": self.p,
            "p_holm": self.corrected,
            "verdict": self.verdict,
        }


def likeness(
    cells: Sequence[Cell],
    orders: Sequence[str],
    variation: Variation,
    resamples: int,
    seed: int,
    notes: list[str],
    tick: Callable[[], None] = lambda: None,
) -> list[Likeness]:
    """A row for every cell whose images do not all have the same score. orders: the rows of `variation`."""
    rows = []
    for cell in cells:
        along_S = variation.along_OS[orders.index(cell.order.name)]
        if np.ptp(cell.good_S) == 0 or np.ptp(along_S) == 0:
            notes.append(f"{cell.model}, {cell.order.name}: all images have the same score or the same variation")
        else:
            rows.append(_row(cell, along_S, variation, resamples, seed))
        tick()
    corrected = holm([row.p for row in rows])
    return [replace(row, corrected=p) for row, p in zip(rows, corrected, strict=True)]


def _row(cell: Cell, along_S: NDArray[np.float64], variation: Variation, resamples: int, seed: int) -> Likeness:
    possible = {_ROW_BY_ROW: variation.row_major_S, "contrast": variation.contrast_S}
    held: dict[str, NDArray[np.float64]] = {}
    for name, value_S in possible.items():
        ranks_SV = _ranks([along_S, *held.values(), value_S])
        if (
            np.ptp(value_S) > 0 and _left_over(ranks_SV) > _SAME
        ):  # row by row, the first control is the variation itself
            held[name] = value_S
    score_S, class_S = cell.good_S, variation.class_S
    rng = np.random.default_rng(seed)
    rho, partial = partial_spearman([along_S, score_S, *held.values()], resamples, rng, class_S)
    slope = None
    if score_S.min() >= 0 and score_S.max() <= 1 and (class_S is None or class_S.max() < _CLASSES):
        told_S = telling(score_S, class_S)
        fixed_SF = np.column_stack([along_S, *held.values()])[told_S]
        dummy_SK = _dummies(None if class_S is None else class_S[told_S], len(fixed_SF))
        slope = logistic_slope(score_S[told_S], np.column_stack([fixed_SF, dummy_SK])) if told_S.any() else None
    left_over = _left_over(_without_class(_ranks([along_S, *held.values()]), class_S))
    error = (partial.high - partial.low) / (2 * norm.ppf(0.975))
    p = float(2 * norm.sf(abs(partial.value) / error)) if error > 0 else 1.0
    controls = (*held, *(() if class_S is None else ("class",)))
    return Likeness(
        cell.model, cell.order.name, len(score_S), len(cell.runs), controls, rho, partial, slope, left_over, p
    )


def telling(score_S: NDArray[np.float64], class_S: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """The images that a logistic regression with a constant for every class learns its slopes from, bool [S].

    A class that is all right or all wrong is met by its constant going to infinity, where nothing is left for the
    slopes, and where Newton's method does not settle: the slopes are those without it.
    """
    if class_S is None:
        return np.ones(len(score_S), dtype=bool)
    _, number_S, count_K = np.unique(class_S, return_inverse=True, return_counts=True)
    mean_K = np.bincount(number_S, weights=score_S) / count_K
    return (mean_K[number_S] > 0) & (mean_K[number_S] < 1)


def _dummies(class_S: NDArray[np.int64] | None, images: int) -> NDArray[np.float64]:
    """A column for every class but the first that occurs, [S, classes - 1]."""
    if class_S is None:
        return np.zeros((images, 0))
    return (class_S[:, None] == np.unique(class_S)[1:]).astype(np.float64)


def _without_class(ranks_SV: NDArray[np.float64], class_S: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Each variable less its mean in the image's class: what a regression on the class leaves over."""
    if class_S is None:
        return ranks_SV
    _, number_S, count_K = np.unique(class_S, return_inverse=True, return_counts=True)
    sum_KV = np.zeros((len(count_K), ranks_SV.shape[1]))
    np.add.at(sum_KV, number_S, ranks_SV)
    return ranks_SV - (sum_KV / count_K[:, None])[number_S]


def partial_spearman(
    variables: Sequence[NDArray[np.float64]],
    resamples: int,
    rng: np.random.Generator,
    class_S: NDArray[np.int64] | None = None,
) -> tuple[Estimate, Estimate]:
    """Spearman's rho of the first two variables, and their partial one with the others, and the class, held fixed.

    Percentile bootstrap over images. The ranks are those of the whole sample, so that a resample is a weighing of its
    moments: with hundreds of images the ranks of a resample are these up to its sampling error.
    """
    ranks_SV = _ranks(variables)
    S, V = ranks_SV.shape
    first, second = np.triu_indices(V)
    plain_S2 = ranks_SV[:, :2]
    fixed_SV = _without_class(ranks_SV, class_S)
    moments_SM = np.column_stack([fixed_SV, fixed_SV[:, first] * fixed_SV[:, second]])
    plain_SM = np.column_stack([plain_S2, plain_S2[:, [0, 0, 1]] * plain_S2[:, [0, 1, 1]]])
    at_once = max(1, _CELLS_AT_ONCE // S)
    rho, partial = [_both(plain_SM.mean(axis=0)[None], 2)[0]], [_both(moments_SM.mean(axis=0)[None], V)[1]]
    for start in range(0, resamples, at_once):
        count_RS = rng.multinomial(S, np.full(S, 1 / S), size=min(at_once, resamples - start))
        rho.append(_both(count_RS @ plain_SM / S, 2)[0])
        partial.append(_both(count_RS @ moments_SM / S, V)[1])
    return _estimate(np.concatenate(rho)), _estimate(np.concatenate(partial))


def _both(moments_RM: NDArray[np.float64], V: int) -> NDArray[np.float64]:
    """Correlation and partial correlation of the first two of V variables from their moments, [2, R]."""
    mean_RV, second_RM = moments_RM[:, :V], moments_RM[:, V:]
    covariance_RVV = np.empty((len(moments_RM), V, V))
    rows, columns = np.triu_indices(V)
    covariance_RVV[:, rows, columns] = second_RM - mean_RV[:, rows] * mean_RV[:, columns]
    covariance_RVV[:, columns, rows] = covariance_RVV[:, rows, columns]
    scale_RV = np.sqrt(np.maximum(np.diagonal(covariance_RVV, axis1=1, axis2=2), 1e-30))
    correlation_RVV = covariance_RVV / scale_RV[:, :, None] / scale_RV[:, None, :]
    precise_RVV = np.linalg.pinv(correlation_RVV, hermitian=True)
    below_R = np.sqrt(np.maximum(precise_RVV[:, 0, 0] * precise_RVV[:, 1, 1], 1e-30))
    return np.stack([correlation_RVV[:, 0, 1], -precise_RVV[:, 0, 1] / below_R])


def _ranks(variables: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mid-ranks of each variable, standardised, [S, V]."""
    ranks_SV = np.column_stack([rankdata(value_S) for value_S in variables])
    scaled_SV: NDArray[np.float64] = (ranks_SV - ranks_SV.mean(axis=0)) / np.maximum(ranks_SV.std(axis=0), 1e-30)
    return scaled_SV


def _left_over(ranks_SV: NDArray[np.float64]) -> float:
    """The share of the first variable's variance that the others do not explain."""
    told_S = ranks_SV[:, 1:] @ np.linalg.lstsq(ranks_SV[:, 1:], ranks_SV[:, 0], rcond=None)[0]
    return float(np.var(ranks_SV[:, 0] - told_S) / np.var(ranks_SV[:, 0]))


def _estimate(value_R: NDArray[np.float64]) -> Estimate:
    """The first is the sample's own, the others are resamples."""
    low, high = np.percentile(value_R[1:], [2.5, 97.5])
    return Estimate(float(value_R[0]), float(low), float(high))
