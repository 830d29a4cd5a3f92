"""From patches back to voxels: patches put together to a volume, and their scores to a score map.

Where patches overlap, a voxel gets a mean over those that cover it, or an extreme.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from atypia.errors import InputError, unknown_name
from atypia.patches.extract import checked_numbers, first_voxels
from atypia.patches.grid import PatchGrid
from atypia.patches.windows import Blending, Matrices, spread, weights, window

Scores = NDArray[np.float32]
Aggregation = Literal["mean", "max", "min"]

PIECE = 2**18
"""Voxels of patches that are added at once; more no longer fit into a processor's cache."""


class Assembler:
    """Put patches together, chunk after chunk, so that never all of them are in memory.

    Parameters
    ----------
    grid
        Where the patches lie.
    blending
        How much the voxels of a patch count: all alike, or most in its middle.
    aggregation
        "mean" is the weighted mean over the patches that cover a voxel, the inverse of `extract`;
        "sum" is the weighted sum.

    Raises
    ------
    SettingsError
        An unknown blending or aggregation.
    """

    def __init__(
        self,
        grid: PatchGrid,
        blending: Blending = "uniform",
        aggregation: Literal["mean", "sum"] = "mean",
    ) -> None:
        if aggregation not in ("mean", "sum"):
            raise unknown_name("aggregation", aggregation, ("mean", "sum"))
        x, y, z = (window(size, blending) for size in grid.size)
        self.grid, self.blending, self.aggregation = grid, blending, aggregation
        self._window = torch.from_numpy(x[:, None, None] * y[:, None] * z).float()
        self._times = np.zeros(grid.count, np.float32)
        self._sums: Tensor | None = None

    def add(self, numbers: ArrayLike | Tensor, patches: Tensor) -> None:
        """Add some of the patches.

        Parameters
        ----------
        numbers
            `(N,)`; a patch that is added twice counts twice.
        patches
            `(N, C, px, py, pz)`, with as many channels each time.

        Raises
        ------
        InputError
            Patches of another number, size or number of channels.
        SettingsError
            Numbers that no patch has, or a mask instead of numbers.
        """
        chosen = checked_numbers(self.grid, numbers)
        if (
            patches.ndim != 5
            or len(patches) != len(chosen)
            or tuple(patches.shape[2:]) != self.grid.size
        ):
            problem = f"{tuple(patches.shape)} is not {len(chosen)} patches of {self.grid.size}"
            raise InputError("patches", problem, "Give (N, C, px, py, pz), one for each number")
        channels = patches.shape[1]
        if self._sums is None:
            dtype = torch.float64 if patches.dtype == torch.float64 else torch.float32
            self._sums = patches.new_zeros(channels, int(np.prod(self.grid.shape)), dtype=dtype)
            self._window = self._window.to(self._sums)
        if channels != len(self._sums):
            problem = f"{channels} channels where the first ones have {len(self._sums)}"
            raise InputError("patches", problem, "Assemble them apart")
        lines = torch.from_numpy(first_voxels(self.grid, chosen)).to(patches.device)
        offsets = _voxels_of_a_patch(self.grid).to(patches.device)
        step = max(PIECE // (channels * len(offsets)), 1)
        for part, start in zip(patches.split(step), lines.split(step), strict=True):
            places = (start[:, None] + offsets).reshape(1, -1).expand(channels, -1)
            weighted = part.to(self._sums.dtype)
            if self.blending != "uniform":
                weighted = weighted * self._window
            self._sums.scatter_add_(1, places, weighted.movedim(1, 0).reshape(channels, -1))
        np.add.at(self._times, chosen, 1)

    def result(self) -> Tensor:
        """Give the volume so far, 0 where no patch was added.

        Returns
        -------
        torch.Tensor
            `(C, X, Y, Z)`, float64 where the patches are, else float32.

        Raises
        ------
        InputError
            Nothing was added, so that the number of channels is unknown.
        """
        if self._sums is None:
            raise InputError("patches", "none were added", "Add patches before the result")
        sums = self._sums.view(-1, *self.grid.shape)
        if self.aggregation == "sum":
            return sums.clone()
        times = self._times.reshape(self.grid.counts)
        total = torch.from_numpy(spread(times, weights(self.grid, self.blending))).to(sums)
        return sums / total.masked_fill_(total == 0, 1)


def assemble(
    patches: Tensor,
    grid: PatchGrid,
    blending: Blending = "uniform",
    aggregation: Literal["mean", "sum"] = "mean",
    numbers: ArrayLike | Tensor | None = None,
) -> Tensor:
    """Put patches together to a volume; with "mean" the inverse of `extract`.

    Parameters
    ----------
    patches
        `(N, C, px, py, pz)`.
    grid, blending, aggregation
        As for `Assembler`.
    numbers
        Of the patches, `(N,)`; None is all of the grid.

    Returns
    -------
    torch.Tensor
        `(C, X, Y, Z)`, 0 where no patch is.

    Raises
    ------
    InputError, SettingsError
        As `Assembler`.
    """
    assembler = Assembler(grid, blending, aggregation)
    assembler.add(checked_numbers(grid, numbers), patches)
    return assembler.result()


def spread_scores(
    scores: ArrayLike,
    grid: PatchGrid,
    aggregation: Aggregation = "mean",
    blending: Blending = "uniform",
) -> Scores:
    """Give each voxel the mean, largest or smallest score of the patches that cover it.

    Patches are boxes and windows are products, so this is done axis by axis and costs little more
    than writing the map.

    Parameters
    ----------
    scores
        `(n1, n2, n3)` as `grid.counts`, or `(N,)`; NaN leaves a patch out, e.g. outside the brain.
    grid
        Where the patches lie, in voxels.
    aggregation
        "mean", "max" or "min".
    blending
        Weights of the mean; an extreme has none.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, 0 where no patch is.

    Raises
    ------
    InputError
        Scores of another size, or infinite ones.
    SettingsError
        An unknown aggregation or blending.
    """
    values = _checked_scores(scores, grid)
    if aggregation == "mean":
        x, y, z = (_shares(matrix) for matrix in weights(grid, blending))
        return _known_mean(values, (x, y, z))
    if aggregation not in ("max", "min"):
        raise unknown_name("aggregation", aggregation, ("mean", "max", "min"))
    sign = 1 if aggregation == "max" else -1
    largest = _largest(np.where(np.isnan(values), -np.inf, sign * values), grid)
    return np.where(np.isneginf(largest), np.float32(0), sign * largest)


def interpolated_scores(scores: ArrayLike, grid: PatchGrid) -> Scores:
    """Interpolate scores linearly between the centres of patches, and hold them beyond the outer.

    A patch that stands out has its peak at its centre, where a mean over patches has a plateau.

    Parameters
    ----------
    scores
        `(n1, n2, n3)` as `grid.counts`, or `(N,)`; NaN leaves a patch out, and its neighbours count
        for it where they reach.
    grid
        Where the patches lie, in voxels.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, 0 where all neighbours are left out.

    Raises
    ------
    InputError
        Scores of another size, or infinite ones.
    """
    x, y, z = (_hats(grid, axis) for axis in range(3))
    return _known_mean(_checked_scores(scores, grid), (x, y, z))


def _voxels_of_a_patch(grid: PatchGrid) -> Tensor:
    """Give where a patch's voxels lie behind its first one, with the volume laid out as a line."""
    x, y, z = (np.arange(size, dtype=np.int64) for size in grid.size)
    rows = (x[:, None] * grid.shape[1] + y) * grid.shape[2]
    return torch.from_numpy((rows[..., None] + z).ravel())


def _checked_scores(scores: ArrayLike, grid: PatchGrid) -> Scores:
    values = np.asarray(scores, np.float32)
    if values.shape not in (grid.counts, (grid.count,)):
        problem = f"{values.shape} is neither {grid.counts} nor ({grid.count},)"
        raise InputError("scores of patches", problem, "Give one for each patch of the grid")
    if np.isinf(values).any():
        raise InputError("scores of patches", "some are infinite", "Use NaN to leave patches out")
    return values.reshape(grid.counts)


def _shares(matrix: Scores) -> Scores:
    """Let each voxel's weights along an axis add up to one, where it has any."""
    total = matrix.sum(axis=1, keepdims=True)
    return np.asarray(matrix / np.where(total > 0, total, 1))


def _hats(grid: PatchGrid, axis: int) -> Scores:
    """Give the weights of linear interpolation along an axis, voxels x patches."""
    centres = np.asarray(grid.starts[axis]) + (grid.size[axis] - 1) / 2
    # Patches that were moved back to the border may lie at one place, which they share.
    places, which, shared = np.unique(centres, return_inverse=True, return_counts=True)
    voxels = np.arange(grid.shape[axis])
    hats = np.stack([np.interp(voxels, places, peak) for peak in np.eye(len(places))], axis=1)
    return np.asarray(hats[:, which] / shared[which], np.float32)


def _known_mean(values: Scores, matrices: Matrices) -> Scores:
    """Spread scores with weights that add up to one, over those patches that have a score."""
    known = ~np.isnan(values)
    if known.all():
        return spread(values, matrices)
    total = spread(np.where(known, values, np.float32(0)), matrices)
    weight = spread(known.astype(np.float32), matrices)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def _largest(values: Scores, grid: PatchGrid) -> Scores:
    """Give the largest score of the patches that cover each voxel, -inf where there are none."""
    # The largest over a box is the largest of the largest along its axes.
    for axis, (starts, size) in enumerate(zip(grid.starts, grid.size, strict=True)):
        layers = np.moveaxis(values, axis, 0)
        found = np.full((grid.shape[axis], *layers.shape[1:]), -np.inf, np.float32)
        for start, layer in zip(starts, layers, strict=True):
            covered = found[start : start + size]
            np.maximum(covered, layer, out=covered)
        values = np.moveaxis(found, 0, axis)
    return np.ascontiguousarray(values)
