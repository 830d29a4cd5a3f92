"""Random spatial masks for learning to fill in what is hidden."""

from __future__ import annotations

import math

import torch
from torch import Tensor

POINTS = 100_000
"""Points that the reference scatters for one blob."""
BLOCKS_MM = (4.0, 2.0, 8.0)
BLOCK_CHANCES = (0.5, 0.25, 0.25)
"""Edges of the coarse voxels in which a blob is drawn, and how often each is chosen."""
VARIANCES = (0.3, 10.0)
"""Range of a blob's variance along its own axes, in coarse voxels squared."""
REACH = 5.7
"""Standard deviations beyond which 100,000 points leave less than 1e-3 in any voxel."""


def random_blob(
    brain: Tensor, spacing_mm: tuple[float, float, float], rng: torch.Generator
) -> Tensor:
    """Hide one anisotropic, randomly turned Gaussian blob centred in the brain.

    The distribution is that of IterMask3D (arXiv 2504.04911, as in its code): 100,000 points of a
    Gaussian are rounded into coarse voxels of 2, 4 or 8 mm, and a coarse voxel with a point in it
    is hidden. Here the points are not drawn: a coarse voxel whose expected number of points is
    `n` is hidden with probability `1 - exp(-n)`, which is the same law without 100,000 draws, and
    nothing wraps round the border.

    Parameters
    ----------
    brain
        `(X, Y, Z)` boolean, with at least one voxel.
    spacing_mm
        Voxel size along X, Y, Z.
    rng
        Generator on the device of `brain`.

    Returns
    -------
    torch.Tensor
        `(X, Y, Z)` boolean, within the brain; true = hidden.
    """
    device = brain.device
    choice = torch.multinomial(torch.tensor(BLOCK_CHANCES, device=device), 1, generator=rng)
    block = BLOCKS_MM[int(choice)]
    turn = _random_rotation(rng)
    low, high = VARIANCES
    variances = low + (high - low) * torch.rand(3, generator=rng, device=device)
    inside = brain.nonzero()
    pick = torch.randint(len(inside), (1,), generator=rng, device=device)
    spacing = torch.tensor(spacing_mm, device=device)
    centre = (inside[pick][0] + 0.5) * spacing / block

    # Coarse voxels in reach of the blob, and what is drawn for each.
    covariance = turn * variances @ turn.T
    reach = REACH * covariance.diagonal().sqrt()
    first = (centre - reach).floor().long().clamp(min=0)
    last = (centre + reach).floor().long()
    axes = [
        torch.arange(int(a), int(b) + 1, device=device) for a, b in zip(first, last, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    along = (grid + 0.5 - centre) @ turn
    squared_distance = (along**2 / variances).sum(-1)
    density = torch.exp(-0.5 * squared_distance) / torch.sqrt((2 * math.pi) ** 3 * variances.prod())
    draws = torch.rand(density.shape, generator=rng, device=device)
    coarse = draws < 1 - torch.exp(-POINTS * density)
    return _onto(coarse, first, brain, spacing / block)


def _onto(coarse: Tensor, first: Tensor, brain: Tensor, step: Tensor) -> Tensor:
    """Look up the coarse voxel of each voxel; outside of them nothing is hidden."""
    hidden = torch.zeros_like(brain)
    places, sources = [], []
    for axis in range(3):
        index = (torch.arange(brain.shape[axis], device=brain.device) + 0.5) * step[axis]
        index = index.long() - first[axis]
        inside = ((index >= 0) & (index < coarse.shape[axis])).nonzero()[:, 0]
        places.append(inside)
        sources.append(index[inside])
    block = coarse[sources[0]][:, sources[1]][:, :, sources[2]]
    hidden[places[0][:, None, None], places[1][:, None], places[2]] = block
    return hidden & brain


def random_mask(
    brain: Tensor,
    spacing_mm: tuple[float, float, float],
    rng: torch.Generator,
    full_share: float = 0.0,
    near_full_share: float = 0.0,
    most_blobs: int = 1,
) -> Tensor:
    """Hide the whole brain, nearly all of it, or one or several blobs.

    With the default shares this is the reference's training mask, which rarely covers more than
    60 % of the brain although the search starts from 100 %; the shares close that gap.

    Parameters
    ----------
    brain, spacing_mm, rng
        As for `random_blob`.
    full_share
        Probability of hiding the whole brain.
    near_full_share
        Probability of hiding all but a few blobs.
    most_blobs
        Largest number of blobs; each number is equally likely.
    """
    dice = float(torch.rand(1, generator=rng, device=brain.device))
    if dice < full_share or not brain.any():
        return brain.clone()
    count = int(torch.randint(1, most_blobs + 1, (1,), generator=rng, device=brain.device))
    blobs = torch.zeros_like(brain)
    for _ in range(count):
        blobs |= random_blob(brain, spacing_mm, rng)
    return brain & ~blobs if dice < full_share + near_full_share else blobs


def error_mask(error: Tensor, brain: Tensor, rng: torch.Generator) -> Tensor:
    """Hide the voxels of largest error, as the search does on its way to the knee.

    Parameters
    ----------
    error
        `(X, Y, Z)`, of any reconstruction.
    brain
        `(X, Y, Z)` boolean.
    rng
        Draws the share of the brain that is hidden: between 0.5 and 90 percent, small shares as
        often as large ones.

    Returns
    -------
    torch.Tensor
        `(X, Y, Z)` boolean, within the brain; true = hidden.
    """
    inside = error[brain]
    if not len(inside):
        return brain.clone()
    low, high = math.log(0.005), math.log(0.9)
    draw = float(torch.rand(1, generator=rng, device=error.device))
    share = math.exp(low + (high - low) * draw)
    rank = min(len(inside), max(1, round(len(inside) * (1 - share))))
    return (error > inside.kthvalue(rank).values) & brain


def _random_rotation(rng: torch.Generator) -> Tensor:
    """Draw a Haar-random orthogonal 3x3 matrix."""
    turn, upper = torch.linalg.qr(torch.randn(3, 3, generator=rng, device=rng.device))
    rotation: Tensor = turn * torch.sign(torch.diagonal(upper))
    return rotation
