"""From a scan to its score map by the described names, over `atypia.features` and `.patches`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor

from atypia.errors import InputError, unknown_name
from atypia.patch_pipeline.autoencoders import Autoencoder, compute_reconstruction_errors
from atypia.patch_pipeline.embeddings import (
    LAYERS,
    FeatureEmbedding,
    MultiScaleFeatureEmbedding,
    PatchSampler,
    vectors_of,
)
from atypia.patch_pipeline.extractors import FeatureExtractor3D
from atypia.patch_pipeline.tensors import Given, Triple, as_volume, device_of, spatial, three
from atypia.patch_pipeline.volumes import grid_of
from atypia.patches import PatchGrid, interpolated_scores, spread_scores
from atypia.scoring.ensemble import WAYS, HealthyQuantiles, combine

Embedding = FeatureEmbedding | MultiScaleFeatureEmbedding
Aggregation = Literal["interpolated", "mean", "max", "min"]
Metadata = dict[str, Any]

AGGREGATIONS = ("interpolated", "mean", "max", "min")


class Scorer(Protocol):
    """A fitted pipeline, as far as an ensemble needs it."""

    healthy: HealthyQuantiles | None

    def score_map(self, volume: Given) -> tuple[Tensor, Metadata]:
        """Give the score map of a scan, and what is known of it."""


def extract_test_features(
    volume: Given,
    extractor: FeatureExtractor3D,
    embedding: Embedding,
    sampler: PatchSampler | None = None,
    layer_names: Sequence[str] = LAYERS,
    device: str | torch.device | None = None,
) -> tuple[Tensor, Tensor, Metadata]:
    """Describe all patches of a scan.

    Parameters
    ----------
    volume
        `(C, D, H, W)` or `(D, H, W)`.
    extractor, embedding
        Are moved to the device.
    sampler
        Where patches lie, in voxels of the scan; None for the embedding's patch size and half of
        it as the stride. All patches are described, whatever its `max_patches`.
    layer_names
        Layers that are read and fused.
    device
        None for the first GPU, if there is one.

    Returns
    -------
    tuple
        Vectors `(N, E)`, first voxels of the patches in the scan, int64 `(N, 3)`, and
        `layer_shapes`, `original_shape`, `patch_size`.
    """
    image, place = as_volume(volume), device_of(device)
    laid = sampler or PatchSampler(_patch_size(embedding))
    grid = laid.grid(spatial(image.shape))
    vectors = vectors_of(image, extractor.to(place), embedding.to(place), grid, layer_names)
    shapes = extractor.get_feature_dimensions(image.shape)
    metadata = {
        "layer_shapes": {name: shapes[name] for name in layer_names},
        "original_shape": grid.shape,
        "patch_size": grid.size,
    }
    return vectors, torch.from_numpy(grid.corners()), metadata


def create_anomaly_score_map(
    errors: ArrayLike | Tensor,
    coordinates: Any,
    original_shape: Sequence[int],
    patch_size: int | Triple,
    aggregation: Aggregation = "mean",
    smoothing_sigma: float | None = None,
) -> Tensor:
    """Bring the errors of patches to voxels.

    Parameters
    ----------
    errors
        `(N,)`.
    coordinates
        First voxels of the patches in the scan, `(N, 3)`.
    original_shape
        Of the scan.
    patch_size
        Voxels of a patch.
    aggregation
        Mean, largest or smallest error of the patches that hold a voxel, or "interpolated" between
        their centres.
    smoothing_sigma
        Standard deviation in voxels of a Gaussian that smooths the map.

    Returns
    -------
    torch.Tensor
        float32 `(D, H, W)`, 0 where no patch is.
    """
    size = three(patch_size)
    grid, numbers = grid_of(coordinates, size, spatial(original_shape))
    dense = np.full(grid.count, np.nan, np.float32)
    dense[numbers] = torch.as_tensor(errors).cpu().numpy()
    return torch.from_numpy(_map(dense, grid, aggregation, smoothing_sigma))


def inference_pipeline(
    volume: Given,
    extractor: FeatureExtractor3D,
    embedding: Embedding,
    autoencoder: Autoencoder,
    sampler: PatchSampler | None = None,
    layer_names: Sequence[str] = LAYERS,
    device: str | torch.device | None = None,
    aggregation: Aggregation = "mean",
    smoothing_sigma: float | None = None,
) -> tuple[Tensor, Metadata]:
    """Score a scan.

    Parameters
    ----------
    volume, extractor, embedding, sampler, layer_names, device
        As of `extract_test_features`.
    autoencoder
        Is moved to the device.
    aggregation, smoothing_sigma
        As of `create_anomaly_score_map`.

    Returns
    -------
    tuple
        Score map, float32 `(D, H, W)`, and what `extract_test_features` tells with `num_patches`,
        `mean_error`, `std_error`, `min_error`, `max_error` and `score_map_stats`.
    """
    vectors, corners, metadata = extract_test_features(
        volume, extractor, embedding, sampler, layer_names, device
    )
    errors = compute_reconstruction_errors(vectors, autoencoder.to(device_of(device)))
    shape, size = metadata["original_shape"], metadata["patch_size"]
    found = create_anomaly_score_map(errors, corners, shape, size, aggregation, smoothing_sigma)
    of_errors = {f"{name}_error": value for name, value in _statistics(errors).items()}
    told = {"num_patches": len(errors), **of_errors, "score_map_stats": _statistics(found)}
    return found, {**metadata, **told}


def batch_inference(
    volumes: Sequence[Given],
    extractor: FeatureExtractor3D,
    embedding: Embedding,
    autoencoder: Autoencoder,
    **options: Any,
) -> list[tuple[Tensor, Metadata]]:
    """Score several scans, which may differ in shape; options as of `inference_pipeline`."""
    return [inference_pipeline(v, extractor, embedding, autoencoder, **options) for v in volumes]


def ensemble_inference(
    volume: Given,
    models: Sequence[Scorer | Mapping[str, Any]],
    aggregation_method: str = "mean",
    rate: float = 0.05,
) -> Tensor:
    """Make one score map of several models' maps, on the scale that their healthy scores set.

    Parameters
    ----------
    volume
        `(C, D, H, W)` or `(D, H, W)`.
    models
        Fitted pipelines; or dictionaries of the arguments of `inference_pipeline`, with
        "healthy_scores" besides: voxel scores of healthy scans that this model did not learn from.
    aggregation_method
        "mean", "max" or "geometric" of the shares of healthy scores that are reached, or "voting":
        the share of models whose score is above what a share `rate` of healthy voxels has.
    rate
        Of voting.

    Returns
    -------
    torch.Tensor
        float32 `(D, H, W)`.

    Raises
    ------
    InputError
        No model, or one without healthy scores.
    SettingsError
        An unknown way.
    """
    if aggregation_method not in WAYS:
        raise unknown_name("aggregation_method", aggregation_method, WAYS)
    maps, healthy = [], []
    for number, model in enumerate(models):
        found, usual = _of_model(volume, model, number)
        maps.append(found.numpy())
        healthy.append(usual)
    return torch.from_numpy(combine(maps, healthy, aggregation_method, rate))


def _of_model(
    volume: Given, model: Scorer | Mapping[str, Any], number: int
) -> tuple[Tensor, HealthyQuantiles]:
    if isinstance(model, Mapping):
        arguments = dict(model)
        scores = arguments.pop("healthy_scores", None)
        usual = None if scores is None else HealthyQuantiles.learn(np.ravel(scores))
        found = inference_pipeline(volume, **arguments)[0] if usual else None
    else:
        found, usual = model.score_map(volume)[0], model.healthy
    if usual is None or found is None:
        remedy = "Fit the pipeline, or add 'healthy_scores' to the dictionary"
        raise InputError(f"model {number}", "has no healthy scores", remedy)
    return found, usual


def _map(
    scores: NDArray[np.float32], grid: PatchGrid, aggregation: str, sigma: float | None
) -> NDArray[np.float32]:
    if aggregation not in AGGREGATIONS:
        raise unknown_name("aggregation", aggregation, AGGREGATIONS)
    if aggregation == "interpolated":
        found = interpolated_scores(scores, grid)
    else:
        found = spread_scores(scores, grid, aggregation)  # type: ignore[arg-type]
    return np.asarray(ndimage.gaussian_filter(found, sigma)) if sigma else found


def _patch_size(embedding: Embedding) -> Triple:
    if isinstance(embedding, MultiScaleFeatureEmbedding):
        return embedding.patch_sizes[0]
    return embedding.patch_size


def _statistics(values: Tensor) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std(correction=0)),
        "min": float(values.min()),
        "max": float(values.max()),
    }
