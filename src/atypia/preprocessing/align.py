"""Align: rigid or affine registration to the template brain, by SimpleITK.

Only the affine of the scan changes, no voxel is interpolated: the resampling that follows does
all geometry in one interpolation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atypia.errors import InputError
from atypia.preprocessing.step import Parameters, State, Step
from atypia.resampling import box_of, grid_around, resample
from atypia.templates import mni152
from atypia.volume import Volume

# ITK's world has x to the left and y to the back.
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

THINNEST_VOXELS = 4
"""Voxels of the registration's grid that a brain must span along each axis, as ITK asks."""


class Align(Step):
    """Register the scan to the MNI152 T1w brain (Mattes mutual information)."""

    step: Literal["align"] = "align"
    transform: Literal["affine", "rigid"] = "affine"
    """Rigid keeps sizes; affine also scales and shears."""
    spacing_mm: float = 4.0
    """Grid on which the registration is computed, mm."""

    def measure(self, state: State) -> Parameters:
        """Find the 4x4 matrix from the scan's world to the template's, both RAS+ mm."""
        matrix = register(state.image, state.require_brain(), self.transform, self.spacing_mm)
        return {"matrix": matrix.tolist()}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Move the scan into the template's world."""
        matrix = self.world(parameters)
        brain = state.require_brain()
        return State(
            replace(state.image, affine=matrix @ state.image.affine, space=4),
            replace(brain, affine=matrix @ brain.affine, space=4),
        )

    def world(self, parameters: Parameters) -> NDArray[np.float64]:
        """Give the matrix that `measure` found."""
        return np.array(parameters["matrix"])


def register(
    image: Volume, brain: Volume, transform: Literal["affine", "rigid"], spacing_mm: float
) -> NDArray[np.float64]:
    """Register a brain to the template.

    Start: centres of mass on each other and, for affine, sizes along the axes equalised. Then
    gradient descent on Mattes mutual information between both whole brains.

    Returns
    -------
    numpy.ndarray
        4x4, world of `image` to world of the template, RAS+ mm.

    Raises
    ------
    InputError
        The brain is too thin, or the registration fails.
    """
    import SimpleITK as sitk

    remedy = "Check the brain mask, or use a model without alignment"
    low, high = box_of(brain)
    if (high - low).min() < THINNEST_VOXELS * spacing_mm:
        raise InputError(image.source, "its brain is too thin to be registered", remedy)
    fixed, fixed_brain = _template_at(spacing_mm)
    start = _moments_start(brain, transform)
    moved = replace(image, affine=start @ image.affine)
    moved_brain = replace(brain, affine=start @ brain.affine)
    low, high = box_of(moved_brain)
    at = grid_around(low, high, spacing_mm)
    moving_brain = resample(moved_brain, at)
    moving = resample(moved, at)
    moving = moving.with_data(np.where(moving_brain.data, moving.data, 0))

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.01, numberOfIterations=80, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([spacing_mm, 0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetGlobalDefaultNumberOfThreads(1)
    initial: Any = sitk.AffineTransform(3) if transform == "affine" else sitk.Euler3DTransform()
    centre = LPS_FROM_RAS[:3, :3] @ _centre(fixed_brain)
    initial.SetCenter(centre.tolist())
    method.SetInitialTransform(initial, inPlace=True)
    try:
        method.Execute(_itk(fixed), _itk(moving))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise InputError(
            image.source, f"cannot be registered to the template ({reason})", remedy
        ) from error
    # ITK's transform takes template points to scan points; ours goes the other way.
    refine = np.eye(4)
    refine[:3, :3] = np.array(initial.GetMatrix()).reshape(3, 3)
    refine[:3, 3] = np.array(initial.TransformPoint([0.0, 0.0, 0.0]))
    refine = LPS_FROM_RAS @ np.linalg.inv(refine) @ LPS_FROM_RAS
    return np.asarray(refine @ start)


@cache
def _template_at(spacing_mm: float) -> tuple[Volume, Volume]:
    template = mni152()
    target = grid_around(*box_of(template.brain), spacing_mm)
    return resample(template.t1w, target), resample(template.brain, target)


def _moments_start(brain: Volume, transform: str) -> NDArray[np.float64]:
    template = mni152().brain
    centre, target = _centre(brain), _centre(template)
    start = np.eye(4)
    if transform == "affine":
        start[:3, :3] = np.diag(_spread(template) / _spread(brain))
    start[:3, 3] = target - start[:3, :3] @ centre
    return start


def _points(mask: Volume) -> NDArray[np.float64]:
    inside = np.argwhere(mask.data)
    return mask.geometry.world(inside[:: max(1, len(inside) // 50_000)])


def _centre(mask: Volume) -> NDArray[np.float64]:
    return np.asarray(_points(mask).mean(axis=0))


def _spread(mask: Volume) -> NDArray[np.float64]:
    return np.asarray(_points(mask).std(axis=0))


def _itk(volume: Volume) -> Any:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.astype(np.float32).T))
    affine = LPS_FROM_RAS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image
