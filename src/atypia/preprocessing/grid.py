"""Resample: put the scan onto the working grid that all scans of a plan share."""

from __future__ import annotations

from typing import Literal

import numpy as np

from atypia.errors import InputError
from atypia.preprocessing.step import Parameters, State, Step
from atypia.resampling import resample
from atypia.volume import Geometry


class Resample(Step):
    """Interpolate image and brain mask onto one grid."""

    step: Literal["resample"] = "resample"
    shape: tuple[int, int, int]
    """Number of voxels along (X, Y, Z)."""
    affine: tuple[tuple[float, float, float, float], ...]
    """4x4, voxel to world mm, RAS+."""

    @property
    def grid(self) -> Geometry:
        """The working grid."""
        return Geometry(self.shape, np.array(self.affine))

    def apply(self, state: State, parameters: Parameters) -> State:
        """Interpolate; see `atypia.resampling.resample`.

        Raises
        ------
        InputError
            No voxel of the brain lies on the grid.
        """
        brain = resample(state.require_brain(), self.grid)
        if not brain.data.any():
            raise InputError(
                state.image.source,
                "no part of the brain lies in the model's field of view",
                "Use a model with alignment to the template, or mend the scan's affine",
            )
        return State(resample(state.image, self.grid), brain)
