"""From the patches of a scan to vectors by the described names, over `atypia.features`.

A patch is a box of the scan's voxels. Each layer is read where that box lies, whatever the layer's
stride, and the layers' vectors of a patch are fused to one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from atypia.errors import SettingsError
from atypia.features import FeatureMap, PatchEmbedding, cells_of
from atypia.features.embedding import LayerEmbedding
from atypia.patch_pipeline.extractors import FeatureExtractor3D
from atypia.patch_pipeline.tensors import Given, Triple, as_volume, seeded, spatial, three
from atypia.patches import PatchGrid, extract, patch_grid, sample

LAYERS = ("layer1", "layer2")
"""Layers that are read unless others are named."""
HIDDEN, OUTPUT = (256,), 128
"""Widths of an mlp for which none are given."""
MOST_VALUES = 2**24
"""Values of patches that are read at once."""
LEAST_SHARE = 0.3
"""Of the usual spread that a feature has at least: one that hardly ever varies in few healthy scans
would else outweigh all others when it does."""
TINY = 1e-12

Strategy = Literal["uniform", "random", "grid"]


class PatchSampler:
    """Where patches lie, and which of them are taken to learn from.

    Parameters
    ----------
    patch_size, stride
        Voxels of a patch, and from patch to patch; None is half a patch. The last patches end with
        the volume.
    max_patches
        The most patches to learn from, None for all. When scans are scored, all are read: a patch
        that is left out would be a hole in the map.
    sampling_strategy
        "uniform", "random" or "grid", see `atypia.patches.sample`.
    seed
        Of "random"; each call draws anew.
    """

    def __init__(
        self,
        patch_size: int | Triple,
        stride: int | Triple | None = None,
        max_patches: int | None = None,
        sampling_strategy: Strategy = "uniform",
        seed: int = 0,
    ) -> None:
        self.patch_size, self.stride = three(patch_size), stride
        self.max_patches, self.sampling_strategy = max_patches, sampling_strategy
        self._generator = np.random.default_rng(seed)

    def __call__(self, volume: Given) -> tuple[Tensor, Tensor]:
        """Give patches `(N, C, pd, ph, pw)` of `(C, D, H, W)`, and first voxels, int64 `(N, 3)`."""
        image = as_volume(volume)
        grid = self.grid(spatial(image.shape))
        numbers = self.chosen(grid)
        return extract(image, grid, numbers), torch.from_numpy(grid.corners()[numbers])

    def grid(self, shape: Triple) -> PatchGrid:
        """Lay all patches over a volume."""
        return patch_grid(shape, self.patch_size, self.stride)

    def chosen(self, grid: PatchGrid) -> Any:
        """Give the numbers of the patches to learn from."""
        most = grid.count if self.max_patches is None else self.max_patches
        return sample(grid, most, self.sampling_strategy, self._generator)


class FeatureEmbedding(nn.Module):
    """Patches as vectors; their shape is taken from what comes, not from what was declared.

    The maps of mlp are random, made when a shape is first seen, and nothing trains them.

    Parameters
    ----------
    input_channels, patch_size
        Expected shape of a patch; a warning says when another one comes.
    embedding_method
        "flatten", "pool" (one value a channel) or "mlp".
    pooling_type
        "avg", "max", or "adaptive", which is avg.
    mlp_hidden_dims, output_dim
        Widths of mlp: (256,) and 128 unless given.
    seed
        Of the maps of mlp.

    Raises
    ------
    SettingsError
        An unknown method or pooling.
    """

    def __init__(
        self,
        input_channels: int,
        patch_size: int | Triple,
        embedding_method: str = "flatten",
        pooling_type: str = "avg",
        mlp_hidden_dims: Sequence[int] | None = None,
        output_dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.declared, self.seed = (input_channels, *three(patch_size)), seed
        self.config = {
            "embedding_method": embedding_method,
            "pooling_type": pooling_type,
            "mlp_hidden_dims": mlp_hidden_dims,
            "output_dim": output_dim,
        }
        self.maps = nn.ModuleDict()
        _layer_embedding(self.config, 1, (1, 1, 1))

    @property
    def patch_size(self) -> Triple:
        """Expected voxels of a patch."""
        return spatial(self.declared)

    @property
    def embed_dim(self) -> int:
        """Length of the vector of a patch of the expected shape."""
        if self.config["embedding_method"] == "mlp":
            return _layer_embedding(self.config, 1, (1, 1, 1)).length
        pooled = self.config["embedding_method"] == "pool"
        return self.declared[0] if pooled else math.prod(self.declared)

    def forward(self, patches: Tensor) -> Tensor:
        """Map `(N, C, pd, ph, pw)` to `(N, E)`."""
        shape = tuple(patches.shape[1:])
        key = "x".join(map(str, shape))
        if key not in self.maps:
            if shape != self.declared:
                warnings.warn(
                    f"embedding: declared for patches {self.declared}, reads {shape}", stacklevel=2
                )
            with seeded(self.seed):
                made = _layer_embedding(self.config, shape[0], spatial(shape))
            self.maps[key] = made.to(patches.device).eval()
        out: Tensor = self.maps[key](patches)
        return out

    def read(self, maps: Sequence[FeatureMap], grid: PatchGrid, numbers: Any) -> Tensor:
        """Give the vectors of some patches, the layers' side by side, `(N, E)`."""
        return torch.cat([self(cells_of(found, grid, numbers)) for found in maps], dim=1)


