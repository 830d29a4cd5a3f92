"""Lesions: the connected components of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from atypia.volume import Array, Volume

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
    p_value
        Share of healthy scans with a component at least as large; None without a calibration.
    extrapolated
        The p-value comes from a fitted tail: no healthy scan has so large a component.
    template_mm
        Its centre in the template, MNI152 world mm; None where the scan was not registered to it.
    """

    size_mm3: float
    peak_score: float
    mean_score: float
    centre_mm: tuple[float, float, float]
    p_value: float | None = None
    extrapolated: bool = False
    template_mm: tuple[float, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the values by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Lesion:
        """Make a lesion of what `to_json` gave."""
        told: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**told)


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
    labels, sizes = _components(mask)
    keep = sizes >= smallest_mm3 * ROUNDING
    keep[0] = False
    return mask.with_data(keep[labels])


def only_larger(mask: Volume, mm3: float) -> Volume:
    """Keep the components of a mask that are larger than a volume; those of just that size go."""
    labels, sizes = _components(mask)
    return mask.with_data((sizes * ROUNDING > mm3)[labels])


def largest_mm3(mask: Volume) -> float:
    """Give the volume of a mask's largest component; 0 for an empty mask."""
    return float(_components(mask)[1].max())


def _components(mask: Volume) -> tuple[Array, Array]:
    """Give the components as numbers from 1 on, and the volume of each; that of number 0 is 0."""
    from scipy import ndimage

    labels, count = ndimage.label(mask.data, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * mask.geometry.voxel_volume_mm3
    sizes[0] = 0
    return labels, sizes
