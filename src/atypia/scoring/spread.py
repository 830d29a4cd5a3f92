"""How much healthy scans deviate at each voxel: what a deviation must be measured against."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from atypia.volume import Array


def healthy_spread(residuals: Iterable[Array], brain: Array, floor: float) -> Array:
    """Root mean square of healthy residuals at each voxel, with a floor.

    A residual of one is remarkable in white matter and ordinary at the ventricles' edge, where
    healthy brains differ. Dividing by the spread makes scores comparable between places.

    Parameters
    ----------
    residuals
        `(X, Y, Z)` each, of healthy scans on one grid.
    brain
        `(X, Y, Z)` boolean, where the typical spread is taken.
    floor
        Added everywhere, in units of the brain's median spread: keeps voxels at which few
        healthy scans happen to deviate from dominating.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, positive.
    """
    squares = np.zeros(brain.shape)
    count = 0
    for residual in residuals:
        squares += residual.astype(np.float64) ** 2
        count += 1
    spread = np.sqrt(squares / max(count, 1))
    typical = float(np.median(spread[brain])) if brain.any() else 1.0
    return np.asarray(spread + floor * typical + 1e-6, dtype=np.float32)
