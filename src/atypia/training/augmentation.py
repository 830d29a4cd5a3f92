"""Random changes of training scans, drawn anew at every step on the device that trains."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from atypia.settings import Settings
from atypia.training.corruption import random_corruption


class Augmentation(Settings):
    """Which changes, and how often."""

    flip_share: float = Field(0.5, ge=0, le=1)
    """Share of the steps in which scans are mirrored, left for right."""
    quarter_turn_share: float = Field(0.0, ge=0, le=1)
    """Share of the steps with one to three quarter turns in the plane of X and Z (IterMask3D)."""
    corruption_share: float = Field(0.0, ge=0, le=1)
    """Share of the scans that carry a random corruption, which the network learns to take out."""
    corruption: float = Field(1.0, gt=0)
    """Largest standard deviation of the corruption, in those of the brain's intensities."""


def augment(
    settings: Augmentation, image: Tensor, brain: Tensor, prior: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Change a batch of scans.

    Parameters
    ----------
    settings
        Which changes.
    image, brain
        `(B, 1, X, Y, Z)`; brain is boolean.
    prior
        `(1, 1, X, Y, Z)`, turned in the same way.
    rng
        Generator on their device.

    Returns
    -------
    tuple
        Image, brain, prior, and the corruption `(B, 1, X, Y, Z)` that is to be added to the image
        as the network sees it (zero where there is none).
    """
    flip, turn, turns = torch.rand(3, generator=rng, device=rng.device).tolist()
    tensors = [image, brain, prior]
    if flip < settings.flip_share:
        tensors = [t.flip(2) for t in tensors]
    if turn < settings.quarter_turn_share:
        tensors = [_turned(t, 1 + int(turns * 3)) for t in tensors]
    image, brain, prior = tensors
    corruption = torch.zeros_like(image)
    if settings.corruption_share:
        shape = (image.shape[2], image.shape[3], image.shape[4])
        for one in corruption:
            draw = float(torch.rand(1, generator=rng, device=rng.device))
            if draw < settings.corruption_share:
                one[0] = random_corruption(shape, settings.corruption, rng)
    return image, brain, prior, corruption


def _turned(x: Tensor, times: int) -> Tensor:
    """Turn in the plane of X and Z; on a grid that is no cube, cut and fill to the same shape."""
    turned = torch.rot90(x, times, (2, 4))
    if turned.shape == x.shape:
        return turned
    result = torch.zeros_like(x)
    pairs = [(a, b) for a, b in zip(turned.shape[2:], x.shape[2:], strict=True)]
    source = tuple(slice(max(0, (a - b) // 2), max(0, (a - b) // 2) + min(a, b)) for a, b in pairs)
    place = tuple(slice(max(0, (b - a) // 2), max(0, (b - a) // 2) + min(a, b)) for a, b in pairs)
    result[:, :, *place] = turned[:, :, *source]
    return result
