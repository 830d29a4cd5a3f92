"""Crops of prepared scans, for networks that learn whole volumes from a part of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atypia.training.slices import Range, unit_volume
from atypia.volume import Array

if TYPE_CHECKING:
    from atypia.preprocessing import Prepared


def random_crops(
    scans: Sequence[Prepared], bounds: Range, edge: int, rng: torch.Generator
) -> Tensor:
    """Draw one cubic crop of each scan, its middle anywhere in the brain.

    Parameters
    ----------
    scans
        Prepared, on one grid.
    bounds
        Intensities that become 0 and 1; what is not brain is 0.
    edge
        Voxels of the crop's edge; where the scan is smaller, zeros are appended.
    rng
        Its device is that of the answer.

    Returns
    -------
    torch.Tensor
        `(B, 1, edge, edge, edge)`, float32.
    """
    draws = torch.rand(len(scans), generator=rng, device=rng.device).tolist()
    crops = []
    for scan, draw in zip(scans, draws, strict=True):
        inside = np.flatnonzero(scan.brain.data)
        place = inside[min(int(draw * len(inside)), len(inside) - 1)]
        middle = np.unravel_index(place, scan.brain.data.shape)
        crops.append(_crop(unit_volume(scan, bounds), [int(m) for m in middle], edge))
    return torch.from_numpy(np.stack(crops))[:, None].to(rng.device)


def middle_crop(scan: Prepared, bounds: Range, edge: int) -> Tensor:
    """Take the cubic crop round the middle of the brain, `(1, 1, edge, edge, edge)`, on the CPU."""
    middle = [round(float(places.mean())) for places in np.nonzero(scan.brain.data)]
    return torch.from_numpy(_crop(unit_volume(scan, bounds), middle, edge))[None, None]


def _crop(volume: Array, middle: Sequence[int], edge: int) -> Array:
    """Cut a cube that stays within the volume where that is large enough."""
    out = np.zeros((edge,) * 3, np.float32)
    starts = [
        max(0, min(m - edge // 2, n - edge)) for m, n in zip(middle, volume.shape, strict=True)
    ]
    part = volume[tuple(slice(start, start + edge) for start in starts)]
    out[tuple(slice(n) for n in part.shape)] = part
    return out
