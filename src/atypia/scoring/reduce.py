"""Reducing a score map to one number a scan."""

from __future__ import annotations

import numpy as np

from atypia.volume import Array


def top_mean(score: Array, brain: Array, share: float) -> float:
    """Mean of the highest scores in the brain: sensitive to small lesions, robust to one voxel.

    Parameters
    ----------
    score, brain
        `(X, Y, Z)`.
    share
        Share of the brain's voxels that counts, e.g. 0.01; at least one voxel.
    """
    values = score[brain]
    count = max(1, round(share * values.size))
    return float(np.partition(values, values.size - count)[-count:].mean(dtype=np.float64))
