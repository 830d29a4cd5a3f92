"""The knee of a threshold curve: where, as the mask shrinks, only abnormal voxels are left.

Source: IterMask3D (arXiv 2504.04911). The curve is fitted by `tau(t) = a tan(b t)`, `t` in percent
of the brain that has left the mask; the threshold is the measured value at the first `t` at which
the fit's derivative exceeds gamma. When the fit is poor, smoothed finite differences stand in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LARGEST_RATE = np.pi / 200
"""With a larger `b` the tangent would have its pole before 100 percent."""
POOR_FIT = 0.85
"""Coefficient of determination below which the reference does not use the fit."""


@dataclass(frozen=True)
class CurveFit:
    """The slope of a threshold curve, and how it was found.

    Parameters
    ----------
    slope
        Derivative by percent at each point of the curve.
    fitted
        The tangent at each point; None when finite differences were used.
    determination
        R squared of the tangent over the first 80 percent; None when it could not be fitted.
    """

    slope: FloatArray
    fitted: FloatArray | None
    determination: float | None


def slope_of(
    percent: FloatArray,
    curve: FloatArray,
    limit: float,
    bounded: bool,
    least_determination: float = POOR_FIT,
) -> CurveFit:
    """Fit a threshold curve and give its slope.

    Parameters
    ----------
    percent
        `(T,)`, rising, ending at 100.
    curve
        `(T,)`, the threshold at each.
    limit
        Points from the first one above this on are not fitted.
    bounded
        Keep `a` positive and the pole beyond 100 percent (the reference does not).
    least_determination
        R squared below which finite differences stand in for the fit.
    """
    above = np.flatnonzero(curve > limit)
    stop = int(above[0]) if above.size else len(curve)
    parameters = _fit(percent[:stop], curve[:stop], bounded) if stop >= 3 else None
    if parameters is not None:
        a, b = parameters
        fitted = a * np.tan(b * percent)
        determination = _determination(percent, curve, fitted)
        if determination >= least_determination:
            return CurveFit(a * b / np.cos(b * percent) ** 2, fitted, determination)
        return CurveFit(_differences(percent, curve), None, determination)
    return CurveFit(_differences(percent, curve), None, None)


def first_above(slope: FloatArray, gamma: float) -> int | None:
    """Give the first point whose slope exceeds gamma; None when none does."""
    above = np.flatnonzero(slope > gamma)
    return int(above[0]) if above.size else None


def _fit(percent: FloatArray, curve: FloatArray, bounded: bool) -> tuple[float, float] | None:
    from scipy.optimize import OptimizeWarning, curve_fit

    def tangent(t: FloatArray, a: float, b: float) -> FloatArray:
        return np.asarray(a * np.tan(b * t))

    bounds = ([0.0, 0.0], [np.inf, LARGEST_RATE]) if bounded else (-np.inf, np.inf)
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # a flat curve has no covariance
            found, _ = curve_fit(
                tangent, percent, curve, p0=(1.0, 0.01), bounds=bounds, maxfev=20_000
            )
    except RuntimeError:
        return None
    return float(found[0]), float(found[1])


def _determination(percent: FloatArray, curve: FloatArray, fitted: FloatArray) -> float:
    early = percent <= 80
    spread = float(((curve[early] - curve[early].mean()) ** 2).sum())
    if spread == 0:
        return 0.0
    return 1 - float(((curve[early] - fitted[early]) ** 2).sum()) / spread


def _differences(percent: FloatArray, curve: FloatArray) -> FloatArray:
    """Finite differences, smoothed by a centred moving average of five points."""
    steps = np.diff(curve, prepend=0.0) / np.diff(percent, prepend=0.0)
    window = np.ones(5)
    counts = np.convolve(np.ones_like(steps), window, mode="same")
    return np.asarray(np.convolve(steps, window, mode="same") / counts)
