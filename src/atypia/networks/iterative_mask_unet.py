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
    PReLU,
    doubling_kernel,
    few_outputs,
    onednn_by_name,
    worth_one_kernel,
)

SLAB = 16
"""Coarse planes that the last stage of `FoldedUNet` works on at a time."""


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
                self.outs.append(Convolution(both, outputs, 3, padding=1))

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

    Kernels are folded once. The last stage, whose maps at full resolution are most of the memory,
    goes slab by slab.

    Parameters
    ----------
    network
        Is not changed, and must not change while this is used.
    """

    def __init__(self, network: IterativeMaskUNet) -> None:
        self.multiple = network.multiple
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
        features, skips = padded(x, self.multiple), []
        features = features.contiguous(memory_format=torch.channels_last_3d)
        for first, second, stride in self.encoder:
            features = add_to_first(second(first(features)), shortcut(features, stride))
            skips.append(features)
        skips.pop()
        for join, out in zip(self.joins, self.outs, strict=False):
            features = out(join(torch.cat([features, skips.pop()], dim=1)))
        return cropped(self._at_full_resolution(torch.cat([features, skips.pop()], 1)), x.shape)

    def _at_full_resolution(self, coarse: Tensor) -> Tensor:
        """Give the last stage's answer, a slab of coarse planes at a time."""
        batch, _, planes, *rest = coarse.shape
        answer = coarse.new_empty(
            (batch, self.last.out_channels, 2 * planes, *(2 * size for size in rest))
        )
        for start in range(0, planes, SLAB):
            stop = min(start + SLAB, planes)
            low, high = max(start - 2, 0), min(stop + 2, planes)
            part = few_outputs(self.joins[-1](coarse[:, :, low:high]), self.last)
            answer[:, :, 2 * start : 2 * stop] = part[:, :, 2 * (start - low) : 2 * (stop - low)]
        return answer


def shortcut(x: Tensor, stride: int) -> Tensor:
    """Pool the input of a stage as its stride asks."""
    return functional.avg_pool3d(x, 3, stride=2, padding=1) if stride == 2 else x


def add_to_first(x: Tensor, less: Tensor) -> Tensor:
    """Add a tensor of fewer channels to the first channels of another."""
    return x + functional.pad(less, (0, 0, 0, 0, 0, 0, 0, x.shape[1] - less.shape[1]))


def padded(x: Tensor, multiple: int) -> Tensor:
    """Append zeros along X, Y and Z up to the next multiple."""
    missing = [-size % multiple for size in x.shape[-3:]]
    return functional.pad(x, [0, missing[2], 0, missing[1], 0, missing[0]])


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
