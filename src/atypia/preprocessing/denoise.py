"""Denoise: noise smoothed along the edges, not across them, by curvature flow (SimpleITK)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from atypia.preprocessing.itk import to_itk
from atypia.preprocessing.step import Parameters, State, Step
from atypia.volume import Volume


class Denoise(Step):
    """Curvature flow in units of voxels; what it removes does not come back in a restoration.

    Source: Sethian, Level Set Methods and Fast Marching Methods, 1999; with these values it is
    part of the published cDDPM and MHD.
    """

    step: Literal["denoise"] = "denoise"
    time_step: float = Field(0.125, gt=0, le=0.125)
    """Larger ones are unstable in three dimensions."""
    iterations: int = Field(3, ge=1)

    def apply(self, state: State, parameters: Parameters) -> State:
        """Smooth the whole image."""
        import SimpleITK as sitk

        method = sitk.CurvatureFlowImageFilter()
        method.SetTimeStep(self.time_step)
        method.SetNumberOfIterations(self.iterations)
        smooth = method.Execute(to_itk(Volume(state.image.data)))
        data = np.ascontiguousarray(sitk.GetArrayFromImage(smooth).T, np.float32)
        return State(state.image.with_data(data), state.brain)
