"""Mass effect: what grows in a brain pushes its surroundings aside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.anatomy import Anatomy
from atypia.simulation.fields import Float

Box = tuple[slice, slice, slice]


def push_aside(
    anatomy: Anatomy, centre_mm: NDArray[np.float64], core_ml: float, push_mm: float
) -> Anatomy:
    """Displace the tissue around a ball outwards; the brain's surface stays where it is.

    Parameters
    ----------
    anatomy
        Before.
    centre_mm
        Centre of the ball, world mm.
    core_ml
        Volume of the ball.
    push_mm
        Displacement at its surface, at most 60 % of its radius; it fades with distance.

    Returns
    -------
    Anatomy
        With moved tissue shares and texture; lookups in the template stay as they were.
    """
    radius = (3 * core_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    reach = radius + 35
    box = _box(anatomy, centre_mm, reach)
    offset = _offsets(anatomy, centre_mm, box)
    distance = np.sqrt((offset**2).sum(axis=0)) + np.float32(1e-3)
    push = np.where(
        distance < radius, distance / radius, np.exp(-((distance - radius) / 12))
    ) * np.clip((reach - distance) / 10, 0, 1)
    push *= min(push_mm, 0.6 * radius) * _room(anatomy.brain[box], anatomy.geometry.spacing_mm[0])
    back = offset * (-push / (distance * anatomy.geometry.spacing_mm[0]))
    return _moved(anatomy, box, back.astype(np.float32))


def _moved(anatomy: Anatomy, box: Box, back: Float) -> Anatomy:
    """Fetch every voxel of the box from `back` (voxels, `(3, ...)`) away."""
    from scipy import ndimage

    places = np.indices(back.shape[1:], dtype=np.float32) + back
    moved = []
    for values in (anatomy.gray, anatomy.csf, anatomy.texture):
        part = ndimage.map_coordinates(values[box], places, order=1, mode="nearest")
        still = np.abs(back).max(axis=0) < 1e-4
        whole = values.copy()
        whole[box] = np.where(still, values[box], part) * anatomy.brain[box]
        moved.append(whole)
    gray, csf, texture = moved
    white = anatomy.white.copy()
    white[box] = np.clip(anatomy.brain[box] - gray[box] - csf[box], 0, 1)
    return anatomy.with_shares(gray, white, csf, texture)


def _box(anatomy: Anatomy, centre_mm: NDArray[np.float64], reach_mm: float) -> Box:
    centre = anatomy.geometry.voxel(centre_mm)
    steps = reach_mm / anatomy.geometry.spacing_mm[0]
    x, y, z = (
        slice(max(int(c - steps), 0), min(int(c + steps) + 2, n))
        for c, n in zip(centre, anatomy.brain.shape, strict=True)
    )
    return x, y, z


def _offsets(anatomy: Anatomy, centre_mm: NDArray[np.float64], box: Box) -> Float:
    """World vectors `(3, ...)` from the centre to the voxels of the box, mm."""
    axes = [
        anatomy.affine[a, 3] + anatomy.affine[a, a] * np.arange(part.start, part.stop) - c
        for a, (part, c) in enumerate(zip(box, centre_mm, strict=True))
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _room(brain: NDArray[np.bool_], spacing_mm: float) -> Float:
    """Rise smoothly from 0 at the brain's surface to 1 some 15 mm inside."""
    from scipy import ndimage

    width = max(round(30 / spacing_mm) | 1, 3)
    depth = ndimage.uniform_filter(brain.astype(np.float32), width, mode="nearest")
    return np.asarray(np.clip(2 * depth - 1, 0, 1) * brain, dtype=np.float32)
