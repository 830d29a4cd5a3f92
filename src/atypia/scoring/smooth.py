"""Smoothing of score maps: median, mean and minimum, and a filter that keeps edges."""

from __future__ import annotations

import numpy as np

from atypia.volume import Array


def median_in_brain(score: Array, brain: Array, size: int) -> Array:
    """Take the median over a cube round each voxel; zero outside the brain.

    Removes single hot voxels and keeps edges, as is usual for residual maps (Baur et al. 2021,
    doi:10.1016/j.media.2020.101952).

    Parameters
    ----------
    score, brain
        `(X, Y, Z)`; the score counts as zero outside the brain.
    size
        Edge of the cube in voxels, odd; 1 leaves the score as it is.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`.
    """
    score = np.where(brain, score, 0).astype(np.float32)
    if size <= 1 or not brain.any():
        return score
    from scipy import ndimage

    inside = ndimage.find_objects(brain.astype(np.uint8))[0]
    half = size // 2
    box = tuple(
        slice(max(part.start - half, 0), min(part.stop + half, length))
        for part, length in zip(inside, score.shape, strict=True)
    )
    smooth = np.zeros_like(score)
    smooth[box] = ndimage.median_filter(score[box], size=size, mode="constant")
    return np.where(brain, smooth, 0).astype(np.float32)


def least_then_mean(score: Array, least: int, mean: int) -> Array:
    """Take the minimum over a cube round each voxel, then the mean over another one, as published.

    Beyond the border of the array lie no minima, but zeros for the mean, so that borders fade
    (IFL, arXiv 2106.05214: sizes 3 and 15).

    Parameters
    ----------
    score
        `(X, Y, Z)`.
    least, mean
        Edges of the cubes in voxels, odd; 1 for none.
    """
    from scipy import ndimage

    lowest = ndimage.minimum_filter(score, size=least, mode="nearest") if least > 1 else score
    if mean <= 1:
        return np.asarray(lowest, np.float32)
    return np.asarray(
        ndimage.uniform_filter(lowest, size=mean, mode="constant", cval=0.0), np.float32
    )


def mean_in_brain(score: Array, brain: Array, size: int) -> Array:
    """Take the mean over the brain's voxels in a cube round each voxel; zero outside the brain.

    Parameters
    ----------
    score, brain
        `(X, Y, Z)`.
    size
        Edge of the cube in voxels, odd; 1 leaves the score as it is.
    """
    from scipy import ndimage

    inside = brain.astype(np.float32)
    share = ndimage.uniform_filter(inside, size=size, mode="constant")
    total = ndimage.uniform_filter(score * inside, size=size, mode="constant")
    return np.where(brain, total / np.maximum(share, 1e-6), 0).astype(np.float32)


def guided_in_brain(
    score: Array, image: Array, brain: Array, size: int, tolerance: float = 0.1
) -> Array:
    """Smooth a score where the scan is even, and keep its edges where the scan has edges.

    The guided filter (He et al. 2013, doi:10.1109/TPAMI.2012.213) with means over the brain: within
    each cube the score is a straight line of the scan's intensities, as good as possible.

    Parameters
    ----------
    score, image, brain
        `(X, Y, Z)`.
    size
        Edge of the cubes in voxels, odd.
    tolerance
        Variance that counts as even, as a share of the scan's variance over the brain.
    """

    def mean(values: Array) -> Array:
        return mean_in_brain(values, brain, size)

    guide = np.where(brain, image, 0).astype(np.float32)
    even = tolerance * float(guide[brain].var()) if brain.any() else 1.0
    guide_mean, score_mean = mean(guide), mean(score)
    variance = np.maximum(mean(guide * guide) - guide_mean**2, 0)
    slope = (mean(guide * score) - guide_mean * score_mean) / (variance + max(even, 1e-12))
    offset = score_mean - slope * guide_mean
    return np.where(brain, mean(slope) * guide + mean(offset), 0).astype(np.float32)
