"""Step: one act of preprocessing, with measuring its parameters apart from applying them.

A step is settings, hence JSON. What it must know about one scan it measures (`measure`), as plain
JSON values; `apply` is then deterministic, and `world` tells how it moved the brain in the world,
so that results can be brought back. What a step must know about a whole cohort it learns once, when
the plan is made; from then on that is part of its settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from atypia.settings import Settings
from atypia.volume import Geometry, Volume

Parameters = dict[str, Any]
"""What a step measured on one scan: JSON values only."""


@dataclass(frozen=True, eq=False)
class State:
    """A scan on its way through the steps.

    Parameters
    ----------
    image
        Intensities.
    brain
        Brain mask on the same grid; None until it is found or supplied.
    """

    image: Volume
    brain: Volume | None = None

    def require_brain(self) -> Volume:
        """Give the brain mask; steps after `FindBrain` may rely on it."""
        if self.brain is None:
            raise ValueError("this step needs the brain mask: put FindBrain before it")
        return self.brain


class Step(Settings):
    """Base of the steps; a subclass adds `step: Literal["name"]` and overrides what it does."""

    def measure(self, state: State) -> Parameters:
        """Measure what `apply` needs to know about this scan."""
        return {}

    def apply(self, state: State, parameters: Parameters) -> State:
        """Do the step."""
        raise NotImplementedError

    def world(self, parameters: Parameters) -> NDArray[np.float64]:
        """Give the 4x4 matrix that took old world coordinates (mm) to new ones."""
        return np.eye(4)

    def grid_after(self, grid: Geometry | None) -> Geometry | None:
        """Give the grid that this step leaves when it is handed `grid`; None: the scan's own."""
        return grid

    def restore_intensity(
        self, data: NDArray[Any], parameters: Parameters, grid: Geometry | None = None
    ) -> NDArray[Any]:
        """Undo the change of intensities, for a restoration in the scan's own units.

        Parameters
        ----------
        data
            `(X, Y, Z)` intensities as this step leaves them.
        parameters
            What the step measured on the scan.
        grid
            Where `data` lies in the world of this step; needed where the change depends on place.
        """
        return data

    @property
    def must_learn(self) -> bool:
        """Whether the step still has to learn from a cohort before it can be applied."""
        return False

    def gather(self, state: State) -> NDArray[Any]:
        """Give what `learnt` needs of one scan of the cohort."""
        raise NotImplementedError

    def learnt(self, gathered: Sequence[NDArray[Any]]) -> Self:
        """Give the step with what it learnt from the scans of a cohort, as settings."""
        raise NotImplementedError
