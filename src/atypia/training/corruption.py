"""Random corruption of training scans: what a network learns to take out of a scan.

A network that sees a scan's high-frequency image would hand on everything in it, faults of the
acquisition too. It learns not to when training scans carry a random corruption and the target is
the scan without it, as in denoising autoencoders (Kascenas et al. 2022, MIDL, "Denoising
autoencoders for unsupervised anomaly detection in brain MRI"). The corruption is no model of any
artefact: it is noise through a random Gaussian window in k-space, from one stripe pattern (a narrow
window) to white noise (a wide one), over the whole field of view or over a slab of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WIDTHS = (0.004, 1.0)
"""Standard deviations of the window, in cycles a voxel, along each axis."""


def random_corruption(shape: tuple[int, int, int], largest: float, rng: torch.Generator) -> Tensor:
    """Draw a corruption.

    Parameters
    ----------
    shape
        (X, Y, Z).
    largest
        Largest standard deviation, in the unit of the normalised intensities; all up to it are
        equally likely.
    rng
        Generator on the device of the result.

    Returns
    -------
    torch.Tensor
        `(X, Y, Z)`, float32.
    """
    device = rng.device
    draws = torch.rand(9, generator=rng, device=device).tolist()
    window = torch.ones((), device=device)
    low, high = (math.log(width) for width in WIDTHS)
    for axis, size in enumerate(shape):
        width = math.exp(low + (high - low) * draws[axis])
        centre = 0.5 * (2 * draws[3 + axis] - 1)
        along = torch.fft.fftfreq(size, device=device)
        # The nearest of all periodic copies: a window at the edge reaches round it.
        distance = (along - centre + 0.5) % 1 - 0.5
        factor = torch.exp(-0.5 * (distance / max(width, 0.5 / size)) ** 2)
        view = [1, 1, 1]
        view[axis] = size
        window = window * factor.reshape(view)
    noise = torch.randn((2, *shape), generator=rng, device=device)
    corruption = torch.fft.ifftn(torch.complex(noise[0], noise[1]) * window).real
    corruption = corruption / corruption.std().clamp(min=1e-12)
    if draws[6] < 0.3:
        corruption = corruption * _slab(shape, draws[7], draws[8], device)
    result: Tensor = corruption * (largest * torch.rand(1, generator=rng, device=device))
    return result


def _slab(shape: tuple[int, int, int], place: float, axis: float, device: torch.device) -> Tensor:
    """One within a thin slab across one axis, zero elsewhere."""
    chosen = min(int(axis * 3), 2)
    size = shape[chosen]
    along = torch.arange(size, device=device) - place * size
    view = [1, 1, 1]
    view[chosen] = size
    return torch.exp(-0.5 * (along / max(0.01 * size, 0.7)) ** 2).reshape(view)
