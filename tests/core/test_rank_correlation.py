"""Correlations of many pairs at once: SciPy's figures, every broadcast, NaN where a side is constant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr

from reorder_core.rank_correlation import cosine, pearson, spearman


def test_rows_are_scipy_s_with_ties():
    x_RM, y_RM = np.random.default_rng(0).integers(0, 5, size=(2, 20, 9)).astype(float)
    for mine, of in ((spearman, spearmanr), (pearson, pearsonr)):
        wanted_R = [of(x, y).statistic for x, y in zip(x_RM, y_RM, strict=True)]
        np.testing.assert_allclose(mine(x_RM, y_RM), wanted_R, atol=1e-12)
    first, second = np.triu_indices(9, k=1)
    signs = (np.sign(x_RM[0, first] - x_RM[0, second]), np.sign(y_RM[0, first] - y_RM[0, second]))
    assert cosine(*signs) == pytest.approx(kendalltau(x_RM[0], y_RM[0]).statistic)


def test_all_pairs_of_two_tables():
    rng = np.random.default_rng(1)
    x_RM, y_OM = rng.random((3, 6)), rng.random((2, 6))
    found_RO = spearman(x_RM[:, None], y_OM[None])
    assert found_RO.shape == (3, 2)
    assert found_RO[2, 1] == pytest.approx(spearmanr(x_RM[2], y_OM[1]).statistic)


def test_a_constant_side_has_no_correlation_and_extremes_are_exact():
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(spearman([[1, 1, 1], [3, 2, 1]], [1, 2, 3])).tolist() == [True, False]
    assert spearman([1, 10, 100], [-1, -2, -3]) == pytest.approx(-1)
