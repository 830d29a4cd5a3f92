"""What an artefact works on: an upright image of known scale, and where the head lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.fields import Float


@dataclass(frozen=True, eq=False)
class Canvas:
    """An image ready to be falsified.

    Parameters
    ----------
    data
        `(X, Y, Z)`, RAS+, background 0, the brain's 99th percentile 1.
    inside
        Brain mask.
    spacing_mm
        Along x, y and z.
    """

    data: Float
    inside: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]

    @cached_property
    def box(self) -> list[tuple[int, int]]:
        """First and last voxel of the brain along each axis."""
        bounds = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            found = np.flatnonzero(self.inside.any(axis=others))
            bounds.append((int(found[0]), int(found[-1])))
        return bounds

    @cached_property
    def middle_mm(self) -> Float:
        """Middle of the brain's box, mm from the first voxel."""
        steps = [(a + b) / 2 * s for (a, b), s in zip(self.box, self.spacing_mm, strict=True)]
        return np.asarray(steps, dtype=np.float32)

    def axis_mm(self, axis: int) -> Float:
        """Coordinates along an axis, mm from the middle of the brain, shaped to broadcast."""
        places = np.arange(self.data.shape[axis], dtype=np.float32) * self.spacing_mm[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        return np.asarray(places - self.middle_mm[axis], dtype=np.float32).reshape(shape)
