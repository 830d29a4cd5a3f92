"""DenoisingAutoencoder: a network that has learnt to take coarse noise out of healthy scans.

Source: Kascenas, Pugeault and O'Neil, "Denoising autoencoders for unsupervised anomaly detection in
brain MRI", MIDL 2022. A U-Net with skips, which would copy anything, learns nothing but what noise
of lesions' size looks like on a healthy brain; so it takes lesions out as if they were noise.

What differs from the paper: whole volumes instead of slices of four sequences; the network sees
what the scan is expected to look like (`prior`); residuals are divided by their healthy spread; the
loss is the absolute error.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from atypia.detectors.restorer import TINY, Restorer, RestorerSettings
from atypia.training.coarse_noise import coarse_noise


class DenoisingAutoencoderSettings(RestorerSettings):
    """Settings of `DenoisingAutoencoder`."""

    presets = {
        "tiny": TINY,
        "published": {"prior": "none", "normalise": False, "floor": 0.0},
    }

    cell_mm: float = Field(15.0, gt=0)
    """Distance of the noise's lattice points: 16 over a field of view of 240 mm in the paper."""
    noise: float = Field(1.0, gt=0)
    """Standard deviation of the noise's lattice, in those of the brain's intensities; the paper's
    0.2 of the range is about as much."""


class DenoisingAutoencoder(Restorer):
    """Denoising autoencoder with coarse noise (Kascenas et al. 2022), in 3D."""

    method = "denoising_autoencoder"
    settings_class = DenoisingAutoencoderSettings
    settings: DenoisingAutoencoderSettings

    def _corrupted(
        self, image: Tensor, brain: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        shape = (image.shape[0], image.shape[1], image.shape[2])
        spacing = self._working_grid().spacing_mm
        noise = coarse_noise(shape, spacing, self.settings.cell_mm, rng)
        return image + self.settings.noise * noise * brain, brain
