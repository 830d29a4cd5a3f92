"""The encoder of a mask refinement network, as another method uses it: nothing is hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from atypia.networks.iterative_mask_unet import IterativeMaskUNet
from atypia.networks.layers import padded
from atypia.networks.unet import ResidualUNet, blocks_to_channels

Guide = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Image and mean healthy brain -> its high-frequency image and the coarse prior."""


class GuidedEncoder(nn.Module):
    """Feature maps of a mask refinement U-Net, from half resolution downwards.

    Parameters
    ----------
    network
        The U-Net.
    prior
        `(1, 1, X, Y, Z)`, the mean healthy brain on the working grid.
    guide
        See `Guide`.
    masked, guided
        Whether the network has a channel for the mask, and one for the prior.

    Attributes
    ----------
    channels, strides, offsets
        Of the maps, finest first.
    unscaled
        It is given normalised intensities as they are.
    """

    prior: Tensor

    def __init__(
        self,
        network: IterativeMaskUNet | ResidualUNet,
        prior: Tensor,
        guide: Guide,
        masked: bool,
        guided: bool,
    ) -> None:
        super().__init__()
        self.network, self.guide, self.masked, self.guided = network, guide, masked, guided
        self.register_buffer("prior", prior)
        self.axes, self.unscaled = 3, True
        parts: Any = network
        if isinstance(network, ResidualUNet):
            self.channels = tuple(entry.out_channels for entry in parts.entries)
            # Blocks of two voxels became channels: their middle lies between them.
            offset = 0.5
        else:
            # The last stage keeps the resolution of the one before.
            stages = list(parts.encoder)[:-1]
            self.channels = tuple(stage.first.convolution.out_channels for stage in stages)
            offset = 0.0
        self.strides = tuple(2 ** (level + 1) for level in range(len(self.channels)))
        self.offsets = (offset,) * len(self.channels)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give the maps of scans `(B, 1, X, Y, Z)` on the working grid (zeros may be appended)."""
        shape = self.prior.shape[2:]
        image = x[..., : shape[0], : shape[1], : shape[2]]
        fine, coarse = self.guide(image, self.prior)
        inputs = [image, fine]
        if self.masked:
            inputs.append(torch.zeros_like(image))
        if self.guided:
            inputs.append(coarse)
        parts: Any = self.network
        features, maps = padded(torch.cat(inputs, dim=1), parts.multiple), []
        if isinstance(self.network, ResidualUNet):
            features = blocks_to_channels(features)
            for entry, down in zip(parts.entries, parts.downs, strict=True):
                features = down(entry(features))
                maps.append(features)
        else:
            for stage in list(parts.encoder)[:-1]:
                features = stage(features)
                maps.append(features)
        return tuple(maps)
