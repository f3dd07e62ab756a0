"""The matrix from → to: what each order came to, its paired difference, and how sure that is.

S validation images, K seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from reorder_core import UsageError
from reorder_core.bootstrap import Interval, paired_bootstrap
from reorder_core.evaluated import Evaluated

OVER_IMAGES = "paired bootstrap over validation images, the seeds' mean score of each, 95 % percentile"
OVER_SEEDS = "Student's t over the paired differences of the seeds, 95 %"


@dataclass(frozen=True)
class Row:
    """One cell of the matrix: the order `source` tried in the recipe `to`.

    kind: of the source (`learned`, `fixed`, `file`, `ordering`, `own`). against: whose the difference is taken to.
    values: the primary metric of each seed. images, seeds: the difference in the score of an image with its interval
    over images, and over seeds (None with one seed); both None where the order is the very one of `against`.
    """

    source: str
    kind: str
    to: str
    mode: str
    metric: str
    score: str
    higher_is_better: bool
    seed_numbers: tuple[int, ...]
    values: tuple[float, ...]
    against: str
    images: Interval | None
    seeds: Interval | None
    order: Path
    folders: tuple[Path, ...]

    @property
    def value(self) -> float:
        """The mean of the primary metric over the seeds."""
        return float(np.mean(self.values))

    @property
    def strength(self) -> float:
        """The difference in half widths of its wider interval, more is better; 0 without a difference.

        Beyond 1 on either side the interval leaves out 0, as far as it is symmetric.
        """
        if self.images is None or self.images.mean == 0:
            return 0.0
        half = max((each.high - each.low) / 2 for each in (self.images, self.seeds) if each is not None)
        signed = self.images.mean if self.higher_is_better else -self.images.mean
        return signed / half if half > 0 else float(np.copysign(np.inf, signed))

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `transfer.json` has them."""
        return {
            "from": self.source,
            "kind": self.kind,
            "to": self.to,
            "mode": self.mode,
            "metric": self.metric,
            "score": self.score,
            "higher_is_better": self.higher_is_better,
            "value": self.value,
            "values": list(self.values),
            "seeds": list(self.seed_numbers),
            "against": self.against,
            "difference": None if self.images is None else self.images.mean,
            "interval": _ends(self.images, OVER_IMAGES),
            "interval_seeds": _ends(self.seeds, OVER_SEEDS),
            "order": str(self.order),
            "folders": [str(folder) for folder in self.folders],
        }


def _ends(interval: Interval | None, kind: str) -> dict[str, Any] | None:
    return None if interval is None else {"low": interval.low, "high": interval.high, "kind": kind}


def differences(a: Sequence[Evaluated], b: Sequence[Evaluated]) -> tuple[Interval, Interval | None]:
    """a - b in the score of an image, seed by seed on the same images: over images, and over seeds where there are two.

    Raises `UsageError` where the scores do not pair.
    """
    a_KS, b_KS = _scores(a), _scores(b)
    if a_KS.shape != b_KS.shape:
        raise UsageError(f"scores of the same images and seeds are needed to pair, not {a_KS.shape} and {b_KS.shape}")
    return paired_bootstrap(a_KS.mean(axis=0), b_KS.mean(axis=0)), over_seeds((a_KS - b_KS).mean(axis=1))


def _scores(found: Sequence[Evaluated]) -> NDArray[np.float64]:
    scores = [np.asarray(each.score_S, dtype=np.float64) for each in found]
    if len({each.shape for each in scores}) != 1:
        raise UsageError("the seeds were not validated on as many images each: give the data set a fixed split")
    return np.stack(scores)


def over_seeds(difference_K: NDArray[np.float64], confidence: float = 0.95) -> Interval | None:
    """Mean of the seeds' differences with Student's t interval of K - 1 degrees of freedom; None for one seed."""
    K = len(difference_K)
    if K < 2:
        return None
    mean = float(difference_K.mean())
    half = float(student.ppf(0.5 + confidence / 2, K - 1) * difference_K.std(ddof=1) / np.sqrt(K))
    return Interval(mean, mean - half, mean + half)
