"""A plain 3D convolutional network whose stages give feature maps of halving resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from atypia.networks.layers import Convolution


class SimpleCNN(nn.Module):
    """Stages of two normalised 3x3x3 convolutions and a pooling.

    Parameters
    ----------
    widths
        Channels of the stages.
    inputs
        Channels in.

    Attributes
    ----------
    channels, strides, offsets
        Of the feature maps, finest first: place `i` lies at `offset + stride * i` voxels.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), inputs: int = 1) -> None:
        super().__init__()
        self.axes, self.channels = 3, tuple(widths)
        self.strides = tuple(2 ** (stage + 1) for stage in range(len(widths)))
        # Two voxels that are pooled have their middle between them.
        self.offsets = tuple((stride - 1) / 2 for stride in self.strides)
        self.stages = nn.ModuleList()
        before = inputs
        for width in widths:
            layers: list[nn.Module] = []
            for entering in (before, width):
                layers += [Convolution(entering, width, 3, padding=1, bias=False)]
                layers += [nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
            self.stages.append(nn.Sequential(*layers, nn.MaxPool3d(2)))
            before = width

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give the maps `(B, channels[i], X / strides[i], ...)` of `(B, inputs, X, Y, Z)`."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def forward(self, x: Tensor) -> Tensor:
        """Give the coarsest map's mean, `(B, channels[-1])`."""
        out: Tensor = self.features(x)[-1].flatten(2).mean(2)
        return out
