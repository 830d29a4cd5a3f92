"""Thresholds: from healthy scores, from the histogram of one map, and what each of many would do.

Everywhere a voxel or a scan is flagged when its score lies strictly above the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.volume import Array

Values = NDArray[np.float64]

HEALTHY_METHODS = ("percentile", "sigma", "mad", "iqr", "contamination", "conformal")
HISTOGRAM_METHODS = ("otsu", "triangle", "yen", "li")

NORMAL_MAD = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""
WHISKER = 1.5
"""Ranges between quartiles above the upper quartile (Tukey 1977)."""
LI_PRECISION = 1e-3
"""Last step of Li's iteration, in bins of the histogram."""


def threshold_from_healthy(
    scores: ArrayLike,
    method: str = "percentile",
    *,
    percentile: float = 95.0,
    k: float = 3.0,
    rate: float | None = None,
    alpha: float = 0.05,
) -> float:
    """Choose a threshold from scores of healthy data, held out from training.

    Parameters
    ----------
    scores
        Of any shape: subject scores, or the voxels of score maps within the brain.
    method
        - ``"percentile"``: the percentile `percentile`.
        - ``"sigma"``: mean + `k` population standard deviations.
        - ``"mad"``: median + `k` * 1.4826 * median absolute deviation from the median.
        - ``"iqr"``: upper quartile + 1.5 * range between the quartiles.
        - ``"contamination"``: the percentile 100 (1 - `rate`).
        - ``"conformal"``: the smallest score with a share of at least `(1 - alpha) (n + 1) / n` of
          the `n` scores at or below it (Vovk et al. 2005). A further healthy score that is
          exchangeable with these lies above it with a probability of at most `alpha`, however many
          or few they are. Voxels of one scan are not exchangeable with those of another: the
          promise holds for one score a scan.
    percentile
        0 to 100.
    k
        Not negative.
    rate
        Share of the scores that counts as abnormal, between 0 and 1; only the user can know it.
    alpha
        Rate of false positives that is allowed, between 0 and 1.

    Returns
    -------
    float
        Infinite for ``"conformal"`` with fewer than `1 / alpha - 1` scores, which cannot promise
        any finite threshold.

    Raises
    ------
    InputError
        There is no score, or one is NaN or infinite.
    SettingsError
        An unknown method, a value out of its range, or ``"contamination"`` without a rate.
    """
    if method not in HEALTHY_METHODS:
        raise unknown_name("threshold method", method, HEALTHY_METHODS)
    values = _checked(scores, "healthy scores")
    if method == "percentile":
        _require(0 <= percentile <= 100, "percentile", percentile, "between 0 and 100", "95")
        return float(np.percentile(values, percentile))
    if method == "contamination":
        if rate is None:
            raise SettingsError("rate", "is missing", "Give the share of abnormal scores")
        _require(0 < rate < 1, "rate", rate, "between 0 and 1", "0.05")
        return float(np.percentile(values, 100 * (1 - rate)))
    if method == "conformal":
        _require(0 < alpha < 1, "alpha", alpha, "between 0 and 1", "0.05")
        return _conformal(values, alpha)
    _require(0 <= k < math.inf, "k", k, "zero or more", "3")
    if method == "sigma":
        return float(values.mean() + k * values.std())
    if method == "mad":
        median = np.median(values)
        return float(median + k * NORMAL_MAD * np.median(np.abs(values - median)))
    lower, upper = np.percentile(values, (25, 75))
    return float(upper + WHISKER * (upper - lower))


def _conformal(values: Values, alpha: float) -> float:
    # The subtracted part keeps (1 - 0.18) * 150 = 123.00000000000001 from asking for 124.
    rank = math.ceil((1 - alpha) * (values.size + 1) * (1 - 1e-12))
    return math.inf if rank > values.size else float(np.partition(values, rank - 1)[rank - 1])


