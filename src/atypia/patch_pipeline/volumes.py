"""Volumes and their patches by the described names, over `atypia.patches`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from atypia import io
from atypia.errors import InputError, unknown_name
from atypia.patch_pipeline.tensors import Given, Triple, as_array, as_volume, spatial, three
from atypia.patches import PatchGrid, assemble, extract, padded, patch_grid
from atypia.patches.loading import (
    NORMALISATIONS,
    Normalisation,
    augmented,
    load_and_normalise,
    load_mask,
)

Slices = tuple[slice, slice, slice]


def load_and_normalize_volume(
    file_path: str | Path,
    target_shape: Triple | None = None,
    normalize_method: Normalisation = "z_score",
    clip_percentile: tuple[float, float] | None = (1.0, 99.0),
    add_channel_dim: bool = True,
) -> Tensor:
    """Load a scan as `atypia.patches.loading.load_and_normalise` does.

    A file that holds zeros and one other value is a mask: it comes as 0 and 1, without
    normalisation, and the nearest voxel is taken.

    Parameters
    ----------
    file_path
        NIfTI, numpy, NRRD, MetaImage, or a folder of DICOM slices; axes are turned to RAS+.
    target_shape
        Voxels along `(D, H, W)`; None leaves the grid.
    normalize_method
        "z_score", "min_max" or "percentile".
    clip_percentile
        Percentiles to which intensities are cut first; None does not cut.
    add_channel_dim
        Whether the channel axis comes first.

    Returns
    -------
    torch.Tensor
        float32 `(1, D, H, W)` or `(D, H, W)`.

    Raises
    ------
    InputError, SettingsError
        As `load_and_normalise`.
    """
    shape = None if target_shape is None else spatial(target_shape)
    # The settings are checked first, so that a misspelt one is an error with a mask too.
    if normalize_method not in NORMALISATIONS:
        raise unknown_name("normalisation", normalize_method, NORMALISATIONS)
    stored = io.read(file_path).data
    if stored.min() == 0 and ((stored == 0) | (stored == stored.max())).all():
        volume = load_mask(file_path, shape)
    else:
        volume = load_and_normalise(file_path, shape, normalize_method, clip_percentile)
    tensor = as_volume(volume)
    return tensor if add_channel_dim else tensor[0]


def load_dataset(
    paths: Sequence[str | Path],
    target_shape: Triple | None = None,
    normalize_method: Normalisation = "z_score",
    apply_augmentation: bool = False,
    seed: int = 0,
    **augment_kwargs: Any,
) -> list[Tensor]:
    """Load several scans, `(1, D, H, W)` each, and change them at random if wanted.

    Parameters
    ----------
    paths, target_shape, normalize_method
        As of `load_and_normalize_volume`.
    apply_augmentation
        Whether each scan goes through `augment_volume`.
    seed
        Of all augmentations together.
    augment_kwargs
        Of `augment_volume`.
    """
    volumes = [load_and_normalize_volume(path, target_shape, normalize_method) for path in paths]
    if not apply_augmentation:
        return volumes
    generator = torch.Generator().manual_seed(seed)
    return [augment_volume(v, generator=generator, **augment_kwargs) for v in volumes]


def augment_volume(
    volume: Given,
    rotation_range: float = 10.0,
    flip_probability: float = 0.5,
    noise_std: float = 0.01,
    brightness_range: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Flip, rotate, brighten and add noise at random, by `atypia.patches.loading.augmented`.

    Parameters
    ----------
    volume
        `(C, D, H, W)` or `(D, H, W)`.
    rotation_range
        Largest angle about each axis, degrees.
    flip_probability, noise_std, brightness_range
        As of `augmented`.
    generator
        None draws a seed from torch's global one.

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    if generator is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
    image = as_volume(volume)
    changed, _ = augmented(
        image, None, generator, rotation_range, flip_probability, noise_std, brightness_range
    )
    return changed if as_array(volume).ndim == 4 else changed[0]


def extract_patches_3d(
    volume: Given,
    patch_sizes: Sequence[int | Triple],
    stride: int | Triple | None = None,
    padding: Literal["valid", "same"] = "valid",
) -> list[Tensor]:
    """Cut patches of several sizes out of a volume.

    Parameters
    ----------
    volume
        `(C, D, H, W)` or `(D, H, W)`.
    patch_sizes
        Voxels of a patch, size by size.
    stride
        Voxels from patch to patch; None is half a patch.
    padding
        "valid": patches lie in the volume, floor((L - p) / s) + 1 along each axis. "same": zeros,
        half a patch on each side, are put around it first.

    Returns
    -------
    list of torch.Tensor
        For each size `(n, C * pd * ph * pw)`; the last axis of places counts fastest.
    """
    if padding not in ("valid", "same"):
        raise unknown_name("padding", padding, ("valid", "same"))
    image, found = as_volume(volume), []
    for size in map(three, patch_sizes):
        whole = padded(image, size) if padding == "same" else image
        grid = patch_grid(spatial(whole.shape), size, stride, border="drop")
        found.append(extract(whole, grid).flatten(1))
    return found


def extract_patches_with_coordinates(
    volume: Given,
    patch_size: int | Triple,
    stride: int | Triple | None = None,
    return_coordinates: bool = True,
) -> tuple[Tensor, Tensor] | Tensor:
    """Cut patches of one size out of a volume and tell where they lie.

    Returns
    -------
    tuple of torch.Tensor, or one
        `(n, C * pd * ph * pw)` and, if wanted, first voxels, int64 `(n, 3)`.
    """
    image = as_volume(volume)
    grid = patch_grid(spatial(image.shape), patch_size, stride, border="drop")
    patches = extract(image, grid).flatten(1)
    return (patches, torch.from_numpy(grid.corners())) if return_coordinates else patches


def reconstruct_from_patches(
    patches: Tensor,
    coordinates: Any,
    original_shape: Sequence[int],
    patch_size: int | Triple,
    aggregation: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Put patches back where they were cut out, the inverse of `extract_patches_with_coordinates`.

    Parameters
    ----------
    patches
        `(n, C * pd * ph * pw)` or `(n, C, pd, ph, pw)`.
    coordinates
        First voxels, `(n, 3)`.
    original_shape
        `(C, D, H, W)` or `(D, H, W)`.
    patch_size
        Voxels of a patch.
    aggregation
        Where patches overlap, their mean or their sum.

    Returns
    -------
    torch.Tensor
        Of the original shape, 0 where no patch is.
    """
    size = three(patch_size)
    grid, numbers = grid_of(coordinates, size, spatial(original_shape))
    boxes = patches.reshape(len(numbers), -1, *size)
    whole = assemble(boxes, grid, aggregation=aggregation, numbers=numbers)
    return whole if len(original_shape) == 4 else whole[0]


