"""SparK: an encoder learns to paint hidden cells of healthy slices or volumes.

Source: SparK (Tian et al. 2023, arXiv 2301.03580) as cDDPM uses it (Behrendt et al. 2023, arXiv
2312.04215): most cells of an axial slice are hidden, the encoder sees the others, and a decoder,
which is thrown away afterwards, paints what is hidden. The diffusion method then starts from the
encoder's weights and trains them on. With `axes` 3 the same is done with cubes of voxels in crops
of the scan, for the methods that score features. The network is `atypia.networks.spark`.

What differs from the reference by default (each can be set back): cells of 16 pixels, of which a
slice has enough for many patterns; slices are mirrored; nearly empty ones are not learnt;
validation is the same slices and cells at every visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from atypia.detectors.training_scans import PreparationSettings, divided
from atypia.networks.layers import padded
from atypia.networks.resnet import ResNetEncoder
from atypia.networks.spark import SparK, random_active
from atypia.preprocessing import Prepared
from atypia.progress import Progress, silent
from atypia.training import TrainingReport, TrainingSettings, train
from atypia.training.crops import middle_crop, random_crops
from atypia.training.loop import seeded
from atypia.training.slices import Range, even_slices, random_slices, usual_range

SLICES_A_SCAN = 4
"""Of each held-out scan, for validation."""


class PretrainingSettings(PreparationSettings):
    """Settings of `learn_encoder`."""

    presets = {
        "tiny": {
            "spacing_mm": 6.0,
            "align": "none",
            "encoder_width": 4,
            "cell": 8,
            "crop": 16,
            "training": {"steps": 60, "batch_size": 4, "validate_every": 30},
        },
        "small": {},
        "reference": {
            "preprocessing": "mhd",
            "intensity_range": (0.0, 1.0),
            "encoder_depth": 50,
            "encoder_width": 64,
            "cell": 32,
            "least_brain": 0.0,
            "flip_share": 0.0,
            "training": {
                "epochs": 1200,
                "batch_size": 32,
                "learning_rate": 1e-4,
                "schedule": "constant",
                "warmup_steps": 0,
                "clip_norm": 0.0,
            },
        },
    }

    axes: Literal[2, 3] = 2
    """2: slices, for the diffusion method; 3: volumes, for the methods that score features."""
    stem_stride: Literal[2, 4] = 4
    """Pixels from place to place of the finest feature map; 4 as published and for the diffusion
    method."""
    crop: int = Field(48, ge=8)
    """Voxels of the edge of a crop, in volumes."""
    encoder_depth: Literal[18, 34, 50] = 18
    """Of the ResNet; the diffusion method needs the same."""
    encoder_width: int = Field(16, ge=1)
    """Channels of the ResNet's first stage; the diffusion method needs the same. The published one
    has 64."""
    cell: Literal[2, 4, 8, 16, 32] = 16
    """Pixels of the side of a cell, which is hidden or visible as a whole; the published one has
    32."""
    hidden_share: float = Field(0.65, gt=0, lt=1)
    """Share of the cells that are hidden."""
    everywhere: bool = False
    """Compare whole slices by their absolute error, not only hidden cells by their squared one."""
    hidden_weight: float = Field(1.0, ge=0)
    """With `everywhere`: how much hidden cells count on top of that."""
    intensity_range: tuple[float, float] | None = None
    """Normalised intensities that become 0 and 1; None: the training scans' usual 1st and 99th
    percentile in the brain."""
    least_brain: float = Field(0.02, ge=0, le=1)
    """Slices with a smaller share of brain are not learnt."""
    flip_share: float = Field(0.5, ge=0, le=1)
    """Share of the training slices that are mirrored, left for right."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the training scans kept for validation; with 0 the last weights are kept. With the
    same scans, share and seed they are those of the diffusion method."""
    seed: int = Field(0, ge=0)
    """Same seed and scans, same result."""
    training: TrainingSettings = TrainingSettings(
        steps=1500,
        batch_size=16,
        learning_rate=1e-3,
        validate_every=250,
        weight_decay=0.05,
        betas=(0.9, 0.95),
    )
    """How the network is trained; a step sees one slice or crop of each of its scans."""


@dataclass(frozen=True, eq=False)
class LearntEncoder:
    """What pre-training gives.

    Parameters
    ----------
    encoder
        Its head is untouched.
    bounds
        Intensities that became 0 and 1.
    report
        What happened; its best loss is that of validation.
    """

    encoder: ResNetEncoder
    bounds: Range
    report: TrainingReport


def learn_encoder(
    scans: Sequence[Prepared],
    settings: PretrainingSettings,
    *,
    folder: Path | None = None,
    identity: str = "",
    progress: Progress = silent,
) -> LearntEncoder:
    """Pre-train an encoder on prepared healthy scans.

    Parameters
    ----------
    scans
        On one grid.
    folder, identity, progress
        As in `atypia.training.train`.

    Raises
    ------
    SettingsError
        The slices have so few cells that none would be visible, or none hidden.
    """
    learning, held_out = divided(scans, settings.validation_share, settings.seed)
    bounds = settings.intensity_range or usual_range(learning)
    spark = make_spark(settings)

    def loss(network: torch.nn.Module, batch: Sequence[int], rng: torch.Generator) -> Tensor:
        chosen = [learning[i] for i in batch]
        if settings.axes == 3:
            images = random_crops(chosen, bounds, settings.crop, rng)
        else:
            images = random_slices(chosen, bounds, settings.least_brain, rng)
        draws = torch.rand(len(images), generator=rng, device=rng.device)
        mirrored = (draws < settings.flip_share).reshape(-1, *[1] * (images.ndim - 1))
        images = torch.where(mirrored, images.flip(2), images)
        return _error(network, spark, images, settings.hidden_share, rng)

    def validation(network: torch.nn.Module) -> float:
        device = next(network.parameters()).device
        losses = []
        for index, scan in enumerate(held_out):
            if settings.axes == 3:
                images = middle_crop(scan, bounds, settings.crop)
            else:
                images = even_slices(scan, bounds, settings.least_brain, SLICES_A_SCAN)
            rng = seeded(settings.seed, 11, index, device=device)
            error = _error(network, spark, images.to(device), settings.hidden_share, rng)
            losses.append(float(error))
        return float(np.mean(losses))

    report = train(
        spark,
        loss,
        len(learning),
        settings.training,
        seed=settings.seed,
        validation=validation if held_out else None,
        folder=folder,
        identity=identity,
        progress=progress,
    )
    return LearntEncoder(spark.encoder, bounds, report)


def make_spark(settings: PretrainingSettings) -> SparK:
    """Make the untrained network; the same settings give the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = ResNetEncoder(
            settings.encoder_depth,
            width=settings.encoder_width,
            axes=settings.axes,
            stem_stride=settings.stem_stride,
        )
        # Nothing here reaches the head; training on several devices would wait for its gradient.
        encoder.head.requires_grad_(False)
        return SparK(encoder, settings.cell, settings.everywhere, settings.hidden_weight)


def _error(
    network: torch.nn.Module, spark: SparK, images: Tensor, hidden: float, rng: torch.Generator
) -> Tensor:
    """Hide cells of images `(B, 1, *size)` and compare the painting, as a scalar.

    `network` is `spark`, or what training on several devices wraps it in.
    """
    images = padded(images, spark.encoder.strides[-1])
    active = random_active(len(images), spark.grid(images.shape[2:]), hidden, rng)
    return spark.error(network(images, active).float(), images, active)
