"""Align: rigid or affine registration to a template brain, by SimpleITK, or a shift onto it.

Only the affine of the scan changes, no voxel is interpolated: the resampling that follows does
all geometry in one interpolation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from atypia import files, io
from atypia.errors import InputError
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.itk import LPS_FROM_RAS, to_itk
from atypia.preprocessing.step import Parameters, State, Step
from atypia.resampling import box_of, grid_around, resample
from atypia.templates import mni152
from atypia.volume import ALIGNED_SPACE, MNI152_SPACE, Volume

THINNEST_VOXELS = 4
"""Voxels of the registration's grid that a brain must span along each axis, as ITK asks."""


MNI152 = "mni152"
"""Name of the template that comes with nilearn."""


class Align(Step):
    """Move the scan onto the template brain, by registration (Mattes mutual information) or not."""

    step: Literal["align"] = "align"
    transform: Literal["affine", "rigid", "centre"] = "affine"
    """Rigid keeps sizes; affine also scales and shears; centre only puts the middle of the brain's
    box onto that of the template's, without registration."""
    spacing_mm: float = 4.0
    """Grid on which the registration is computed, mm."""
    template: str = MNI152
    """`mni152`, or the path of another brain, such as SRI24."""
    template_digest: str = ""
    """Digest of the template's file, noted by itself: a plan belongs to the template it was made
    with."""

    @model_validator(mode="before")
    @classmethod
    def _note_the_template(cls, values: Any) -> Any:
        if isinstance(values, dict):
            template = values.get("template", MNI152)
            if template != MNI152 and not values.get("template_digest"):
                values = {**values, "template_digest": _digest_of(str(template))}
        return values

    def brain(self) -> tuple[Volume, Volume]:
        """Read the template's image and brain mask.

        Raises
        ------
        InputError
            The file is missing, or is not the one that the plan was made with.
        """
        return template_brain(self.template, self.template_digest)

    def measure(self, state: State) -> Parameters:
        """Find the 4x4 matrix from the scan's world to the template's, both RAS+ mm."""
        brain = state.require_brain()
        if self.transform == "centre":
            matrix = np.eye(4)
            boxes = [np.mean(box_of(mask), axis=0) for mask in (brain, self.brain()[1])]
            matrix[:3, 3] = boxes[1] - boxes[0]
        else:
            template = (self.template, self.template_digest)
            matrix = register(state.image, brain, self.transform, self.spacing_mm, template)
        return {"matrix": matrix.tolist()}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Move the scan into the template's world."""
        matrix = self.world(parameters)
        brain = state.require_brain()
        registered = self.template == MNI152 and self.transform != "centre"
        space = MNI152_SPACE if registered else ALIGNED_SPACE
        return State(
            replace(state.image, affine=matrix @ state.image.affine, space=space),
            replace(brain, affine=matrix @ brain.affine, space=space),
        )

    def world(self, parameters: Parameters) -> NDArray[np.float64]:
        """Give the matrix that `measure` found."""
        return np.array(parameters["matrix"])


def register(
    image: Volume,
    brain: Volume,
    transform: Literal["affine", "rigid"],
    spacing_mm: float,
    template: tuple[str, str] = (MNI152, ""),
) -> NDArray[np.float64]:
    """Register a brain to a template.

    Start: centres of mass on each other and, for affine, sizes along the axes equalised. Then
    gradient descent on Mattes mutual information between both whole brains.

    Parameters
    ----------
    image, brain
        The scan and its brain mask.
    transform
        Rigid or affine.
    spacing_mm
        Grid on which the registration is computed.
    template
        Name and digest, see `template_brain`.

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
    fixed, fixed_brain = _template_at(spacing_mm, *template)
    start = _moments_start(brain, template_brain(*template)[1], transform)
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
        method.Execute(to_itk(fixed), to_itk(moving))
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


def template_brain(template: str = MNI152, digest: str = "") -> tuple[Volume, Volume]:
    """Give image and brain mask of a template: `mni152`, or the path of an image of a brain."""
    if template == MNI152:
        whole = mni152()
        return whole.t1w, whole.brain
    if _digest_of(template) != digest:
        raise InputError(
            template, "is not the template that the plan was made with", "Put that file back"
        )
    return _read_template(template, digest)


@cache
def _read_template(path: str, digest: str) -> tuple[Volume, Volume]:
    state = State(io.read(path))
    find = FindBrain()
    state = find.apply(state, find.measure(state))
    return state.image, state.require_brain()


def _digest_of(path: str) -> str:
    try:
        return files.digest(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            path, "this template cannot be read", f"Name an image file, or {MNI152}"
        ) from error


@cache
def _template_at(spacing_mm: float, template: str, digest: str) -> tuple[Volume, Volume]:
    image, brain = template_brain(template, digest)
    target = grid_around(*box_of(brain), spacing_mm)
    inside = resample(brain, target)
    image = resample(image, target)
    if template != MNI152:
        image = image.with_data(np.where(inside.data, image.data, 0))
    return image, inside


def _moments_start(brain: Volume, template: Volume, transform: str) -> NDArray[np.float64]:
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
