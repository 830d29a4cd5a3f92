"""Small smooth scans, and a plain network of one's own."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from atypia.patch_pipeline import AnomalyDetectionPipeline

QUICK = {"num_epochs": 2, "batch_size": 16}


@cache
def anatomy(edge: int) -> np.ndarray:
    rng = np.random.default_rng(999)
    return 40 * ndimage.gaussian_filter(rng.normal(size=(edge,) * 3), 4)


def scan(seed: int, edge: int = 16) -> np.ndarray:
    """Everybody's anatomy and a little of one's own, float32."""
    own = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(edge,) * 3), 3)
    return (anatomy(edge) + 5 * own).astype(np.float32)


def blob(centre: np.ndarray, edge: int, sigma: float = 0.8) -> np.ndarray:
    places = np.indices((edge,) * 3)
    far = sum((places[axis] - centre[axis]) ** 2 for axis in range(3))
    return np.exp(-far / (2 * sigma**2)).astype(np.float32)


def volumes(count: int = 3, edge: int = 16) -> list[Tensor]:
    return [torch.from_numpy(scan(seed, edge))[None] for seed in range(count)]


class Means(nn.Module):
    """A network without anything to learn: means of cubes of two voxels."""

    axes, channels, strides, offsets = 3, (1,), (2,), (0.5,)

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.factor * nn.functional.avg_pool3d(x, 2),)


def small(
    kind: str = "standard",
    embedding: str = "flatten",
    network: str = "simple",
    patch: int = 8,
    training: dict | None = None,
    **args,
) -> AnomalyDetectionPipeline:
    """A pipeline that is fitted in a second."""
    layers = {"args": {"feature_dims": [4, 8]}} if network == "simple" else {}
    return AnomalyDetectionPipeline(
        {"type": network, **layers},
        {"embedding_method": embedding, "mlp_hidden_dims": [8], "output_dim": 6},
        {"type": kind, "args": {"hidden_dims": [16], "latent_dim": 4, **args}},
        {"patch_size": (patch,) * 3, "stride": 4},
        {**QUICK, **(training or {})},
        device="cpu",
    )
