"""Places: where in the template brain a point lies, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atypia.templates import mni152

REACH_MM = 2.0
"""The tissue is that of a cube which reaches so far to all sides."""
MIDDLE_MM = 4.0
"""Nearer to the middle than this a place is on neither side."""


def place_in_words(template_mm: Sequence[float]) -> str:
    """Name side and tissue of a point, e.g. "left, white matter".

    Parameters
    ----------
    template_mm
        x, y, z in MNI152 world coordinates.

    Notes
    -----
    By the template's tissue maps, averages over many people: in one person's cortex it may err.
    """
    template = mni152()
    x = float(template_mm[0])
    side = "middle" if abs(x) < MIDDLE_MM else "left" if x < 0 else "right"
    centre = np.rint(template.brain.geometry.voxel(template_mm)).astype(int)
    reach = np.rint(REACH_MM / np.array(template.brain.spacing_mm)).astype(int)
    low, high = centre - reach, centre + reach + 1
    if (high <= 0).any() or (low >= template.brain.shape).any():
        return f"{side}, outside the template's brain"
    box = tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))
    inside = template.brain.data[box]
    if inside.mean() < 0.5:
        return f"{side}, outside the template's brain"
    gray, white = (
        float(tissue.data[box][inside].mean()) / 255
        for tissue in (template.gray_matter, template.white_matter)
    )
    shares = {"gray matter": gray, "white matter": white, "CSF": 1 - gray - white}
    return f"{side}, {max(shares, key=lambda name: shares[name])}"
