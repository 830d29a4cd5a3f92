"""Metrics over subjects: few values, hence computed exactly, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError

Values = NDArray[np.float64]


def auroc(healthy: ArrayLike, abnormal: ArrayLike) -> float | None:
    """Give the probability that an abnormal subject scores above a healthy one.

    The Mann-Whitney statistic; pairs of equal scores count half.

    Parameters
    ----------
    healthy, abnormal
        Subject scores of the two groups, higher = more abnormal.

    Returns
    -------
    float or None
        Between 0 and 1; None when a group is empty.
    """
    negative, positive = np.sort(_checked(healthy, "healthy")), _checked(abnormal, "abnormal")
    if not negative.size or not positive.size:
        return None
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).sum() / (2 * negative.size * positive.size))


def average_precision(healthy: ArrayLike, abnormal: ArrayLike) -> float | None:
    """Give the sum over thresholds of (R_k - R_{k-1}) P_k, without interpolation.

    Depends on the share of abnormal subjects: compare it only within one cohort.

    Parameters
    ----------
    healthy, abnormal
        Subject scores of the two groups, higher = more abnormal.

    Returns
    -------
    float or None
        Between 0 and 1; None when a group is empty.
    """
    negative, positive = _checked(healthy, "healthy"), _checked(abnormal, "abnormal")
    if not negative.size or not positive.size:
        return None
    thresholds, recalled = np.unique(positive, return_counts=True)
    tp = np.cumsum(recalled[::-1])[::-1]
    fp = negative.size - np.searchsorted(np.sort(negative), thresholds, side="left")
    return float((recalled * (tp / (tp + fp))).sum() / positive.size)


def fpr_at_tpr(healthy: ArrayLike, abnormal: ArrayLike, tpr: float) -> float | None:
    """Give the lowest share of healthy subjects flagged when `tpr` of the abnormal ones must be.

    A subject is flagged at or above the threshold; steps of the ROC curve are not interpolated.

    Parameters
    ----------
    healthy, abnormal
        Subject scores of the two groups, higher = more abnormal.
    tpr
        Share of abnormal subjects that must be found, 0 to 1, e.g. 0.95.

    Returns
    -------
    float or None
        Between 0 and 1; None when a group is empty.
    """
    if not 0.0 <= tpr <= 1.0:
        raise SettingsError("tpr", f"{tpr} is not between 0 and 1", "Give a share, e.g. 0.95")
    negative, positive = _checked(healthy, "healthy"), _checked(abnormal, "abnormal")
    if not negative.size or not positive.size:
        return None
    # The subtracted part keeps 0.95 * 20 = 19.000000000000004 from asking for 20 of 20.
    needed = math.ceil(tpr * positive.size * (1 - 1e-12))
    if needed == 0:
        return 0.0
    return float(np.mean(negative >= np.sort(positive)[-needed]))


def fnr_at_tnr(healthy: ArrayLike, abnormal: ArrayLike, tnr: float) -> float | None:
    """Give the share of abnormal subjects that are missed when `tnr` of the healthy ones must pass.

    A subject passes at or below the threshold, which is the smallest healthy score that lets
    enough of the healthy ones pass.

    Parameters
    ----------
    healthy, abnormal
        Subject scores of the two groups, higher = more abnormal.
    tnr
        Share of healthy subjects that must pass, 0 to 1, e.g. 0.9.

    Returns
    -------
    float or None
        Between 0 and 1; None when a group is empty.
    """
    if not 0.0 <= tnr <= 1.0:
        raise SettingsError("tnr", f"{tnr} is not between 0 and 1", "Give a share, e.g. 0.9")
    # Turned round, passing is being found: the same figure with the groups exchanged.
    passing, missed = _checked(healthy, "healthy"), _checked(abnormal, "abnormal")
    return fpr_at_tpr(-missed, -passing, tnr)


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Give the overlap of two masks, 2 |A and B| / (|A| + |B|).

    Parameters
    ----------
    prediction, truth
        Masks of one shape; non-zero is inside.

    Returns
    -------
    float
        Between 0 and 1; defined as 1.0 when both are empty: nothing was to be found, and nothing
        was.
    """
    left, right = np.asanyarray(prediction).astype(bool), np.asanyarray(truth).astype(bool)
    if left.shape != right.shape:
        raise InputError(
            "prediction", f"shape {left.shape} is not the truth's {right.shape}", "Align them"
        )
    size = int(np.count_nonzero(left)) + int(np.count_nonzero(right))
    return 2 * int(np.count_nonzero(left & right)) / size if size else 1.0


def bootstrap_interval(
    *groups: ArrayLike,
    seed: int,
    level: float = 0.95,
    statistic: Callable[..., float | None] | None = None,
    resamples: int = 2000,
) -> tuple[float, float] | None:
    """Give a percentile bootstrap interval of a statistic over subjects.

    ``bootstrap_interval(dices, seed=0)`` is that of a mean;
    ``bootstrap_interval(healthy, abnormal, statistic=auroc, seed=0)`` draws within each group, so
    that the share of abnormal subjects stays. Percentile intervals are somewhat too narrow below
    about 20 subjects (Efron & Tibshirani 1993, chapter 13).

    Parameters
    ----------
    groups
        One value for each subject, group by group.
    seed
        The same seed gives the same interval.
    level
        Share of the bootstrap distribution inside, between 0 and 1.
    statistic
        Called with the resampled groups; the mean of the one group by default.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    tuple of float, or None
        Lower and upper end; None when a group has fewer than two subjects, which tell nothing
        about their spread, or the statistic is None.
    """
    if not 0.0 < level < 1.0:
        raise SettingsError("level", f"{level} is not between 0 and 1", "Give e.g. 0.95")
    if not groups or (statistic is None and len(groups) > 1):
        raise SettingsError("statistic", "does not fit the groups", "Name one for several groups")
    values = [_checked(group, f"group {index}") for index, group in enumerate(groups)]
    if min(group.size for group in values) < 2:
        return None
    drawn = _resampled(values, statistic or _mean, seed, resamples)
    if drawn is None:
        return None
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(
    groups: list[Values], statistic: Callable[..., float | None], seed: int, resamples: int
) -> list[float] | None:
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(resamples):
        value = statistic(*(group[rng.integers(0, group.size, group.size)] for group in groups))
        if value is None:
            return None
        drawn.append(value)
    return drawn


def _mean(values: Values) -> float:
    return float(values.mean())


def _checked(values: ArrayLike, name: str) -> Values:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise InputError(f"scores of {name}", "hold NaN or infinite values", "Leave them out")
    return array
