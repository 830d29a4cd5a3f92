"""Feature maps with their place in the scan, and the patches of a scan read from them.

A patch is a box of the scan's voxels. What a feature map of another resolution says of it is read
by linear interpolation at regular points in the box: places of map and scan never mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.networks.layers import padded
from atypia.patches import PatchGrid

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of a scan on a grid of their own.

    Parameters
    ----------
    values
        `(C, x, y, z)`.
    strides, offsets
        Along each axis, place `i` lies at voxel `offset + stride * i`.
    """

    values: Tensor
    strides: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offsets: tuple[float, float, float] = (0.0, 0.0, 0.0)


def network_maps(network: nn.Module, volume: Tensor, layers: Sequence[int]) -> list[FeatureMap]:
    """Give some feature maps of a network for a whole volume, without gradients.

    Parameters
    ----------
    network
        With `features`, `strides`, `offsets` and `axes` as `atypia.networks.resnet.ResNetEncoder`
        has them. One of two axes sees the volume slice by slice.
    volume
        `(inputs, X, Y, Z)`; zeros are appended to whole strides and their features dropped.
    layers
        Which maps, from 0, the finest.
    """
    parts: Any = network
    slicewise = parts.axes == 2
    images = volume.permute(3, 0, 1, 2) if slicewise else volume[None]
    coarsest = max(parts.strides[layer] for layer in layers)
    network.eval()
    with torch.no_grad():
        found = parts.features(padded(images, coarsest))
    maps = []
    for layer in layers:
        stride, offset = float(parts.strides[layer]), float(parts.offsets[layer])
        sizes = [-(-size // int(stride)) for size in images.shape[2:]]
        values = found[layer][(..., *(slice(size) for size in sizes))]
        if slicewise:
            where = (stride, stride, 1.0), (offset, offset, 0.0)
            maps.append(FeatureMap(values.permute(1, 2, 3, 0), *where))
        else:
            maps.append(FeatureMap(values[0], (stride,) * 3, (offset,) * 3))
    return maps


def cells_in(size: Triple, strides: Sequence[float]) -> Triple:
    """Give how many points along each axis of a patch are read from a map: one a place."""
    x, y, z = (max(1, round(n / stride)) for n, stride in zip(size, strides, strict=True))
    return x, y, z


def cells_of(found: FeatureMap, grid: PatchGrid, numbers: Any = None) -> Tensor:
    """Read patches from a feature map.

    Parameters
    ----------
    found
        The map.
    grid
        Patches of the scan.
    numbers
        Which patches, `(N,)`; None for all.

    Returns
    -------
    torch.Tensor
        `(N, C, *cells)`: features at regular points in each patch, see `cells_in`. Beyond the
        outermost places the map is constant.
    """
    cells = cells_in(grid.size, found.strides)
    corners = grid.corners()
    if numbers is not None:
        corners = corners[np.asarray(numbers)]
    places = []
    for axis, count in enumerate(cells):
        inside = (np.arange(count) + 0.5) * grid.size[axis] / count - 0.5
        voxels = corners[:, axis, None] + inside
        index = (voxels - found.offsets[axis]) / found.strides[axis]
        last = max(found.values.shape[axis + 1] - 1, 1)
        places.append(torch.from_numpy(2 * index / last - 1).to(found.values))
    many = (len(corners), *cells)
    x, y, z = (
        places[axis].reshape(-1, *(cells[axis] if a == axis else 1 for a in range(3))).expand(many)
        for axis in range(3)
    )
    # torch counts the axes of a sampling position from the last one.
    points = torch.stack([z, y, x], dim=-1).reshape(1, 1, 1, -1, 3)
    read = functional.grid_sample(
        found.values[None], points, align_corners=True, padding_mode="border"
    )
    return read.reshape(len(found.values), *many).movedim(0, 1)


def pooled(found: FeatureMap, grid: PatchGrid) -> Tensor:
    """Give the mean of every patch's cells, `(N, C)`: `cells_of(...).mean` in far less time.

    Reading and averaging are linear and act on each axis alone: three small matrices do both.
    """
    cells = cells_in(grid.size, found.strides)
    values = found.values
    for axis in range(3):
        matrix = _reading(found, grid, axis, cells[axis]).to(values)
        values = torch.tensordot(values, matrix, dims=([1], [1]))
    return values.flatten(1).T.contiguous()


def _reading(found: FeatureMap, grid: PatchGrid, axis: int, cells: int) -> Tensor:
    """Give the weight that each place of a map has in the mean of each patch, `(n, places)`."""
    places = found.values.shape[axis + 1]
    starts = np.asarray(grid.starts[axis], float)
    inside = (np.arange(cells) + 0.5) * grid.size[axis] / cells - 0.5
    index = (starts[:, None] + inside - found.offsets[axis]) / found.strides[axis]
    index = index.clip(0, places - 1)
    below = np.minimum(index.astype(int), max(places - 2, 0))
    share = index - below
    matrix = np.zeros((len(starts), places))
    rows = np.repeat(np.arange(len(starts))[:, None], cells, axis=1)
    np.add.at(matrix, (rows, below), (1 - share) / cells)
    np.add.at(matrix, (rows, np.minimum(below + 1, places - 1)), share / cells)
    return torch.from_numpy(matrix)