class MultiScaleFeatureEmbedding(nn.Module):
    """Vectors of patches from several layers, each read in a box of its own size.

    All boxes of a patch have the same centre; where patches lie is told by the first size. Vectors
    are divided by their healthy spread after `learn_spread`, and left as they are before.

    Parameters
    ----------
    extractor
        Gives the layers.
    patch_sizes
        Voxels of the scan, one size a layer.
    embedding_configs
        Options of `FeatureEmbedding`, one a layer. What they say of `input_channels` and
        `patch_size` is compared with what is there, and a warning tells the difference.
    layer_names
        Which layers.
    fusion_method
        "concat", "sum" (as many values as the shortest has) or "attention".
    seed
        Of the random maps of mlp and attention.

    Attributes
    ----------
    embed_dim
        Length of a vector.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        extractor: FeatureExtractor3D,
        patch_sizes: Sequence[int | Triple],
        embedding_configs: Sequence[Mapping[str, Any]],
        layer_names: Sequence[str] = LAYERS,
        fusion_method: str = "concat",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not len(patch_sizes) == len(embedding_configs) == len(layer_names) > 0:
            problem = "patch_sizes, embedding_configs and layer_names differ in number"
            raise SettingsError("embedding", problem, "Give one of each for each layer")
        self.extractor, self.layer_names = extractor, tuple(layer_names)
        self.patch_sizes = tuple(three(size) for size in patch_sizes)
        told, layers = [], []
        with seeded(seed):
            for name, size, config in zip(
                self.layer_names, self.patch_sizes, embedding_configs, strict=True
            ):
                channels, cells = extractor.shape_of(name, size)
                layers.append(_layer_embedding(config, channels, cells))
                if config.get("input_channels", channels) != channels:
                    told.append(f"{name} has {channels} channels, not {config['input_channels']}")
                if three(config.get("patch_size", size)) != size:
                    told.append(f"patches of {name} have {size} voxels, not {config['patch_size']}")
            self.fused = PatchEmbedding(layers, fusion_method)
        if told:
            warnings.warn(f"embedding: {'; '.join(told)}", stacklevel=2)
        self.embed_dim = self.fused.length
        self.register_buffer("mean", torch.zeros(self.embed_dim))
        self.register_buffer("spread", torch.ones(self.embed_dim))
        self.eval()

    def forward(self, volume: Given, stride: int | Triple | None = None) -> Tensor:
        """Give the vectors of all patches of a scan, `(N, E)`."""
        grid = patch_grid(spatial(np.shape(volume)), self.patch_sizes[0], stride)
        return vectors_of(volume, self.extractor, self, grid, self.layer_names)

    def read(self, maps: Sequence[FeatureMap], grid: PatchGrid, numbers: Any) -> Tensor:
        """Give the vectors of some patches, `(N, E)`."""
        boxes = [_about(grid, size) for size in self.patch_sizes]
        cells = [cells_of(found, box, numbers) for found, box in zip(maps, boxes, strict=True)]
        vectors: Tensor = self.fused(cells)
        return (vectors - self.mean) / self.spread

    def learn_spread(self, vectors: Tensor) -> None:
        """Learn mean and spread of healthy vectors `(N, E)`, read before anything was learnt."""
        self.mean.copy_(vectors.mean(dim=0))
        spread = vectors.std(dim=0, correction=0)
        usual = spread.square().mean().sqrt().clamp(min=TINY)
        self.spread.copy_(spread.clamp(min=float(LEAST_SHARE * usual)))


@torch.no_grad()
def vectors_of(
    volume: Given,
    extractor: FeatureExtractor3D,
    embedding: FeatureEmbedding | MultiScaleFeatureEmbedding,
    grid: PatchGrid,
    layer_names: Sequence[str],
    numbers: Any = None,
) -> Tensor:
    """Give the vectors of some patches of a scan, float32 `(N, E)` on the CPU, piece by piece.

    Parameters
    ----------
    volume
        `(C, D, H, W)`.
    extractor, embedding
        How; both on one device.
    grid
        Patches of the scan.
    layer_names
        Layers that are read.
    numbers
        Which patches; None for all.
    """
    maps = list(extractor.maps(volume, layer_names).values())
    wanted = np.arange(grid.count) if numbers is None else np.asarray(numbers)
    shapes = [extractor.shape_of(name, grid.size) for name in layer_names]
    held = max(1, MOST_VALUES // sum(channels * math.prod(cells) for channels, cells in shapes))
    pieces = [wanted[start : start + held] for start in range(0, len(wanted), held)]
    return torch.cat([embedding.read(maps, grid, piece).float().cpu() for piece in pieces])


def _about(grid: PatchGrid, size: Triple) -> PatchGrid:
    """Give boxes of another size about the centres of a grid's; they may reach over the border."""
    x, y, z = (
        tuple(start + (edge - new) // 2 for start in starts)
        for starts, edge, new in zip(grid.starts, grid.size, size, strict=True)
    )
    return PatchGrid(grid.shape, size, (x, y, z))


def _layer_embedding(config: Mapping[str, Any], channels: int, cells: Triple) -> LayerEmbedding:
    return LayerEmbedding(
        channels,
        cells,
        config.get("embedding_method", "flatten"),
        config.get("pooling_type", "avg"),
        config.get("mlp_hidden_dims") or HIDDEN,
        config.get("output_dim") or OUTPUT,
    )
