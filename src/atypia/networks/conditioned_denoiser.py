"""A denoiser and the encoder that tells it what the clean slice looks like, trained as one.

Source: cDDPM (Behrendt et al. 2023, arXiv 2312.04215).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atypia.networks.denoising_unet import DenoisingUNet
from atypia.networks.resnet import ResNetEncoder


class ConditionedDenoiser(nn.Module):
    """Denoising U-Net with an encoder of the clean slice, or without one.

    Parameters
    ----------
    denoiser
        Takes a context if there is an encoder.
    encoder
        Maps slices to context vectors; None: unconditioned.
    """

    def __init__(self, denoiser: DenoisingUNet, encoder: ResNetEncoder | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.encoder = encoder

    def context(self, clean: Tensor) -> Tensor | None:
        """Encode slices `(B, 1, H, W)` in [0, 1] as `(B, C)`; None without an encoder."""
        return None if self.encoder is None else self.encoder(clean)

    def forward(self, noisy: Tensor, times: Tensor, clean: Tensor) -> Tensor:
        """Predict from noisy slices in [-1, 1], their times and the clean slices in [0, 1].

        Parameters
        ----------
        noisy, clean
            `(B, 1, H, W)`.
        times
            `(B,)`.

        Returns
        -------
        torch.Tensor
            `(B, 1, H, W)`, the clean slice in [-1, 1] or the noise, as it was trained.
        """
        out: Tensor = self.denoiser(noisy, times, self.context(clean))
        return out

    @torch.no_grad()
    def embedding(self, time: int, context: Tensor | None) -> Tensor:
        """Embed one time for slices of known context: `(1 or B, E)`."""
        device = next(self.parameters()).device
        times = torch.tensor([time], device=device)
        return self.denoiser.embedding(times, context)
