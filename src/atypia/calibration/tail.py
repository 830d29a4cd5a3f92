"""Tail: how rare values are that no healthy scan has reached, by a fitted distribution.

Peaks over a threshold (Balkema & de Haan 1974; Pickands 1975): what exceeds a high quantile `u` of
almost any distribution is nearly generalised Pareto, so that

    P(X > x) = share above u * (1 + shape (x - u) / scale) ** (-1 / shape).

This is an estimate and holds no guarantee. It is kept on the careful side: a shape below zero, by
which no healthy scan could ever exceed an end point, is replaced by zero (an exponential tail), and
nothing is told beyond `FURTHEST` times the reach of the healthy scans themselves.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from atypia.errors import InputError, SettingsError

SHARE = 0.2
"""Share of the healthy values that the tail is fitted to: the highest fifth."""
LEAST_EXCEEDANCES = 10
"""With fewer values above the quantile there is no fit; so it takes 50 healthy scans."""
LEAST_SCANS = round(LEAST_EXCEEDANCES / SHARE)
FURTHEST = 10
"""The lowest p-value that is told is `1 / (FURTHEST (n + 1))`; further out no fit is reliable."""


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto distribution fitted to the highest of `n` healthy values.

    Parameters
    ----------
    above
        The quantile `u`.
    share
        Of the healthy values that lie above it.
    shape, scale
        Of the distribution of the exceedances; the shape is zero or more.
    scans
        `n`.
    """

    above: float
    share: float
    shape: float
    scale: float
    scans: int

    @property
    def lowest(self) -> float:
        """The lowest p-value that is told."""
        return lowest_told(self.scans)

    def p_value(self, value: float) -> float:
        """Estimate the share of healthy scans above a value, which lies above `above`."""
        from scipy.stats import genpareto

        beyond = float(genpareto.sf(value - self.above, self.shape, scale=self.scale))
        return max(self.share * beyond, self.lowest)

    def limit(self, rate: float) -> float:
        """Estimate the value above which a share `rate` of healthy scans lies.

        Raises
        ------
        SettingsError
            The rate is below the lowest p-value, or above the share that the tail describes.
        """
        if not self.lowest <= rate <= self.share:
            raise _too_far(self.scans, rate)
        from scipy.stats import genpareto

        return self.above + float(genpareto.isf(rate / self.share, self.shape, scale=self.scale))


@lru_cache(maxsize=128)
def fitted_tail(healthy: tuple[float, ...]) -> Tail | None:
    """Fit the tail of healthy values by maximum likelihood.

    Returns
    -------
    Tail or None
        None with fewer than `LEAST_EXCEEDANCES` values above the quantile: too few scans, or too
        many equal values.
    """
    values = np.sort(np.asarray(healthy, np.float64))
    highest = int(SHARE * values.size)
    if highest < LEAST_EXCEEDANCES:
        return None
    above = float(values[-highest - 1])
    exceedances = values[values > above] - above
    if exceedances.size < LEAST_EXCEEDANCES:
        return None
    from scipy.stats import genpareto

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The search may pass through impossible parameters; what it ends at is checked below.
        warnings.simplefilter("ignore", RuntimeWarning)
        shape, _, scale = genpareto.fit(exceedances / exceedances.mean(), floc=0)
    if not (np.isfinite(shape) and np.isfinite(scale) and shape > 0 and scale > 0):
        shape, scale = 0.0, 1.0  # the likeliest exponential tail has the mean as its scale
    scale = float(scale) * float(exceedances.mean())
    return Tail(above, exceedances.size / values.size, float(shape), scale, values.size)


def lowest_told(scans: int) -> float:
    """Give the lowest p-value that is told for so many healthy scans."""
    return 1 / (FURTHEST * (scans + 1))


def require_tail(scans: int, rate: float | None = None) -> None:
    """Refuse to extrapolate from too few healthy scans.

    Parameters
    ----------
    scans
        Number of healthy scans.
    rate
        That is to be reached; None for no special one.

    Raises
    ------
    SettingsError
        There are fewer than `LEAST_SCANS`, or too few for the rate.
    """
    if scans < LEAST_SCANS:
        raise SettingsError(
            "extrapolation",
            f"needs at least {LEAST_SCANS} healthy scans, there are {scans}",
            "Give more scans, or leave --extrapolate out",
        )
    if rate is not None and rate < lowest_told(scans):
        raise _too_far(scans, rate)


def tail_of_clusters(largest_mm3: tuple[float, ...]) -> Tail:
    """Fit the tail of the largest clusters of healthy scans.

    Raises
    ------
    InputError
        Too few of them differ.
    """
    tail = fitted_tail(largest_mm3)
    if tail is None:
        raise InputError(
            "the largest clusters of the healthy scans",
            "are too often equal for a tail to be fitted",
            "Give more scans, or a higher --voxel-fpr",
        )
    return tail


def _too_far(scans: int, rate: float) -> SettingsError:
    return SettingsError(
        f"a scan FPR of {rate:g}",
        f"cannot be extrapolated from {scans} healthy scans",
        f"Give a rate of {math.ceil(1e4 * lowest_told(scans)) / 1e4:g} or more",
    )
