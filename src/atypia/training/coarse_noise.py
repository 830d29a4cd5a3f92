"""Coarse noise: white noise on a coarse lattice, interpolated to the scan's grid.

Source: Kascenas, Pugeault and O'Neil, "Denoising autoencoders for unsupervised anomaly detection in
brain MRI", MIDL 2022, and "The role of noise in denoising models for anomaly detection in medical
images", Medical Image Analysis 90 (2023): noise of 16 x 16 values over a slice of 128 x 128, of
standard deviation 0.2 where intensities go from 0 to 1. What is taken out of scans with such noise
later are bumps of about its size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def coarse_noise(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    cell_mm: float,
    rng: torch.Generator,
) -> Tensor:
    """Draw coarse noise at a random position of its lattice.

    Parameters
    ----------
    shape, spacing_mm
        Of the grid, along (X, Y, Z).
    cell_mm
        Distance of the lattice's points.
    rng
        Generator on the device of the result.

    Returns
    -------
    torch.Tensor
        `(X, Y, Z)`; the lattice's values have standard deviation one, what lies between less.
    """
    cells = [max(1.0, cell_mm / step) for step in spacing_mm]
    counts = [math.ceil(size / cell) + 2 for size, cell in zip(shape, cells, strict=True)]
    noise = torch.randn((1, 1, *counts), generator=rng, device=rng.device)
    sizes = [round((count - 1) * cell) + 1 for count, cell in zip(counts, cells, strict=True)]
    field = functional.interpolate(noise, size=sizes, mode="trilinear", align_corners=True)[0, 0]
    draws = torch.rand(3, generator=rng, device=rng.device).tolist()
    starts = [
        int(draw * (whole - size + 1))
        for draw, whole, size in zip(draws, field.shape, shape, strict=True)
    ]
    x, y, z = (slice(start, start + size) for start, size in zip(starts, shape, strict=True))
    result: Tensor = field[x, y, z]
    return result
