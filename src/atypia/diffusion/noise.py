"""Random fields that diffusion adds to slices: Gaussian noise and fractal simplex noise.

Simplex noise puts random gradients on the points of a triangular lattice; a pixel's value is the
sum over nearby points of a kernel times the gradient's rise from the point to the pixel (Perlin,
"Noise hardware", 2001; the lattice and kernel here are those of OpenSimplex, Spencer, 2014, which
AnoDDPM, Wyatt et al., CVPR Workshops 2022, brought to anomaly detection). The fractal sum adds
octaves of halved period. All of it is linear in the gradients, with factors that depend on the
pixel only, so these are worked out once and applied to all fields of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

NoiseKind = Literal["gaussian", "simplex", "simplex_shared"]
"""What `draw_noise` can draw."""

OCTAVES = 6
PERSISTENCE = 0.8
BASE = 64.0
"""Published fractal: periods of 64, 32, ..., 2 pixels, each with 0.8 of the amplitude before it."""

STRETCH = (1 / math.sqrt(3) - 1) / 2
SQUISH = (math.sqrt(3) - 1) / 2
"""To lattice coordinates add STRETCH times their sum to the plane's; and SQUISH for the way back.

Lattice points lie at whole lattice coordinates; in the plane their distance is sqrt(2) periods.
"""

KERNEL = 2.0
"""Squared reach of a lattice point, in periods squared; the kernel is (KERNEL - distance^2)^4."""

DIRECTIONS = (
    *((5.0, 2.0), (2.0, 5.0), (-2.0, 5.0), (-5.0, 2.0)),
    *((-5.0, -2.0), (-2.0, -5.0), (2.0, -5.0), (5.0, -2.0)),
)
"""The eight gradients of OpenSimplex, from which a lattice point has one."""

SCALE = 1 / 47
"""Brings one octave to about -1 to 1."""


def draw_noise(
    kind: NoiseKind,
    shape: tuple[int, int, int, int],
    generator: torch.Generator,
    paired: bool = False,
) -> Tensor:
    """Draw noise for a batch of slices.

    Parameters
    ----------
    kind
        ``"gaussian"`` (white), ``"simplex"`` (a field of mean 0 and variance 1 for each slice) or
        ``"simplex_shared"`` (as published for cDDPM, arXiv 2312.04215: one field for the whole
        batch, as it comes).
    shape
        `(B, 1, H, W)`.
    generator
        On the device that the noise is for.
    paired
        Antithetic: items `B / 2` and on are the negatives of the first ones. Averages over a pair
        lose all errors that are odd in the noise. In an odd batch the middle item is alone.

    Returns
    -------
    torch.Tensor
        `(B, 1, H, W)`, float32.
    """
    if paired:
        half = (shape[0] + 1) // 2
        drawn = draw_noise(kind, (half, *shape[1:]), generator)
        return torch.cat([drawn, -drawn])[: shape[0]]
    if kind == "gaussian":
        return gaussian(shape, generator)
    shared = kind == "simplex_shared"
    return simplex(shape, generator, standardise=not shared, shared=shared)


def gaussian(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw white noise of mean 0 and variance 1, float32, on the generator's device."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


def simplex(
    shape: tuple[int, int, int, int],
    generator: torch.Generator,
    octaves: int = OCTAVES,
    persistence: float = PERSISTENCE,
    base: float = BASE,
    standardise: bool = True,
    shared: bool = False,
) -> Tensor:
    """Draw fractal simplex noise, another field for each item of a batch.

    Gradients are drawn for each lattice point, octave and item; the published code hashes a
    permutation of 256 numbers instead, the same one in each octave. Where the lattices lie is
    drawn once a call: at a lattice point an octave is zero, which would otherwise always be at
    the same pixels.

    Parameters
    ----------
    shape
        `(B, 1, H, W)` with at least two pixels.
    generator
        On the device that the noise is for.
    octaves
        Number of fields that are added.
    persistence
        Amplitude of an octave over that of the one before.
    base
        Period of the first octave, pixels; each further one has half of it.
    standardise
        Shift and scale each field to mean 0 and variance 1 over its pixels. As they come, fields
        of 96 x 96 have a standard deviation of about 0.55 and means that scatter by 0.15 to 0.2, so
        that the ratio of signal and noise is not the one of the diffusion schedule.
    shared
        Published behaviour: one field for all items, with a lattice point of every octave at the
        first pixel.

    Returns
    -------
    torch.Tensor
        `(B, 1, H, W)`, float32.
    """
    count, channels, height, width = shape
    fields = 1 if shared else count * channels
    origins = torch.rand((octaves, 2), generator=generator, device=generator.device)
    total = torch.zeros(height * width, fields, device=generator.device)
    for octave in range(octaves):
        period = base / 2**octave
        _, points = lattice_box(height, width, period)
        gradients = _draw_gradients((points[0] * points[1], fields), generator)
        origin = origins[octave] * (not shared)
        total += persistence**octave * simplex_octave(gradients, origin, height, width, period)
    if standardise:
        total -= total.mean(0)
        total /= total.std(0, correction=0)
    noise = total.T.expand(count * channels, -1)
    return noise.contiguous().reshape(shape)


def simplex_octave(
    gradients: Tensor, origin: Tensor, height: int, width: int, period: float
) -> Tensor:
    """Sum the lattice points' contributions to each pixel, for many fields on one lattice.

    A pixel is in reach of the corners of its triangle, and of one more point at most: of the
    mirror images of the corners, that across the nearest edge.

    Parameters
    ----------
    gradients
        `(2 * points, fields)`: for each point of `lattice_box`, row after row, the gradient along
        the height, then along the width.
    origin
        `(2,)`, lattice coordinates of the first pixel, from 0 up to 1.
    height, width
        Of the fields, pixels.
    period
        Pixels.

    Returns
    -------
    torch.Tensor
        `(height * width, fields)`.
    """
    device = gradients.device
    (first_i, first_j), (_, columns) = lattice_box(height, width, period)
    y = torch.arange(height, device=device)[:, None] / period
    x = torch.arange(width, device=device) / period
    lean = STRETCH * (y + x)
    i, j = (y + lean + origin[0]).flatten(), (x + lean + origin[1]).flatten()
    row, column = i.floor(), j.floor()
    corners_i, corners_j = _points_in_reach(i - row, j - column)
    # From the lattice point to the pixel, in lattice coordinates, then in the plane.
    di, dj = i - row - corners_i, j - column - corners_j
    lean = SQUISH * (di + dj)
    dy, dx = di + lean, dj + lean
    kernel = SCALE * (KERNEL - dy.square() - dx.square()).clamp(min=0).square().square()
    index = (row + corners_i - first_i) * columns + (column + corners_j - first_j)
    # Two entries a point: its gradient along the height and along the width.
    entries = torch.stack([2 * index, 2 * index + 1]).flatten(0, 1).T.int().contiguous()
    factors = torch.cat([kernel * dy, kernel * dx]).T.contiguous()
    return embedding_bag(entries, gradients, mode="sum", per_sample_weights=factors)


def lattice_box(height: int, width: int, period: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give the lattice points that a field can need, for every origin from 0 up to 1.

    Returns
    -------
    tuple
        Lattice coordinates of the first point, and the number of rows and columns of points.
    """
    first, numbers = [], []
    for own, other in ((height, width), (width, height)):
        low = math.floor(STRETCH * (other - 1) / period) - 1
        high = math.floor((1 + STRETCH) * (own - 1) / period + 1) + 2
        first.append(low)
        numbers.append(high - low + 1)
    return (first[0], first[1]), (numbers[0], numbers[1])


def _points_in_reach(i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """Give the lattice points, relative to the cell, that can reach a place in the unit cell.

    A cell is two triangles; the upper one is the lower one turned by half a turn.
    """
    upper = i + j > 1
    i, j = torch.where(upper, 1 - i, i), torch.where(upper, 1 - j, j)
    corner = 1 - i - j
    zero, one = torch.zeros_like(i), torch.ones_like(i)
    # The smallest barycentric coordinate tells the nearest edge; the corner opposite is mirrored.
    mirror_i = torch.where((i <= j) & (i <= corner), -one, one)
    mirror_j = torch.where((j < i) & (j <= corner), -one, one)
    points_i = torch.stack([zero, one, zero, mirror_i])
    points_j = torch.stack([zero, zero, one, mirror_j])
    return torch.where(upper, 1 - points_i, points_i), torch.where(upper, 1 - points_j, points_j)


def _draw_gradients(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw one of the directions for each point and field: `(2 * points, fields)`."""
    device = generator.device
    choice = torch.randint(len(DIRECTIONS), shape, generator=generator, device=device)
    gradients = torch.tensor(DIRECTIONS, device=device).T[:, choice]
    return gradients.transpose(0, 1).reshape(2 * shape[0], shape[1])
