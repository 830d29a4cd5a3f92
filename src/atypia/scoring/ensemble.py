"""Ensembles: score maps of several models as one, on a scale that healthy scores set.

Scores of different models have different units. Each model's scores are first replaced by the share
of healthy scores that they reach, which means the same for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.volume import Array

Values = NDArray[np.float64]

_TAIL = 1 - np.geomspace(0.009, 1e-6, 200)
LEVELS: Values = np.concatenate([np.linspace(0, 0.99, 991), _TAIL, [1]])
"""Shares at which healthy scores are kept: `(1192,)`, dense where abnormal scores begin."""

WAYS = ("mean", "max", "geometric", "voting")


@dataclass(frozen=True, eq=False)
class HealthyQuantiles:
    """The distribution of one model's healthy scores.

    Parameters
    ----------
    quantiles
        `(1192,)`, the healthy scores at the shares `LEVELS`, ascending.

    Raises
    ------
    InputError
        They are of another number, not finite, or not ascending.
    """

    quantiles: Values

    def __post_init__(self) -> None:
        values = np.array(self.quantiles, dtype=np.float64)
        fits = values.shape == LEVELS.shape and np.isfinite(values).all()
        if not fits or (np.diff(values) < 0).any():
            problem = f"are not {LEVELS.size} ascending numbers"
            raise InputError("quantiles of healthy scores", problem, "Learn them anew")
        values.setflags(write=False)
        object.__setattr__(self, "quantiles", values)

    @classmethod
    def learn(cls, scores: ArrayLike) -> HealthyQuantiles:
        """Learn from healthy scores.

        Parameters
        ----------
        scores
            `(N,)`, scores of healthy data that were held out from training; for score maps, those
            of the brain's voxels.

        Raises
        ------
        InputError
            Not one-dimensional, empty, or not finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            problem = f"of shape {values.shape} are not a row of finite numbers"
            raise InputError("healthy scores", problem, "Give the scores of the brain's voxels")
        return cls(np.quantile(values, LEVELS))

    def ranks(self, scores: ArrayLike) -> Values:
        """Give the share of healthy scores that lie at or below each score.

        Shares are interpolated between the quantiles. Above the highest healthy score they go on
        along the line that joins the lowest (0) and the highest (1), so that the order of
        abnormal scores is kept and a model's scores twice as far out as all healthy ones get about
        2. Below the lowest one they are 0.

        Parameters
        ----------
        scores
            Of any shape.

        Returns
        -------
        numpy.ndarray
            float64, of the same shape; between 0 and 1, or above 1.
        """
        values = np.asarray(scores, dtype=np.float64)
        low, high = self.quantiles[0], self.quantiles[-1]
        beyond = np.maximum(values - high, 0) / ((high - low) or 1.0)
        beyond += np.interp(values, self.quantiles, LEVELS)
        return np.asarray(beyond)

    def above(self, rate: float) -> float:
        """Give the score above which a share `rate` of the healthy ones lies."""
        return float(np.interp(1 - rate, LEVELS, self.quantiles))


def combine(
    maps: Sequence[Array],
    healthy: Sequence[HealthyQuantiles],
    how: str = "mean",
    rate: float = 0.05,
) -> Array:
    """Make one score map of several models' maps of one scan.

    Parameters
    ----------
    maps
        Score maps of one shape, one a model.
    healthy
        Each model's healthy scores, in the same order.
    how
        - ``"mean"``, ``"max"``, ``"geometric"``: arithmetic mean, largest and geometric mean of
          the models' `ranks`. The geometric mean is high only where all models agree.
        - ``"voting"``: share of the models whose score lies above the healthy quantile 1 - `rate`.
    rate
        Share of healthy voxels that each model may flag when voting, between 0 and 1.

    Returns
    -------
    numpy.ndarray
        float32, of the maps' shape.

    Raises
    ------
    InputError
        No maps, not as many as healthy distributions, of several shapes, or not finite.
    SettingsError
        An unknown way, or a rate that is not between 0 and 1.
    """
    if how not in WAYS:
        raise unknown_name("way to combine", how, WAYS)
    if not 0 < rate < 1:
        raise SettingsError("rate", f"{rate} is not between 0 and 1", "Give e.g. 0.05")
    if not maps or len(maps) != len(healthy):
        problem = f"{len(maps)} maps and {len(healthy)} healthy distributions"
        raise InputError("ensemble", problem, "Give one map and one distribution a model")
    for number, score in enumerate(maps):
        if score.shape != maps[0].shape or not np.isfinite(score).all():
            problem = f"is not finite, or its shape {score.shape} is not {maps[0].shape}"
            raise InputError(f"score map {number}", problem, "Put all maps onto one grid")
    if how == "voting":
        votes = np.zeros(maps[0].shape, np.float32)
        for score, usual in zip(maps, healthy, strict=True):
            votes += score > usual.above(rate)
        return votes / np.float32(len(maps))
    joined: Callable[[Values, Values], Values] = {
        "mean": np.add, "max": np.maximum, "geometric": np.multiply
    }[how]  # fmt: skip
    total = healthy[0].ranks(maps[0])
    for score, usual in zip(maps[1:], healthy[1:], strict=True):
        total = joined(total, usual.ranks(score))
    if how == "mean":
        total /= len(maps)
    elif how == "geometric":
        total **= 1 / len(maps)
    return total.astype(np.float32)
