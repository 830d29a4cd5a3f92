"""How well a mask fits a true lesion, and a restoration the healthy rest of the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from atypia.evaluation.subject import dice
from atypia.scoring.ssim import CONTRAST, LUMINANCE, gaussian_window
from atypia.volume import Array

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]


@dataclass(frozen=True)
class MaskFigures:
    """Overlap and distance of a mask and the truth, both of them not necessarily with voxels.

    Parameters
    ----------
    dice, iou
        2 |A and B| / (|A| + |B|), and |A and B| / |A or B|.
    sensitivity
        Share of the truth that is in the mask; None without truth.
    precision
        Share of the mask that is true; None for an empty mask.
    assd_mm
        Average symmetric surface distance; None when either is empty.
    hd95_mm
        95th percentile of the Hausdorff distance; None when either is empty.
    """

    dice: float
    iou: float
    sensitivity: float | None
    precision: float | None
    assd_mm: float | None
    hd95_mm: float | None

    def to_json(self) -> Mapping[str, float | None]:
        """Give the figures by name."""
        return asdict(self)


def mask_figures(mask: Mask, truth: Mask, spacing_mm: tuple[float, float, float]) -> MaskFigures:
    """Compare a mask with the truth.

    Parameters
    ----------
    mask, truth
        `(X, Y, Z)` boolean.
    spacing_mm
        Voxel size along X, Y, Z.
    """
    both, either = int((mask & truth).sum()), int((mask | truth).sum())
    found, true = int(mask.sum()), int(truth.sum())
    distances = surface_distances(mask, truth, spacing_mm)
    return MaskFigures(
        dice=dice(mask, truth),
        iou=both / either if either else 1.0,
        sensitivity=both / true if true else None,
        precision=both / found if found else None,
        assd_mm=None if distances is None else _average(*distances),
        hd95_mm=None if distances is None else _percentile(*distances),
    )


def average_surface_distance(
    first: Mask, second: Mask, spacing_mm: tuple[float, float, float]
) -> float | None:
    """Give the mean distance from each surface voxel to the other mask's surface, in mm.

    The mean runs over the surface voxels of both masks together; a surface voxel is one with a
    face on the outside.

    Returns
    -------
    float or None
        None when a mask is empty.
    """
    distances = surface_distances(first, second, spacing_mm)
    return None if distances is None else _average(*distances)


def hausdorff_95(first: Mask, second: Mask, spacing_mm: tuple[float, float, float]) -> float | None:
    """Give the 95th percentile of the Hausdorff distance, in mm.

    The larger one of the two 95th percentiles of `surface_distances`, first to second and second
    to first: a few stray voxels of a large mask cannot hide behind the other's many.

    Returns
    -------
    float or None
        None when a mask is empty.
    """
    distances = surface_distances(first, second, spacing_mm)
    return None if distances is None else _percentile(*distances)


def surface_distances(
    first: Mask, second: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[Distances, Distances] | None:
    """Give the distance from each surface voxel to the other mask's surface, in mm.

    A surface voxel is one with a face on the outside, be it of the mask or of the volume.

    Returns
    -------
    tuple of arrays, or None
        From the first mask's surface voxels and from the second's; None when a mask is empty.
    """
    if not first.any() or not second.any():
        return None
    places = np.argwhere(first | second)
    box = tuple(slice(a, b + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    one, other = (_surface(mask[box]) for mask in (first, second))
    return (
        ndimage.distance_transform_edt(~other, sampling=spacing_mm)[one],
        ndimage.distance_transform_edt(~one, sampling=spacing_mm)[other],
    )


def peak_signal_to_noise(image: Array, restored: Array, region: Mask) -> float | None:
    """Give the peak signal-to-noise ratio of a restoration in decibel.

    Parameters
    ----------
    image, restored
        `(X, Y, Z)`, in one unit.
    region
        Voxels that are compared, as a rule the healthy ones of the brain; their largest intensity
        is the peak.

    Returns
    -------
    float or None
        None when nothing is compared or the restoration is perfect.
    """
    if not region.any():
        return None
    original = image[region].astype(np.float64)
    error = float(np.mean((original - restored[region]) ** 2))
    peak = float(original.max())
    return None if error == 0 or peak <= 0 else float(10 * np.log10(peak**2 / error))


def structural_similarity(image: Array, restored: Array, region: Mask) -> float | None:
    """Give the mean structural similarity of a restoration in a region.

    Equation 13 of Wang et al. 2004 (doi:10.1109/TIP.2003.819861) in 3D with a Gaussian window of
    one voxel, as in `atypia.scoring.ssim`, but the window is cut off at the region's border and
    its weights sum to 1 again: what lies outside, as a rule lesions and skull, has no part in it.

    Parameters
    ----------
    image, restored, region
        As of `peak_signal_to_noise`; the largest intensity is the dynamic range.

    Returns
    -------
    float or None
        -1 to 1, and 1 when the restoration is perfect; None when nothing is compared or no
        intensity is positive.
    """
    if not region.any() or float(image[region].max()) <= 0:
        return None
    places = np.argwhere(region)
    box = tuple(slice(a, b + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    inside = region[box]
    peak = float(image[region].max())
    # Variances come from differences of squares, which lose digits far from zero.
    offset = float(image[region].mean(dtype=np.float64))
    first, second = (
        np.where(inside, volume[box].astype(np.float64) - offset, 0).astype(np.float32)
        for volume in (image, restored)
    )
    weight = _windowed(inside.astype(np.float32))[inside]

    def mean(volume: Array) -> Array:
        return np.asarray(_windowed(volume)[inside] / weight, dtype=np.float64)

    a, b = mean(first), mean(second)
    spread = np.maximum(mean(first**2) - a**2, 0) + np.maximum(mean(second**2) - b**2, 0)
    shared = mean(first * second) - a * b
    a, b = a + offset, b + offset
    stable_mean, stable_variance = (LUMINANCE * peak) ** 2, (CONTRAST * peak) ** 2
    similarity = (2 * a * b + stable_mean) * (2 * shared + stable_variance)
    similarity /= (a**2 + b**2 + stable_mean) * (spread + stable_variance)
    return float(similarity.mean())


def _windowed(volume: Array) -> Array:
    """Sum the volume, zero beyond its faces, under the window."""
    weights = gaussian_window(1.0)
    for axis in range(3):
        volume = ndimage.correlate1d(volume, weights, axis, mode="constant")
    return volume


def _average(one: Distances, other: Distances) -> float:
    return float(one.sum() + other.sum()) / (one.size + other.size)


def _percentile(one: Distances, other: Distances) -> float:
    return max(float(np.percentile(distances, 95)) for distances in (one, other))


def _surface(mask: Mask) -> Mask:
    inside = ndimage.binary_erosion(mask, border_value=0)
    return np.asarray(mask & ~inside)
