"""Random contrast: intensities of a scan bent at random, as another sequence might show them."""

from __future__ import annotations

import torch
from torch import Tensor

KNOTS = 6
"""Of the random curve, evenly spread over the scan's intensities."""

REACH = 3.0
"""The curve's ends, in standard deviations of the brain."""


def random_contrast(image: Tensor, brain: Tensor, rng: torch.Generator) -> Tensor:
    """Bend the intensities of a scan by a random rising curve, half of the time upside down.

    Parameters
    ----------
    image
        `(X, Y, Z)`, normalised intensities.
    brain
        `(X, Y, Z)` boolean.
    rng
        Generator on their device.

    Returns
    -------
    torch.Tensor
        `(X, Y, Z)`, mean 0 and standard deviation 1 in the brain, zero outside.
    """
    device = rng.device
    steps = torch.rand(KNOTS - 1, generator=rng, device=device) + 0.15
    heights = torch.cat([torch.zeros(1, device=device), torch.cumsum(steps, 0)])
    place = ((image.clamp(-REACH, REACH) + REACH) / (2 * REACH) * (KNOTS - 1)).clamp(
        0, KNOTS - 1 - 1e-4
    )
    first = place.floor().long()
    share = place - first
    bent = heights[first] * (1 - share) + heights[first + 1] * share
    if float(torch.rand(1, generator=rng, device=device)) < 0.5:
        bent = -bent
    inside = bent[brain]
    if inside.numel() < 2:
        return image
    result: Tensor = (bent - inside.mean()) / inside.std().clamp(min=1e-6) * brain
    return result
