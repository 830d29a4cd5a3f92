"""How well a mask fits a true lesion, and a restoration the healthy rest of the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from atypia.evaluation.subject import dice
from atypia.volume import Array

Mask = NDArray[np.bool_]


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
    """

    dice: float
    iou: float
    sensitivity: float | None
    precision: float | None
    assd_mm: float | None

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
    return MaskFigures(
        dice=dice(mask, truth),
        iou=both / either if either else 1.0,
        sensitivity=both / true if true else None,
        precision=both / found if found else None,
        assd_mm=average_surface_distance(mask, truth, spacing_mm),
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
    if not first.any() or not second.any():
        return None
    places = np.argwhere(first | second)
    box = tuple(slice(a, b + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    surfaces = [_surface(mask[box]) for mask in (first, second)]
    total, count = 0.0, 0
    for one, other in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~other, sampling=spacing_mm)
        total += float(distance[one].sum())
        count += int(one.sum())
    return total / count


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


def _surface(mask: Mask) -> Mask:
    inside = ndimage.binary_erosion(mask, border_value=0)
    return np.asarray(mask & ~inside)
