"""Weighted means over the voxels of a brain alone, separable and exact, at any width.

Source: normalised convolution (Knutsson and Westin 1993, doi:10.1109/CVPR.1993.341081).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from atypia.volume import Array

Floats = NDArray[np.float32]

REACH = 6.0
"""Where a Gaussian ends, in standard deviations."""
TINY = np.float32(1e-30)
"""Less than any weight that counts."""


@dataclass(frozen=True, eq=False)
class BrainBox:
    """The box round a brain with a margin on all sides, beyond which everything is zero.

    Parameters
    ----------
    image
        `(X, Y, Z)` minus `mean`; zero outside of the brain.
    brain
        `(X, Y, Z)`, 1 inside and 0 outside.
    mean
        Of the brain's intensities, subtracted for precision.
    spacing_mm
        Voxel size along X, Y, Z.
    margin
        Voxels on each side that are not brain.
    """

    image: Floats
    brain: Floats
    mean: np.float32
    spacing_mm: tuple[float, float, float]
    margin: int

    @classmethod
    def cut(
        cls,
        image: Array,
        brain: Array,
        box: tuple[slice, slice, slice],
        margin: int,
        spacing_mm: tuple[float, float, float],
    ) -> Self:
        """Cut a box out, which holds all of the brain, and put the margin round it.

        Parameters
        ----------
        image, brain
            `(X, Y, Z)`; the brain is boolean and not empty.
        box, margin, spacing_mm
            Where to cut, how many voxels to add, and their size.
        """
        mean = np.float32(image[brain].mean(dtype=np.float64))
        values = np.where(brain[box], image[box].astype(np.float32) - mean, np.float32(0))
        inside = brain[box].astype(np.float32)
        return cls(np.pad(values, margin), np.pad(inside, margin), mean, spacing_mm, margin)

    def gaussian(self, sigma_mm: float) -> list[Floats]:
        """Give the matrices that sum under a Gaussian along each axis."""
        apart = [a * d / sigma_mm for a, d in zip(self._apart(), self.spacing_mm, strict=True)]
        # Further weights would become denormal numbers, which are slow.
        weights = [np.where(abs(a) <= REACH, np.exp(-(a**2) / 2), 0) for a in apart]
        return [w.astype(np.float32) for w in weights]

    def cube(self, reach_mm: float) -> list[Floats]:
        """Give the matrices that sum over a cube, which reaches at least the next voxels."""
        reaches = [max(int(reach_mm / d + 1e-6), 1) for d in self.spacing_mm]
        pairs = zip(self._apart(), reaches, strict=True)
        return [(abs(a) <= reach).astype(np.float32) for a, reach in pairs]

    def smooth(self, sigma_mm: float) -> Floats:
        """Take the mean under a Gaussian; of use in the brain and next to it."""
        return mean_under(self.gaussian(sigma_mm), self.image, self.brain)

    def _apart(self) -> list[NDArray[np.float64]]:
        """Give how many voxels lie between any two places of each axis."""
        places = [np.arange(n, dtype=np.float64) for n in self.image.shape]
        return [place[:, None] - place for place in places]


def summed(matrices: list[Floats], values: Floats) -> Floats:
    """Apply one symmetric matrix along each axis.

    Dense matrices, because a product by BLAS is faster than a filter at the widths of descriptors.
    """
    x, y, z = matrices
    return np.asarray(np.tensordot(x, y @ (values @ z), 1), np.float32)


def mean_under(matrices: list[Floats], values: Floats, weights: Floats) -> Floats:
    """Take the weighted mean of values, which must be zero where the weights are.

    Where no weight is in reach, the mean is 0.
    """
    mean: Floats = summed(matrices, values)
    mean /= np.maximum(summed(matrices, weights), TINY)
    return mean
