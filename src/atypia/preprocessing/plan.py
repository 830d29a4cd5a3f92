"""Plan: the steps of preprocessing as data; made once from a cohort, stored with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atypia.cohort.scan import Cohort
from atypia.preprocessing.align import Align
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.grid import Resample
from atypia.preprocessing.intensity import Normalise
from atypia.preprocessing.step import Parameters, State
from atypia.resampling import box_of, grid_around, resample
from atypia.settings import Settings
from atypia.templates import mni152
from atypia.volume import Geometry, Volume

AnyStep = Annotated[FindBrain | Align | Resample | Normalise, Field(discriminator="step")]

MARGIN_MM = 6.0
"""Room round the brains for what alignment leaves over."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the working grid.

    Parameters
    ----------
    image
        Normalised intensities, float32, zero outside the brain.
    brain
        Brain mask on the working grid.
    native_brain
        Brain mask on the scan's own grid.
    parameters
        What each step of the plan measured, in order.
    """

    image: Volume
    brain: Volume
    native_brain: Volume
    parameters: tuple[Parameters, ...]


class Plan(Settings):
    """Preprocessing as data: the same for training and for every later scan."""

    steps: tuple[AnyStep, ...]

    @property
    def grid(self) -> Geometry:
        """The working grid."""
        return next(step.grid for step in self.steps if isinstance(step, Resample))

    def apply(self, image: Volume, brain: Volume | None = None) -> Prepared:
        """Prepare one scan.

        Parameters
        ----------
        image
            The scan as read, any grid and orientation.
        brain
            Brain mask on the same grid, if there is one.
        """
        state = State(image, brain)
        parameters, native_brain = [], brain
        for step in self.steps:
            measured = step.measure(state)
            state = step.apply(state, measured)
            parameters.append(measured)
            if isinstance(step, FindBrain):
                native_brain = state.brain
        return Prepared(
            state.image,
            state.require_brain(),
            native_brain or state.require_brain(),
            tuple(parameters),
        )

    def to_native(self, volume: Volume, prepared: Prepared) -> Volume:
        """Bring a volume from the working grid back onto the scan's own grid.

        One interpolation, whatever the number of steps. Beyond the working field of view, and
        for scores outside the brain, the result is zero.
        """
        world = np.eye(4)
        for step, measured in zip(self.steps, prepared.parameters, strict=True):
            world = step.world(measured) @ world
        native = prepared.native_brain
        moved = Volume(
            volume.data, np.linalg.inv(world) @ volume.affine, volume.kind, native.source
        )
        result = resample(moved, native.geometry)
        data = result.data
        if volume.kind in ("score", "mask"):
            data = np.where(native.data, data, np.zeros((), data.dtype))
        return Volume(data, native.affine, volume.kind, native.source, native.space)

    def restore_intensity(self, data: NDArray[Any], prepared: Prepared) -> NDArray[Any]:
        """Give normalised intensities in the scan's own units."""
        pairs = list(zip(self.steps, prepared.parameters, strict=True))
        for step, measured in reversed(pairs):
            data = step.restore_intensity(data, measured)
        return data


def make_plan(
    cohort: Cohort,
    *,
    spacing_mm: float,
    align: Literal["affine", "rigid", "none"] = "affine",
    modality: str | None = None,
    multiple_of: int = 8,
) -> Plan:
    """Plan the preprocessing for a cohort.

    Parameters
    ----------
    cohort
        The training scans. They are looked at only when `align` is ``"none"``.
    spacing_mm
        Edge of a voxel of the working grid.
    align
        Registration to the MNI152 template; ``"none"`` for scans that share one space already,
        whose working grid is then the box round all their brains.
    modality
        Which images of the scans.
    multiple_of
        Every size of the working grid is a multiple of this.
    """
    find = FindBrain()
    if align == "none":
        boxes = [_brain_box(find, scan.image(modality), scan.brain()) for scan in cohort]
        low = np.min([box[0] for box in boxes], axis=0)
        high = np.max([box[1] for box in boxes], axis=0)
        aligning: tuple[AnyStep, ...] = ()
    else:
        low, high = box_of(mni152().brain)
        low, high = low - MARGIN_MM, high + MARGIN_MM
        aligning = (Align(transform=align),)
    grid = grid_around(low, high, spacing_mm, multiple_of)
    affine = tuple(tuple(float(v) for v in row) for row in grid.affine)
    onto = Resample(shape=grid.shape, affine=affine)
    return Plan(steps=(find, *aligning, onto, Normalise()))


def _brain_box(
    find: FindBrain, image: Volume, brain: Volume | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return box_of(find.apply(State(image, brain), {}).require_brain())
