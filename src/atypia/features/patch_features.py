"""PatchFeatures: from a prepared scan to one vector for each of its patches, and back to a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor, nn

from atypia.errors import SettingsError
from atypia.features.embedding import (
    Fusion,
    LayerEmbedding,
    Method,
    PatchEmbedding,
    Pooling,
)
from atypia.features.maps import FeatureMap, cells_in, cells_of, network_maps, pooled
from atypia.patches import (
    PatchGrid,
    interpolated_scores,
    mean_inside,
    patch_grid,
    spread_scores,
)
from atypia.scoring.descriptors import describe, descriptor_names
from atypia.settings import Settings
from atypia.volume import Array, Volume

Reduction = Literal["none", "random", "pca", "whitened"]

LEAST_SPREAD = 1e-6
"""Features that vary less over healthy patches are constant: they do not count."""
USUAL_SHARE = 0.1
"""Features that vary less than this share of the usual spread are taken to vary that much: nearly
constant ones, which untrained networks have, would be blown up."""
LARGEST_SAMPLE = 100_000
"""Patches by which the reduction is learnt."""
MOST_VALUES = 2**27
"""Of vectors that are learnt from at once: half a gigabyte."""


class FeatureRules(Settings):
    """How patches are laid, described and put together again."""

    patch_size: int = Field(4, ge=1)
    """Voxels of a patch's edge."""
    patch_stride: int | None = Field(2, ge=1)
    """Voxels from patch to patch; none: half a patch."""
    least_brain: float = Field(0.25, gt=0, le=1)
    """Patches with a smaller share of brain are left out."""
    layers: tuple[int, ...] = Field((0,), min_length=1)
    """Feature maps of the network that are read, from 0, the finest."""
    descriptors: tuple[str, ...] = Field(
        ("intensity", "gradient", "texture", "self_similarity"), min_length=1
    )
    """Groups of written-down descriptors, with `features` descriptors; also asymmetry, which makes
    the mirrored place of a lesion as abnormal as the lesion."""
    scales_mm: tuple[float, ...] = Field((2.0, 4.0, 8.0), min_length=1)
    """Of the descriptors."""
    embedding: Method = "pool"
    """A patch of a feature map as a vector: pool (one value a channel), flatten, or mlp (random
    linear layers)."""
    pooling: Pooling = "avg"
    """avg, max, or adaptive, which is avg."""
    embedding_hidden: tuple[int, ...] = (256,)
    """Hidden widths of mlp."""
    embedding_length: int = Field(128, ge=1)
    """Length of a layer's vector with mlp."""
    fusion: Fusion = "concat"
    """Vectors of several layers: side by side, their sum, or attention with random weights."""
    reduction: Reduction = "none"
    """After features are divided by their healthy spread: nothing, a random projection, principal
    components, or these with unit variance."""
    dimension: int = Field(64, ge=1)
    """Length of a vector after the reduction, unless it is shorter before."""
    position_weight: float = Field(0.0, ge=0)
    """Weight of the patch's place beside its features; 0 leaves it out."""
    score_map: Literal["interpolated", "mean", "max", "min"] = "interpolated"
    """Patch scores to voxels: by linear interpolation between the patches' centres, or by the mean,
    the largest or the smallest of the patches that hold a voxel."""
    blending: Literal["uniform", "hann", "gaussian"] = "uniform"
    """Weights of that mean."""
    megabytes: int = Field(256, ge=1)
    """Largest memory of the patches that are held at once."""


@dataclass(frozen=True, eq=False)
class Patches:
    """What is said of the patches of one scan.

    Parameters
    ----------
    vectors
        float32 `(N, length)`.
    numbers
        `(N,)`, which patches of the grid they are.
    grid
        All patches of the scan.
    """

    vectors: Array
    numbers: Any
    grid: PatchGrid


