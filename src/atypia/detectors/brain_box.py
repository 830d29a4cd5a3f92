"""The part of the working grid that networks see: the brain's box, on the network's own steps."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def box_of(
    brain: Tensor, margin_mm: float, spacing_mm: tuple[float, float, float], multiple: int = 1
) -> tuple[slice, ...]:
    """Give the slices of `(B, C, X, Y, Z)` that hold all brains, with a margin on each side.

    They start at a multiple of the network's coarsest step: shifted against it, a network with
    strides answers differently.
    """
    slices = [slice(None), slice(None)]
    for axis, spacing in enumerate(spacing_mm):
        others = tuple(a for a in range(5) if a != axis + 2)
        places = brain.any(dim=others).nonzero()[:, 0]
        if not len(places):
            slices.append(slice(None))
            continue
        margin = int(np.ceil(margin_mm / spacing))
        first, last = int(places[0]) - margin, int(places[-1]) + margin + 1
        slices.append(slice(max(first, 0) // multiple * multiple, -(-last // multiple) * multiple))
    return tuple(slices)
