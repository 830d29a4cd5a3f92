"""A small residual U-Net for whole volumes that a CPU can train in minutes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.networks.layers import Convolution


class ResidualBlock(nn.Module):
    """Two normalised 3x3x3 convolutions added to their input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            Convolution(channels, channels, 3, padding=1),
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            Convolution(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, X, Y, Z)` to the same shape."""
        out: Tensor = x + self.layers(x)
        return out


class ResidualUNet(nn.Module):
    """U-Net that works at half resolution and below, without losing detail at either end.

    Every 2x2x2 block of voxels becomes eight channels on the way in and back on the way out
    (space to depth, Shi et al. 2016, arXiv 1609.05158): no convolution runs at full resolution,
    which would cost most of the time of a U-Net on a CPU.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    channels
        Channels of each level, from half resolution downwards; each level halves the grid again.

    Notes
    -----
    Any grid is accepted: it is padded with zeros to a multiple of `2 ** len(channels)`.
    """

    def __init__(self, inputs: int, outputs: int, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.multiple = 2 ** len(channels)
        self.entries, self.downs = nn.ModuleList(), nn.ModuleList()
        before = 8 * inputs
        for level, width in enumerate(channels):
            self.entries.append(Convolution(before, width, 3, stride=2 if level else 1, padding=1))
            self.downs.append(ResidualBlock(width, min(8, width)))
            before = width
        self.joins, self.ups = nn.ModuleList(), nn.ModuleList()
        for width, coarse in zip(channels[-2::-1], channels[:0:-1], strict=True):
            self.joins.append(Convolution(coarse + width, width, 1))
            self.ups.append(ResidualBlock(width, min(8, width)))
        self.last = Convolution(channels[0] + 8 * inputs, 8 * outputs, 3, padding=1)
        # The untrained network answers zero: what it learns is a correction.
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, X, Y, Z)` to `(B, outputs, X, Y, Z)`."""
        shape = x.shape[-3:]
        blocks = blocks_to_channels(functional.pad(x, self._padding(shape)))
        # In this memory order the CPU's fast convolutions serve single scans too.
        blocks = blocks.contiguous(memory_format=torch.channels_last_3d)
        levels = []
        features = blocks
        for entry, down in zip(self.entries, self.downs, strict=True):
            features = down(entry(features))
            levels.append(features)
        for join, up, finer in zip(self.joins, self.ups, levels[-2::-1], strict=True):
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = up(join(torch.cat([features, finer], dim=1)))
        out = channels_to_blocks(self.last(torch.cat([features, blocks], dim=1)))
        return out[..., : shape[0], : shape[1], : shape[2]]

    def _padding(self, shape: Sequence[int]) -> list[int]:
        missing = [-size % self.multiple for size in shape]
        return [0, missing[2], 0, missing[1], 0, missing[0]]


def blocks_to_channels(image: Tensor) -> Tensor:
    """Turn every 2x2x2 block into channels: `(B, C, 2X, 2Y, 2Z)` to `(B, 8C, X, Y, Z)`."""
    batch, channels, x, y, z = image.shape
    parts = image.reshape(batch, channels, x // 2, 2, y // 2, 2, z // 2, 2)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, -1, x // 2, y // 2, z // 2)


def channels_to_blocks(features: Tensor) -> Tensor:
    """Undo `blocks_to_channels`: `(B, 8C, X, Y, Z)` to `(B, C, 2X, 2Y, 2Z)`."""
    batch, channels, x, y, z = features.shape
    parts = features.reshape(batch, channels // 8, 2, 2, 2, x, y, z)
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, -1, 2 * x, 2 * y, 2 * z)
