"""Steps that make intensities comparable between scans; all leave zero outside the brain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from atypia.preprocessing.step import Parameters, State, Step
from atypia.volume import Array, Geometry


class Normalise(Step):
    """Robust z-score within the brain; zero outside.

    Mean and standard deviation are those of the brain's intensities after clipping them to two
    percentiles, so that a few extreme voxels do not rescale the whole brain.
    """

    step: Literal["normalise"] = "normalise"
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Brain percentiles to which intensities are clipped before mean and deviation are taken."""
    limit: float = 5.0
    """Normalised intensities are cut at plus and minus this many standard deviations."""

    def measure(self, state: State) -> Parameters:
        """Measure mean and standard deviation of the clipped brain intensities."""
        values = _brain_values(state)
        low, high = np.percentile(values, self.percentiles)
        values = values.clip(low, high)
        # A constant brain has nothing to scale by; it stays constant at zero.
        return {"mean": float(values.mean()), "sd": float(values.std()) or 1.0}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Scale, cut, and zero what is outside the brain."""
        data = (state.image.data.astype(np.float32) - parameters["mean"]) / parameters["sd"]
        return _in_brain(state, data.clip(-self.limit, self.limit))

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Go from standard deviations back to the scan's own units."""
        return np.asarray(data * parameters["sd"] + parameters["mean"])


class ScaleRange(Step):
    """Map two percentiles of the brain to 0 and 1 and cut beyond; (0, 100) is minimum to maximum.

    What was cut comes back as the percentile in a restoration.
    """

    step: Literal["scale_range"] = "scale_range"
    percentiles: tuple[float, float] = (1.0, 99.0)
    """Of the brain's intensities."""

    def measure(self, state: State) -> Parameters:
        """Measure the two percentiles."""
        low, high = np.percentile(_brain_values(state), self.percentiles)
        return {"low": float(low), "high": float(high)}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Scale, cut, and zero what is outside the brain."""
        width = parameters["high"] - parameters["low"] or 1.0
        data = (state.image.data.astype(np.float32) - parameters["low"]) / width
        return _in_brain(state, data.clip(0, 1))

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Go from 0..1 back to the scan's own units."""
        width = parameters["high"] - parameters["low"] or 1.0
        return np.asarray(data * width + parameters["low"])


class IterMaskRange(Step):
    """The range mapping of IterMask2 (https://arxiv.org/abs/2406.02422), uncut.

    With n voxels in the brain, u is the intensity above which `high_share` of n voxels lie, l that
    below which `low_share` of n lie, both among all voxels of the volume; then
    x <- 6 (x - (u - l) / 2) / (u - l). In a stripped scan l is the background; where that is 0,
    the brain spans about -3 to 3.
    """

    step: Literal["itermask_range"] = "itermask_range"
    high_share: float = Field(0.1, gt=0, lt=1)
    """Share of brain voxels above the upper bound."""
    low_share: float = Field(0.02, gt=0, lt=1)
    """Share of as many voxels as the brain has below the lower bound."""
    centre: Literal["published", "middle"] = "published"
    """published: (u - l) / 2; middle: (u + l) / 2, which sends u to 3 and l to -3 whatever l is."""

    def measure(self, state: State) -> Parameters:
        """Measure scale and centre on the stripped volume."""
        brain = state.require_brain().data
        values = np.where(brain, state.image.data, 0).astype(np.float64).ravel()
        count = brain.sum() / values.size
        low, high = np.quantile(values, (self.low_share * count, 1 - self.high_share * count))
        middle = (high - low) / 2 if self.centre == "published" else (high + low) / 2
        return {"centre": float(middle), "scale": float(high - low) / 6 or 1.0}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Map, and zero what is outside the brain."""
        data = state.image.data.astype(np.float32) - parameters["centre"]
        return _in_brain(state, data / parameters["scale"])

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Go back to the scan's own units."""
        return np.asarray(data * parameters["scale"] + parameters["centre"])


class NyulLandmarks(Step):
    """Bend the histogram so that its percentiles lie on those of a healthy cohort.

    Source: Nyul, Udupa and Zhang, New variants of a method of MRI scale standardization, IEEE TMI
    19 (2000). The scale is learnt from the cohort: each scan's landmarks are sent to 0..100 by its
    first and last one, then averaged.
    """

    step: Literal["nyul_landmarks"] = "nyul_landmarks"
    percentiles: tuple[float, ...] = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
    """Of the brain's intensities, rising."""
    scale: tuple[float, ...] = ()
    """Where the landmarks go, learnt when the plan is made; empty until then."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.percentiles) < 2 or (np.diff(self.percentiles) <= 0).any():
            raise ValueError("percentiles must be two or more that rise")
        if self.scale and len(self.scale) != len(self.percentiles):
            raise ValueError("scale needs one value for each percentile")
        return self

    @property
    def must_learn(self) -> bool:
        """Whether the scale is still to be learnt."""
        return not self.scale

    def gather(self, state: State) -> NDArray[Any]:
        """Give the scan's landmarks on its own scale of 0 to 100."""
        marks = np.percentile(_brain_values(state), self.percentiles)
        return np.asarray((marks - marks[0]) / ((marks[-1] - marks[0]) or 1.0) * 100)

    def learnt(self, gathered: Sequence[NDArray[Any]]) -> Self:
        """Average the landmarks of the cohort."""
        scale = np.mean(gathered, axis=0)
        return self.but(scale=tuple(float(v) for v in scale))

    def measure(self, state: State) -> Parameters:
        """Measure the scan's landmarks."""
        marks = np.percentile(_brain_values(state), self.percentiles)
        return {"landmarks": marks.tolist()}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Map piece by piece, going on straight beyond the ends; zero what is outside the brain."""
        data = _bend(state.image.data, parameters["landmarks"], self.scale)
        return _in_brain(state, data)

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Go from the cohort's scale back to the scan's own units."""
        return _bend(data, self.scale, parameters["landmarks"])


def _bend(data: Array, source: Sequence[float], target: Sequence[float]) -> Array:
    """Map piecewise linearly, straight on beyond the ends; landmarks that coincide count once."""
    kept = np.concatenate([[True], np.diff(source) > 0])
    old, new = np.asarray(source, np.float64)[kept], np.asarray(target, np.float64)[kept]
    if len(old) == 1:
        return np.full(data.shape, new[0])
    piece = np.searchsorted(old[1:-1], data, side="right")
    slope = np.diff(new) / np.diff(old)
    return np.asarray(new[piece] + (data - old[piece]) * slope[piece])


def _brain_values(state: State) -> NDArray[np.float64]:
    return np.asarray(state.image.data[state.require_brain().data].astype(np.float64))


def _in_brain(state: State, data: Array) -> State:
    """Put intensities onto the scan's grid, float32, zero outside the brain."""
    brain = state.require_brain()
    kept = np.where(brain.data, data, 0).astype(np.float32)
    return State(state.image.with_data(kept), brain)
