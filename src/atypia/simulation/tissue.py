"""Tissue maps of the template brain, mended for simulation.

The template's gray and white matter maps are averages over many people. Sulci are nearly closed in
them, and a thin false rim of gray matter runs round the ventricles, where CSF and white matter mix
to a gray T1 intensity. Both are mended here with the help of the T1 image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from atypia.resampling import resample
from atypia.templates import mni152
from atypia.volume import Geometry, Volume

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

CSF_T1, GRAY_T1, WHITE_T1 = 70.0, 166.0, 222.0
"""Median T1 intensities of the pure tissues in the template (of 255)."""

FAR_MM = 24.0
"""Distances to the ventricles are not measured beyond this."""

PAD = 4
"""Empty voxels kept round the brain, so that sampling beyond it finds nothing."""


@dataclass(frozen=True, eq=False)
class TissueMaps:
    """Maps of the template, 1 mm, cropped to the brain; world space is MNI152.

    Parameters
    ----------
    brain
        1 inside the brain, 0 outside, `(X, Y, Z)` float32, as the maps below.
    gray, csf
        Shares of the tissue, each voxel's with white matter summing to `brain`.
    deep
        1 where gray matter is deep (caudate, putamen, pallidum, thalamus), 0 where it is cortex.
    texture
        What the tissue shares do not explain of the T1 image, as a fraction of white matter's.
    ventricle
        1 in the lateral and third ventricles.
    ventricle_mm
        Distance to the ventricles, at most `FAR_MM`.
    geometry
        The grid.
    """

    brain: Float
    gray: Float
    csf: Float
    deep: Float
    texture: Float
    ventricle: Float
    ventricle_mm: Float
    geometry: Geometry


@cache
def tissue_maps() -> TissueMaps:
    """Derive the maps from the template; later calls give the same object."""
    template = mni152()
    box = _padded_box(template.brain.data)
    affine = template.t1w.affine.copy()
    affine[:3, 3] = template.t1w.geometry.world([part.start for part in box])
    brain: Mask = template.brain.data[box]
    geometry = Geometry((brain.shape[0], brain.shape[1], brain.shape[2]), affine)
    t1w = template.t1w.data[box].astype(np.float32)
    share = brain.astype(np.float32)
    gray = (template.gray_matter.data[box] / 255 * share).astype(np.float32)
    white = (template.white_matter.data[box] / 255 * share).astype(np.float32)
    csf: Float = share - gray - white
    ventricle = _ventricles(csf, geometry)
    distance = _distance_to(ventricle)
    gray, csf = _without_rim(gray, csf, t1w, distance)
    gray, csf = _with_open_sulci(gray, csf, brain, t1w, distance)
    expected = CSF_T1 * csf + GRAY_T1 * gray + WHITE_T1 * (share - gray - csf)
    texture = np.clip((t1w - expected) / WHITE_T1, -0.12, 0.12) * _inner(brain)
    # Beside the ventricles it would draw a line, because the mixture there is only estimated.
    texture *= np.clip((distance - 2) / 4, 0, 1)
    return TissueMaps(
        share,
        gray,
        csf,
        _deep_region(geometry),
        texture.astype(np.float32),
        ventricle.astype(np.float32),
        distance,
        geometry,
    )


@lru_cache(maxsize=4)
def tissue_shares(
    shape: tuple[int, int, int], affine: tuple[tuple[float, ...], ...], blur_mm: float = 2.0
) -> Float:
    """Put shares of the tissues onto a grid in MNI152 world space.

    Parameters
    ----------
    shape, affine
        Of the grid.
    blur_mm
        Standard deviation of a blur, for what alignment leaves over between people.

    Returns
    -------
    float32 array
        `(4, X, Y, Z)`: white matter, cortical gray matter, deep gray matter, fluid.
    """
    from scipy import ndimage

    maps = tissue_maps()
    deep = maps.gray * maps.deep
    shares = (maps.brain - maps.gray - maps.csf, maps.gray - deep, deep, maps.csf)
    grid = Geometry(shape, np.array(affine))
    blurred = (ndimage.gaussian_filter(share, blur_mm) for share in shares)
    found = [resample(Volume(share, maps.geometry.affine), grid).data for share in blurred]
    stacked: Float = np.stack(found).astype(np.float32)
    stacked.setflags(write=False)
    return stacked


def _padded_box(brain: Mask) -> tuple[slice, slice, slice]:
    from scipy import ndimage

    found: tuple[slice, slice, slice] = ndimage.find_objects(brain.astype(np.uint8))[0]
    x, y, z = (
        slice(max(part.start - PAD, 0), min(part.stop + PAD, size))
        for part, size in zip(found, brain.shape, strict=True)
    )
    return x, y, z


def _ventricles(csf: Float, geometry: Geometry) -> Mask:
    """Find the CSF that is connected to the lateral ventricles, inside a box that holds them."""
    from scipy import ndimage

    low = np.round(geometry.voxel([-45, -58, -14])).astype(int)
    high = np.round(geometry.voxel([45, 42, 34])).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    fluid = ndimage.binary_opening(csf[box] > 0.5)
    # The cistern behind the thalami touches the third ventricle; it is no ventricle.
    middle = np.round(geometry.voxel([0, -32, 0])).astype(int) - low
    fluid[middle[0] - 13 : middle[0] + 14, : middle[1]] = False
    labels, _ = ndimage.label(fluid)
    large = np.flatnonzero(np.bincount(labels.ravel()) > 200)
    ventricle = np.zeros(geometry.shape, dtype=bool)
    ventricle[box] = np.isin(labels, large[large > 0])
    return ventricle


def _distance_to(ventricle: Mask) -> Float:
    """Measure in mm how far the ventricles are, where they are nearer than `FAR_MM`."""
    from scipy import ndimage

    found = ndimage.find_objects(ventricle.astype(np.uint8))[0]
    reach = int(FAR_MM)
    box = tuple(slice(max(part.start - reach, 0), part.stop + reach) for part in found)
    distance = np.full(ventricle.shape, FAR_MM, dtype=np.float32)
    distance[box] = np.minimum(ndimage.distance_transform_edt(~ventricle[box]), FAR_MM)
    return distance


def _without_rim(gray: Float, csf: Float, t1w: Float, ventricle_mm: Float) -> tuple[Float, Float]:
    """Turn gray sheets thinner than 5 mm next to the ventricles into white matter and CSF."""
    from scipy import ndimage

    box = _padded_box(ventricle_mm < 9)
    near = np.clip((9 - ventricle_mm[box]) / 3, 0, 1)
    # Opening removes the thin rim; growing what is left brings back the edges of the nuclei.
    opened = ndimage.grey_opening(gray[box], size=(5, 5, 5))
    rim = near * np.maximum(gray[box] - ndimage.grey_dilation(opened, size=(3, 3, 3)), 0)
    fluid = np.clip((WHITE_T1 - t1w[box]) / (WHITE_T1 - CSF_T1), 0, 1)
    gray, csf = gray.copy(), csf.copy()
    gray[box] -= rim
    csf[box] += rim * fluid
    return gray, csf


def _with_open_sulci(
    gray: Float, csf: Float, brain: Mask, t1w: Float, ventricle_mm: Float
) -> tuple[Float, Float]:
    """Let T1 intensities below gray matter's say how much CSF the cortical folds hold."""
    fluid = np.clip((GRAY_T1 - 12 - t1w) / (GRAY_T1 - 12 - CSF_T1 - 15), 0, 1) * brain
    far = np.clip((ventricle_mm - 4) / 4, 0, 1)
    opened = np.maximum(csf, fluid * far)
    rest = np.maximum(brain - csf, 1e-6)
    return (gray * (brain - opened) / rest).astype(np.float32), opened.astype(np.float32)


