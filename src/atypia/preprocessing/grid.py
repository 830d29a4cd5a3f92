"""Steps that change the grid: turn its axes, interpolate onto another, cut or pad, thin out.

None of them moves the brain in the world; `Plan.to_native` needs no more than the affines.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atypia.errors import InputError
from atypia.preprocessing.step import Parameters, State, Step
from atypia.resampling import resample
from atypia.volume import Geometry, Volume

Size = Annotated[int, Field(ge=1)]


class Reorient(Step):
    """Permute and flip the axes of the scan to right, anterior, superior (RAS+)."""

    step: Literal["reorient"] = "reorient"

    def apply(self, state: State, parameters: Parameters) -> State:
        """Move voxels, never interpolate."""
        return State(state.image.canonical(), state.brain and state.brain.canonical())


class Resample(Step):
    """Interpolate image and brain mask onto one grid, that of all scans of a plan."""

    step: Literal["resample"] = "resample"
    shape: tuple[int, int, int]
    """Number of voxels along (X, Y, Z)."""
    affine: tuple[tuple[float, float, float, float], ...]
    """4x4, voxel to world mm, RAS+."""
    interpolation: Literal["linear", "bspline"] = "linear"
    """For the image; the mask is interpolated linearly and cut at one half."""

    @property
    def grid(self) -> Geometry:
        """The working grid."""
        return Geometry(self.shape, np.array(self.affine))

    def grid_after(self, grid: Geometry | None) -> Geometry | None:
        """Give the working grid, whatever came before."""
        return self.grid

    def apply(self, state: State, parameters: Parameters) -> State:
        """Interpolate; see `atypia.resampling.resample`.

        Raises
        ------
        InputError
            No voxel of the brain lies on the grid.
        """
        brain = resample(state.require_brain(), self.grid)
        _require_in_view(brain, state.image.source)
        return State(resample(state.image, self.grid, cubic=self.interpolation == "bspline"), brain)


class CropPad(Step):
    """Cut or pad the grid to a size, evenly on both sides; zeros where there was nothing."""

    step: Literal["crop_pad"] = "crop_pad"
    shape: tuple[Size, Size, Size]
    """Number of voxels along (X, Y, Z) afterwards, such as 192, 192, 192."""

    def grid_after(self, grid: Geometry | None) -> Geometry | None:
        """Give the grid of the new size with the same centre, to half a voxel."""
        if grid is None:
            return None
        affine = grid.affine.copy()
        affine[:3, 3] = grid.world(self._start(grid.shape))
        return Geometry(self.shape, affine)

    def apply(self, state: State, parameters: Parameters) -> State:
        """Move voxels, never interpolate.

        Raises
        ------
        InputError
            No voxel of the brain is left.
        """
        brain = self._cut(state.brain) if state.brain else None
        if brain:
            _require_in_view(brain, state.image.source)
        return State(self._cut(state.image), brain)

    def _start(self, shape: tuple[int, int, int]) -> NDArray[np.int_]:
        """Give the old index of the new first voxel; negative where zeros are added."""
        return np.floor_divide(np.subtract(shape, self.shape), 2)

    def _cut(self, volume: Volume) -> Volume:
        start = self._start(volume.shape)
        data = np.zeros(self.shape, volume.data.dtype)
        low = np.maximum(start, 0)
        high = np.minimum(start + self.shape, volume.shape)
        kept = volume.data[tuple(map(slice, low, high))]
        data[tuple(map(slice, low - start, high - start))] = kept
        affine = volume.affine.copy()
        affine[:3, 3] = volume.geometry.world(start)
        return Volume(data, affine, volume.kind, volume.source, volume.space)


class Downsample(Step):
    """Make the voxels larger by a whole number, with a low-pass filter; the field of view stays."""

    step: Literal["downsample"] = "downsample"
    factor: int = Field(2, ge=1)
    """Old voxels to a new one, along each axis."""
    interpolation: Literal["linear", "bspline"] = "linear"
    """For the image; the mask is interpolated linearly and cut at one half."""

    def grid_after(self, grid: Geometry | None) -> Geometry | None:
        """Give the coarser grid: as many whole new voxels as fit, round the same centre."""
        if grid is None:
            return None
        x, y, z = (max(1, size // self.factor) for size in grid.shape)
        affine = grid.affine @ np.diag([self.factor] * 3 + [1.0])
        rest = (np.array(grid.shape) - 1 - (np.array([x, y, z]) - 1) * self.factor) / 2
        affine[:3, 3] = grid.world(rest)
        return Geometry((x, y, z), affine)

    def apply(self, state: State, parameters: Parameters) -> State:
        """Interpolate; see `atypia.resampling.resample`.

        Raises
        ------
        InputError
            No voxel of the brain is left.
        """
        grid = self.grid_after(state.image.geometry)
        assert grid is not None
        brain = resample(state.require_brain(), grid)
        _require_in_view(brain, state.image.source)
        return State(resample(state.image, grid, cubic=self.interpolation == "bspline"), brain)


def _require_in_view(brain: Volume, source: str) -> None:
    if not brain.data.any():
        raise InputError(
            source,
            "no part of the brain lies in the model's field of view",
            "Use a model with alignment to the template, or mend the scan's affine",
        )
