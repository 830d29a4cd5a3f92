"""One Gaussian for each place: PaDiM in three dimensions, with shrunk covariances.

Source: PaDiM (Defard et al. 2020, arXiv 2011.08785, section III). Scans in one space give a vector
of features at each location, and a new scan scores by its Mahalanobis distance to the healthy ones
there. The paper has hundreds of images and adds 0.01 to the diagonal; with tens of scans and as
many features a covariance needs more: shrinkage, and the samples of neighbouring locations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.scoring.shrinkage import Rule, shrinkage_share
from atypia.volume import Array

MEGABYTES = 16
"""Memory for the locations that are treated at once."""


@dataclass(frozen=True, eq=False)
class GaussianField:
    """A Gaussian at each location.

    Parameters
    ----------
    mean
        float32 `(L, D)`.
    factor
        float32 `(L, D, D)`, lower triangles `W` with `W^T W` the inverse covariance, so that
        `|W (x - mean)|` is the distance: inverses of the covariances' Cholesky factors.
    """

    mean: Array
    factor: Array


def fit_gaussian_field(
    vectors: Array,
    present: Array,
    shrinkage: Rule | float = "ledoit_wolf",
    neighbours: Array | None = None,
    floor: float = 0.01,
) -> GaussianField:
    """Fit a Gaussian at each location.

    The covariance is `(1 - s) C + (s trace(C) / D + floor) I` of the covariance `C` of the samples
    (their sum of products by their number, as in scikit-learn).

    Parameters
    ----------
    vectors
        `(S, L, D)`: subjects, locations, features.
    present
        `(S, L)` boolean; other vectors take no part, whatever they hold.
    shrinkage
        The share `s`, or the rule by which each location finds its own.
    neighbours
        `(L, K)` integers: the locations whose samples also count at each location, beside its own;
        -1 for none. Another location that is named twice counts twice.
    floor
        Added to the variances, in squared units of the features.

    Returns
    -------
    GaussianField
        Locations with fewer than two samples, those of neighbours included, have the Gaussian of
        all samples of all locations, with `shrinkage` and `floor` as everywhere.

    Raises
    ------
    InputError
        Shapes do not fit, fewer than two vectors are present, one of them is not finite, or a
        covariance has no inverse.
    SettingsError
        The shrinkage or the floor is impossible.
    """
    _check_settings(shrinkage, floor)
    members = _checked(vectors, present, neighbours)
    locations, wide = vectors.shape[1:]
    mean = np.empty((locations, wide), np.float32)
    factor = np.empty((locations, wide, wide), np.float32)
    # Samples thrice, in float64, and some matrices.
    each = 8 * (3 * len(vectors) * members.shape[1] * wide + 4 * wide * wide)
    everywhere: tuple[Array, Array] | None = None
    for rows in _slices(locations, each):
        samples, counted = _samples(vectors, present, members[rows])
        count = counted.sum(axis=1)
        means, covariances, fourth = _moments(samples, counted, count)
        factors = _factors(covariances, fourth, count, shrinkage, floor)
        if (count < 2).any():
            everywhere = everywhere or _everywhere(vectors, present, shrinkage, floor)
            means[count < 2], factors[count < 2] = everywhere
        mean[rows], factor[rows] = means, factors
    return GaussianField(mean, factor)


def mahalanobis(field: GaussianField, vectors: Array, numbers: Array | None = None) -> Array:
    """Give the distances of vectors to the Gaussians of their locations.

    Parameters
    ----------
    field
        From `fit_gaussian_field`.
    vectors
        `(L, D)`, one for each location; or `(N, D)` with `numbers`.
    numbers
        `(N,)`, the location of each vector.

    Returns
    -------
    numpy.ndarray
        float32 `(L,)` or `(N,)`, in standard deviations; `sqrt(D)` is usual.

    Raises
    ------
    InputError
        Shapes do not fit.
    """
    count = len(field.mean) if numbers is None else len(numbers)
    if vectors.shape != (count, field.mean.shape[1]):
        problem = f"of shape {vectors.shape} are not {(count, field.mean.shape[1])}"
        raise InputError("vectors", problem, "Give one for each location, or their numbers")
    distances = np.empty(count, np.float32)
    for rows in _slices(count, 4 * (field.mean.shape[1] + 1) ** 2):
        chosen = rows if numbers is None else numbers[rows]
        away = vectors[rows].astype(np.float32) - field.mean[chosen]
        whitened = np.matmul(field.factor[chosen], away[:, :, None])[..., 0]
        distances[rows] = np.sqrt(np.einsum("ld,ld->l", whitened, whitened))
    return distances


def _samples(vectors: Array, present: Array, members: Array) -> tuple[Array, Array]:
    """Collect the samples of some locations: `(l, S K, D)`, and which count, `(l, S K)`."""
    counted = (present[:, members] & (members >= 0)).transpose(1, 0, 2).reshape(len(members), -1)
    samples = vectors[:, members].transpose(1, 0, 2, 3).astype(np.float64)
    return samples.reshape(*counted.shape, -1), counted


def _moments(samples: Array, counted: Array, count: Array) -> tuple[Array, Array, Array]:
    """Give means `(l, D)`, covariances and mean fourth powers `(l,)`; overwrites the samples."""
    samples[~counted] = 0
    number = np.maximum(count, 1)
    means = samples.sum(axis=1) / number[:, None]
    samples -= means[:, None]
    samples[~counted] = 0
    covariances = np.matmul(samples.transpose(0, 2, 1), samples) / number[:, None, None]
    squares = np.einsum("lnd,lnd->ln", samples, samples)
    return means, covariances, np.square(squares).sum(axis=1) / number


def _factors(
    covariances: Array, fourth: Array, count: Array, shrinkage: Rule | float, floor: float
) -> Array:
    """Give the inverse Cholesky factors of shrunk covariances; the identity for want of samples."""
    identity = np.eye(covariances.shape[-1])
    if isinstance(shrinkage, str):
        squared = np.square(covariances).sum(axis=(1, 2))
        trace = np.trace(covariances, axis1=1, axis2=2)
        share = shrinkage_share(squared, trace, fourth, count, len(identity), shrinkage)
    else:
        share = np.full(len(count), float(shrinkage))
    level = share * np.trace(covariances, axis1=1, axis2=2) / len(identity) + floor
    shrunk = (1 - share)[:, None, None] * covariances + level[:, None, None] * identity
    shrunk[count < 2] = identity
    lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(shrunk))
    if failed.any():
        problem = f"have no inverse at {int((failed > 0).sum())} or more locations"
        raise InputError("covariances", problem, "Raise the floor or the shrinkage")
    solved = torch.linalg.solve_triangular(lower, torch.from_numpy(identity), upper=False)
    return np.asarray(solved.numpy())


def _everywhere(
    vectors: Array, present: Array, shrinkage: Rule | float, floor: float
) -> tuple[Array, Array]:
    """Give mean and factor of the Gaussian of all samples."""
    wide = vectors.shape[2]
    count = int(present.sum())
    if count < 2:
        raise InputError("present", f"leaves {count} vectors", "Give two samples or more")
    mean, covariance, fourth = np.zeros(wide), np.zeros((wide, wide)), 0.0
    parts = list(_slices(vectors.shape[1], 8 * 3 * len(vectors) * wide))
    for rows in parts:
        mean += vectors[:, rows][present[:, rows]].sum(axis=0, dtype=np.float64) / count
    for rows in parts:
        away = vectors[:, rows][present[:, rows]] - mean
        covariance += away.T @ away / count
        fourth += float((np.square(away).sum(axis=1) ** 2).sum()) / count
    found = (covariance[None], np.array([fourth]), np.array([count]))
    return mean, _factors(*found, shrinkage, floor)[0]


def _checked(vectors: Array, present: Array, neighbours: Array | None) -> Array:
    """Give the locations whose samples count at each, `(L, K + 1)`."""
    if vectors.ndim != 3 or 0 in vectors.shape:
        raise InputError("vectors", f"have shape {vectors.shape}, not (S, L, D)", "Stack them")
    if present.shape != vectors.shape[:2] or present.dtype != bool:
        problem = f"of {present.dtype} {present.shape} is not boolean {vectors.shape[:2]}"
        raise InputError("present", problem, "Say of each vector whether it counts")
    if not (np.isfinite(vectors).all(axis=2) | ~present).all():
        raise InputError("vectors", "hold NaN or infinite numbers", "Mark those as not present")
    locations = vectors.shape[1]
    own = np.arange(locations)[:, None]
    if neighbours is None:
        return own
    if neighbours.ndim != 2 or len(neighbours) != locations or neighbours.dtype.kind not in "iu":
        problem = f"of shape {neighbours.shape} are not (L, K) integers for {locations} locations"
        raise InputError("neighbours", problem, "Give some for each location, -1 for none")
    if neighbours.size and (neighbours.min() < -1 or neighbours.max() >= locations):
        problem = f"name locations beyond the {locations}"
        raise InputError("neighbours", problem, "Count from 0, -1 for none")
    return np.concatenate([own, np.where(neighbours == own, -1, neighbours)], axis=1)


def _check_settings(shrinkage: Rule | float, floor: float) -> None:
    if isinstance(shrinkage, str):
        if shrinkage not in get_args(Rule):
            raise unknown_name("shrinkage", shrinkage, get_args(Rule))
    elif not 0 <= shrinkage <= 1:
        raise SettingsError(f"shrinkage {shrinkage}", "is no share", "Give a number of 0 to 1")
    if not 0 <= floor < np.inf:
        raise SettingsError(f"floor {floor}", "is no variance", "Give a number of zero or more")


def _slices(length: int, each: int) -> Iterator[slice]:
    step = max(1, MEGABYTES * 2**20 // each)
    return (slice(first, first + step) for first in range(0, length, step))
