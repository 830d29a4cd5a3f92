"""What differs between acquisitions besides contrast: resolution, field of view, brain mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.fields import Float, smooth_noise
from atypia.volume import Volume


@dataclass(frozen=True)
class AcquisitionParameters:
    """One protocol and one brain extraction.

    Parameters
    ----------
    thickness_mm
        Of the slices; what is thinner than a voxel changes nothing.
    slice_axis
        Across which the slices lie: 0, 1 or 2.
    below_mm, above_mm
        How much of the brain's height the field of view cuts off at its bottom and at its top.
    mask_shift_mm
        By how much the brain mask is too large (negative: too small), on average.
    mask_error_mm
        Standard deviation of that, from place to place.
    rim
        Intensity of what a mask that is too large takes in, relative to the brain's own range.
    seed
        Of the mask's errors and of the rim.
    """

    thickness_mm: float
    slice_axis: int
    below_mm: float
    above_mm: float
    mask_shift_mm: float
    mask_error_mm: float
    rim: float
    seed: int


def sample_acquisition(rng: np.random.Generator) -> AcquisitionParameters:
    """Draw a protocol: half of them isotropic, the others with slices of up to 6 mm."""
    thick, low, high, poor = rng.random(4)
    return AcquisitionParameters(
        thickness_mm=float(rng.uniform(2, 6)) if thick < 0.5 else 1.0,
        slice_axis=int(rng.choice([2, 2, 0, 1])),
        below_mm=float(rng.uniform(0, 30)) if low < 0.25 else 0.0,
        above_mm=float(rng.uniform(0, 15)) if high < 0.15 else 0.0,
        mask_shift_mm=float(rng.normal(0, 0.8)) if poor < 0.6 else 0.0,
        mask_error_mm=float(rng.uniform(0.3, 2.0)) if poor < 0.6 else 0.0,
        rim=float(rng.uniform(0, 1.2)),
        seed=int(rng.integers(2**31)),
    )


def acquire(
    image: Volume, brain: Volume, parameters: AcquisitionParameters
) -> tuple[Volume, Volume]:
    """Make the image and brain mask that a protocol gives of a scan.

    Parameters
    ----------
    image, brain
        On an axis-aligned RAS+ grid; the image is zero outside the brain.
    parameters
        From `sample_acquisition`.

    Returns
    -------
    tuple of Volume
        Image and brain mask on the same grid; the image is zero outside the mask.
    """
    rng = np.random.default_rng(parameters.seed)
    data = np.asarray(image.data, np.float32)
    mask = _with_errors(brain, parameters, rng)
    values = data[brain.data]
    if values.size and (mask & ~brain.data).any():
        low, high = np.percentile(values, (1, 99))
        level = low + parameters.rim * (high - low)
        rim = level * np.exp(0.3 * smooth_noise(rng, 8.0, image.geometry))
        data = np.where(mask & ~brain.data, rim, data)
    data = _sliced(np.where(mask, data, 0), image, parameters)
    mask &= _seen(mask, image, parameters)
    data = np.where(mask, np.maximum(data, 1e-4), 0).astype(np.float32)
    return image.with_data(data), replace(brain, data=mask)


def _with_errors(
    brain: Volume, parameters: AcquisitionParameters, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Move the border of a mask to and fro."""
    if not (parameters.mask_shift_mm or parameters.mask_error_mm):
        return np.array(brain.data)
    from scipy import ndimage

    spacing = brain.geometry.spacing_mm
    outside = ndimage.distance_transform_edt(~brain.data, spacing)
    inside = ndimage.distance_transform_edt(brain.data, spacing)
    error = smooth_noise(rng, 25.0, brain.geometry)
    shift = parameters.mask_shift_mm + parameters.mask_error_mm * error
    # Half a voxel: the border runs between the last voxel inside and the first outside.
    return np.asarray(outside - inside < shift + 0.5 * spacing[0] * np.sign(outside - inside))


def _sliced(data: Float, image: Volume, parameters: AcquisitionParameters) -> Float:
    """Average over slices, and interpolate between their middles."""
    axis = parameters.slice_axis
    count = parameters.thickness_mm / image.geometry.spacing_mm[axis]
    if count <= 1:
        return data
    size = data.shape[axis]
    moved = np.moveaxis(data, axis, 0)
    edges = np.arange(0, size + count, count)
    edges[-1] = max(edges[-1], size)
    sums = np.concatenate([np.zeros((1, *moved.shape[1:])), np.cumsum(moved, 0, dtype=np.float64)])
    total = _between(sums, np.minimum(edges, size))
    widths = np.diff(np.minimum(edges, size))
    kept = widths > 0
    means = np.diff(total, axis=0)[kept] / widths[kept][:, None, None]
    middles = ((edges[:-1] + edges[1:]) / 2 - 0.5)[kept]
    places = (np.arange(size) - middles[0]) / count
    sliced = _between(means, np.clip(places, 0, len(means) - 1))
    return np.moveaxis(sliced, 0, axis).astype(np.float32)


def _between(values: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate linearly along the first axis at places in units of its index."""
    first = np.clip(np.floor(places).astype(int), 0, max(len(values) - 2, 0))
    share = (places - first)[:, None, None]
    after = np.minimum(first + 1, len(values) - 1)
    return np.asarray(values[first] * (1 - share) + values[after] * share)


def _seen(
    mask: NDArray[np.bool_], image: Volume, parameters: AcquisitionParameters
) -> NDArray[np.bool_]:
    """Tell which voxels lie in the field of view, `(1, 1, Z)`."""
    heights = image.geometry.affine[2, 3] + image.geometry.affine[2, 2] * np.arange(mask.shape[2])
    there = heights[mask.any((0, 1))]
    if not there.size:
        return np.ones((1, 1, mask.shape[2]), bool)
    low, high = there.min() + parameters.below_mm, there.max() - parameters.above_mm
    return np.asarray((heights >= low) & (heights <= high))[None, None]
