"""Structural similarity of two volumes, voxel by voxel, at one scale or over several.

Source: Wang et al. 2004 (doi:10.1109/TIP.2003.819861), equation 13, in 3D with a Gaussian window.
Window and edges follow the published Mahalanobis score: the window reaches `int(3.5 sigma + 0.5)`
voxels to each side, 9 x 9 x 9 for a sigma of 1, and volumes are mirrored at their faces without
repeating the outermost voxel (PyTorch's "reflect"). Variances are divided by the sum of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from atypia.errors import InputError, SettingsError
from atypia.volume import Array

SIGMAS = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7)
"""Widths of the windows of the published ensemble, in voxels."""

LUMINANCE, CONTRAST = 0.01, 0.03
"""The constants K1 and K2, as shares of the dynamic range."""


def ssim_map(
    first: Array, second: Array, sigma: float = 1.0, data_range: float | None = None
) -> Array:
    """Compare mean, variance and covariance of two volumes in a window round each voxel.

    Parameters
    ----------
    first, second
        `(X, Y, Z)`.
    sigma
        Standard deviation of the window in voxels, the same along all axes.
    data_range
        Dynamic range of the intensities; None for the larger range of the two volumes, as
        published, which differs between scans: give one to compare scans.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, between -1 and 1; 1 where the volumes are alike.

    Raises
    ------
    InputError
        The shapes differ, or a volume is not 3D.
    SettingsError
        The width or the dynamic range is not positive.
    """
    return _Pair(first, second, data_range).similarity(sigma)


def ssim_ensemble(
    first: Array,
    second: Array,
    sigmas: Sequence[float] = SIGMAS,
    data_range: float | None = None,
) -> Array:
    """Dissimilarity over several window widths, at each voxel mostly that of the least alike.

    `1 - sum_s w_s SSIM_s` with weights `w_s` proportional to `exp(-SSIM_s)` (code of the Ensembled
    SSIM of Behrendt et al., ISBI 2024).

    Parameters
    ----------
    first, second, data_range
        As in `ssim_map`.
    sigmas
        Standard deviations of the windows in voxels.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, between 0 and 2; 0 where the volumes are alike.

    Raises
    ------
    InputError, SettingsError
        As `ssim_map`; or there is no width.
    """
    if len(sigmas) == 0:
        raise SettingsError("sigmas", "is empty", "Give at least one width")
    pair = _Pair(first, second, data_range)
    weights = np.zeros(first.shape, np.float32)
    weighted = np.zeros(first.shape, np.float32)
    for sigma in sigmas:
        similarity = pair.similarity(sigma)
        weight = np.exp(-similarity)
        weights += weight
        weighted += weight * similarity
    return np.asarray(1 - weighted / weights)


class _Pair:
    """Two volumes, and what all widths of the window need from them."""

    def __init__(self, first: Array, second: Array, data_range: float | None) -> None:
        if first.shape != second.shape or first.ndim != 3:
            problem = f"shapes {first.shape} and {second.shape} are not those of two 3D volumes"
            raise InputError("structural similarity", problem, "Put both onto one grid")
        if data_range is None:
            # Two volumes without any range are constant: every positive number gives an answer.
            data_range = max(float(np.ptp(first)), float(np.ptp(second))) or 1.0
        if not (math.isfinite(data_range) and data_range > 0):
            raise SettingsError(f"data_range {data_range}", "is no range", "Give a positive number")
        self.stable_mean = (LUMINANCE * data_range) ** 2
        self.stable_variance = (CONTRAST * data_range) ** 2
        # Variances come from differences of squares, which lose digits far from zero.
        self.offset = float(first.mean(dtype=np.float64) + second.mean(dtype=np.float64)) / 2
        self.first = (first - self.offset).astype(np.float32)
        self.second = (second - self.offset).astype(np.float32)
        self.squares = self.first**2 + self.second**2
        self.products = self.first * self.second

    def similarity(self, sigma: float) -> Array:
        """Give the map for one width."""
        # The two variances are only needed as their sum: four means instead of five.
        first, second = _mean(self.first, sigma), _mean(self.second, sigma)
        spread = _mean(self.squares, sigma) - first**2 - second**2
        shared = _mean(self.products, sigma) - first * second
        first += self.offset
        second += self.offset
        top = (2 * first * second + self.stable_mean) * (2 * shared + self.stable_variance)
        bottom = first**2 + second**2 + self.stable_mean
        bottom *= np.maximum(spread, 0) + self.stable_variance
        return np.asarray(top / bottom, dtype=np.float32)


def _mean(volume: Array, sigma: float) -> Array:
    """Mean in the window, float32; the window is a product of three, one an axis."""
    from scipy import ndimage

    weights = gaussian_window(sigma)
    for axis in range(3):
        volume = ndimage.correlate1d(volume, weights, axis, mode="mirror")
    return volume


def gaussian_window(sigma: float) -> Array:
    """Give the window's weights along one axis, `(2 int(3.5 sigma + 0.5) + 1,)`; they sum to 1.

    Parameters
    ----------
    sigma
        Standard deviation in voxels.

    Raises
    ------
    SettingsError
        It is not positive.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise SettingsError(f"sigma {sigma}", "is no width", "Give a positive number of voxels")
    half = int(3.5 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())
