"""OpenSimplex noise literally: pixel by pixel, lattice point by lattice point, in float64.

`everywhere` sums over every lattice point near the pixel, whether in reach or not; `four_points`
picks those in reach by cases, as implementations for one pixel do, and is what a field takes when
nothing is shared between pixels. Nothing here is shared with the package but the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Gradients = Mapping[tuple[int, int], tuple[float, float]]
Value = Callable[[float, float, Gradients], float]

LONG, SHORT = (math.sqrt(3) + 1) / 2, (math.sqrt(3) - 1) / 2
"""Lattice point (i, j) lies at (LONG i + SHORT j, SHORT i + LONG j)."""


def literal_field(
    octaves: Sequence[Gradients],
    origins: Sequence[tuple[float, float]],
    height: int,
    width: int,
    base: float,
    persistence: float,
    value: Value,
) -> NDArray[np.float64]:
    """Sum octaves of halved period; origins are lattice coordinates of the first pixel."""
    field = np.zeros((height, width))
    for octave, (gradients, (i, j)) in enumerate(zip(octaves, origins, strict=True)):
        period = base / 2**octave
        start_y, start_x = LONG * i + SHORT * j, SHORT * i + LONG * j
        for row in range(height):
            for column in range(width):
                y, x = start_y + row / period, start_x + column / period
                field[row, column] += persistence**octave * value(y, x, gradients)
    return field


def everywhere(y: float, x: float, gradients: Gradients) -> float:
    """Sum over a block of lattice points that holds all in reach, and many that are not."""
    i, j = _lattice(y, x)
    total = 0.0
    for row in range(math.floor(i) - 3, math.floor(i) + 5):
        for column in range(math.floor(j) - 3, math.floor(j) + 5):
            if 2 - _offset(y, x, row, column)[2] > 0:
                total += _contribution(y, x, row, column, gradients)
    return total


def four_points(y: float, x: float, gradients: Gradients) -> float:
    """Sum over the three corners of the triangle and the one more point that may be in reach."""
    i, j = _lattice(y, x)
    row, column = math.floor(i), math.floor(j)
    i, j = i - row, j - column
    total = _contribution(y, x, row + 1, column, gradients)
    total += _contribution(y, x, row, column + 1, gradients)
    upper = i + j > 1
    if upper:
        i, j = 1 - i, 1 - j
    far = (1, 1) if 1 - i - j <= min(i, j) else (1, -1) if i > j else (-1, 1)
    for along_i, along_j in ((0, 0), far):
        place = (
            (row + 1 - along_i, column + 1 - along_j)
            if upper
            else (row + along_i, column + along_j)
        )
        total += _contribution(y, x, *place, gradients)
    return total


def _lattice(y: float, x: float) -> tuple[float, float]:
    determinant = LONG**2 - SHORT**2
    return (LONG * y - SHORT * x) / determinant, (LONG * x - SHORT * y) / determinant


def _offset(y: float, x: float, i: int, j: int) -> tuple[float, float, float]:
    dy, dx = y - LONG * i - SHORT * j, x - SHORT * i - LONG * j
    return dy, dx, dy * dy + dx * dx


def _contribution(y: float, x: float, i: int, j: int, gradients: Gradients) -> float:
    dy, dx, squared = _offset(y, x, i, j)
    if squared >= 2:
        return 0.0
    along_y, along_x = gradients[i, j]
    weight = (2 - squared) ** 2
    return weight * weight * (along_y * dy + along_x * dx) / 47
