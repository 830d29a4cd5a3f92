"""Pipelines that are ready to fit: simple, residual, and for a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from atypia.errors import unknown_name
from atypia.patch_pipeline.pipeline import AnomalyDetectionPipeline
from atypia.patch_pipeline.tensors import Triple

MODALITIES: dict[str, dict[str, Any]] = {
    "T1": {"model_type": "resnet18", "patch_size": (8, 8, 8), "normalize_method": "z_score"},
    "T2": {"model_type": "resnet18", "patch_size": (8, 8, 8), "normalize_method": "z_score"},
    "FLAIR": {"model_type": "resnet18", "patch_size": (8, 8, 8), "normalize_method": "z_score"},
    "CT": {"model_type": "resnet34", "patch_size": (16, 16, 16), "normalize_method": "percentile"},
}
"""Network and patch of each modality, and how its scans are best loaded."""


def create_simple_pipeline(
    input_dim: int = 64,
    patch_size: Triple = (8, 8, 8),
    hidden_dims: Sequence[int] = (128, 64),
    latent_dim: int = 32,
    training_config: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> AnomalyDetectionPipeline:
    """Make a pipeline of the plain network, flattened patches and a standard autoencoder.

    Parameters
    ----------
    input_dim
        Taken and not needed: scans may have any shape, and lengths of vectors are found.
    patch_size
        Voxels of the scan.
    hidden_dims, latent_dim
        Of the autoencoder.
    training_config
        Replaces options of the training.
    device, seed
        As of `AnomalyDetectionPipeline`.
    """
    return AnomalyDetectionPipeline(
        {"type": "simple", "args": {"feature_dims": [32, 64, 128]}},
        {"embedding_method": "flatten"},
        {"type": "standard", "args": {"hidden_dims": list(hidden_dims), "latent_dim": latent_dim}},
        {"patch_size": patch_size, "max_patches": 1000, "sampling_strategy": "uniform"},
        _training(training_config, batch_size=32, num_epochs=100, early_stopping_patience=10),
        device,
        seed,
    )


def create_resnet_pipeline(
    input_dim: int = 64,
    patch_size: Triple = (4, 4, 4),
    autoencoder_type: str = "standard",
    model_type: str = "resnet50",
    training_config: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> AnomalyDetectionPipeline:
    """Make a pipeline of a residual network and pooled patches.

    Parameters
    ----------
    input_dim, patch_size, training_config, device, seed
        As of `create_simple_pipeline`.
    autoencoder_type
        "standard", "variational", "denoising" or "contractive".
    model_type
        "resnet18", "resnet34" or "resnet50".
    """
    return AnomalyDetectionPipeline(
        {"type": model_type, "args": {"in_channels": 1}},
        {"embedding_method": "pool", "pooling_type": "adaptive"},
        {"type": autoencoder_type, "args": {"hidden_dims": [256, 128, 64], "latent_dim": 32}},
        {"patch_size": patch_size, "max_patches": 2000, "sampling_strategy": "random"},
        _training(
            training_config,
            batch_size=64,
            num_epochs=150,
            scheduler_type="cosine",
            early_stopping_patience=15,
        ),
        device,
        seed,
    )


def create_pipeline_for_modality(modality: str, **options: Any) -> AnomalyDetectionPipeline:
    """Make a residual pipeline for T1, T2, FLAIR or CT.

    `MODALITIES` tells how scans are best loaded (`normalize_method`). No evidence behind these
    choices is known: they are starting points.

    Parameters
    ----------
    modality
        "T1", "T2", "FLAIR" or "CT".
    options
        Of `create_resnet_pipeline`, instead of the modality's.

    Raises
    ------
    SettingsError
        An unknown modality.
    """
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    chosen = {k: v for k, v in MODALITIES[modality].items() if k != "normalize_method"}
    return create_resnet_pipeline(**{**chosen, **options})


def _training(given: Mapping[str, Any] | None, **usual: Any) -> dict[str, Any]:
    return {"learning_rate": 1e-3, **usual, **(given or {})}