def create_patch_grid(
    volume_shape: Sequence[int],
    patch_size: int | Triple,
    stride: int | Triple | None = None,
) -> list[Slices]:
    """Give the boxes of patches as slices of a `(D, H, W)` array; without a stride side by side."""
    step = patch_size if stride is None else stride
    return patch_grid(spatial(volume_shape), patch_size, step, border="drop").boxes()


def grid_of(coordinates: Any, size: Triple, shape: Triple) -> tuple[PatchGrid, Any]:
    """Give the smallest grid that holds patches of which the first voxels are known.

    Returns
    -------
    tuple
        The grid, and the number of each patch on it, `(n,)`.

    Raises
    ------
    InputError
        A patch reaches over the volume.
    """
    corners = np.asarray(torch.as_tensor(coordinates).cpu(), np.int64).reshape(-1, 3)
    if not len(corners) or (corners < 0).any() or (corners + size > shape).any():
        problem = f"place patches of {size} beyond a volume of {shape}, or are none"
        raise InputError("coordinates", problem, "Give first voxels of patches in the volume")
    places = [np.unique(corners[:, axis]) for axis in range(3)]
    x, y, z = (tuple(int(start) for start in axis) for axis in places)
    grid = PatchGrid(shape, size, (x, y, z))
    index = tuple(np.searchsorted(at, corners[:, axis]) for axis, at in enumerate(places))
    return grid, np.ravel_multi_index(index, grid.counts)
