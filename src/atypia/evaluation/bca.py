"""Bootstrap intervals that correct for bias and skewness (BCa).

Source: Efron 1987 (doi:10.1080/01621459.1987.10478410); Efron & Tibshirani 1993, chapter 14, with
the acceleration of several groups from the jackknife of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError

Values = NDArray[np.float64]
Statistic = Callable[..., float | None]


def bca_interval(
    *groups: ArrayLike,
    seed: int,
    level: float = 0.95,
    statistic: Statistic | None = None,
    resamples: int = 2000,
) -> tuple[float, float] | None:
    """Give a bias-corrected and accelerated bootstrap interval of a statistic over subjects.

    Called like `bootstrap_interval`, whose percentile interval is its special case without bias
    and skewness. It costs one more call of the statistic for each subject.

    Parameters
    ----------
    groups
        One value for each subject, group by group; each group is drawn from by itself.
    seed
        The same seed gives the same interval.
    level
        Share of intervals that shall hold the true value, between 0 and 1.
    statistic
        Called with the resampled groups; the mean of the one group by default.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    tuple of float, or None
        Lower and upper end; the statistic itself twice when no resample changes it. None when a
        group has fewer than two subjects, which tell nothing about their spread, or the statistic
        is None for the groups, for a resample or without one subject.

    Raises
    ------
    InputError
        A value is NaN or infinite.
    SettingsError
        The level is not between 0 and 1, there is no resample, or several groups come without a
        statistic.
    """
    if not 0.0 < level < 1.0:
        raise SettingsError("level", f"{level} is not between 0 and 1", "Give e.g. 0.95")
    if resamples < 1:
        raise SettingsError("resamples", f"{resamples} is too few", "Give e.g. 2000")
    if not groups or (statistic is None and len(groups) > 1):
        raise SettingsError("statistic", "does not fit the groups", "Name one for several groups")
    values = [np.asarray(group, dtype=np.float64).ravel() for group in groups]
    if not all(np.isfinite(group).all() for group in values):
        raise InputError("groups", "hold NaN or infinite values", "Leave them out")
    if min(group.size for group in values) < 2:
        return None
    of = statistic or _mean
    estimate, drawn = of(*values), _drawn(values, of, seed, resamples)
    left_out = _left_out(values, of)
    if estimate is None or drawn is None or left_out is None:
        return None
    return bca_ends(estimate, drawn, left_out, level)


def bca_ends(
    estimate: float, drawn: Values, left_out: Sequence[Values], level: float
) -> tuple[float, float]:
    """Give the interval of a statistic whose resamples are there already.

    Parameters
    ----------
    estimate
        The statistic of all subjects.
    drawn
        `(R,)`, of every resample.
    left_out
        Group by group, of all subjects but each one in turn.
    level
        Share of intervals that shall hold the true value, between 0 and 1.
    """
    low, high = np.quantile(drawn, _shares(estimate, drawn, _acceleration(left_out), level))
    return float(low), float(high)


def _shares(estimate: float, drawn: Values, acceleration: float, level: float) -> Values:
    """Give the two shares of the bootstrap distribution that lie below the ends."""
    from scipy import special

    # Resamples equal to the estimate, of which coarse statistics have many, count half.
    below = float(np.mean(drawn < estimate) + np.mean(drawn <= estimate)) / 2
    # With all of them on one side the bias would be infinite: it is that of half a resample.
    half = 0.5 / drawn.size
    bias = special.ndtri(np.clip(below, half, 1 - half))
    ends = bias + special.ndtri([(1 - level) / 2, (1 + level) / 2])
    # The formula has a pole; from there on the end is that of the whole distribution.
    pole = np.maximum(1 - acceleration * ends, 1e-12)
    return np.asarray(special.ndtr(bias + ends / pole))


def _drawn(
    groups: Sequence[Values], statistic: Statistic, seed: int, resamples: int
) -> Values | None:
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for i in range(resamples):
        value = statistic(*(group[rng.integers(0, group.size, group.size)] for group in groups))
        if value is None:
            return None
        found[i] = value
    return found


def _left_out(groups: Sequence[Values], statistic: Statistic) -> list[Values] | None:
    """Give the statistic without each subject in turn, group by group."""
    found = []
    for number, group in enumerate(groups):
        before, after = groups[:number], groups[number + 1 :]
        left: list[float] = []
        for i in range(group.size):
            value = statistic(*before, np.delete(group, i), *after)
            if value is None:
                return None
            left.append(value)
        found.append(np.array(left))
    return found


def _acceleration(left_out: Sequence[Values]) -> float:
    """Give a sixth of the skewness of the statistic, by leaving each subject out once."""
    cubes = squares = 0.0
    for left in left_out:
        influence = (1 - 1 / left.size) * (left.mean() - left)
        cubes += float((influence**3).sum())
        squares += float((influence**2).sum())
    # A statistic that no subject moves, up to rounding, has no skewness.
    return cubes / (6 * squares**1.5) if squares > 1e-300 else 0.0


def _mean(values: Values) -> float:
    return float(values.mean())
