"""Quantise: intensities as classes, by the nearest of some centres, smoothed by a mode filter.

Source: implicit field learning (https://arxiv.org/abs/2106.05214) and its published centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from atypia.preprocessing.step import Parameters, State, Step
from atypia.volume import Array, Geometry

PUBLISHED_CENTRES = (
    0.0083, 0.1611, 0.2564, 0.3325, 0.4017, 0.4740, 0.5593, 0.6616, 0.7928, 0.9652,
)  # fmt: skip
"""Of T2w brains scaled to 0..1 between their 2nd and 98th percentile; the first is background."""

SAMPLE = 20_000
"""Voxels of each scan from which centres are learnt."""


class Quantise(Step):
    """Give each voxel the number of the nearest centre, 0 the lowest; 0 outside the brain.

    A restoration comes back as the centres' intensities: what lay between them is lost.
    """

    step: Literal["quantise"] = "quantise"
    centres: tuple[float, ...] = PUBLISHED_CENTRES
    """Rising, in the units of the step before; empty: learnt from the cohort by k-means."""
    count: int = Field(10, ge=2, le=255)
    """How many centres to learn where none are given."""
    mode_size: Literal[1, 2, 3] = 1
    """Edge of the mode filter in voxels; 1 for none. 2, as published, looks at a voxel and those
    before it, which moves the classes by half a voxel."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.centres) == 1 or (np.diff(self.centres) <= 0).any():
            raise ValueError("centres must be two or more that rise, or none")
        return self

    @property
    def must_learn(self) -> bool:
        """Whether the centres are still to be learnt."""
        return not self.centres

    def gather(self, state: State) -> NDArray[Any]:
        """Give evenly spaced ones of the brain's sorted intensities."""
        values = np.sort(state.image.data[state.require_brain().data])
        places = np.linspace(0, len(values) - 1, min(SAMPLE, len(values))).astype(int)
        return np.asarray(values[places], np.float32)

    def learnt(self, gathered: Sequence[NDArray[Any]]) -> Self:
        """Find the centres of the pooled intensities by k-means."""
        from sklearn.cluster import KMeans

        values = np.concatenate(gathered)[:, None]
        clusters = min(self.count, len(np.unique(values)))
        # Quantiles are a good start in one dimension, and need no random numbers.
        start = np.quantile(values, (np.arange(clusters) + 0.5) / clusters)[:, None]
        fitted = KMeans(clusters, init=start, n_init=1, random_state=0).fit(values)
        centres = np.unique(fitted.cluster_centers_.astype(np.float64))
        return self.but(centres=tuple(float(v) for v in centres))

    def apply(self, state: State, parameters: Parameters) -> State:
        """Quantise the brain, then take modes; see the class."""
        brain = state.require_brain()
        borders = np.add(self.centres[1:], self.centres[:-1]) / 2
        # A value half way between two centres belongs to the lower one.
        classes = np.searchsorted(borders, state.image.data).astype(np.uint8)
        classes = np.where(brain.data, classes, 0)
        if self.mode_size > 1:
            classes = mode_filter(classes, self.mode_size, len(self.centres))
        classes = np.where(brain.data, classes, 0).astype(np.float32)
        return State(state.image.with_data(classes), brain)

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Give the centres' intensities, linearly in between."""
        return np.asarray(np.interp(data, np.arange(len(self.centres)), self.centres))


def mode_filter(classes: Array, size: int, count: int) -> Array:
    """Give each voxel the commonest class in its window; of equally common ones, the lowest.

    Parameters
    ----------
    classes
        `(X, Y, Z)` integers below `count`.
    size
        Edge of the window. An even one reaches one voxel further to the front of each axis. Beyond
        the border lies class 0.
    count
        Number of classes.
    """
    from scipy import ndimage

    best = np.zeros(classes.shape, np.uint8)
    most = np.zeros(classes.shape, np.int16)
    for label in range(count):
        votes = (classes == label).astype(np.int16)
        outside = 1
        for axis in range(3):
            votes = ndimage.correlate1d(
                votes, np.ones(size), axis, mode="constant", cval=outside if label == 0 else 0
            )
            outside *= size
        better = votes > most
        best[better], most[better] = label, votes[better]
    return best
