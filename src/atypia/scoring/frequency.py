"""The high-frequency image: what is left of a scan without its coarse intensities.

Source: the frequency masking of IterMask2 and IterMask3D (arXiv 2406.02422, 2504.04911). Their
cutoff is 15 index units on a 192 mm cube, a wavelength of 12.8 mm; here the cutoff is that
physical wavelength, so that it means the same on every grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

REFERENCE_RADIUS = 15
REFERENCE_WAVELENGTH_MM = 192 / REFERENCE_RADIUS


def high_pass(
    image: Tensor, spacing_mm: tuple[float, float, float], wavelength_mm: float
) -> Tensor:
    """Remove all waves that are longer than `wavelength_mm` (hard edge in k-space).

    Parameters
    ----------
    image
        `(..., X, Y, Z)`, float32.
    spacing_mm
        Voxel size along X, Y, Z.
    wavelength_mm
        Longest wavelength that is kept.

    Returns
    -------
    torch.Tensor
        Same shape, float32; its mean is zero.
    """
    shape = image.shape[-3:]
    spectrum = torch.fft.rfftn(image.float(), dim=(-3, -2, -1))
    keep = _radius(shape, spacing_mm, image.device) >= 1.0 / wavelength_mm
    fine: Tensor = torch.fft.irfftn(spectrum * keep, s=shape, dim=(-3, -2, -1))
    return fine


def high_pass_by_index(image: Tensor, radius: float = REFERENCE_RADIUS) -> Tensor:
    """Remove waves by their index, as the reference's code does it; for parity with it.

    Where the distance to the centre of k-space, counted in indices (waves per field of view), is
    below `radius`, the amplitude becomes 1 (not 0) and the phase stays. On a cube of 192 mm the
    cutoff is the same as `high_pass` with 12.8 mm; on other grids it means something else.

    Parameters
    ----------
    image
        `(..., X, Y, Z)`, float32.
    radius
        In indices.
    """
    shape = image.shape[-3:]
    spectrum = torch.fft.rfftn(image.float(), dim=(-3, -2, -1))
    numbers = [torch.fft.fftfreq(n, 1 / n, device=image.device) for n in shape]
    x, y, z = (number.square() for number in numbers)
    half = z[: spectrum.shape[-1]]
    removed = x[:, None, None] + y[:, None] + half < radius**2
    unit = torch.polar(torch.ones_like(spectrum.real), spectrum.angle())
    spectrum = torch.where(removed, unit, spectrum)
    fine: Tensor = torch.fft.irfftn(spectrum, s=shape, dim=(-3, -2, -1))
    return fine


def _radius(
    shape: torch.Size, spacing_mm: tuple[float, float, float], device: torch.device
) -> Tensor:
    """Distance to the centre of k-space in cycles per mm, on the half grid of a real transform."""
    x = torch.fft.fftfreq(shape[0], spacing_mm[0], device=device)
    y = torch.fft.fftfreq(shape[1], spacing_mm[1], device=device)
    z = torch.fft.rfftfreq(shape[2], spacing_mm[2], device=device)
    squares: Tensor = x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2
    return squares.sqrt()
