"""Lesions: the connected components of a mask."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from atypia.volume import Volume

ROUNDING = 1 - 1e-5
"""Stored affines are rounded, so that a component of just the smallest size may seem smaller."""


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask (26-neighbourhood).

    Parameters
    ----------
    size_mm3
        Volume.
    peak_score, mean_score
        Of the score map within it.
    centre_mm
        Centre of mass, world coordinates, RAS+.
    """

    size_mm3: float
    peak_score: float
    mean_score: float
    centre_mm: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Give the values by name."""
        return asdict(self)


def lesions_of(mask: Volume, score: Volume, smallest_mm3: float = 0.0) -> tuple[Lesion, ...]:
    """List the components of a mask, the largest first.

    Parameters
    ----------
    mask, score
        On one grid.
    smallest_mm3
        Smaller components are left out.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask.data, structure=np.ones((3, 3, 3)))
    if not count:
        return ()
    index = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel())[1:] * mask.geometry.voxel_volume_mm3
    peaks = ndimage.maximum(score.data, labels, index)
    means = ndimage.mean(score.data, labels, index)
    centres = mask.geometry.world(ndimage.center_of_mass(mask.data, labels, index))
    found = [
        Lesion(float(s), float(p), float(m), (float(c[0]), float(c[1]), float(c[2])))
        for s, p, m, c in zip(sizes, peaks, means, centres, strict=True)
        if s >= smallest_mm3 * ROUNDING
    ]
    return tuple(sorted(found, key=lambda lesion: -lesion.size_mm3))


def without_small(mask: Volume, smallest_mm3: float) -> Volume:
    """Remove the components of a mask that are smaller than a volume."""
    if smallest_mm3 * ROUNDING <= mask.geometry.voxel_volume_mm3:
        return mask
    from scipy import ndimage

    labels, count = ndimage.label(mask.data, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * mask.geometry.voxel_volume_mm3
    keep = sizes >= smallest_mm3 * ROUNDING
    keep[0] = False
    return mask.with_data(keep[labels])
