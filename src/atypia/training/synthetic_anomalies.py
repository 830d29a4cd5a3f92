"""Synthetic anomalies: what a network learns to take out of a healthy scan, and to point at.

In the manner of Foreign Patch Interpolation (Tan et al. 2020, arXiv 2011.04197) and DISYRE (Naval
Marimont et al. 2024, arXiv 2311.15453): a soft region of random place, size and form gets another
intensity, another texture, a piece of brain from elsewhere, a local bias or blur, or its tissue is
pushed aside. None of it is a model of a lesion: no region follows the anatomy, and intensities are
drawn wider than any sequence shows them.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from atypia.settings import Settings

KINDS = ("level", "offset", "texture", "foreign", "bias", "blur", "displacement")
"""What is done within a region; each is equally likely."""

VISIBLE = 0.15
"""Differences from the healthy scan below this, in standard deviations of its brain, count as
healthy: nobody could point at them."""


class SyntheticAnomalies(Settings):
    """How scans are corrupted."""

    none_share: float = Field(0.15, ge=0, le=1)
    """Share of the scans that stay as they are."""
    most: int = Field(3, ge=1)
    """Largest number of regions in a scan; each number is equally likely."""
    smallest_mm: float = Field(3.0, gt=0)
    """Smallest mean radius of a region; small ones are as likely as large ones."""
    largest_mm: float = Field(32.0, gt=0)
    """Largest mean radius of a region."""


def corrupt(
    image: Tensor,
    brain: Tensor,
    spacing_mm: tuple[float, float, float],
    settings: SyntheticAnomalies,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Put synthetic anomalies into a scan.

    Parameters
    ----------
    image
        `(X, Y, Z)`, normalised intensities, zero outside the brain.
    brain
        `(X, Y, Z)` boolean.
    spacing_mm
        Along (X, Y, Z).
    settings
        How.
    rng
        Generator on their device.

    Returns
    -------
    tuple
        The scan with anomalies, and where it visibly differs from the healthy one, boolean.
    """
    draws = torch.rand(2, generator=rng, device=rng.device).tolist()
    if draws[0] < settings.none_share or not brain.any():
        return image, torch.zeros_like(brain)
    result = image
    for _ in range(1 + int(draws[1] * settings.most)):
        region = soft_region(brain, spacing_mm, settings, rng)
        result = _changed(result, region, brain, rng)
    return result, brain & ((result - image).abs() > VISIBLE)


def soft_region(
    brain: Tensor,
    spacing_mm: tuple[float, float, float],
    settings: SyntheticAnomalies,
    rng: torch.Generator,
) -> Tensor:
    """Draw a region: an ellipsoid, turned, roughened by smooth noise, with a soft edge.

    Returns
    -------
    torch.Tensor
        `(X, Y, Z)`, 0 to 1, zero outside the brain.
    """
    device = rng.device
    draws = torch.rand(8, generator=rng, device=device).tolist()
    inside = brain.nonzero()
    centre = inside[min(int(draws[0] * len(inside)), len(inside) - 1)].tolist()
    low, high = math.log(settings.smallest_mm), math.log(settings.largest_mm)
    radius = math.exp(low + (high - low) * draws[1])
    axes = [
        ((torch.arange(size, device=device) - place) * step).reshape(
            [-1 if axis == other else 1 for other in range(3)]
        )
        for axis, (size, place, step) in enumerate(
            zip(brain.shape, centre, spacing_mm, strict=True)
        )
    ]
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=rng, device=device))
    square = torch.zeros((), device=device)
    for row, draw in zip(turn.tolist(), draws[2:5], strict=True):
        along = sum(part * factor for part, factor in zip(axes, row, strict=True))
        square = square + (along / (radius * (0.55 + 1.1 * draw))) ** 2
    rough = 0.1 + 0.5 * draws[5]
    height = 1 - square.sqrt() + rough * smooth_field(brain.shape, spacing_mm, 0.8 * radius, rng)
    softness = max(0.08, 0.5 * (0.5 + draws[6]) * spacing_mm[0] / radius)
    return torch.sigmoid(height / softness) * brain


def smooth_field(
    shape: torch.Size, spacing_mm: tuple[float, float, float], bump_mm: float, rng: torch.Generator
) -> Tensor:
    """Draw noise of standard deviation about one, with bumps of about a size, `(X, Y, Z)`."""
    counts = [
        max(2, min(size, math.ceil(size * step / bump_mm) + 1))
        for size, step in zip(shape, spacing_mm, strict=True)
    ]
    noise = torch.randn((1, 1, *counts), generator=rng, device=rng.device)
    field = functional.interpolate(noise, size=tuple(shape), mode="trilinear", align_corners=True)
    result: Tensor = field[0, 0] / field.std().clamp(min=1e-6)
    return result


def _changed(image: Tensor, region: Tensor, brain: Tensor, rng: torch.Generator) -> Tensor:
    """Do one of `KINDS` within a region."""
    device = rng.device
    draws: list[float] = torch.rand(8, generator=rng, device=device).tolist()
    kind = KINDS[min(int(draws[0] * len(KINDS)), len(KINDS) - 1)]
    sign = 1.0 if draws[1] < 0.5 else -1.0
    one = (1.0, 1.0, 1.0)
    share = region * (0.5 + 0.5 * draws[2])
    if kind == "level":
        texture = 0.3 * draws[3] * smooth_field(image.shape, one, 2 + 4 * draws[4], rng)
        return image + share * (-2.5 + 5.5 * draws[5] + texture - image)
    if kind == "offset":
        return image + share * sign * (0.3 + 2.2 * draws[3])
    if kind == "texture":
        return image + region * (0.3 + draws[3]) * smooth_field(
            image.shape, one, 1.2 + 5 * draws[4], rng
        )
    if kind == "foreign":
        sizes = zip(draws[3:6], image.shape, strict=True)
        shifts = [int((2 * draw - 1) * size / 2) for draw, size in sizes]
        other = torch.roll(image.flip(0) if draws[6] < 0.5 else image, shifts, (0, 1, 2))
        return image + share * (other * sign - image) * brain
    if kind == "bias":
        low = image[brain].min()
        return torch.where(brain, low + (image - low) * torch.exp(sign * 0.7 * share), image)
    if kind == "blur":
        edge = 3 + 2 * int(3 * draws[3])
        blurred = functional.avg_pool3d(image[None, None], edge, 1, edge // 2)[0, 0]
        return image + share * (blurred - image)
    return _pushed(image, region, sign * (2 + 6 * draws[3]), rng) * brain


def _pushed(image: Tensor, region: Tensor, voxels: float, rng: torch.Generator) -> Tensor:
    """Push tissue out of a region or draw it in, along the region's slope."""
    slopes = torch.stack(torch.gradient(region))
    steepest = slopes.norm(dim=0).max().clamp(min=1e-6)
    shift = voxels * slopes / steepest
    axes = [torch.linspace(-1, 1, size, device=image.device) for size in image.shape]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    scale = torch.tensor([2 / max(size - 1, 1) for size in image.shape], device=image.device)
    moved = (shift.permute(1, 2, 3, 0) * scale).flip(-1)
    grid = (places + moved)[None]
    pushed = functional.grid_sample(image[None, None], grid, align_corners=True)
    result: Tensor = pushed[0, 0]
    return result
