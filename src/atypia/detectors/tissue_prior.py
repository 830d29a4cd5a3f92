"""The tissue prior of a detector: what a scan of any contrast is expected to look like."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from atypia.errors import SettingsError
from atypia.preprocessing import Plan
from atypia.preprocessing.align import MNI152, Align
from atypia.simulation.tissue import tissue_shares
from atypia.volume import Geometry

Prior = Literal["mean", "tissues", "none"]
"""The mean healthy brain, for scans of one contrast; the template's tissues with the intensities
that they have in the scan itself, for scans of any (`atypia.scoring.tissue_fit`); or nothing."""


def tissues_on(grid: Geometry) -> Tensor:
    """Give the template's tissue shares on a working grid, `(1, T, X, Y, Z)`."""
    affine = tuple(tuple(round(float(v), 6) for v in row) for row in grid.affine)
    return torch.from_numpy(np.array(tissue_shares(grid.shape, affine)))[None]


def require_template(plan: Plan, method: str) -> None:
    """Refuse a plan whose scans do not come to lie on the template.

    Raises
    ------
    SettingsError
        They keep their own space, or are aligned to another template.
    """
    aligned = [step for step in plan.steps if isinstance(step, Align)]
    if not aligned or aligned[-1].template != MNI152:
        raise SettingsError(
            f"prior of {method}",
            "takes the tissues of the MNI152 template, and the scans are not aligned to it",
            "Give --align affine, rigid or centre, or choose another prior",
        )
