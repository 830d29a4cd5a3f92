"""Masked pre-training of the encoder: from a few visible cells of a slice to the hidden ones.

Source: SparK (Tian et al. 2023, arXiv 2301.03580), with the settings of cDDPM (Behrendt et al.
2023, arXiv 2312.04215). The encoder can hide cells by itself, see `atypia.networks.resnet`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from atypia.errors import InputError, SettingsError
from atypia.networks.resnet import STRIDES, MaskedBatchNorm2d, ResNetEncoder, Visible


class SparK(nn.Module):
    """An encoder, and a decoder that paints what the encoder was not shown.

    Parameters
    ----------
    encoder
        Is trained as a part of this; take its weights with `resnet.encoder_weights`.
    cell
        Pixels of a cell's side. 32 is the reference's; a slice of 96 pixels has 9 such cells, of
        which 3 are visible. With 16 or 8 there are more, smaller ones.
    everywhere
        False: the loss is the mean squared error of hidden cells. True: it is the mean absolute
        error of the whole slice plus `hidden_weight` times that of hidden cells.
    hidden_weight
        Matters only with `everywhere`.

    Raises
    ------
    SettingsError
        If the cell is not 4, 8, 16 or 32 pixels.

    Notes
    -----
    Cells of 32 pixels keep their shape on all four feature maps. Smaller ones do so on the maps
    whose stride is no larger than they are. On coarser maps a place is visible if one of its cells
    is, so that the deep stages are trained, too; nothing leaks, because hidden pixels are zero from
    the start. Such a place is then only partly filled, and with many small cells the coarsest map
    has hardly a hidden place left.

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
        if cell not in STRIDES:
            problem = f"{cell} is no stride of the encoder"
            raise SettingsError("cell", problem, f"Give one of {list(STRIDES)}")
        self.encoder, self.cell = encoder, cell
        self.everywhere, self.hidden_weight = everywhere, hidden_weight
        widths = [max(4, 8 * encoder.width // 2**stage) for stage in range(6)]
        self.fills = nn.ModuleList(
            DenseMap(channels, width, 3 if number else 1)
            for number, (channels, width) in enumerate(
                zip(reversed(encoder.channels), widths[:4], strict=True)
            )
        )
        self.stages = nn.ModuleList(
            DoublingStage(width, finer) for width, finer in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], encoder.inputs, 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Give the lines and columns of cells of a slice.

        Raises
        ------
        InputError
            If the slice is not a multiple of 32 pixels, which every cell fits into.
        """
        if height % STRIDES[-1] or width % STRIDES[-1]:
            problem = f"has {height}x{width} pixels, not multiples of {STRIDES[-1]}"
            raise InputError("slice", problem, "Pad or crop it")
        return height // self.cell, width // self.cell

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """Paint a slice from its visible cells.

        Parameters
        ----------
        x
            `(B, inputs, H, W)`, multiples of 32. Hidden pixels have no influence.
        active
            `(B, 1, *grid(H, W))`, true for visible cells; see `random_active`.

        Returns
        -------
        torch.Tensor
            As `x`.

        Raises
        ------
        InputError
            If the slice, or the grid for it, is not of a size that fits.
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
        """Compare a painting with the slice, each `(B, inputs, H, W)`, as a scalar.

        See `everywhere` for what is compared; it is not a number where no cell is hidden.
        """
        visible = Visible(active.to(x.device))
        hidden = ~visible.map(x.shape[-2], x.shape[-1]).expand_as(x)
        if not self.everywhere:
            return _mean_where((painted - x).square(), hidden)
        errors = (painted - x).abs()
        return errors.mean() + self.hidden_weight * _mean_where(errors, hidden)

    def _check(self, x: Tensor, active: Tensor) -> None:
        expected = (len(x), 1, *self.grid(x.shape[-2], x.shape[-1]))
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
    """

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm2d(channels)
        self.token = nn.Parameter(torch.empty(1, channels, 1, 1))
        nn.init.trunc_normal_(self.token, std=0.02)
        self.convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, visible: Visible) -> Tensor:
        """Map `(B, channels, h, w)` to `(B, width, h, w)`."""
        shown = visible.map(x.shape[-2], x.shape[-1])
        features = self.norm(x, visible)
        out: Tensor = self.convolution(torch.where(shown, features, self.token.to(features.dtype)))
        return out


class DoublingStage(nn.Sequential):
    """Double the grid (transposed 4x4 convolution), then two normalised 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(inputs, inputs, 4, stride=2, padding=1),
            nn.Conv2d(inputs, inputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )


def random_active(
    batch: int, grid: tuple[int, int], ratio: float = 0.65, generator: torch.Generator | None = None
) -> Tensor:
    """Choose the visible cells of each slice.

    Parameters
    ----------
    batch
        Slices.
    grid
        Lines and columns of cells.
    ratio
        Share of hidden cells: `round(cells * (1 - ratio))` are visible, the same number in every
        slice.
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
    cells = grid[0] * grid[1]
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
