"""Smooth invertible deformations: a velocity field, integrated by scaling and squaring.

Displacements live on a coarse grid in template space and are interpolated where they are needed.
A stationary velocity field never folds space, however large its amplitude is, as long as the
coarse grid carries it (Arsigny 2006).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.fields import Float, lattice_shape, spline_field
from atypia.volume import Geometry

COARSE_MM = 5.0
"""Spacing of the grid that holds velocities and displacements."""

SQUARINGS = 5
"""The field is integrated in 2**5 steps."""

VELOCITY_MM: Mapping[float, float] = {64.0: 3.0, 32.0: 2.0, 18.0: 1.4}
"""Lattice step -> standard deviation of the random velocity, mm: head, lobes, gyri."""


def draw_velocity(rng: np.random.Generator) -> dict[float, Float]:
    """Draw white noise on the lattices of `VELOCITY_MM`, each `(3, N, N, N)`."""
    return {
        step: rng.standard_normal((3, *lattice_shape(step)), dtype=np.float32)
        for step in VELOCITY_MM
    }


def velocity_field(lattices: Mapping[float, Float], geometry: Geometry) -> Float:
    """Evaluate the velocity `(3, X, Y, Z)` in mm on a grid in template space."""
    total = np.zeros((3, *geometry.shape), dtype=np.float32)
    for step, lattice in lattices.items():
        amplitude = VELOCITY_MM[step] / 0.69**3
        for axis in range(3):
            total[axis] += amplitude * spline_field(lattice[axis], step, geometry)
    return total


def integrate(velocity: Float, geometry: Geometry) -> Float:
    """Follow a stationary velocity field for one unit of time.

    Parameters
    ----------
    velocity
        `(3, X, Y, Z)`, mm.
    geometry
        Its axis-aligned grid.

    Returns
    -------
    float32 array
        Displacement `(3, X, Y, Z)` in mm: a point x goes to x + displacement(x).
    """
    displacement = velocity / np.float32(2**SQUARINGS)
    places = affine_places(geometry, np.eye(4))
    for _ in range(SQUARINGS):
        displacement = displacement + sample(displacement, places + displacement, geometry, True)
    return displacement


def sample(maps: Float, points: Float, geometry: Geometry, border: bool = False) -> Float:
    """Interpolate maps linearly at world points, with torch, which is faster than scipy.

    Parameters
    ----------
    maps
        `(C, X, Y, Z)` on `geometry`.
    points
        `(3, ...)` world mm.
    geometry
        An axis-aligned RAS+ grid.
    border
        Outside the grid take the nearest value instead of 0.

    Returns
    -------
    float32 array
        `(C, ...)`.
    """
    import torch

    # grid_sample wants a last axis of coordinates in [-1, 1], the fastest-running one first.
    scaled = np.empty((*points.shape[1:], 3), dtype=np.float32)
    for place, axis in enumerate((2, 1, 0)):
        factor = 2 / (geometry.affine[axis, axis] * (geometry.shape[axis] - 1))
        np.multiply(points[axis], np.float32(factor), out=scaled[..., place])
        scaled[..., place] -= np.float32(geometry.affine[axis, 3] * factor + 1)
    with torch.inference_mode():
        values = torch.nn.functional.grid_sample(
            torch.from_numpy(maps)[None],
            torch.from_numpy(scaled.reshape(1, 1, 1, -1, 3)),
            mode="bilinear",
            padding_mode="border" if border else "zeros",
            align_corners=True,
        )
    return np.asarray(values.numpy().reshape(maps.shape[0], *points.shape[1:]))


def jacobian_determinant(displacement: Float, spacing_mm: float) -> Float:
    """Give the local change of volume of x -> x + displacement(x); positive where invertible."""
    gradient = np.empty((3, 3, *displacement.shape[1:]), dtype=np.float32)
    for component in range(3):
        gradient[component] = np.gradient(displacement[component], spacing_mm)
        gradient[component, component] += 1
    return np.asarray(np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1))), dtype=np.float32)


def affine_places(geometry: Geometry, matrix: NDArray[np.float64]) -> Float:
    """World coordinates `(3, X, Y, Z)` of a grid's voxels after a 4x4 world transform, mm."""
    combined = matrix @ geometry.affine
    x, y, z = (np.arange(size, dtype=np.float32) for size in geometry.shape)
    rows = [
        np.float32(row[0]) * x[:, None, None]
        + np.float32(row[1]) * y[None, :, None]
        + np.float32(row[2]) * z[None, None, :]
        + np.float32(row[3])
        for row in combined[:3]
    ]
    return np.stack(rows)
