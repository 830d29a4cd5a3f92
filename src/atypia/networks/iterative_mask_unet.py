"""The U-Net of IterMask3D, layer by layer, and the same function in a cheaper form for inference.

Source: IterMask3D (Liang et al., 2026; arXiv 2504.04911), architecture as in its public code. Two
exact rewritings make it fast. A nearest-neighbour doubling followed by a 3x3x3 convolution is one
transposed convolution with stride two and a 4x4x4 kernel (the eight taps that fall on the same
coarse voxel are summed): 8 products a voxel instead of 27. And at test time batch normalisation
is a constant scale and shift, which goes into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.networks.layers import (
    Convolution,
    DoublingConvolution,
    Dropout,
    FewOutputsConvolution,
    PReLU,
    doubling_kernel,
    few_outputs,
    halved,
    onednn_by_name,
    padded,
    worth_one_kernel,
)

BLOCK = (32, 48)
"""Voxels along X and Y that the last stage of `FoldedUNet` works on at a time."""

Region = tuple[slice, slice, slice]
"""A box of voxels: slices of X, Y and Z."""


class Unit(nn.Module):
    """Convolution (3x3x3, bias), batch normalisation, dropout, PReLU with one slope."""

    def __init__(
        self, inputs: int, outputs: int, dropout: float, stride: int = 1, doubling: bool = False
    ) -> None:
        super().__init__()
        kind = DoublingConvolution if doubling else Convolution
        self.convolution = kind(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm3d(outputs)
        self.dropout = Dropout(dropout)
        self.activation = PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, X', Y', Z')`."""
        out: Tensor = self.activation(self.dropout(self.norm(self.convolution(x))))
        return out


class EncoderStage(nn.Module):
    """Two units; the input, pooled where the stage has a stride, is added to the first channels.

    The input has fewer channels than the output, and no projection: the other channels get none.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.first = Unit(inputs, outputs, dropout, stride)
        self.second = Unit(outputs, outputs, dropout)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, X / stride, ...)`."""
        return add_to_first(self.second(self.first(x)), shortcut(x, self.stride))