def threshold_by_histogram(score_map: ArrayLike, method: str = "otsu", bins: int = 256) -> float:
    """Split the scores of one map in two by the shape of their histogram.

    Such a threshold always flags something, in a healthy scan too: it says where to cut, not
    whether. The functions are those of scikit-image. Their thresholds are centres of bins (but for
    Li's), so scores of that bin may fall on either side.

    Parameters
    ----------
    score_map
        Of any shape. A background of zeros is a peak of its own: give the scores of the brain.
    method
        - ``"otsu"``: largest variance between both parts (Otsu 1979).
        - ``"triangle"``: farthest from the line from the peak to the longer tail's end
          (Zack et al. 1977); for one peak with a tail.
        - ``"yen"``: Yen's criterion of maximum correlation (Yen et al. 1995).
        - ``"li"``: least cross-entropy, found by iteration (Li & Tam 1998). It reads the scores
          themselves, above the lowest; `bins` only sets its precision.
    bins
        Of the histogram, over the range of the scores.

    Returns
    -------
    float
        The score itself when all are equal: nothing lies above it.

    Raises
    ------
    InputError
        There is no score, or one is NaN or infinite.
    SettingsError
        An unknown method, or fewer than 2 bins.
    """
    if method not in HISTOGRAM_METHODS:
        raise unknown_name("threshold method", method, HISTOGRAM_METHODS)
    _require(bins >= 2, "bins", bins, "2 or more", "256")
    values = _checked(score_map, "score map")
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    from skimage import filters

    function: Any = getattr(filters, f"threshold_{method}")
    options = {"tolerance": LI_PRECISION / bins} if method == "li" else {"nbins": bins}
    # On the unit range no scale of scores is too small or too large for bins and tolerances.
    with np.errstate(divide="ignore"):  # Yen's criterion is minus infinity where a part is empty
        share = float(function((values - low) / (high - low), **options))
    return low + share * (high - low)


@dataclass(frozen=True, eq=False)
class ThresholdSweep:
    """What a score map looks like above each of several thresholds.

    Parameters
    ----------
    thresholds
        `(T,)`, ascending.
    volumes
        `(T,)`, voxels above each threshold.
    components, largest_component
        `(T,)`, how many connected components they form (6-neighbourhood), and the voxels of the
        largest one.
    mean_score, std_score
        `(T,)`, mean and population standard deviation of the scores above; NaN where there is
        none.
    coverage
        `(T,)`, `volumes` as shares of the map's voxels.
    """

    thresholds: Values
    volumes: NDArray[np.int64]
    largest_component: NDArray[np.int64]
    components: NDArray[np.int64]
    mean_score: Values
    std_score: Values
    coverage: Values


def threshold_sweep(score_map: Array, low: float, high: float, count: int = 50) -> ThresholdSweep:
    """Try evenly spaced thresholds on one score map.

    Parameters
    ----------
    score_map
        `(X, Y, Z)`.
    low, high
        The first and the last threshold.
    count
        How many, 2 or more.

    Raises
    ------
    InputError
        The map is empty, or not finite.
    SettingsError
        `low` is not below `high`, or there are fewer than 2 thresholds.
    """
    _require(count >= 2, "count", count, "2 or more", "50")
    if not -math.inf < low < high < math.inf:
        raise SettingsError(
            "thresholds", f"{low} to {high} is no range", "Give a lower and a higher finite score"
        )
    score = np.asarray(score_map)
    _checked(score, "score map")
    thresholds = np.linspace(low, high, count)
    rows = [_above(score, threshold) for threshold in thresholds]
    volumes, largest, components, means, spreads = (np.array(c) for c in zip(*rows, strict=True))
    return ThresholdSweep(
        thresholds, volumes, largest, components, means, spreads, volumes / score.size
    )


def _above(score: Array, threshold: float) -> tuple[int, int, int, float, float]:
    from scipy import ndimage

    # A Python number is compared in the map's own precision, as everywhere else.
    above = score > float(threshold)
    values = score[above].astype(np.float64)
    if not values.size:
        return 0, 0, 0, math.nan, math.nan
    labels, components = ndimage.label(above)
    largest = int(np.bincount(labels[above]).max())
    return values.size, largest, int(components), float(values.mean()), float(values.std())


def _checked(scores: ArrayLike, name: str) -> Values:
    values = np.asarray(scores)
    if not values.size:
        raise InputError(name, "hold no score", "Give at least one")
    if values.dtype.kind not in "buif":
        raise InputError(name, f"hold {values.dtype}, not real numbers", "Give float32")
    if not np.isfinite(values).all():
        raise InputError(name, "hold NaN or infinite values", "Mend the scores")
    return values.astype(np.float64).ravel()


def _require(met: bool, name: str, value: float, meaning: str, example: str) -> None:
    if not met:
        raise SettingsError(name, f"{value} is not {meaning}", f"Give e.g. {example}")
