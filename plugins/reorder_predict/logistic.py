"""Logistic regression of a share on a few predictors, with standard errors that do not trust the model.

S images, F predictors with the constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

_STEPS = 50


@dataclass(frozen=True)
class Slope:
    """Of the first predictor, in log-odds for one standard deviation; its 95 % interval and two-sided p (Wald)."""

    value: float
    low: float
    high: float
    p: float


def logistic_slope(share_S: NDArray[np.float64], predictors_SF: NDArray[np.float64]) -> Slope | None:
    """The slope of the first predictor, the others held fixed; None where the fit does not settle (separation, say).

    share_S: in 0 … 1: hit or miss, or the share of seeds that hit. Predictors are standardised here. Newton's method;
    errors from the sandwich of White (1982), as shares are not binomial draws.
    """
    z_SF = (predictors_SF - predictors_SF.mean(axis=0)) / np.maximum(predictors_SF.std(axis=0), 1e-12)
    x_SF = np.column_stack([np.ones(len(z_SF)), z_SF])
    weight_F = np.zeros(x_SF.shape[1])
    try:
        for _ in range(_STEPS):
            told_S = expit(x_SF @ weight_F)
            hessian_FF = (x_SF * (told_S * (1 - told_S))[:, None]).T @ x_SF
            step_F = np.linalg.solve(hessian_FF, x_SF.T @ (share_S - told_S))
            weight_F = weight_F + step_F
            if np.abs(step_F).max() < 1e-10:
                break
        else:
            return None
        gradient_SF = x_SF * (share_S - told_S)[:, None]
        bread_FF = np.linalg.inv(hessian_FF)
    except np.linalg.LinAlgError:
        return None
    error = float(np.sqrt((bread_FF @ (gradient_SF.T @ gradient_SF) @ bread_FF)[1, 1]))
    if not (np.isfinite(error) and 0 < error < 1e3):
        return None
    value, reach = float(weight_F[1]), float(norm.ppf(0.975)) * error
    return Slope(value, value - reach, value + reach, float(2 * norm.sf(abs(value) / error)))
