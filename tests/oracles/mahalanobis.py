"""Mahalanobis scores literally: dense covariances in float64, one slice after the other.

Written from the formulae of the paper and of scikit-learn's estimators; nothing here is shared with
the package. `literal_float32` is the published arithmetic without its half precision.
"""

from __future__ import annotations

import numpy as np
from sklearn.covariance import ledoit_wolf, oas

from atypia.volume import Array


def dense_covariance(
    samples: Array, covariance: str, ridge: float, noise: Array | float = 0.0
) -> Array:
    """Give the `(P, P)` covariance of `(N, P)` samples."""
    count, voxels = samples.shape
    centred = samples - samples.mean(axis=0)
    sample = centred.T @ centred / max(count - 1, 1)
    own = np.diag(ridge + np.broadcast_to(noise, voxels))
    if covariance == "diagonal":
        return np.diag(np.diag(sample)) + own
    if covariance in ("low_rank", "low_rank_diagonal"):
        return sample + own
    shrunk, _ = {"ledoit_wolf": ledoit_wolf, "oas": oas}[covariance](samples)
    return np.asarray(shrunk + ridge * np.eye(voxels))


def dense_root(standardised: Array) -> Array:
    """Give the symmetric inverse root of a `(P, P)` matrix."""
    values, vectors = np.linalg.eigh(standardised)
    return np.asarray(vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T)


def dense_group(
    image: Array,
    samples: Array,
    covariance: str,
    ridge: float,
    decomposition: str,
    noise: Array | float = 0.0,
) -> tuple[Array, float]:
    """Give the shares `(P,)` and the squared distance of voxels with one covariance."""
    image, samples = image.astype(np.float64), samples.astype(np.float64)
    sigma = dense_covariance(samples, covariance, ridge, noise)
    difference = image - samples.mean(axis=0)
    solved = np.linalg.solve(sigma, difference)
    distance = float(difference @ solved)
    if decomposition == "whitened":
        own = np.ones(len(image))
        if covariance == "low_rank_diagonal":
            own = np.sqrt(ridge + np.broadcast_to(noise, len(image)))
        if covariance == "diagonal":
            own = np.sqrt(np.diag(sigma))
        root = dense_root(sigma / own[:, None] / own)
        return np.abs(root @ (difference / own)), distance
    products = difference * solved
    if decomposition == "signed":
        return np.sign(products) * np.sqrt(np.abs(products)), distance
    return np.sqrt(np.where(products > 0, products, 0)), distance


def dense_map(
    image: Array,
    restorations: Array,
    brain: Array,
    covariance: str,
    decomposition: str,
    scope: str,
    ridge: float = 0.01,
    noise: Array | None = None,
) -> Array:
    """Give the map `(X, Y, Z)` in float64."""
    score = np.zeros(image.shape)
    groups = [brain]
    if scope == "slice":
        slices = np.arange(image.shape[2])
        groups = [brain & (slices == z) for z in slices]
    for group in groups:
        if group.any():
            own = 0.0 if noise is None else noise[group].astype(np.float64)
            score[group], _ = dense_group(
                image[group], restorations[:, group], covariance, ridge, decomposition, own
            )
    return score


def dense_patch_map(
    image: Array,
    restorations: Array,
    brain: Array,
    window: tuple[int, int, int],
    ridge: float,
    noise: Array | None = None,
) -> Array:
    """Give the root of every patch's squared distance by brain voxel, voxel after voxel."""
    score = np.zeros(image.shape)
    for place in np.argwhere(brain):
        region = np.zeros_like(brain)
        low = [max(0, p - size // 2) for p, size in zip(place, window, strict=True)]
        high = [p + size // 2 + 1 for p, size in zip(place, window, strict=True)]
        region[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        region &= brain
        own = 0.0 if noise is None else noise[region].astype(np.float64)
        _, distance = dense_group(
            image[region], restorations[:, region], "low_rank_diagonal", ridge, "product", own
        )
        score[tuple(place)] = np.sqrt(distance / region.sum())
    return score


def literal_float32(image: Array, restorations: Array, brain: Array, ridge: float = 0.01) -> Array:
    """Score as published, but for half precision: a dense float32 inverse for each axial slice."""
    score = np.zeros(image.shape, np.float32)
    for z in range(image.shape[2]):
        inside = brain[:, :, z]
        if not inside.any():
            continue
        samples = restorations[:, :, :, z][:, inside].astype(np.float32)
        centred = samples - samples.mean(axis=0)
        difference = image[:, :, z][inside].astype(np.float32) - samples.mean(axis=0)
        covariance = centred.T @ centred / np.float32(len(samples) - 1)
        covariance[np.diag_indices(len(covariance))] += np.float32(ridge)
        inverse = np.linalg.inv(covariance)
        with np.errstate(invalid="ignore"):
            shares = np.sqrt(difference * (inverse @ difference))
        score[inside, z] = np.nan_to_num(shares, nan=0.0, posinf=0.0)
        del covariance, inverse  # or they would count into the next slice's memory
    return score
