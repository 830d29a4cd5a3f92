"""Where the patches of a volume lie: boxes of one size on a grid that is regular along each axis.

A patch has a number, which counts in X-major order: the last axis changes fastest. The patches of
a feature map are told in voxels by `scaled`, so that scores land where the features come from.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atypia.errors import SettingsError, unknown_name

Triple = tuple[int, int, int]
Numbers = NDArray[np.int64]
Border = Literal["drop", "complete"]
"""What happens to voxels behind the last full stride: left out, or covered by one more patch."""

AXES = "XYZ"


@dataclass(frozen=True)
class PatchGrid:
    """Patches of a volume.

    Parameters
    ----------
    shape
        Voxels of the volume along `(X, Y, Z)`.
    size
        Voxels of a patch along the same axes.
    starts
        First voxels of the patches along each axis, rising; a patch is a triple of them.
    """

    shape: Triple
    size: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def counts(self) -> Triple:
        """Number of patches along each axis."""
        x, y, z = self.starts
        return (len(x), len(y), len(z))

    @property
    def count(self) -> int:
        """Number of patches."""
        x, y, z = self.counts
        return x * y * z

    def corners(self) -> Numbers:
        """Give the first voxels of all patches, int64 `(N, 3)`."""
        places = np.meshgrid(*(np.asarray(s, np.int64) for s in self.starts), indexing="ij")
        return np.stack([place.ravel() for place in places], axis=1)

    def centres(self) -> NDArray[np.float64]:
        """Give the centres of all patches in voxel coordinates, `(N, 3)`; may end in one half."""
        return self.corners() + (np.asarray(self.size) - 1) / 2

    def boxes(self) -> list[tuple[slice, slice, slice]]:
        """Give the patches as slices of an `(X, Y, Z)` array."""
        x, y, z = (
            [slice(start, start + size) for start in starts]
            for starts, size in zip(self.starts, self.size, strict=True)
        )
        return list(itertools.product(x, y, z))


def patch_grid(
    shape: Triple,
    size: int | Triple,
    stride: int | Triple | None = None,
    border: Border = "complete",
) -> PatchGrid:
    """Lay patches over a volume.

    Parameters
    ----------
    shape
        Voxels of the volume along `(X, Y, Z)`.
    size
        Voxels of a patch; one number serves all axes.
    stride
        Voxels from one patch to the next; None is half a patch. Where it is larger than the patch,
        voxels between patches are left out.
    border
        With "drop" an axis of length L has floor((L - size) / stride) + 1 patches, and voxels at
        its end may belong to none; "complete" adds one that ends with the volume where needed.

    Raises
    ------
    SettingsError
        A size or stride below 1, a patch larger than the volume, or an unknown border.
    """
    if border not in ("drop", "complete"):
        raise unknown_name("border", border, ("drop", "complete"))
    lengths, sizes = _three(shape, "shape"), _three(size, "patch size")
    half = tuple(max(edge // 2, 1) for edge in sizes)
    strides = _three(half if stride is None else stride, "stride")
    for axis, length, edge in zip(AXES, lengths, sizes, strict=True):
        if edge > length:
            problem = f"larger than the volume, which has {length} voxels along {axis}"
            raise SettingsError(f"patch size {edge}", problem, "Choose smaller patches or pad")
    x, y, z = (_starts(*axis, border) for axis in zip(lengths, sizes, strides, strict=True))
    return PatchGrid(lengths, sizes, (x, y, z))


def scaled(grid: PatchGrid, factor: tuple[float, float, float], shape: Triple) -> PatchGrid:
    """Tell the patches of a feature map in voxels of the volume that it was computed from.

    Parameters
    ----------
    grid
        On the feature map.
    factor
        Voxels for each cell of the feature map along `(X, Y, Z)`, the stride of its layer.
    shape
        Of the volume. A patch that reaches over its end, as happens when the length is no multiple
        of the stride, is moved back inside; it keeps its number.

    Returns
    -------
    PatchGrid
        With as many patches; starts and sizes multiplied and rounded.

    Raises
    ------
    SettingsError
        A factor that is not positive.
    """
    if min(factor) <= 0:
        problem = "must be positive along each axis"
        raise SettingsError(f"factor {tuple(factor)}", problem, "Give the stride of the layer")
    lengths = _three(shape, "shape")
    sizes = [
        min(max(round(edge * by), 1), length)
        for edge, by, length in zip(grid.size, factor, lengths, strict=True)
    ]
    x, y, z = (
        tuple(min(round(start * by), length - edge) for start in starts)
        for starts, by, length, edge in zip(grid.starts, factor, lengths, sizes, strict=True)
    )
    return PatchGrid(lengths, (sizes[0], sizes[1], sizes[2]), (x, y, z))


def _three(value: int | tuple[int, ...], name: str) -> Triple:
    """Give a setting for all three axes."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * 3
    if len(values) != 3 or min(values) < 1 or any(v != int(v) for v in values):
        problem = "must be one or three whole numbers, at least 1"
        raise SettingsError(f"{name} {value}", problem, f"Choose another {name}")
    return (int(values[0]), int(values[1]), int(values[2]))


def _starts(length: int, size: int, stride: int, border: Border) -> tuple[int, ...]:
    starts = list(range(0, length - size + 1, stride))
    if border == "complete" and starts[-1] + size < length:
        starts.append(length - size)
    return tuple(starts)
