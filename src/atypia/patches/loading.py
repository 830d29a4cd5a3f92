"""Scans and masks as the patch pipeline takes them: loaded, normalised, resized, augmented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from atypia import io
from atypia.errors import InputError, SettingsError, unknown_name
from atypia.volume import Volume

Normalisation = Literal["z_score", "min_max", "percentile"]
PerAxis = tuple[float, float, float]

NORMALISATIONS: dict[str, Callable[[NDArray[np.float64]], tuple[float, float]]] = {
    "z_score": lambda v: (float(v.mean()), float(v.std())),
    "min_max": lambda v: (float(v.min()), float(np.ptp(v))),
    "percentile": lambda v: (float(np.percentile(v, 1)), float(np.ptp(np.percentile(v, (1, 99))))),
}
"""Name -> what is subtracted from the intensities, and what they are then divided by."""

SMALLEST = 1e-8
"""Added to what is divided by, so that a constant image becomes 0."""


class LoadingOptions(TypedDict, total=False):
    """The options of `load_and_normalise`."""

    target_shape: tuple[int, int, int] | None
    normalise: Normalisation
    clip_percentiles: tuple[float, float] | None
    foreground_only: bool
    affine: ArrayLike | None


def load_and_normalise(
    path: str | Path,
    target_shape: tuple[int, int, int] | None = None,
    normalise: Normalisation = "z_score",
    clip_percentiles: tuple[float, float] | None = (1.0, 99.0),
    foreground_only: bool = False,
    affine: ArrayLike | None = None,
) -> Volume:
    """Read a scan, turn its axes to RAS+, clip, normalise and resize it, in this order.

    Parameters
    ----------
    path
        What `atypia.io.read` takes: NIfTI, numpy, NRRD, MetaImage, or a folder of DICOM slices.
    target_shape
        Voxels along `(X, Y, Z)` of the RAS+ volume; None leaves the grid. The field of view stays,
        so that voxels may become anisotropic. Trilinear, without smoothing beforehand.
    normalise
        z_score: (v - mean) / sd; min_max: (v - min) / (max - min); percentile: (v - p1) /
        (p99 - p1), with the percentiles after clipping, and not cut to 0..1.
    clip_percentiles
        Percentiles to which intensities are cut first; None does not cut.
    foreground_only
        Measure clip and scale on the voxels that are not 0, and leave the others at 0.
    affine
        4x4, voxel to world mm, for array files without one.

    Returns
    -------
    Volume
        float32, with the affine of its new grid.

    Raises
    ------
    SettingsError
        Unknown normalisation, or percentiles or a shape that make no sense.
    InputError
        Not a readable 3D image, or nothing but 0 where the foreground is asked for.
    """
    _require_options(normalise, clip_percentiles, target_shape)
    volume = io.read(path, "image", affine).canonical()
    data = volume.data.astype(np.float32)
    counted = data != 0 if foreground_only else np.ones(data.shape, bool)
    values = data[counted].astype(np.float64)
    if not values.size:
        raise InputError(path, "is 0 everywhere", "Give a scan, or do not ask for the foreground")
    if clip_percentiles is not None:
        values = values.clip(*np.percentile(values, clip_percentiles))
    offset, scale = NORMALISATIONS[normalise](values)
    data[counted] = (values - offset) / (scale + SMALLEST)
    return resized(volume.with_data(data), target_shape)


def load_mask(
    path: str | Path,
    target_shape: tuple[int, int, int] | None = None,
    affine: ArrayLike | None = None,
) -> Volume:
    """Read a mask that belongs to a scan of `load_and_normalise`; non-zero is inside.

    Parameters
    ----------
    path, target_shape, affine
        As for `load_and_normalise`; the nearest voxel is taken.

    Returns
    -------
    Volume
        Of kind ``"mask"``, boolean.
    """
    _require_options("z_score", None, target_shape)
    return resized(io.read(path, "mask", affine).canonical(), target_shape)


def resized(volume: Volume, shape: tuple[int, int, int] | None) -> Volume:
    """Divide the same field of view into another number of voxels.

    Parameters
    ----------
    volume
        Images are interpolated trilinearly, in masks the nearest voxel is taken.
    shape
        Voxels along `(X, Y, Z)`; None for the volume as it is.

    Returns
    -------
    Volume
        Its affine keeps every place where it was in the world.
    """
    if shape is None or shape == volume.shape:
        return volume
    mask = volume.kind == "mask"
    batch = torch.from_numpy(volume.data.astype(np.float32))[None, None]
    # "nearest-exact" counts from the centres of voxels, as the linear mode does; "nearest" is off
    # by up to half a voxel.
    mode, align = ("nearest-exact", None) if mask else ("trilinear", False)
    data = functional.interpolate(batch, shape, mode=mode, align_corners=align)[0, 0].numpy()
    step = np.array(volume.shape) / np.array(shape)
    change = np.diag([*step, 1.0])
    change[:3, 3] = (step - 1) / 2
    affine = volume.affine @ change
    return Volume(data > 0.5 if mask else data, affine, volume.kind, volume.source, volume.space)


def augmented(
    image: Tensor,
    mask: Tensor | None,
    generator: torch.Generator,
    rotation_degrees: float = 10.0,
    flip_probability: float = 0.5,
    noise_sd: float = 0.01,
    brightness: float = 0.1,
    spacing_mm: PerAxis = (1.0, 1.0, 1.0),
) -> tuple[Tensor, Tensor | None]:
    """Change a scan at random, and its mask in the same way.

    First a flip, then a rotation, then a factor of brightness, then Gaussian noise; the mask is
    flipped and rotated only.

    Parameters
    ----------
    image
        `(C, X, Y, Z)`, floating point.
    mask
        `(X, Y, Z)`, boolean or labels; None for none.
    generator
        Decides everything; the same state gives the same change.
    rotation_degrees
        The angles about X, Y and Z are drawn between minus and plus this.
    flip_probability
        How often one axis, drawn at random, is flipped.
    noise_sd
        Standard deviation of the noise, in the units of the image.
    brightness
        The factor is drawn between 1 minus and 1 plus this.
    spacing_mm
        Voxel size along X, Y, Z, so that rotations do not shear.

    Returns
    -------
    tuple
        Image and mask, of the same shapes and types.
    """
    # All is drawn at once, so that no setting changes what the others draw.
    draws = torch.rand(6, generator=generator, device=generator.device, dtype=torch.float64)
    chance, axis, *turns, light = draws.tolist()
    if chance < flip_probability:
        flipped = int(axis * 3)
        image = image.flip(flipped + 1)
        mask = None if mask is None else mask.flip(flipped)
    if rotation_degrees:
        x, y, z = (rotation_degrees * (2 * turn - 1) for turn in turns)
        image, mask = rotated(image, mask, (x, y, z), spacing_mm)
    image = image * (1 + brightness * (2 * light - 1))
    if noise_sd:
        noise = torch.randn(image.shape, generator=generator, device=generator.device)
        image = image + noise_sd * noise.to(image)
    return image, mask


def rotated(
    image: Tensor, mask: Tensor | None, degrees: PerAxis, spacing_mm: PerAxis = (1.0, 1.0, 1.0)
) -> tuple[Tensor, Tensor | None]:
    """Turn a scan and its mask about the middle of the grid: about X first, then Y, then Z.

    Parameters
    ----------
    image
        `(C, X, Y, Z)`, floating point; interpolated trilinearly.
    mask
        `(X, Y, Z)`, of any type; the nearest voxel is taken.
    degrees
        Angles about X, Y, Z, right-handed.
    spacing_mm
        Voxel size along X, Y, Z.

    Returns
    -------
    tuple
        Image and mask; what was beyond the grid is filled with the voxels at its border.
    """
    # From a place in the result to its place in the scan, in units of half the field of view.
    half_mm = np.array(image.shape[1:]) * spacing_mm / 2
    back = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().T
    back = back * half_mm / half_mm[:, None]
    # torch names the axes from the last one to the first.
    turn = torch.zeros(1, 3, 4, dtype=image.dtype, device=image.device)
    turn[0, :, :3] = torch.from_numpy(back[::-1, ::-1].copy())
    grid = functional.affine_grid(turn, [1, 1, *image.shape[1:]], align_corners=False)
    sample = partial(functional.grid_sample, grid=grid, padding_mode="border", align_corners=False)
    turned = sample(image[None], mode="bilinear")[0]
    if mask is None:
        return turned, None
    labels = sample(mask[None, None].to(image.dtype), mode="nearest")[0, 0]
    return turned, labels.to(mask.dtype)


class LazyVolumes:
    """Scans that are loaded when they are asked for; a data set for `torch.utils.data`.

    Parameters
    ----------
    paths
        Of the scans.
    **options
        Of `load_and_normalise`, the same for all.

    Raises
    ------
    SettingsError
        As `load_and_normalise`, before anything is loaded.
    """

    def __init__(self, paths: Sequence[str | Path], **options: Unpack[LoadingOptions]) -> None:
        _require_options(
            options.get("normalise", "z_score"),
            options.get("clip_percentiles"),
            options.get("target_shape"),
        )
        self.paths = tuple(Path(path) for path in paths)
        self.options = options

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Volume:
        return load_and_normalise(self.paths[index], **self.options)


def _require_options(
    normalise: str,
    clip_percentiles: tuple[float, float] | None,
    target_shape: tuple[int, int, int] | None,
) -> None:
    if normalise not in NORMALISATIONS:
        raise unknown_name("normalisation", normalise, NORMALISATIONS)
    if clip_percentiles is not None:
        low, high = clip_percentiles
        if not 0 <= low < high <= 100:
            problem = f"{low:g} and {high:g} are not two rising percentiles"
            raise SettingsError("clip_percentiles", problem, "Give two between 0 and 100, or None")
    if target_shape is not None and (len(target_shape) != 3 or min(target_shape) < 1):
        problem = f"{target_shape} is no size of a grid"
        raise SettingsError("target_shape", problem, "Give three whole numbers from 1 on")
