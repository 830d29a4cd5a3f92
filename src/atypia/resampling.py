"""Resampling: one interpolation between any two grids, through world coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atypia.volume import Array, Geometry, Volume


def resample(
    volume: Volume, target: Geometry, outside: float = 0.0, *, cubic: bool = False
) -> Volume:
    """Put a volume onto another grid.

    Images and scores are interpolated linearly or by cubic B-splines, after a Gaussian that
    removes what the target grid is too coarse to carry. A mask is interpolated as its share of
    each voxel and cut at one half, which keeps its volume better than the nearest voxel does.

    Parameters
    ----------
    volume
        Any grid.
    target
        The grid to fill.
    outside
        Value beyond the field of view of `volume` (masks: always outside).
    cubic
        Interpolate by cubic B-splines: sharper, but it may overshoot, so the result is cut to the
        range of `volume`. Masks are interpolated linearly all the same.

    Returns
    -------
    Volume
        On `target`; float32, or boolean for a mask.
    """
    if volume.geometry.matches(target, tolerance_mm=1e-4):
        data = volume.data if volume.kind == "mask" else volume.data.astype(np.float32)
        return Volume(data, target.affine, volume.kind, volume.source, volume.space)
    from scipy import ndimage

    source = volume.data.astype(np.float32)
    matrix = np.linalg.inv(volume.affine) @ target.affine
    # A voxel reaches half its size beyond its centre: without this rim a single slice would
    # vanish between two planes of the target. A mask's rim is empty, so that it ends half way.
    mask = volume.kind == "mask"
    source = _without_aliases(source, matrix)
    source = np.pad(source, 1, mode="constant" if mask else "edge")
    data = ndimage.affine_transform(
        source,
        matrix[:3, :3],
        matrix[:3, 3] + 1,
        output_shape=target.shape,
        output=np.float32,
        order=3 if cubic and not mask else 1,
        mode="constant",
        cval=0.0 if mask else outside,
    )
    if mask:
        data = data >= 0.5
    elif cubic:
        low, high = float(source.min()), float(source.max())
        data = data.clip(min(low, outside), max(high, outside))
    return Volume(data, target.affine, volume.kind, volume.source, volume.space)


def _without_aliases(data: Array, matrix: NDArray[np.float64]) -> Array:
    """Smooth along each source axis by how many source voxels one target step spans."""
    from scipy import ndimage

    # Steps in source voxels of one target voxel, projected on each source axis; a Gaussian of
    # full width at half maximum sqrt(step^2 - 1) voxels brings the resolution from 1 to `step`.
    steps = np.linalg.norm(matrix[:3, :3], axis=1)
    sigmas = np.sqrt(np.maximum(steps**2 - 1.0, 0.0)) / 2.355
    if sigmas.max() < 0.2:
        return data
    return np.asarray(ndimage.gaussian_filter(data, sigmas, output=np.float32, truncate=2.5))


def grid_around(
    corner_mm: NDArray[np.float64],
    opposite_mm: NDArray[np.float64],
    spacing_mm: float,
    multiple_of: int = 1,
) -> Geometry:
    """Build a RAS+ grid of isotropic voxels that covers a box in world coordinates.

    Parameters
    ----------
    corner_mm, opposite_mm
        Lowest and highest world coordinates of the box, mm.
    spacing_mm
        Edge of a voxel, mm.
    multiple_of
        Every size is rounded up to a multiple of this, evenly on both sides.
    """
    extent = np.asarray(opposite_mm, dtype=np.float64) - corner_mm
    count = np.maximum(np.ceil(extent / spacing_mm).astype(int) + 1, 1)
    count = -(-count // multiple_of) * multiple_of
    centre = np.asarray(corner_mm) + extent / 2
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = centre - (count - 1) / 2 * spacing_mm
    return Geometry((int(count[0]), int(count[1]), int(count[2])), affine)


def box_of(mask: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the lowest and highest world coordinates (mm) of the voxels inside a mask."""
    bounds = [(part.start, part.stop - 1) for part in box_of_voxels(mask.data)]
    corners = np.array(np.meshgrid(*bounds, indexing="ij")).reshape(3, -1).T
    world = mask.geometry.world(corners)
    return world.min(axis=0), world.max(axis=0)


def box_of_voxels(inside: Array, margin: int = 0) -> tuple[slice, slice, slice]:
    """Give the slices of the smallest box that holds all true voxels and a margin, in voxels."""
    parts = []
    for axis in range(3):
        found = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        end = min(int(found[-1]) + 1 + margin, inside.shape[axis])
        parts.append(slice(max(int(found[0]) - margin, 0), end))
    return parts[0], parts[1], parts[2]
