"""From several restorations of one scan to a score map, by rules that are published or ours.

A score map goes through these stages: deviation of the scan from its restorations, scaling,
smoothing, a factor, and the median filter and erosion of the brain mask in either order. Small
components are removed from masks, not from scores: `atypia.scoring.components.without_small`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic

from atypia.errors import SettingsError
from atypia.scoring.mahalanobis import (
    Covariance,
    Decomposition,
    Scope,
    mahalanobis_distance,
    mahalanobis_map,
    require_shapes,
)
from atypia.scoring.smooth import median_in_brain
from atypia.scoring.ssim import ssim_ensemble, ssim_map
from atypia.settings import Settings
from atypia.volume import Array


class RestorationRules(Settings):
    """How restorations become a score map; the defaults are those of the preset ``"atypia"``.

    ``"mhd_repo"`` follows the published code of the Mahalanobis score (arXiv 2407.12474),
    ``"cddpm_repo"`` that of conditioned diffusion models, and ``"paper"`` their paper (arXiv
    2312.04215), which filters before it erodes. One difference to all three: nothing is scored
    outside the brain, where their median filter may leave something.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "atypia": {
            "deviation": "mahalanobis",
            "covariance": "diagonal",
            "ridge": 0.0025,
            "scaling": "none",
        },
        "mhd_repo": {
            "deviation": "mahalanobis",
            "covariance": "low_rank",
            "decomposition": "product",
            "scope": "slice",
            "ridge": 0.01,
            "scaling": "min_max",
            "smoothing_sigma": 1.0,
            "multiply_by": "ssim",
            "ssim_sigma": 1.0,
        },
        "cddpm_repo": {
            "deviation": "absolute",
            "erosion": 3,
            "median_size": 5,
            "order": "erosion_first",
        },
        "paper": {
            "deviation": "absolute",
            "erosion": 3,
            "median_size": 5,
            "order": "median_first",
        },
    }

    deviation: Literal["absolute", "squared", "mahalanobis", "variance"] = "mahalanobis"
    """Absolute or squared difference to the mean restoration, Mahalanobis score, or the sample
    variance of the restorations, which is how much they disagree and does not look at the scan."""
    covariance: Covariance = "diagonal"
    """Of the Mahalanobis score. The default divides each difference by the root of the voxel's own
    variance and the ridge, much like its standard deviation + 0.05."""
    decomposition: Decomposition = "whitened"
    """How the Mahalanobis distance is shared out to voxels; all are the same for ``"diagonal"``."""
    scope: Scope = "slice"
    """Whether an axial slice or the whole volume has one covariance."""
    patch: tuple[int, int, int] = (3, 3, 1)
    """Voxels of the window of the covariance ``"patch"`` along X, Y, Z, odd."""
    ridge: float = pydantic.Field(0.0025, ge=0)
    """Variance that is added to every voxel, squared intensities."""
    scaling: Literal["none", "min_max"] = "none"
    """Whether the lowest and highest score of the volume become 0 and 1, as published. A healthy
    scan then has a voxel of score 1 as well, so that neither scores of scans nor thresholds can
    be carried over from one scan to another."""
    smoothing_sigma: float = pydantic.Field(0.0, ge=0)
    """Standard deviation of a Gaussian filter in voxels; 0 for none."""
    multiply_by: Literal["none", "ssim", "ssim_ensemble", "absolute", "squared"] = "none"
    """A factor of the smoothed score: 1 - structural similarity of scan and mean restoration, at
    one scale or over an ensemble of scales, or their absolute or squared difference."""
    ssim_sigma: float = pydantic.Field(1.0, gt=0)
    """Window of the structural similarity at one scale, standard deviation in voxels."""
    erosion: int = pydantic.Field(0, ge=0)
    """How often the brain mask loses its edge in each axial slice. Published: rows // 25, 3 for the
    96 rows of their slices."""
    median_size: int = pydantic.Field(1, ge=1)
    """Edge of the median filter's cube in voxels, odd; 1 for none."""
    order: Literal["median_first", "erosion_first"] = "median_first"
    """Whether the median filter sees the scores that the erosion is going to remove."""

    @pydantic.field_validator("median_size", "patch")
    @classmethod
    def _odd(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        sizes = (value,) if isinstance(value, int) else value
        if any(size < 1 or size % 2 == 0 for size in sizes):
            raise ValueError("must be odd and positive")
        return value


def score_of_restorations(
    image: Array,
    restorations: Array,
    brain: Array,
    rules: RestorationRules,
    noise_variance: Array | None = None,
) -> Array:
    """Turn a scan and its restorations into a score map.

    Parameters
    ----------
    image
        The scan, `(X, Y, Z)`; axial slices lie along the last axis.
    restorations
        `(N, X, Y, Z)`, in the scan's intensities.
    brain
        `(X, Y, Z)` boolean.
    rules
        The stages.
    noise_variance
        `(X, Y, Z)`, squared intensities, for the Mahalanobis scores that take one.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, higher = more abnormal, zero outside the eroded brain. Only the
        decomposition ``"signed"`` gives negative values.

    Raises
    ------
    InputError
        Arrays that do not lie on one grid, or a variance of zero.
    SettingsError
        A noise variance for a deviation that does not use one.
    """
    require_shapes(image, restorations, brain, noise_variance)
    mean = restorations.mean(axis=0, dtype=np.float32)
    score = _deviation(image, restorations, brain, mean, rules, noise_variance)
    score = np.where(brain, score, 0).astype(np.float32)
    if rules.scaling == "min_max":
        score = min_max(score)
    if rules.smoothing_sigma > 0:
        from scipy import ndimage

        score = ndimage.gaussian_filter(score, rules.smoothing_sigma)
    score = score * _factor(image, mean, rules)
    core = eroded(brain, rules.erosion)
    seen = core if rules.order == "erosion_first" else brain
    score = median_in_brain(score, seen, rules.median_size)
    return np.where(core, score, 0).astype(np.float32)


def numbers_of_restorations(
    image: Array,
    restorations: Array,
    brain: Array,
    rules: RestorationRules,
    noise_variance: Array | None = None,
) -> dict[str, float]:
    """Give numbers of the whole scan; all are 0 without brain.

    Parameters
    ----------
    image, restorations, brain, rules, noise_variance
        As in `score_of_restorations`; of the rules only those of the covariance count.

    Returns
    -------
    dict
        ``"mean_absolute_error"``: mean absolute difference to the mean restoration.
        ``"mean_squared_distance"``: squared Mahalanobis distance a voxel, about 1 for a scan that
        deviates as the covariance says; with ``"patch"`` the mean of the patches' distances.

    Raises
    ------
    InputError, SettingsError
        As `atypia.scoring.mahalanobis.mahalanobis_map`.
    """
    require_shapes(image, restorations, brain, noise_variance)
    voxels = max(int(brain.sum()), 1)
    error = np.abs(image - restorations.mean(axis=0, dtype=np.float32))[brain]
    options: dict[str, Any] = {
        "ridge": rules.ridge,
        "covariance": rules.covariance,
        "noise_variance": noise_variance,
    }
    if rules.covariance == "patch":
        score = mahalanobis_map(image, restorations, brain, patch=rules.patch, **options)
        total = float((score.astype(np.float64) ** 2).sum())
    else:
        distance = mahalanobis_distance(image, restorations, brain, scope=rules.scope, **options)
        total = float(distance.sum())
    return {
        "mean_absolute_error": float(error.sum(dtype=np.float64)) / voxels,
        "mean_squared_distance": total / voxels,
    }


def min_max(score: Array) -> Array:
    """Shift and scale a volume to the range from 0 to 1; zero everywhere if it is constant.

    Parameters
    ----------
    score
        `(X, Y, Z)`, background included.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`.
    """
    low, high = float(score.min()), float(score.max())
    if high <= low:
        return np.zeros(score.shape, np.float32)
    return np.asarray((score - low) / (high - low), dtype=np.float32)


def eroded(brain: Array, times: int) -> Array:
    """Remove the edge of a mask in each axial slice, several times.

    Parameters
    ----------
    brain
        `(X, Y, Z)` boolean.
    times
        How often the voxels with one of their four neighbours in the slice outside the mask, or
        outside the volume, are removed.

    Returns
    -------
    numpy.ndarray
        Boolean `(X, Y, Z)`.
    """
    if times < 1:  # which would mean "until nothing changes" to scipy
        return brain
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(2, 1)[:, :, None]
    return np.asarray(ndimage.binary_erosion(brain, cross, iterations=times))


def _deviation(
    image: Array,
    restorations: Array,
    brain: Array,
    mean: Array,
    rules: RestorationRules,
    noise_variance: Array | None,
) -> Array:
    if rules.deviation == "mahalanobis":
        return mahalanobis_map(
            image,
            restorations,
            brain,
            ridge=rules.ridge,
            covariance=rules.covariance,
            decomposition=rules.decomposition,
            scope=rules.scope,
            noise_variance=noise_variance,
            patch=rules.patch,
        )
    if noise_variance is not None:
        remedy = "Leave it out, or choose 'mahalanobis'"
        raise SettingsError(f"deviation {rules.deviation!r}", "has no noise variance", remedy)
    if rules.deviation == "variance":
        if len(restorations) == 1:
            return np.zeros_like(mean)
        return np.asarray(restorations.var(axis=0, ddof=1, dtype=np.float32))
    return _difference(image, mean, rules.deviation)


def _difference(image: Array, mean: Array, kind: Literal["absolute", "squared"]) -> Array:
    difference = image - mean
    return np.asarray(np.abs(difference) if kind == "absolute" else difference**2)


def _factor(image: Array, mean: Array, rules: RestorationRules) -> Array | float:
    if rules.multiply_by == "none":
        return 1.0
    if rules.multiply_by == "ssim":
        return np.asarray(1 - ssim_map(mean, image, rules.ssim_sigma))
    if rules.multiply_by == "ssim_ensemble":
        return ssim_ensemble(mean, image)
    return _difference(image, mean, rules.multiply_by)
