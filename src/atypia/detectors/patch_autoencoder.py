"""Patch autoencoder: patches whose features a narrow network cannot give back are abnormal.

This is the modular pipeline of patches, 3D features, embedding and vector autoencoder. As
published its features come from a network that was never trained (`--preset published`); here they
are written-down descriptors unless you choose otherwise, and scores land where the patches lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from atypia.detectors.base import TrainingSet
from atypia.detectors.patch_detector import TINY, PatchDetector, PatchSettings
from atypia.features.patch_features import Patches
from atypia.networks.vector_autoencoder import Activation, Kind, VectorAutoencoder, autoencoder_of
from atypia.preprocessing import Prepared
from atypia.training import TrainingSettings, train
from atypia.volume import Array

LARGEST_BATCH = 65_536
"""Vectors that are judged at once."""


class PatchAutoencoderSettings(PatchSettings):
    """Settings of `PatchAutoencoder`."""

    presets = {
        "tiny": {
            **TINY,
            "hidden": (16,),
            "latent": 4,
            "training": {"steps": 20, "batch_size": 1, "validate_every": 10},
        },
        "small": {},
        "published": {
            "preprocessing": "patches",
            "features": "random",
            "network": "simple",
            "network_width": 32,
            "layers": (0, 1),
            "patch_size": 8,
            "patch_stride": None,
            "embedding": "flatten",
            "hidden": (128, 64),
            "latent": 32,
            "normalise": False,
            "score_map": "mean",
            "median_size": 1,
        },
    }

    autoencoder: Kind = "standard"
    """standard, variational, denoising or contractive."""
    hidden: tuple[int, ...] = (128, 64)
    """Widths between vector and code."""
    latent: int = Field(16, ge=1)
    """Length of the code."""
    activation: Activation = "gelu"
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of hidden values dropped in training; 0.1 in the published pipeline."""
    batch_norm: bool = True
    beta: float = Field(0.1, ge=0)
    """Weight of the variational divergence."""
    noise: float = Field(0.5, ge=0)
    """Standard deviation of the denoising kind's noise; features have 1."""
    contraction: float = Field(1e-3, ge=0)
    """Weight of the contractive kind's penalty."""
    normalise: bool = True
    most_vectors: int = Field(300_000, ge=1)
    """Patches that are learnt from; more are left out by chance."""
    vectors: int = Field(1024, ge=2)
    """Patches in a training step."""
    training: TrainingSettings = TrainingSettings(
        steps=2000, batch_size=1, learning_rate=2e-3, validate_every=200, patience=5
    )
    """How the autoencoder learns."""


class PatchAutoencoder(PatchDetector):
    """Autoencoder of patch features."""

    method = "patch_autoencoder"
    settings_class = PatchAutoencoderSettings
    settings: PatchAutoencoderSettings

    network_: VectorAutoencoder

    def _build(self) -> None:
        super()._build()
        settings = self.settings
        special: dict[str, dict[str, Any]] = {
            "variational": {"beta": settings.beta},
            "denoising": {"noise": settings.noise},
            "contractive": {"contraction": settings.contraction},
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed + 1)
            self.network_ = autoencoder_of(
                settings.autoencoder,
                self.features_.length,
                settings.hidden,
                settings.latent,
                settings.activation,
                settings.dropout,
                settings.batch_norm,
                **special.get(settings.autoencoder, {}),
            )

    def _learn(
        self, learning: Sequence[Prepared], held_out: Sequence[Prepared], training: TrainingSet
    ) -> None:
        settings = self.settings
        known = torch.from_numpy(self.sample(learning, settings.most_vectors)[0])
        kept = torch.from_numpy(self.sample(held_out, settings.most_vectors // 10)[0])

        def loss(network: nn.Module, batch: Sequence[int], rng: torch.Generator) -> Tensor:
            rows = torch.randint(
                len(known), (len(batch) * settings.vectors,), generator=rng, device=rng.device
            )
            value: Tensor = network(known[rows.cpu()].to(rng.device))
            return value

        def validation(network: nn.Module) -> float:
            device = next(network.parameters()).device
            return float(self.network_.error(kept.to(device)).mean())

        train(
            _Trained(self.network_),
            loss,
            len(learning),
            settings.training,
            seed=settings.seed,
            validation=validation,
            folder=training.folder,
            identity=training.identity,
            progress=training.progress,
        )

    def _judge(self, patches: Patches) -> Array:
        vectors = torch.from_numpy(patches.vectors)
        with torch.no_grad():
            found = [self.network_.error(part) for part in vectors.split(LARGEST_BATCH)]
        return np.asarray(torch.cat(found).numpy())


class _Trained(nn.Module):
    """What is trained: vectors `(N, length)` -> the loss, as parallel training needs it."""

    def __init__(self, autoencoder: VectorAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        return self.autoencoder.loss(x)
