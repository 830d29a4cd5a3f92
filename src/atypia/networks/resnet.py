"""The residual network that turns a slice or a volume into features, whole or with hidden cells.

Source: He et al. 2016 (arXiv 1512.03385), with the stride of a bottleneck in its 3x3 convolution
as is usual today. With hidden cells it computes what a sparse convolution would, by multiplication,
as SparK does (Tian et al. 2023, arXiv 2301.03580, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.errors import ModelError, SettingsError
from atypia.networks.layers import Convolution

STRIDES = (4, 8, 16, 32)
"""Pixels of the slice per place of each feature map, as published."""

_HEAD = "head."


@dataclass(frozen=True)
class Layers:
    """The layers that differ between slices and volumes."""

    convolution: type[nn.Conv2d] | type[nn.Conv3d]
    doubling: type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]
    norm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    largest: Callable[..., Tensor]
    largest_to: Callable[..., Any]


LAYERS = {
    2: Layers(
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.BatchNorm2d,
        functional.max_pool2d,
        functional.adaptive_max_pool2d,
    ),
    3: Layers(
        Convolution,
        nn.ConvTranspose3d,
        nn.BatchNorm3d,
        functional.max_pool3d,
        functional.adaptive_max_pool3d,
    ),
}
"""By the number of spatial axes."""


class Visible:
    """Which cells of a batch of slices or volumes may be seen, for maps of any resolution.

    Parameters
    ----------
    cells
        `(B, 1, *cells)`, true where visible.

    Notes
    -----
    On a map that is finer than the grid, every place has its cell's state. On a coarser map a
    place counts as visible if any of its cells is: hidden pixels are zero at the input and on all
    finer maps, so it knows nothing of them.
    """

    def __init__(self, cells: Tensor) -> None:
        self.cells = cells.bool()
        self._maps: dict[tuple[int, ...], Tensor] = {}
        self._rows: dict[tuple[int, ...], Tensor] = {}

    def map(self, size: Sequence[int]) -> Tensor:
        """Give `(B, 1, *size)`, true where visible."""
        size = tuple(size)
        if size not in self._maps:
            cells, grid = self.cells.float(), self.cells.shape[2:]
            if any(places < count for places, count in zip(size, grid, strict=True)):
                found = LAYERS[len(size)].largest_to(cells, size)
            else:
                found = functional.interpolate(cells, size, mode="nearest")
            self._maps[size] = found.bool()
        return self._maps[size]

    def rows(self, size: Sequence[int]) -> Tensor:
        """Give the numbers of the visible places, counted by sample, then along the axes."""
        size = tuple(size)
        if size not in self._rows:
            self._rows[size] = self.map(size).flatten().nonzero().flatten()
        return self._rows[size]

    def keep(self, x: Tensor) -> Tensor:
        """Set what is hidden of `(B, C, *size)` to zero."""
        return x * self.map(x.shape[2:])


class MaskedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation whose statistics come from visible places; hidden ones become zero.

    Without hidden places it is `torch.nn.BatchNorm2d` or `3d`, as which it also keeps its running
    statistics.
    """

    def forward(self, x: Tensor, visible: Visible | None = None) -> Tensor:
        """Map `(B, C, *size)` to the same shape."""
        if visible is None:
            return super().forward(x)
        channels, size = x.shape[1], x.shape[2:]
        where = visible.rows(size)
        every = x.movedim(1, -1).reshape(-1, channels)
        rows = super().forward(every.index_select(0, where))
        out = torch.zeros_like(every, dtype=rows.dtype).index_copy(0, where, rows)
        return out.reshape(len(x), *size, channels).movedim(-1, 1)

    def _check_input_dim(self, values: Tensor) -> None:
        # Besides maps, the visible places come as rows, which torch serves fastest.
        return


class _Layers(nn.Module):
    """Convolutions, each with its normalisation; ReLU between them, and after the shortcut.

    A convolution spreads visible values over hidden places; the normalisation after it reads only
    visible places and sets the others to zero, which is the multiplication that SparK asks for.
    """

    def __init__(
        self, inputs: int, outputs: int, layers: list[tuple[int, int, int]], axes: int
    ) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        before, stride = inputs, 1
        for width, kernel, step in layers:
            self.convolutions.append(_convolution(before, width, kernel, step, axes))
            self.norms.append(MaskedBatchNorm(width))
            before, stride = width, stride * step
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = _convolution(inputs, outputs, 1, stride, axes)
            self.shortcut_norm = MaskedBatchNorm(outputs)

    def forward(self, x: Tensor, visible: Visible | None = None) -> Tensor:
        """Map `(B, C_in, *size)` to `(B, C_out, *size / stride)`."""
        features = x
        for number, convolution in enumerate(self.convolutions):
            features = functional.relu(features) if number else features
            features = self.norms[number](convolution(features), visible)
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x), visible)
        return functional.relu(features + x)


class BasicBlock(_Layers):
    """Two convolutions of width 3 and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, axes: int = 2) -> None:
        super().__init__(inputs, width, [(width, 3, stride), (width, 3, 1)], axes)


class BottleneckBlock(_Layers):
    """A convolution of width 3 between two of width 1, the last fourfold; a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, axes: int = 2) -> None:
        layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        super().__init__(inputs, 4 * width, layers, axes)