def _inner(brain: Mask) -> Float:
    """Fade out over the outermost millimetres, where the T1 image is cut by the mask."""
    from scipy import ndimage

    depth = ndimage.uniform_filter(brain.astype(np.float32), 5)
    return np.asarray(np.clip(2 * depth - 1, 0, 1), dtype=np.float32)


def _deep_region(geometry: Geometry) -> Float:
    """Two soft boxes that hold the basal ganglia and the thalami but not the insula."""
    axes = (
        geometry.world(np.arange(size)[:, None] * np.eye(3)[axis])[:, axis]
        for axis, size in enumerate(geometry.shape)
    )
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)

    def inside(value: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
        return np.clip(np.minimum(value - low, high - value) / 3 + 0.5, 0, 1)

    side = 31 - 0.12 * np.abs(y)
    region = inside(np.abs(x) - side, -60, 0) * inside(y, -36, 25) * inside(z, -14, 26)
    return np.asarray(np.broadcast_to(region, geometry.shape), dtype=np.float32)


@cache
def brain_box_mm() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the lowest and highest world coordinates (mm) of the template brain."""
    from scipy import ndimage

    maps = tissue_maps()
    box = ndimage.find_objects(maps.brain.astype(np.uint8))[0]
    low = maps.geometry.world([part.start for part in box])
    return low, maps.geometry.world([part.stop - 1 for part in box])
