"""Plan: the steps of preprocessing as data; made once from a cohort, stored with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from atypia import files
from atypia.cohort.scan import Cohort
from atypia.errors import InputError, SettingsError
from atypia.preprocessing.align import Align
from atypia.preprocessing.bias import CorrectBias
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.classes import Quantise
from atypia.preprocessing.denoise import Denoise
from atypia.preprocessing.grid import CropPad, Downsample, Reorient, Resample
from atypia.preprocessing.intensity import IterMaskRange, Normalise, NyulLandmarks, ScaleRange
from atypia.preprocessing.step import Parameters, State
from atypia.resampling import resample
from atypia.settings import Settings
from atypia.volume import Geometry, Volume

AnyStep = Annotated[
    Reorient
    | FindBrain
    | CorrectBias
    | Align
    | Resample
    | CropPad
    | Downsample
    | Denoise
    | Normalise
    | ScaleRange
    | IterMaskRange
    | NyulLandmarks
    | Quantise,
    Field(discriminator="step"),
]

BEFORE_THE_BRAIN = (Reorient, CropPad, Denoise)
"""Steps that need no brain mask and may stand before `FindBrain`."""


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

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        kinds = [type(step) for step in self.steps]
        if kinds.count(FindBrain) != 1 or Resample not in kinds:
            raise ValueError("a plan needs one find_brain, and a resample onto the working grid")
        early = self.steps[: kinds.index(FindBrain)]
        if wrong := [step.step for step in early if not isinstance(step, BEFORE_THE_BRAIN)]:
            raise ValueError(f"{', '.join(wrong)} must come after find_brain")
        return self

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a plan from a JSON file.

        Raises
        ------
        InputError
            The file is missing, is not JSON, or is no plan.
        """
        content = files.read_json(path)
        if not isinstance(content, dict):
            raise InputError(path, "is no plan", 'Write {"steps": [...]}')
        try:
            return cls.make(content)
        except SettingsError as error:
            raise InputError(path, f"is no plan ({error.problem})", error.remedy) from error

    def write(self, path: str | Path) -> None:
        """Write the plan as a JSON file."""
        files.write_json(path, self.to_json())

    @property
    def grid(self) -> Geometry:
        """The working grid."""
        grid: Geometry | None = None
        for step in self.steps:
            grid = step.grid_after(grid)
        assert grid is not None, "there is a resample"
        return grid

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
        parameters: list[Parameters] = []
        native_brain = brain
        for step in self.steps:
            if step.must_learn:
                raise SettingsError(
                    f"step {step.step}",
                    "has not learnt from a cohort yet",
                    "Use `plan.learn(cohort)`",
                )
            measured = step.measure(state)
            state = step.apply(state, measured)
            parameters.append(measured)
            if isinstance(step, FindBrain):
                # Turning or cutting the grid before it does not move the brain in the world.
                native_brain = resample(state.require_brain(), image.geometry)
        found = state.require_brain()
        data = np.where(found.data, state.image.data, 0).astype(np.float32, copy=False)
        return Prepared(
            state.image.with_data(data), found, native_brain or found, tuple(parameters)
        )

    def learn(self, cohort: Cohort, modality: str | None = None) -> Self:
        """Let the steps learn what they must know of a cohort, in order.

        Every scan is read and brought up to that step, once a step. A plan that has nothing to
        learn reads no scan.
        """
        steps = list(self.steps)
        for place, step in enumerate(steps):
            if step.must_learn:
                gathered = [
                    step.gather(_state_before(steps[:place], scan.image(modality), scan.brain()))
                    for scan in cohort
                ]
                steps[place] = step.learnt(gathered)
        return type(self)(steps=tuple(steps))

    def world_of(self, prepared: Prepared) -> NDArray[np.float64]:
        """Give the 4x4 matrix that took the scan's world (mm, RAS+) to that of the working grid."""
        world = np.eye(4)
        for step, measured in zip(self.steps, prepared.parameters, strict=True):
            world = step.world(measured) @ world
        return world

    def to_native(self, volume: Volume, prepared: Prepared) -> Volume:
        """Bring a volume from the working grid back onto the scan's own grid.

        One interpolation, whatever the number of steps. Beyond the working field of view, and
        for scores outside the brain, the result is zero.
        """
        native = prepared.native_brain
        back = np.linalg.inv(self.world_of(prepared))
        moved = Volume(volume.data, back @ volume.affine, volume.kind, native.source)
        result = resample(moved, native.geometry)
        data = result.data
        if volume.kind in ("score", "mask"):
            data = np.where(native.data, data, np.zeros((), data.dtype))
        return Volume(data, native.affine, volume.kind, native.source, native.space)

    def restore_intensity(self, data: NDArray[Any], prepared: Prepared) -> NDArray[Any]:
        """Give normalised intensities in the scan's own units."""
        pairs = list(zip(self.steps, prepared.parameters, strict=True))
        affine = prepared.image.affine
        for step, measured in reversed(pairs):
            grid = Geometry(prepared.image.shape, affine)
            data = step.restore_intensity(data, measured, grid)
            affine = np.linalg.inv(step.world(measured)) @ affine
        return data


def _state_before(steps: Sequence[AnyStep], image: Volume, brain: Volume | None) -> State:
    state = State(image, brain)
    for step in steps:
        state = step.apply(state, step.measure(state))
    return state
