"""Normalise: intensities comparable between scans."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atypia.preprocessing.step import Parameters, State, Step


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
        values = state.image.data[state.require_brain().data].astype(np.float64)
        low, high = np.percentile(values, self.percentiles)
        values = values.clip(low, high)
        # A constant brain has nothing to scale by; it stays constant at zero.
        return {"mean": float(values.mean()), "sd": float(values.std()) or 1.0}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Scale, cut, and zero what is outside the brain."""
        brain = state.require_brain()
        data = (state.image.data.astype(np.float32) - parameters["mean"]) / parameters["sd"]
        data = np.where(brain.data, data.clip(-self.limit, self.limit), 0).astype(np.float32)
        return State(state.image.with_data(data), brain)

    def restore_intensity(self, data: NDArray[Any], parameters: Parameters) -> NDArray[Any]:
        """Go from standard deviations back to the scan's own units."""
        return np.asarray(data * parameters["sd"] + parameters["mean"])
