"""Random changes of the intensities of slices, for training; the settings say how often.

The effects are those that the published diffusion models draw from TorchIO (Perez-Garcia et al.
2021, arXiv 2003.04696), with its ranges, but drawn for each slice and not for each volume.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from atypia.settings import Settings


class SliceAugmentation(Settings):
    """How often slices are changed; 0 for never. As published: .5, .25, .25 and .5 of the first."""

    gamma: float = Field(0.0, ge=0, le=1)
    """Contrast: a power of the intensity, between exp(-0.3) and exp(0.3)."""
    bias: float = Field(0.0, ge=0, le=1)
    """A smooth factor: the exponential of a random polynomial of degree three."""
    blur: float = Field(0.0, ge=0, le=1)
    """A Gaussian filter of up to two pixels."""
    ghosting: float = Field(0.0, ge=0, le=1)
    """Four to ten ghosts along one axis."""
    noise: float = Field(0.0, ge=0, le=1)
    """Gaussian noise, standard deviation up to 0.25."""


def augmented(slices: Tensor, settings: SliceAugmentation, rng: torch.Generator) -> Tensor:
    """Change the intensities of some slices.

    Parameters
    ----------
    slices
        `(B, 1, H, W)`, about 0 to 1.
    settings
        How often.
    rng
        On the device of the slices.

    Returns
    -------
    torch.Tensor
        Same shape; the same slices where nothing is asked for. Where something is, zero stays
        zero, as what is not brain is, and nothing is below zero.
    """
    effects: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
        "gamma": _gamma,
        "bias": _bias,
        "blur": _blur,
        "ghosting": _ghosting,
        "noise": _noise,
    }
    if not any(getattr(settings, name) for name in effects):
        return slices
    outside = slices == 0
    for name, effect in effects.items():
        share = getattr(settings, name)
        if share:
            chosen = _uniform(slices, rng) < share
            slices = torch.where(chosen, effect(slices, rng), slices)
    return slices.clamp(min=0).masked_fill(outside, 0)


def _uniform(slices: Tensor, rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw a number for each slice, `(B, 1, 1, 1)`."""
    draws = torch.rand(len(slices), 1, 1, 1, generator=rng, device=slices.device)
    return low + (high - low) * draws


def _gamma(slices: Tensor, rng: torch.Generator) -> Tensor:
    return slices.clamp(min=0) ** _uniform(slices, rng, -0.3, 0.3).exp()


def _bias(slices: Tensor, rng: torch.Generator) -> Tensor:
    height, width = slices.shape[-2:]
    x = torch.linspace(-1, 1, height, device=slices.device)[:, None]
    y = torch.linspace(-1, 1, width, device=slices.device)[None]
    field = torch.zeros_like(slices)
    for i in range(4):
        for j in range(4 - i):
            field = field + _uniform(slices, rng, -0.5, 0.5) * (x**i * y**j)
    return slices * field.exp()


def _blur(slices: Tensor, rng: torch.Generator) -> Tensor:
    sigma = _uniform(slices, rng, 0.05, 2.0)
    places = torch.arange(-6.0, 7.0, device=slices.device)
    kernel = torch.exp(-0.5 * (places / sigma.flatten()[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    # One filter a slice: slices are the channels of a grouped convolution.
    rows = slices.transpose(0, 1)
    rows = functional.conv2d(rows, kernel[:, None, :, None], padding=(6, 0), groups=len(slices))
    rows = functional.conv2d(rows, kernel[:, None, None, :], padding=(0, 6), groups=len(slices))
    return rows.transpose(0, 1)


def _ghosting(slices: Tensor, rng: torch.Generator) -> Tensor:
    """Weaken every n-th line of the spectrum along one axis, but for its centre."""
    ghosts = _uniform(slices, rng, 4, 10.999).floor()
    strength = _uniform(slices, rng, 0.5, 1.0)
    along_rows = _uniform(slices, rng) < 0.5
    changed = []
    for axis in (-2, -1):
        size = slices.shape[axis]
        lines = torch.fft.fftfreq(size, 1 / size, device=slices.device)
        lines = lines[:, None] if axis == -2 else lines[None]
        weak = (lines.remainder(ghosts) == 0) & (lines.abs() > 0.02 * size)
        spectrum = torch.fft.fft(slices, dim=axis) * (1 - strength * weak)
        changed.append(torch.fft.ifft(spectrum, dim=axis).real)
    return torch.where(along_rows, changed[0], changed[1])


def _noise(slices: Tensor, rng: torch.Generator) -> Tensor:
    noise = torch.randn(slices.shape, generator=rng, device=slices.device)
    return slices + _uniform(slices, rng, 0.0, 0.25) * noise
