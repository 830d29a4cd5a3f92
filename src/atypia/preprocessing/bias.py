"""CorrectBias: the slow shading of the coil removed by N4, as SimpleITK has it.

Source: Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29 (2010).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atypia.errors import InputError
from atypia.preprocessing.itk import to_itk
from atypia.preprocessing.step import Parameters, State, Step
from atypia.resampling import box_of_voxels
from atypia.volume import Array, Geometry, Volume

STORED_MM = 12.0
"""Distance of the points at which the field is kept; N4's finest B-splines are about 20 mm wide."""


class CorrectBias(Step):
    """Divide by N4's bias field, whose geometric mean over the brain is one."""

    step: Literal["correct_bias"] = "correct_bias"
    shrink: int = Field(4, ge=1)
    """The field is found on a grid this many times coarser than the finest axis of the scan."""
    iterations: tuple[int, ...] = Field((50, 50, 50, 50), min_length=1)
    """At most so many at each level; every level halves the width of the field's B-splines."""
    tolerance: float = Field(1e-3, gt=0)
    """A level ends when the field changes less than this."""

    def measure(self, state: State) -> Parameters:
        """Find the logarithm of the field, on a coarse grid round the brain.

        Raises
        ------
        InputError
            No positive intensity in the brain, or N4 fails.
        """
        image, brain = state.image, state.require_brain()
        box = box_of_voxels(brain.data, margin=1)
        data = image.data[box].astype(np.float32)
        # N4 works on logarithms.
        inside = brain.data[box] & (data > 0)
        if not inside.any():
            raise InputError(
                image.source,
                "has no positive intensity in the brain, which N4 needs",
                "Use a plan without correct_bias",
            )
        affine = image.affine.copy()
        affine[:3, 3] = image.geometry.world([part.start for part in box])
        factors = [
            max(1, round(self.shrink * min(image.spacing_mm) / spacing))
            for spacing in image.spacing_mm
        ]
        # Only sizes matter to N4; alignment may have sheared the axes, which ITK does not like.
        straight = Volume(data, np.diag([*image.spacing_mm, 1.0]), source=image.source)
        field, to_box = self._field(straight, inside, factors)
        return {"log_field": np.round(field, 4).tolist(), "affine": (affine @ to_box).tolist()}

    def _field(
        self, image: Volume, inside: Array, factors: list[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Run N4; give the logarithm of the field on a coarse grid, and that grid in voxels."""
        import SimpleITK as sitk
        from scipy import ndimage

        small = sitk.Shrink(to_itk(image), factors)
        mask = sitk.Shrink(to_itk(image.with_data(inside, "mask")), factors)
        method = sitk.N4BiasFieldCorrectionImageFilter()
        method.SetMaximumNumberOfIterations(self.iterations)
        method.SetConvergenceThreshold(self.tolerance)
        method.SetNumberOfThreads(1)
        try:
            method.Execute(small, mask)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise InputError(
                image.source, f"N4 fails ({reason})", "Use a plan without correct_bias"
            ) from error
        field = sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(small)).T.astype(np.float64)
        field -= field[sitk.GetArrayViewFromImage(mask).T > 0].mean()
        shape = np.array(field.shape)
        spacing = np.array(image.spacing_mm) * factors
        count = np.ceil((shape - 1) * spacing / STORED_MM).astype(int) + 1
        step = (shape - 1) / np.maximum(count - 1, 1)
        points = np.meshgrid(
            *[np.arange(n) * s for n, s in zip(count, step, strict=True)], indexing="ij"
        )
        coarse = ndimage.map_coordinates(field, points, order=1, mode="nearest")
        # A shrunken voxel covers `factor` voxels; its centre lies in the middle of them.
        to_image = np.diag([*np.where(count > 1, step * factors, 1.0), 1.0])
        to_image[:3, 3] = (np.array(factors) - 1) / 2
        return coarse, to_image

    def apply(self, state: State, parameters: Parameters) -> State:
        """Divide by the field; beyond the brain's box it goes on as at its edge."""
        field = _field_on(state.image.geometry, parameters)
        data = state.image.data.astype(np.float32) / field
        return State(state.image.with_data(data), state.require_brain())

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Put the shading back; without `grid` the intensities stay corrected."""
        return data if grid is None else np.asarray(data * _field_on(grid, parameters))


def _field_on(grid: Geometry, parameters: Parameters) -> Array:
    """Evaluate the field on a grid by cubic B-splines, float32."""
    from scipy import ndimage

    log_field = np.array(parameters["log_field"], np.float32)
    matrix = np.linalg.inv(np.array(parameters["affine"])) @ grid.affine
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    if np.allclose(linear, np.diag(np.diagonal(linear)), atol=1e-6):
        # Without a turn it goes axis by axis, as three products of small matrices.
        for axis, size in enumerate(grid.shape):
            places = [np.arange(size) * linear[axis, axis] + shift[axis]]
            weights = [
                ndimage.map_coordinates(unit, places, np.float32, order=3, mode="nearest")
                for unit in np.eye(log_field.shape[axis], dtype=np.float32)
            ]
            log_field = np.moveaxis(np.tensordot(weights, log_field, (0, axis)), 0, axis)
    else:
        log_field = ndimage.affine_transform(
            log_field, linear, shift, grid.shape, np.float32, order=3, mode="nearest"
        )
    return np.asarray(np.exp(log_field))
