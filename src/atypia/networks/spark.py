"""Masked pre-training of the encoder: from a few visible cells to the hidden ones.

It works on slices and, with an encoder of three axes, on volumes.

Source: SparK (Tian et al. 2023, arXiv 2301.03580), with the settings of cDDPM (Behrendt et al.
2023, arXiv 2312.04215). The encoder can hide cells by itself, see `atypia.networks.resnet`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from atypia.errors import InputError, SettingsError
from atypia.networks.resnet import LAYERS, MaskedBatchNorm, ResNetEncoder, Visible


class SparK(nn.Module):
    """An encoder, and a decoder that paints what the encoder was not shown.

    Parameters
    ----------
    encoder
        Is trained as a part of this; take its weights with `resnet.encoder_weights`.
    cell
        Pixels (voxels) of a cell's side, one of the encoder's strides. 32 is the reference's; a
        slice of 96 pixels has 9 such cells, of which 3 are visible. With 16 or 8 there are more,
        smaller ones.
    everywhere
        False: the loss is the mean squared error of hidden cells. True: it is the mean absolute
        error of the whole slice plus `hidden_weight` times that of hidden cells.
    hidden_weight
        Matters only with `everywhere`.

    Raises
    ------
    SettingsError
        If the cell is none of the encoder's strides (4, 8, 16 and 32 as published).

    Notes
    -----
    Cells of the largest stride keep their shape on all four feature maps. Smaller ones do so on
    the maps whose stride is no larger than they are. On coarser maps a place is visible if one of
    its cells is, so that the deep stages are trained, too; nothing leaks, because hidden pixels are
    zero from the start. Such a place is then only partly filled, and with many small cells the
    coarsest map has hardly a hidden place left.

    The decoder's widths are a half, a quarter, ... of 16 times the encoder's `width`: 512 to 16
    for 64. None is less than four.
    """

    def __init__(
        self,
        encoder: ResNetEncoder,
        cell: int = 32,
        everywhere: bool = False,
        hidden_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if cell not in encoder.strides:
            problem = f"{cell} is no stride of the encoder"
            raise SettingsError("cell", problem, f"Give one of {list(encoder.strides)}")
        self.encoder, self.cell = encoder, cell
        self.everywhere, self.hidden_weight = everywhere, hidden_weight
        axes, doublings = encoder.axes, int(math.log2(encoder.strides[-1]))
        widths = [max(4, 8 * encoder.width // 2**stage) for stage in range(doublings + 1)]
        self.fills = nn.ModuleList(
            DenseMap(channels, width, 3 if number else 1, axes)
            for number, (channels, width) in enumerate(
                zip(reversed(encoder.channels), widths[:4], strict=True)
            )
        )
        self.stages = nn.ModuleList(
            DoublingStage(width, finer, axes) for width, finer in pairwise(widths)
        )
        self.last = LAYERS[axes].convolution(widths[-1], encoder.inputs, 1)

    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give how many cells a slice or volume has along each axis.

        Raises
        ------
        InputError
            If it is not a multiple of the encoder's largest stride, which every cell fits into.
        """
        largest = self.encoder.strides[-1]
        if any(length % largest for length in size):
            problem = f"has {'x'.join(map(str, size))} places, not multiples of {largest}"
            raise InputError("image", problem, "Pad or crop it")
        return tuple(length // self.cell for length in size)

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """Paint an image from its visible cells.

        Parameters
        ----------
        x
            `(B, inputs, *size)`, multiples of the largest stride. Hidden pixels have no influence.
        active
            `(B, 1, *grid(size))`, true for visible cells; see `random_active`.

        Returns
        -------
        torch.Tensor
            As `x`.

        Raises
        ------
        InputError
            If the image, or the grid for it, is not of a size that fits.
        """
        self._check(x, active)
        visible = Visible(active.to(x.device))
        features: Tensor | None = None
        maps = list(self.encoder.features(x, active))
        for number, stage in enumerate(self.stages):
            if maps:
                dense = self.fills[number](maps.pop(), visible)
                features = dense if features is None else features + dense
            features = stage(features)
        out: Tensor = self.last(features)
        return out

    def loss(self, x: Tensor, active: Tensor) -> Tensor:
        """Give the mean error of the painting, a scalar; parameters as in `forward`."""
        return self.error(self(x, active), x, active)

    def error(self, painted: Tensor, x: Tensor, active: Tensor) -> Tensor:
        """Compare a painting with the image, each `(B, inputs, *size)`, as a scalar.

        See `everywhere` for what is compared; it is not a number where no cell is hidden.
        """
        visible = Visible(active.to(x.device))
        hidden = ~visible.map(x.shape[2:]).expand_as(x)
        if not self.everywhere:
            return _mean_where((painted - x).square(), hidden)
        errors = (painted - x).abs()
        return errors.mean() + self.hidden_weight * _mean_where(errors, hidden)

    def _check(self, x: Tensor, active: Tensor) -> None:
        expected = (len(x), 1, *self.grid(x.shape[2:]))
        if active.shape != expected:
            problem = f"has shape {tuple(active.shape)} instead of {expected}"
            raise InputError("grid of visible cells", problem, "Make it with random_active")


class DenseMap(nn.Module):
    """A feature map whose hidden places are filled with one learnt vector, then convolved.

    Parameters
    ----------
    channels, width
        Channels in and out.
    kernel
        Of the convolution.
    axes
        2 or 3.
    """

    def __init__(self, channels: int, width: int, kernel: int, axes: int = 2) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm(channels)
        self.token = nn.Parameter(torch.empty(1, channels, *[1] * axes))
        nn.init.trunc_normal_(self.token, std=0.02)
        convolution = LAYERS[axes].convolution
        self.convolution = convolution(channels, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, visible: Visible) -> Tensor:
        """Map `(B, channels, *size)` to `(B, width, *size)`."""
        shown = visible.map(x.shape[2:])
        features = self.norm(x, visible)
        out: Tensor = self.convolution(torch.where(shown, features, self.token.to(features.dtype)))
        return out


class DoublingStage(nn.Sequential):
    """Double the grid (transposed convolution of width 4), then two normalised ones of width 3."""

    def __init__(self, inputs: int, outputs: int, axes: int = 2) -> None:
        kinds = LAYERS[axes]
        super().__init__(
            kinds.doubling(inputs, inputs, 4, stride=2, padding=1),
            kinds.convolution(inputs, inputs, 3, padding=1, bias=False),
            kinds.norm(inputs),
            nn.ReLU6(),
            kinds.convolution(inputs, outputs, 3, padding=1, bias=False),
            kinds.norm(outputs),
        )


def random_active(
    batch: int, grid: Sequence[int], ratio: float = 0.65, generator: torch.Generator | None = None
) -> Tensor:
    """Choose the visible cells of each image.

    Parameters
    ----------
    batch
        Images.
    grid
        Cells along each axis.
    ratio
        Share of hidden cells: `round(cells * (1 - ratio))` are visible, the same number in every
        image.
    generator
        Source of chance; its device is the answer's.

    Returns
    -------
    torch.Tensor
        Truth values `(batch, 1, *grid)`, true where visible.

    Raises
    ------
    SettingsError
        If no cell would be visible, or none hidden.
    """
    cells = math.prod(grid)
    count = round(cells * (1 - ratio))
    if not 0 < count < cells:
        problem = f"{ratio} shows {count} of {cells} cells"
        raise SettingsError("ratio", problem, "Show some and hide some, e.g. 0.65")
    device = None if generator is None else generator.device
    order = torch.rand(batch, cells, generator=generator, device=device).argsort(dim=1)
    active = torch.zeros(batch, cells, dtype=torch.bool, device=device)
    return active.scatter(1, order[:, :count], True).reshape(batch, 1, *grid)


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Average the values at true places."""
    # By a choice, not by a product, so that the others have no say even if not finite.
    return torch.where(where, values, 0.0).sum() / where.sum()
