"""Smoothing of score maps, computed only where the brain is."""

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
