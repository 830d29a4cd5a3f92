"""The residual network that turns a slice into a context vector, whole or with hidden cells.

Source: He et al. 2016 (arXiv 1512.03385), with the stride of a bottleneck in its 3x3 convolution
as is usual today. With hidden cells it computes what a sparse convolution would, by multiplication,
as SparK does (Tian et al. 2023, arXiv 2301.03580, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from atypia.errors import ModelError, SettingsError

STRIDES = (4, 8, 16, 32)
"""Pixels of the slice per place of each feature map."""

_HEAD = "head."


class Visible:
    """Which cells of a batch of slices may be seen, for maps of any resolution.

    Parameters
    ----------
    cells
        `(B, 1, h, w)`, true where visible.

    Notes
    -----
    On a map that is finer than the grid, every place has its cell's state. On a coarser map a
    place counts as visible if any of its cells is: hidden pixels are zero at the input and on all
    finer maps, so it knows nothing of them.
    """

    def __init__(self, cells: Tensor) -> None:
        self.cells = cells.bool()
        self._maps: dict[tuple[int, int], Tensor] = {}
        self._rows: dict[tuple[int, int], Tensor] = {}

    def map(self, height: int, width: int) -> Tensor:
        """Give `(B, 1, height, width)`, true where visible."""
        size = (height, width)
        if size not in self._maps:
            cells, (rows, columns) = self.cells, self.cells.shape[-2:]
            if height < rows or width < columns:
                found = functional.adaptive_max_pool2d(cells.float(), size).bool()
            else:
                found = functional.interpolate(cells.float(), size, mode="nearest").bool()
            self._maps[size] = found
        return self._maps[size]

    def rows(self, height: int, width: int) -> Tensor:
        """Give the numbers of the visible places, counted by sample, line and column."""
        size = (height, width)
        if size not in self._rows:
            self._rows[size] = self.map(height, width).flatten().nonzero().flatten()
        return self._rows[size]

    def keep(self, x: Tensor) -> Tensor:
        """Set what is hidden of `(B, C, H, W)` to zero."""
        return x * self.map(x.shape[-2], x.shape[-1])


class MaskedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose statistics come from visible places; hidden ones become zero.

    Without hidden places it is `torch.nn.BatchNorm2d`, as which it also keeps its running
    statistics.
    """

    def forward(self, x: Tensor, visible: Visible | None = None) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        if visible is None:
            return super().forward(x)
        batch, channels, height, width = x.shape
        where = visible.rows(height, width)
        every = x.permute(0, 2, 3, 1).reshape(-1, channels)
        rows = super().forward(every.index_select(0, where))
        out = torch.zeros_like(every, dtype=rows.dtype).index_copy(0, where, rows)
        return out.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    def _check_input_dim(self, values: Tensor) -> None:
        # Besides maps, the visible places come as rows, which torch serves fastest.
        if values.dim() != 2:
            super()._check_input_dim(values)


class _Layers(nn.Module):
    """Convolutions, each with its normalisation; ReLU between them, and after the shortcut.

    A convolution spreads visible values over hidden places; the normalisation after it reads only
    visible places and sets the others to zero, which is the multiplication that SparK asks for.
    """

    def __init__(self, inputs: int, outputs: int, layers: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        before, stride = inputs, 1
        for width, kernel, step in layers:
            self.convolutions.append(_convolution(before, width, kernel, step))
            self.norms.append(MaskedBatchNorm2d(width))
            before, stride = width, stride * step
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = _convolution(inputs, outputs, 1, stride)
            self.shortcut_norm = MaskedBatchNorm2d(outputs)

    def forward(self, x: Tensor, visible: Visible | None = None) -> Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, H / stride, W / stride)`."""
        features = x
        for number, convolution in enumerate(self.convolutions):
            features = functional.relu(features) if number else features
            features = self.norms[number](convolution(features), visible)
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x), visible)
        return functional.relu(features + x)


class BasicBlock(_Layers):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, [(width, 3, stride), (width, 3, 1)])


class BottleneckBlock(_Layers):
    """A 3x3 convolution between two 1x1 ones, of which the last widens fourfold; a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        super().__init__(inputs, 4 * width, layers)


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
    """ResNet from a slice to a vector: 24,550,848 parameters at depth 50 with one input.

    Parameters
    ----------
    depth
        18 or 34 (basic blocks) or 50 (bottlenecks).
    inputs, outputs
        Channels in, length of the vector.
    width
        Channels after the first convolution; everything else is a multiple. The published
        networks have 64.

    Attributes
    ----------
    channels
        Channels of the four feature maps, finest first.

    Raises
    ------
    SettingsError
        If there is no such depth.
    """

    def __init__(
        self, depth: int = 50, inputs: int = 1, outputs: int = 512, width: int = 64
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise SettingsError("depth", f"{depth} is unknown", f"Known: {sorted(DEPTHS)}")
        block, counts = DEPTHS[depth]
        self.depth, self.inputs, self.width = depth, inputs, width
        self.stem = _convolution(inputs, width, 7, 2)
        self.stem_norm = MaskedBatchNorm2d(width)
        self.stages = nn.ModuleList()
        before = width
        for stage, count in enumerate(counts):
            blocks = nn.ModuleList()
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(block(before, width * 2**stage, stride))
                before = width * 2**stage * block.expansion
            self.stages.append(blocks)
        self.channels = tuple(width * 2**stage * block.expansion for stage in range(4))
        self.head = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs)`."""
        out: Tensor = self.head(self.features(x)[-1].mean((2, 3)))
        return out

    def features(self, x: Tensor, active: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give the feature maps of four scales.

        Parameters
        ----------
        x
            `(B, inputs, H, W)`.
        active
            `(B, 1, h, w)`, true for the cells of the slice that may be seen; None for all of it.

        Returns
        -------
        tuple of torch.Tensor
            `(B, channels[i], H / s, W / s)` for the strides 4, 8, 16 and 32, rounded up. Hidden
            places are zero; where cells are smaller than the stride, see `Visible`.
        """
        visible = None if active is None else Visible(active.to(x.device))
        if visible is not None:
            x = visible.keep(x)
        features = self.stem(x).contiguous(memory_format=torch.channels_last)
        features = functional.relu(self.stem_norm(features, visible))
        features = functional.max_pool2d(features, 3, stride=2, padding=1)
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


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    """Make a convolution without bias, initialised for ReLU (He et al. 2015, arXiv 1502.01852)."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