class IterativeMaskUNet(nn.Module):
    """The reference's network: 8,902,626 parameters with its channels and two inputs.

    The image is halved at once, and there is no path at full resolution from input to output: the
    whole image is made anew from a grid of half the resolution.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    channels
        Channels of the encoder's stages; all but the last halve the grid.
    dropout
        Probability of dropping a value in training.

    Notes
    -----
    Any grid is accepted: it is padded with zeros to a multiple of `2 ** (len(channels) - 1)`.
    """

    def __init__(
        self,
        inputs: int = 2,
        outputs: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        depth = len(channels) - 1
        self.multiple = 2**depth
        before = [inputs, *channels]
        self.encoder = nn.ModuleList(
            EncoderStage(before[i], channels[i], 2 if i < depth else 1, dropout)
            for i in range(depth + 1)
        )
        self.joins, self.outs = nn.ModuleList(), nn.ModuleList()
        arriving = channels[-1]
        for level in reversed(range(depth)):
            both = arriving + channels[level]
            self.joins.append(Unit(both, both, dropout, doubling=True))
            if level:
                arriving = channels[level - 1]
                self.outs.append(Unit(both, arriving, dropout))
            else:
                self.outs.append(FewOutputsConvolution(both, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, X, Y, Z)` to `(B, outputs, X, Y, Z)`."""
        features, skips = padded(x, self.multiple), []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        for join, out, skip in zip(self.joins, self.outs, skips[-2::-1], strict=True):
            features = out(join(torch.cat([features, skip], dim=1)))
        return cropped(features, x.shape)


class FoldedUNet:
    """An `IterativeMaskUNet` as it answers in evaluation mode, in less time and memory.

    Kernels are folded once. The decoder computes only what the wanted voxels depend on: at each
    level a box, and at full resolution, whose maps are most of the memory, block by block.

    Parameters
    ----------
    network
        Is not changed, and must not change while this is used.
    wanted
        `(X, Y, Z)` boolean, where answers are wanted: it is zero in other voxels, or the
        network's answer. None: everywhere, on any grid.
    """

    def __init__(self, network: IterativeMaskUNet, wanted: Tensor | None = None) -> None:
        self.multiple = network.multiple
        self.wanted = wanted
        self.blocks = [] if wanted is None else blocks_of(wanted, BLOCK)
        self.encoder = [
            (_FoldedUnit(stage.first), _FoldedUnit(stage.second), stage.stride)
            for stage in cast("list[EncoderStage]", list(network.encoder))
        ]
        self.joins = [_FoldedUnit(join) for join in cast("list[Unit]", list(network.joins))]
        self.outs = [_FoldedUnit(out) for out in cast("list[Unit]", list(network.outs[:-1]))]
        self.last: Convolution = network.outs[-1]  # type: ignore[assignment]

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, X, Y, Z)` to `(B, outputs, X, Y, Z)`."""
        wanted, blocks = self.wanted, self.blocks
        if wanted is None:
            wanted = torch.ones(x.shape[-3:], dtype=torch.bool)
            blocks = blocks_of(wanted, BLOCK)
        answer = x.new_zeros((x.shape[0], self.last.out_channels, *x.shape[-3:]))
        if not blocks:
            return answer
        skips = self._encoded(padded(x, self.multiple))
        # What each grid of the decoder must give, the finest first.
        regions = [region_of(wanted)]
        for skip in skips[:-1]:
            regions.append(coarse_region(regions[-1], skip.shape))
        features = part(skips.pop(), regions[-1])
        for join, out in zip(self.joins, self.outs, strict=False):
            coarse = regions.pop()
            both = torch.cat([features, part(skips.pop(), coarse)], dim=1)
            made = tuple(slice(2 * side.start, 2 * side.stop) for side in coarse)
            features = part(out(join(both)), within(regions[-1], made))
        grid = skips[-1].shape[-3:]
        both = torch.cat([features, part(skips.pop(), regions[-1])], dim=1)
        for block in blocks:
            fine, voxels = self._at_full_resolution(both, regions[-1], block, grid)
            answer[:, :, *block] = fine[:, :, *within(block, voxels)]
        return answer

    def _at_full_resolution(
        self, coarse: Tensor, region: Region, block: Region, grid: torch.Size
    ) -> tuple[Tensor, list[slice]]:
        """Give the last stage's answer in a block and the voxels for which it stands.

        Parameters
        ----------
        coarse
            Features of the coarse `region`; `grid` is the size of the whole coarse grid.
        """
        halo = coarse_region(block, grid)
        x = part(coarse, within(halo, region))
        # One coarse voxel more on each side, zero where the grid ends, and the outer half of it
        # is not computed: the next kernel reaches one fine voxel only.
        core = [slice(side.start // 2, -(-side.stop // 2)) for side in block]
        lacking = [
            (h.start > c.start - 1, h.stop < c.stop + 1) for h, c in zip(halo, core, strict=True)
        ]
        x = functional.pad(x, [int(side) for pair in lacking[::-1] for side in pair])
        x = self.joins[-1].inside(x)
        for axis, (first, last) in enumerate(lacking, start=2):
            if first:
                x.narrow(axis, 0, 1).zero_()
            if last:
                x.narrow(axis, -1, 1).zero_()
        return few_outputs(x, self.last), [slice(2 * c.start, 2 * c.stop) for c in core]

    def _encoded(self, x: Tensor) -> list[Tensor]:
        """Give the features of every stage of the encoder."""
        features, skips = x, []
        for first, second, stride in self.encoder:
            made = second(first(features.contiguous(memory_format=torch.channels_last_3d)))
            features = add_to_first(made, shortcut(features, stride))
            skips.append(features)
        return skips


def region_of(wanted: Tensor) -> Region:
    """Give the smallest box that holds all true voxels of `(X, Y, Z)`, of which there is one."""
    sides = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        places = wanted.any(dim=others).nonzero()[:, 0]
        sides.append(slice(int(places[0]), int(places[-1]) + 1))
    return sides[0], sides[1], sides[2]


def blocks_of(wanted: Tensor, size: tuple[int, int]) -> list[Region]:
    """Cut `(X, Y, Z)` along X and Y into blocks, and give each one's box of true voxels."""
    blocks = []
    for first in range(0, wanted.shape[0], size[0]):
        for second in range(0, wanted.shape[1], size[1]):
            block = wanted[first : first + size[0], second : second + size[1]]
            if bool(block.any()):
                x, y, z = region_of(block)
                moved = (slice(o + s.start, o + s.stop) for o, s in ((first, x), (second, y)))
                blocks.append((next(moved), next(moved), z))
    return blocks


def coarse_region(fine: Region, shape: Sequence[int]) -> Region:
    """Give the voxels of the next coarser grid on which a stage's answer in a region depends.

    A stage doubles, and then its two 3x3x3 kernels reach one fine voxel each: together no farther
    than one coarse voxel beyond those that hold the region.
    """
    x, y, z = (
        slice(max(side.start // 2 - 1, 0), min(-(-side.stop // 2) + 1, size))
        for side, size in zip(fine, shape[-3:], strict=True)
    )
    return x, y, z


def within(region: Region, outer: Sequence[slice]) -> Region:
    """Give a region as seen from the corner of an outer one."""
    x, y, z = (
        slice(side.start - o.start, side.stop - o.start)
        for side, o in zip(region, outer, strict=True)
    )
    return x, y, z


def part(x: Tensor, region: Region) -> Tensor:
    """Cut a region out of `(B, C, X, Y, Z)`, in an order of memory that convolutions like."""
    return x[:, :, *region].contiguous(memory_format=torch.channels_last_3d)


def shortcut(x: Tensor, stride: int) -> Tensor:
    """Pool the input of a stage as its stride asks."""
    return halved(x) if stride == 2 else x


def add_to_first(x: Tensor, less: Tensor) -> Tensor:
    """Add a tensor of fewer channels to the first channels of another."""
    return x + functional.pad(less, (0, 0, 0, 0, 0, 0, 0, x.shape[1] - less.shape[1]))


def cropped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo `padded`."""
    return x[..., : shape[-3], : shape[-2], : shape[-1]]


class _FoldedUnit:
    """A unit without batch normalisation and dropout."""

    def __init__(self, unit: Unit) -> None:
        convolution, norm = unit.convolution, unit.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        assert convolution.bias is not None
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        weight = convolution.weight.detach() * scale[:, None, None, None, None]
        self.bias = (convolution.bias - norm.running_mean).detach() * scale + norm.bias.detach()
        self.slope = float(unit.activation.weight.detach())
        self.doubling = isinstance(convolution, DoublingConvolution)
        self.stride = convolution.stride
        self.weight = weight
        self.kernel: Tensor | None = None

    def inside(self, x: Tensor) -> Tensor:
        """Double `(B, C, X, Y, Z)` and leave the outermost voxels out: `(B, C, 2 X - 2, ...)`."""
        if self.kernel is None:
            self.kernel = doubling_kernel(self.weight)
        out = functional.conv_transpose3d(x, self.kernel, self.bias, stride=2, padding=2)
        return functional.leaky_relu_(out, self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        if self.doubling and worth_one_kernel(x):
            if self.kernel is None:
                self.kernel = doubling_kernel(self.weight)
            out = functional.conv_transpose3d(x, self.kernel, self.bias, stride=2, padding=1)
            return functional.leaky_relu_(out, self.slope)
        if self.doubling:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if onednn_by_name(x):
            out = torch.mkldnn_convolution(
                x, self.weight, self.bias, (1, 1, 1), self.stride, (1, 1, 1), 1
            )
        else:
            out = functional.conv3d(x, self.weight, self.bias, self.stride, padding=1)
        return functional.leaky_relu_(out, self.slope)