class PatchFeatures(nn.Module):
    """Describe patches; everything that is learnt is kept in this module's weights.

    Parameters
    ----------
    rules
        How.
    network
        Gives the feature maps, see `network_maps`; None for written-down descriptors. It is given
        the scan with usual intensities between 0 and 1, zero outside the brain; normalised
        intensities as they are if it is `unscaled`.
    """

    bounds: Tensor
    mean: Tensor
    scale: Tensor
    projection: Tensor

    def __init__(self, rules: FeatureRules, network: nn.Module | None = None, seed: int = 0):
        super().__init__()
        self.rules, self.network, self.seed = rules, network, seed
        size = (rules.patch_size,) * 3
        if network is None:
            known = len(descriptor_names(rules.descriptors, rules.scales_mm))
            shapes = [(known, size)]
        else:
            network.requires_grad_(False)
            parts: Any = network
            shapes = []
            if not all(0 <= layer < len(parts.strides) for layer in rules.layers):
                problem = f"{list(rules.layers)} are not those of a network of {len(parts.strides)}"
                raise SettingsError("layers", problem, "Count from 0, the finest")
            for layer in rules.layers:
                stride = float(parts.strides[layer])
                across = (stride, stride, stride if parts.axes == 3 else 1.0)
                shapes.append((parts.channels[layer], cells_in(size, across)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [
                LayerEmbedding(
                    channels,
                    cells,
                    rules.embedding,
                    rules.pooling,
                    rules.embedding_hidden,
                    rules.embedding_length,
                )
                for channels, cells in shapes
            ]
            self.embedding = PatchEmbedding(layers, rules.fusion)
        raw = self.embedding.length
        reduced = 0 if rules.reduction == "none" else min(raw, rules.dimension)
        self.length = (reduced or raw) + (3 if rules.position_weight else 0)
        self.register_buffer("bounds", torch.tensor([0.0, 1.0]))
        self.register_buffer("mean", torch.zeros(raw))
        self.register_buffer("scale", torch.ones(raw))
        self.register_buffer("projection", torch.zeros(raw, reduced))
        self.eval()

    def learn(self, scans: Sequence[tuple[Volume, Volume]]) -> None:
        """Learn the healthy spread of the features, and the reduction, from image and brain.

        Parameters
        ----------
        scans
            Healthy prepared scans and their brain masks.
        """
        most = min(LARGEST_SAMPLE, MOST_VALUES // self.embedding.length)
        share = max(1, most // len(scans))
        drawn = []
        for place, (image, brain) in enumerate(scans):
            grid = self.grid_of(image)
            numbers = self.inside(brain.data, grid)
            if len(numbers) > share:
                rng = np.random.default_rng([self.seed, 3, place])
                numbers = np.sort(rng.permutation(numbers)[:share])
            drawn.append(self._raw(image, brain, grid, numbers))
        sample = torch.cat(drawn)
        self.mean.copy_(sample.mean(dim=0))
        spread = sample.std(dim=0, correction=0)
        varies = spread > LEAST_SPREAD
        if bool(varies.any()):
            spread = spread.clamp(min=USUAL_SHARE * float(spread[varies].median()))
        self.scale.copy_(torch.where(varies, spread, torch.inf))
        if self.rules.reduction == "random":
            rng = np.random.default_rng([self.seed, 5])
            drawn_matrix = rng.normal(size=self.projection.shape) / self.projection.shape[1] ** 0.5
            self.projection.copy_(torch.from_numpy(drawn_matrix))
        elif self.rules.reduction != "none":
            self.projection.copy_(self._components((sample - self.mean) / self.scale))

    def of(self, image: Volume, brain: Volume) -> Patches:
        """Describe the patches of a prepared scan that hold enough brain."""
        grid = self.grid_of(image)
        numbers = self.inside(brain.data, grid)
        vectors = (self._raw(image, brain, grid, numbers) - self.mean) / self.scale
        if self.rules.reduction != "none":
            vectors = vectors @ self.projection
        if self.rules.position_weight:
            half = (np.asarray(grid.shape) - 1) / 2
            places = (grid.centres()[numbers] - half) / half.max() * self.rules.position_weight
            vectors = torch.cat([vectors, torch.from_numpy(places).to(vectors)], dim=1)
        return Patches(vectors.numpy(), numbers, grid)

    def map(
        self, scores: Array, patches: Patches, brain: Array, rules: FeatureRules | None = None
    ) -> Array:
        """Bring patch scores to voxels.

        Parameters
        ----------
        scores
            `(N,)`.
        patches
            What the scores are about.
        brain
            `(X, Y, Z)` boolean.
        rules
            Whose `score_map` and `blending` count; this module's own if not given.

        Returns
        -------
        numpy.ndarray
            float32 `(X, Y, Z)`, zero outside the brain. Brain that no described patch reaches gets
            the score of the nearest one.
        """
        rules = rules or self.rules
        grid = np.full(patches.grid.count, np.nan, np.float32)
        grid[patches.numbers] = scores
        dense = grid.reshape(patches.grid.counts)
        nearest = ndimage.distance_transform_edt(
            ~np.isfinite(dense), return_distances=False, return_indices=True
        )
        found = interpolated_scores(dense[tuple(nearest)], patches.grid)
        if rules.score_map != "interpolated":
            described = np.where(np.isfinite(dense), 1.0, np.nan)
            reached = spread_scores(described, patches.grid, "max") > 0
            spread = spread_scores(dense, patches.grid, rules.score_map, rules.blending)
            found = np.where(reached, spread, found)
        return np.where(brain, found, 0).astype(np.float32)

    def grid_of(self, image: Volume) -> PatchGrid:
        """Lay patches over a scan; those at its end are flush with it."""
        shape = image.data.shape
        size = tuple(min(self.rules.patch_size, n) for n in shape)
        return patch_grid(shape, size, self.rules.patch_stride)

    def inside(self, brain: Array, grid: PatchGrid) -> Any:
        """Give the numbers of the patches that hold enough brain, at least one."""
        shares = mean_inside(brain, grid).ravel()
        chosen = np.flatnonzero(shares >= self.rules.least_brain)
        return chosen if len(chosen) else np.array([int(shares.argmax())])

    def _maps(self, image: Volume, brain: Volume) -> list[FeatureMap]:
        if self.network is None:
            rules, geometry = self.rules, image.geometry
            values, _ = describe(
                image.data,
                brain.data,
                geometry.spacing_mm,
                rules.scales_mm,
                rules.descriptors,
                geometry.affine,
                neighbour_mm=max(2.0, *geometry.spacing_mm),
            )
            return [FeatureMap(torch.from_numpy(values))]
        low, high = self.bounds.tolist()
        if getattr(self.network, "unscaled", False):
            low, high = 0.0, 1.0
        scaled = np.where(brain.data, (image.data - low) / (high - low), 0).astype(np.float32)
        return network_maps(self.network, torch.from_numpy(scaled)[None], self.rules.layers)

    @torch.no_grad()
    def _raw(self, image: Volume, brain: Volume, grid: PatchGrid, numbers: Any) -> Tensor:
        """Give the embedded features of some patches, `(N, embedding.length)`."""
        maps, rules = self._maps(image, brain), self.rules
        if rules.embedding == "pool" and rules.pooling != "max":
            return self.embedding.fused([pooled(found, grid)[numbers] for found in maps])
        values = sum(len(m.values) * int(np.prod(cells_in(grid.size, m.strides))) for m in maps)
        held = max(1, int(rules.megabytes * 2**20 / (4 * values)))
        pieces = [numbers[start : start + held] for start in range(0, len(numbers), held)]
        return torch.cat(
            [self.embedding([cells_of(found, grid, piece) for found in maps]) for piece in pieces]
        )

    def _components(self, sample: Tensor) -> Tensor:
        """Give the principal components of standardised features, `(raw, reduced)`."""
        count = self.projection.shape[1]
        covariance = sample.double().T @ sample.double() / max(len(sample) - 1, 1)
        variances, directions = torch.linalg.eigh(covariance)
        kept = directions[:, -count:].flip(1)
        if self.rules.reduction == "whitened":
            kept = kept / variances[-count:].flip(0).clamp(min=1e-4).sqrt()
        out: Tensor = kept.float()
        return out
