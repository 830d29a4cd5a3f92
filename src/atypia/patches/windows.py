"""How much a voxel counts for the patches that cover it, axis by axis.

A patch's weights are a product of one profile along each axis, so whatever is spread from patches
over voxels, or gathered from voxels into patches, is three small matrix products.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atypia.errors import unknown_name
from atypia.patches.grid import PatchGrid

Blending = Literal["uniform", "hann", "gaussian"]
"""Whether a patch counts alike at all its voxels, or most in its middle."""

Matrix = NDArray[np.float32]
Matrices = tuple[Matrix, Matrix, Matrix]

GAUSSIAN_SIGMA = 0.25
"""Standard deviation of the Gaussian window as a share of the patch."""


def window(size: int, blending: Blending) -> NDArray[np.float64]:
    """Give the weights of a patch's voxels along one axis.

    "hann" is sampled at the middle of the voxels: it is positive at all of them, and adds up to one
    where patches of even size follow each other at half their size.

    Parameters
    ----------
    size
        Voxels of the patch along the axis.
    blending
        "uniform", "hann" or "gaussian".

    Returns
    -------
    numpy.ndarray
        `(size,)`, between 0 and 1 and never 0.

    Raises
    ------
    SettingsError
        An unknown blending.
    """
    place = (np.arange(size) + 0.5) / size
    if blending == "uniform":
        return np.ones(size)
    if blending == "hann":
        return np.asarray(np.sin(np.pi * place) ** 2)
    if blending == "gaussian":
        return np.asarray(np.exp(-0.5 * ((place - 0.5) / GAUSSIAN_SIGMA) ** 2))
    raise unknown_name("blending", blending, ("uniform", "hann", "gaussian"))


def weights(grid: PatchGrid, blending: Blending = "uniform") -> Matrices:
    """Give the weight of each voxel for each patch along `X`, `Y` and `Z`.

    Returns
    -------
    tuple of numpy.ndarray
        Three matrices, float32, voxels x patches; 0 where a patch does not cover a voxel.
    """
    x, y, z = (_axis(grid, axis, blending) for axis in range(3))
    return (x, y, z)


def spread(values: NDArray[np.float32], matrices: Matrices) -> NDArray[np.float32]:
    """Take values of patches `(n1, n2, n3)` to voxels `(X, Y, Z)`: weighted sums, axis by axis."""
    x, y, z = matrices
    # The largest array comes last and is written once.
    planes = np.matmul(y, np.tensordot(x, values.astype(np.float32, copy=False), 1))
    return np.asarray(planes @ z.T)


def _axis(grid: PatchGrid, axis: int, blending: Blending) -> Matrix:
    profile = window(grid.size[axis], blending)
    matrix = np.zeros((grid.shape[axis], len(grid.starts[axis])), np.float32)
    for number, start in enumerate(grid.starts[axis]):
        matrix[start : start + len(profile), number] = profile
    return matrix
