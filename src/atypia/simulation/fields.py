"""Smooth random fields: white noise on a lattice of control points, joined by cubic B-splines.

The lattice is fixed in world millimetres, so the same numbers give the same field on every grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atypia.volume import Geometry

Float = NDArray[np.float32]

REACH_MM = 140.0
"""The lattices cover this far from the world origin on every side."""


def lattice_shape(step_mm: float) -> tuple[int, int, int]:
    """Give the number of control points along each axis for a lattice of this step."""
    count = int(np.ceil(2 * REACH_MM / step_mm)) + 4
    return (count, count, count)


def spline_field(lattice: Float, step_mm: float, geometry: Geometry) -> Float:
    """Evaluate a lattice of cubic B-spline coefficients on a grid.

    Parameters
    ----------
    lattice
        Coefficients `(N, N, N)` of `lattice_shape(step_mm)`.
    step_mm
        Distance between control points.
    geometry
        An axis-aligned RAS+ grid within `REACH_MM` of the origin; beyond, the field stays flat.

    Returns
    -------
    float32 array
        Of the grid's shape.
    """
    field = lattice
    for axis in (2, 1, 0):
        places = axis_mm(geometry, axis)
        steps = (places + REACH_MM) / step_mm + 1
        first = np.floor(steps).astype(int) - 1
        distance = np.abs(steps - (first + np.arange(4)[:, None]))
        field = weigh_neighbours(field, axis, first, _cubic(distance))
    return field


def axis_mm(geometry: Geometry, axis: int) -> NDArray[np.float64]:
    """Give the world coordinates along one axis of an axis-aligned grid, mm."""
    affine = geometry.affine
    return np.asarray(affine[axis, 3] + affine[axis, axis] * np.arange(geometry.shape[axis]))


def weigh_neighbours(
    values: Float, axis: int, first: NDArray[np.int64], weights: NDArray[np.float64]
) -> Float:
    """Interpolate along one axis.

    A matrix product would say it shorter, but BLAS keeps its threads spinning over products as
    thin as these, which costs more processor time than the work itself.

    Parameters
    ----------
    values
        `(X, Y, Z)`.
    axis
        The axis to replace.
    first
        `(N,)`, for each new place the first old one that counts; beyond the ends the last counts.
    weights
        `(taps, N)`, of `first`, `first + 1`, ...

    Returns
    -------
    float32 array
        With N places along the axis.
    """
    shape = [1, 1, 1]
    shape[axis] = -1
    total: Float | None = None
    for tap, weight in enumerate(weights.astype(np.float32)):
        chosen = np.clip(first + tap, 0, values.shape[axis] - 1)
        part = np.take(values, chosen, axis=axis)
        part *= weight.reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


def smooth_noise(rng: np.random.Generator, step_mm: float, geometry: Geometry) -> Float:
    """Draw a smooth field of mean 0 and standard deviation 1, with bumps about `step_mm` wide."""
    lattice = rng.standard_normal(lattice_shape(step_mm), dtype=np.float32)
    # B-spline weights average neighbours: per axis about 0.69 of the standard deviation is left.
    return spline_field(lattice, step_mm, geometry) / np.float32(0.69**3)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of a control point of the uniform cubic B-spline, at a distance in steps."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


def sigmoid(value: NDArray[np.floating]) -> Float:
    """Rise from 0 to 1 around 0; stable for values of any size."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * value)), dtype=np.float32)
