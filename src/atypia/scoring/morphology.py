"""Morphology: optional cleaning of a mask of flagged voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError

Mask = NDArray[np.bool_]


class Steps(TypedDict, total=False):
    """Settings of `cleaned`, by name."""

    smallest: int
    opening: int
    closing: int
    erosion: int
    dilation: int


REFERENCE_STEPS: Steps = {"smallest": 10, "erosion": 1, "dilation": 2}
"""What the reference pipeline does. It deletes lesions up to two voxels thick and makes all others
a voxel larger on every side, so that nothing here does it by default."""


def cleaned(
    mask: ArrayLike,
    smallest: int = 0,
    opening: int = 0,
    closing: int = 0,
    erosion: int = 0,
    dilation: int = 0,
    brain: ArrayLike | None = None,
) -> Mask:
    """Clean a mask; every step is off by default.

    The order is: restriction to the brain, small components, erosion, dilation, opening, closing,
    and restriction to the brain again, since dilation and closing may reach beyond it. All
    neighbourhoods are the six voxels that share a face. What lies outside of the array counts as
    empty.

    Parameters
    ----------
    mask
        `(X, Y, Z)`; non-zero is inside.
    smallest
        Components of fewer voxels are removed.
    opening, closing, erosion, dilation
        How many voxels far; opening and closing are as many erosions and dilations, in that order
        and in the other.
    brain
        `(X, Y, Z)`; nothing is flagged outside. None for the whole array.

    Returns
    -------
    numpy.ndarray
        Boolean `(X, Y, Z)`, a new array.

    Raises
    ------
    InputError
        The mask is not 3D, or the brain has another shape.
    SettingsError
        A number of voxels is negative.
    """
    from scipy import ndimage

    found: Mask = np.array(mask) != 0
    if found.ndim != 3:
        raise InputError("mask", f"has {found.ndim} dimensions, not 3", "Give a mask (X, Y, Z)")
    inside = None if brain is None else np.asarray(brain) != 0
    if inside is not None:
        if inside.shape != found.shape:
            problem = f"shape {inside.shape} is not the mask's {found.shape}"
            raise InputError("brain", problem, "Put both onto one grid")
        found &= inside
    steps: list[tuple[str, int, Callable[..., Mask]]] = [
        ("erosion", erosion, ndimage.binary_erosion),
        ("dilation", dilation, ndimage.binary_dilation),
        ("opening", opening, ndimage.binary_opening),
        ("closing", closing, ndimage.binary_closing),
    ]
    for name, voxels in (("smallest", smallest), *(step[:2] for step in steps)):
        if voxels < 0:
            raise SettingsError(name, f"{voxels} is negative", "Give 0 to leave it out")
    if smallest > 1:
        found = _without_small(found, smallest)
    for _, voxels, function in steps:
        # To scipy, no iterations are as many as it takes until nothing changes.
        if voxels:
            # Room round the array: without it, closing would remove voxels at its faces.
            padded = function(np.pad(found, voxels), iterations=voxels)
            found = padded[(slice(voxels, -voxels),) * 3]
    return found.copy() if inside is None else found & inside


def _without_small(mask: Mask, smallest: int) -> Mask:
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    kept: Mask = keep[labels]
    return kept
