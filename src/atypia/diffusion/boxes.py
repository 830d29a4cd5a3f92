"""Square boxes of a slice, each restored on its own while the rest of the slice stays clean.

Source: pDDPM (Behrendt et al., MIDL 2023, arXiv 2303.03758), with 48-pixel boxes on slices of 96.
A box is known by its corner, the first row and column, and all boxes have one size; where a slice
is smaller than the box, the box ends at the border.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from atypia.errors import SettingsError


def grid_corners(height: int, width: int, size: int, stride: int | None = None) -> Tensor:
    """Give the boxes of a regular grid that covers a slice.

    Parameters
    ----------
    height, width
        Of the slice, pixels.
    size
        Edge of a box, pixels.
    stride
        From one box to the next, pixels; None is `size`, smaller ones make boxes overlap. The last
        box is moved back inside the slice, and then overlaps with the one before.

    Returns
    -------
    torch.Tensor
        `(N, 2)` int64, first rows and columns, in reading order.

    Raises
    ------
    SettingsError
        The stride is not between 1 and the size, so that pixels would be left out.
    """
    stride = size if stride is None else stride
    if not 1 <= stride <= size:
        problem = f"must be between 1 and the size of a box, {size}"
        raise SettingsError(f"stride {stride}", problem, "Choose another stride")
    rows, columns = (_firsts(length, size, stride) for length in (height, width))
    return torch.cartesian_prod(rows, columns)


def random_corners(
    count: int, height: int, width: int, size: int, generator: torch.Generator
) -> Tensor:
    """Draw boxes, each anywhere inside the slice and never across its border.

    The published random boxes may lie across the border.

    Parameters
    ----------
    count
        Number of boxes.
    height, width, size
        As for `grid_corners`.
    generator
        On the device that the corners are for.

    Returns
    -------
    torch.Tensor
        `(count, 2)` int64.
    """
    corners = [
        torch.randint(
            max(length - size, 0) + 1, (count,), generator=generator, device=generator.device
        )
        for length in (height, width)
    ]
    return torch.stack(corners, dim=1)


def box_masks(corners: Tensor, size: int, height: int, width: int) -> Tensor:
    """Draw each box as a mask.

    Parameters
    ----------
    corners
        `(B, 2)`.
    size, height, width
        As for `grid_corners`.

    Returns
    -------
    torch.Tensor
        `(B, 1, H, W)` boolean, on the device of the corners; true = in the box.
    """
    inside = []
    for axis, length in enumerate((height, width)):
        first = corners[:, axis, None]
        places = torch.arange(length, device=corners.device)
        inside.append((places >= first) & (places < first + size))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def reassemble(
    restorations: Iterable[Tensor],
    corners: Tensor,
    size: int,
    overlap: Literal["cut", "average"] = "average",
) -> Tensor:
    """Put slices together from boxes that were restored one after the other.

    Parameters
    ----------
    restorations
        For each corner whole slices `(B, 1, H, W)`, of which only the box is used.
    corners
        `(N, 2)`.
    size
        Edge of a box, pixels.
    overlap
        Where boxes overlap, take the last (``"cut"``) or the mean of all (``"average"``). The
        published mean divides after each box, which is right for the last box only.

    Returns
    -------
    torch.Tensor
        `(B, 1, H, W)`.

    Raises
    ------
    ValueError
        The numbers of restorations and corners differ, or a pixel is in no box.
    """
    total: Tensor | None = None
    count: Tensor | None = None
    for restored, corner in zip(restorations, corners, strict=True):
        total = torch.zeros_like(restored) if total is None else total
        count = total.new_zeros(total.shape[-2:]) if count is None else count
        row, column = corner.tolist()
        box = (..., slice(row, row + size), slice(column, column + size))
        if overlap == "cut":
            total[box] = restored[box]
            count[box] = 1
        else:
            total[box] += restored[box]
            count[box] += 1
    if total is None or count is None or not count.all():
        raise ValueError("the boxes do not cover the slice")
    return total / count


def _firsts(length: int, size: int, stride: int) -> Tensor:
    """First pixels of the boxes along one axis."""
    last = max(length - size, 0)
    firsts = torch.arange(0, last + stride, stride)
    return firsts.clamp(max=last)
