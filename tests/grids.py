"""Strategies for grids, and small volumes, that several tests use."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from atypia.volume import Kind, Volume


def affine_of(
    angles_deg: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    shift_mm: tuple[float, float, float],
    mirrored: bool = False,
) -> NDArray[np.float64]:
    """Build a voxel-to-world matrix from its parts."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(spacing_mm)
    if mirrored:
        affine[:, 0] *= -1
    affine[:3, 3] = shift_mm
    return affine


angles = st.tuples(*[st.floats(-180, 180)] * 3)
small_angles = st.tuples(*[st.floats(-25, 25)] * 3)
spacings = st.tuples(*[st.floats(0.5, 5)] * 3)
shifts = st.tuples(*[st.floats(-200, 200)] * 3)
shapes = st.tuples(*[st.integers(1, 6)] * 3)

affines = st.builds(affine_of, angles, spacings, shifts, st.booleans())
"""Any rotation, anisotropic voxels, left- and right-handed."""


def centred(
    affine: NDArray[np.float64], shape: tuple[int, int, int], centre_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shift an affine so that the grid's centre lies at a point of the world."""
    moved = affine.copy()
    moved[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return moved


def world_of(volume: Volume) -> NDArray[np.float64]:
    """Give the world coordinates of every voxel, `(X, Y, Z, 3)`."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
    return volume.geometry.world(index)


def ball(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    centre_mm: tuple[float, float, float] | NDArray[np.float64],
    radius_mm: float,
    kind: Kind = "mask",
) -> Volume:
    """Make a ball given in world coordinates."""
    empty = Volume(np.zeros(shape, np.float32), affine)
    inside = np.linalg.norm(world_of(empty) - np.asarray(centre_mm), axis=-1) <= radius_mm
    return empty.with_data(inside.astype(np.float32), kind)


def centre_of_mass(volume: Volume) -> NDArray[np.float64]:
    """Give the centre of mass in world coordinates."""
    weight = volume.data.astype(np.float64)
    return np.asarray((world_of(volume) * weight[..., None]).sum((0, 1, 2)) / weight.sum())


def overlap(one: Volume, other: Volume) -> float:
    """Give the Dice of two masks."""
    return float(2 * (one.data & other.data).sum() / (one.data.sum() + other.data.sum()))