class Depth(NamedTuple):
    """The kind of block of a depth, and how many each of the four stages has."""

    block: type[BasicBlock] | type[BottleneckBlock]
    counts: tuple[int, int, int, int]


DEPTHS = {
    18: Depth(BasicBlock, (2, 2, 2, 2)),
    34: Depth(BasicBlock, (3, 4, 6, 3)),
    50: Depth(BottleneckBlock, (3, 4, 6, 3)),
}


class ResNetEncoder(nn.Module):
    """ResNet from a slice or volume to a vector: 24,550,848 parameters at depth 50 with one input.

    Parameters
    ----------
    depth
        18 or 34 (basic blocks) or 50 (bottlenecks).
    inputs, outputs
        Channels in, length of the vector.
    width
        Channels after the first convolution; everything else is a multiple. The published
        networks have 64.
    axes
        2 for slices, 3 for volumes.
    stem_stride
        Stride of the finest feature map: 4 as published, or 2, without the pooling after the first
        convolution.

    Attributes
    ----------
    channels, strides, offsets
        Of the four feature maps, finest first: place `i` lies at `offset + stride * i` voxels.

    Raises
    ------
    SettingsError
        If there is no such depth or stride.
    """

    def __init__(
        self,
        depth: int = 50,
        inputs: int = 1,
        outputs: int = 512,
        width: int = 64,
        axes: int = 2,
        stem_stride: int = 4,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise SettingsError("depth", f"{depth} is unknown", f"Known: {sorted(DEPTHS)}")
        if stem_stride not in (2, 4):
            raise SettingsError("stem_stride", f"{stem_stride} is not possible", "Give 2 or 4")
        block, counts = DEPTHS[depth]
        self.depth, self.inputs, self.width = depth, inputs, width
        self.axes, self.strides = axes, tuple(stem_stride * 2**stage for stage in range(4))
        self.offsets = (0.0,) * 4
        self.stem = _convolution(inputs, width, 7, 2, axes)
        self.stem_norm = MaskedBatchNorm(width)
        self.stages = nn.ModuleList()
        before = width
        for stage, count in enumerate(counts):
            blocks = nn.ModuleList()
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(block(before, width * 2**stage, stride, axes))
                before = width * 2**stage * block.expansion
            self.stages.append(blocks)
        self.channels = tuple(width * 2**stage * block.expansion for stage in range(4))
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, *size)` to `(B, outputs)`."""
        out: Tensor = self.head(self.features(x)[-1].flatten(2).mean(2))
        return out

    def features(self, x: Tensor, active: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give the feature maps of four scales.

        Parameters
        ----------
        x
            `(B, inputs, *size)`.
        active
            `(B, 1, *cells)`, true for the cells of it that may be seen; None for all of it.

        Returns
        -------
        tuple of torch.Tensor
            `(B, channels[i], *size / strides[i])`, rounded up. Hidden places are zero; where cells
            are smaller than the stride, see `Visible`.
        """
        visible = None if active is None else Visible(active.to(x.device))
        if visible is not None:
            x = visible.keep(x)
        features = self.stem(x)
        if self.axes == 2:
            features = features.contiguous(memory_format=torch.channels_last)
        features = functional.relu(self.stem_norm(features, visible))
        if self.strides[0] == 4:
            features = LAYERS[self.axes].largest(features, 3, stride=2, padding=1)
        if visible is not None:
            features = visible.keep(features)
        maps = []
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                features = block(features, visible)
            maps.append(features)
        return tuple(maps)


def encoder_weights(encoder: ResNetEncoder) -> dict[str, Tensor]:
    """Copy an encoder's weights and running statistics, all but the head's.

    Parameters
    ----------
    encoder
        For example the `encoder` of a trained `atypia.networks.spark.SparK`.
    """
    state = encoder.state_dict().items()
    return {name: value.clone() for name, value in state if not name.startswith(_HEAD)}


def load_encoder_weights(
    encoder: ResNetEncoder, weights: Mapping[str, Tensor], where: object = "encoder weights"
) -> None:
    """Put weights into an encoder; its head stays as it is.

    Parameters
    ----------
    encoder
        Is changed only if all weights fit.
    weights
        As `encoder_weights` gives them; a head among them is left out.
    where
        What an error should name, such as the file they came from.

    Raises
    ------
    ModelError
        If a weight is missing, unexpected or of another shape; all such are named.
    """
    own = {n: v for n, v in encoder.state_dict().items() if not n.startswith(_HEAD)}
    new = {n: v for n, v in weights.items() if not n.startswith(_HEAD)}
    problems = [f"{name} is missing" for name in own if name not in new]
    problems += [f"{name} is unexpected" for name in new if name not in own]
    problems += [
        f"{name} has shape {tuple(new[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in new and new[name].shape != value.shape
    ]
    if problems:
        remedy = "Build the encoder with the depth, inputs and width it was trained with"
        raise ModelError(where, "; ".join(problems), remedy)
    encoder.load_state_dict(new, strict=False)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, axes: int) -> nn.Module:
    """Make a convolution without bias, initialised for ReLU (He et al. 2015, arXiv 1502.01852)."""
    kind = LAYERS[axes].convolution
    layer = kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
