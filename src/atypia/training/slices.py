"""Axial slices of prepared scans, for methods that work slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atypia.volume import Array

if TYPE_CHECKING:
    from atypia.preprocessing import Prepared

Range = tuple[float, float]
"""Intensities that become 0 and 1."""


def usual_range(scans: Sequence[Prepared], low: float = 1.0, high: float = 99.0) -> Range:
    """Give the median over scans of two percentiles of the brain's intensities.

    Parameters
    ----------
    scans
        With one brain voxel at least.
    low, high
        Percentiles.
    """
    bounds = [np.percentile(scan.image.data[scan.brain.data], (low, high)) for scan in scans]
    first, last = np.median(bounds, axis=0)
    return float(first), float(max(last, first + 1e-6))


def unit_volume(scan: Prepared, bounds: Range) -> Array:
    """Scale a scan so that `bounds` become 0 and 1; what is not brain becomes 0.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`; nothing is cut off at 0 or 1.
    """
    low, high = bounds
    scaled = (scan.image.data - low) / (high - low)
    return np.where(scan.brain.data, scaled, 0).astype(np.float32)


def slices_of(volume: Array) -> Tensor:
    """Turn `(X, Y, Z)` into its axial slices `(Z, 1, X, Y)`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume, -1, 0)))[:, None]


def volume_of(slices: Tensor) -> Array:
    """Turn axial slices `(Z, 1, X, Y)` back into `(X, Y, Z)`."""
    return np.ascontiguousarray(np.moveaxis(slices[:, 0].float().cpu().numpy(), 0, -1))


def usable_slices(scan: Prepared, least_share: float) -> list[int]:
    """List the axial slices with enough brain.

    Parameters
    ----------
    least_share
        Least part of a slice's pixels that is brain; 0 for every slice of the grid.

    Returns
    -------
    list of int
        Indices along Z; that with the most brain if no slice has enough.
    """
    shares = scan.brain.data.mean(axis=(0, 1))
    return np.flatnonzero(shares >= least_share).tolist() or [int(shares.argmax())]


def random_slices(
    scans: Sequence[Prepared], bounds: Range, least_share: float, rng: torch.Generator
) -> Tensor:
    """Draw one axial slice of each scan.

    Parameters
    ----------
    scans
        Prepared, on one grid.
    bounds
        See `unit_volume`.
    least_share
        See `usable_slices`.
    rng
        Its device is that of the answer.

    Returns
    -------
    torch.Tensor
        `(B, 1, X, Y)`, float32.
    """
    low, high = bounds
    draws = torch.rand(len(scans), generator=rng, device=rng.device).tolist()
    chosen = []
    for scan, draw in zip(scans, draws, strict=True):
        usable = usable_slices(scan, least_share)
        place = usable[min(int(draw * len(usable)), len(usable) - 1)]
        scaled = (scan.image.data[..., place] - low) / (high - low)
        chosen.append(np.where(scan.brain.data[..., place], scaled, 0).astype(np.float32))
    return torch.from_numpy(np.stack(chosen))[:, None].to(rng.device)


def even_slices(scan: Prepared, bounds: Range, least_share: float, count: int) -> Tensor:
    """Take axial slices at even steps through those with enough brain.

    Parameters
    ----------
    bounds
        See `unit_volume`.
    least_share
        See `usable_slices`.
    count
        How many.

    Returns
    -------
    torch.Tensor
        `(count, 1, X, Y)`, float32, on the CPU.
    """
    usable = usable_slices(scan, least_share)
    places = [usable[int((i + 0.5) / count * len(usable))] for i in range(count)]
    return slices_of(unit_volume(scan, bounds))[places]
