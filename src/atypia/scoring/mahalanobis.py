"""Mahalanobis scores: how far a scan lies from several restorations of it, in their covariance.

The published score (MHD, arXiv 2407.12474, and its code) takes, in every axial slice, the scan `x`
and `N` restorations `R` at the brain's `P` voxels: `mu = mean(R)`, `A = R - mu`, `d = x - mu`,
`Sigma = A^T A / (N - 1) + ridge I`, `u = Sigma^-1 d`, and the map `sqrt(d_i u_i)`. The code inverts
`Sigma` as a dense `P x P` matrix; here nothing of that size is ever made.

Every covariance but ``"patch"`` has the form `weight A^T A + diag(psi)`. With `y = d / sqrt(psi)`
and `B = sqrt(weight) A / sqrt(psi)` it is `sqrt(psi) (I + B^T B) sqrt(psi)`, and from eigenvectors
`V` and eigenvalues `g` of the `N x N` matrix `B B^T` follow exactly (Woodbury's identity)

- the inverse, `(I + B^T B)^-1 y = y - B^T V diag(1 / (1 + g)) V^T B y`, and
- its root, `(I + B^T B)^-1/2 y = y - B^T V diag(1 / (s (1 + s))) V^T B y` with `s = sqrt(1 + g)`.

Both are computed in float64, slice by slice: near zero the square root of a product turns float32's
errors of 1e-7 into 3e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.scoring.shrinkage import shrinkage_share
from atypia.volume import Array

Covariance = Literal["low_rank", "diagonal", "low_rank_diagonal", "ledoit_wolf", "oas", "patch"]
"""What the deviation of the scan is measured against; see `mahalanobis_map`."""

Decomposition = Literal["product", "signed", "whitened"]
"""How the squared distance is shared out to the voxels; see `mahalanobis_map`."""

Scope = Literal["slice", "volume"]
"""Which voxels share one covariance: those of an axial slice (last axis), or the whole brain's."""

WITH_NOISE: tuple[Covariance, ...] = ("diagonal", "low_rank_diagonal", "patch")
"""The covariances that take a noise variance for each voxel."""

PATCH_NUMBERS = 2**21
"""Numbers in the patches that are treated at once: 16 MB."""


def mahalanobis_map(
    image: Array,
    restorations: Array,
    brain: Array,
    *,
    ridge: float = 0.01,
    covariance: Covariance = "low_rank",
    decomposition: Decomposition = "product",
    scope: Scope = "slice",
    noise_variance: Array | None = None,
    patch: tuple[int, int, int] = (3, 3, 1),
) -> Array:
    """Score each voxel by its share in the Mahalanobis distance of the scan to its restorations.

    The work takes memory for the restorations of one slice in float64, whatever the scope, and a
    time that is linear in the number of voxels.

    Parameters
    ----------
    image
        The scan, `(X, Y, Z)`; axial slices lie along the last axis.
    restorations
        `(N, X, Y, Z)`, in the scan's intensities. With one restoration there is no covariance and
        the score is `|d| / sqrt(ridge)`.
    brain
        `(X, Y, Z)` boolean; other voxels take no part and score zero.
    ridge
        Variance that is added to every voxel, in squared intensities. Where the restorations do
        not vary the score is `|d| / sqrt(ridge)`, so it is a unit as much as a safeguard.
    covariance
        `N` deviations `A` from their mean give

        - ``"low_rank"``: `A^T A / (N - 1) + ridge I`, as published;
        - ``"diagonal"``: each voxel's sample variance + ridge + noise variance, no correlations;
        - ``"low_rank_diagonal"``: a factor model, `A^T A / (N - 1) + diag(ridge + noise variance)`;
        - ``"ledoit_wolf"``, ``"oas"``: `(1 - s) C + s trace(C) / P I + ridge I` with
          `C = A^T A / N` and the intensity `s` of `shrinkage_intensity`;
        - ``"patch"``: of the voxels in a window round each voxel, with ridge and noise variance.
    decomposition
        `D^2 = d^T Sigma^-1 d` is shared out as

        - ``"product"``: `sqrt(d_i u_i)`, as published; negative products give NaN there, which is
          set to zero later, and zero here. The squares add up to `D^2` only if none is negative;
        - ``"signed"``: `sign(d_i u_i) sqrt(abs(d_i u_i))`. `sum(sign(m) m^2) = D^2` without loss.
          The sign is *not* that of bright or dark: a negative voxel deviates against what its
          correlations with the others lead one to expect from them, and lessens `D^2`;
        - ``"whitened"``: `abs(w_i)` with `w = (I + B^T B)^-1/2 d / sqrt(psi)`, whose covariance
          under the model is the identity. `sum(w^2) = D^2`, and nothing is negative. With one
          variance for all voxels it is the symmetric root, `w = Sigma^-1/2 d`.

        With ``"diagonal"`` the three are the same. ``"patch"`` has a decomposition of its own and
        ignores this: the root of a patch's squared distance by its number of brain voxels.
    scope
        Whether each axial slice has a covariance, or the volume has one. Without meaning for
        ``"diagonal"`` and ``"patch"``.
    noise_variance
        `(X, Y, Z)`, squared intensities, e.g. the mean square of healthy residuals; for the
        covariances in `WITH_NOISE` only.
    patch
        Voxels of the window along X, Y, Z, odd; for ``"patch"`` only.

    Returns
    -------
    numpy.ndarray
        float32 `(X, Y, Z)`, in standard deviations.

    Raises
    ------
    InputError
        Shapes differ, there is no restoration, or the variance of a voxel is zero.
    SettingsError
        A name is unknown, the ridge or the window is impossible, or a noise variance is given to a
        covariance that has none.
    """
    if decomposition not in get_args(Decomposition):
        raise unknown_name("decomposition", decomposition, get_args(Decomposition))
    samples = _samples(image, restorations, brain, ridge, covariance, scope, noise_variance)
    score = np.zeros(image.size, dtype=np.float32)
    if covariance == "patch":
        shape = _checked_window(patch)
        for z in range(image.shape[2]):
            score[samples.voxels[z]] = _patch_scores(samples, brain, z, shape)
    else:
        for z, shares in _shares(samples, scope, decomposition):
            score[samples.voxels[z]] = shares
    return score.reshape(image.shape)


def mahalanobis_distance(
    image: Array,
    restorations: Array,
    brain: Array,
    *,
    ridge: float = 0.01,
    covariance: Covariance = "low_rank",
    scope: Scope = "slice",
    noise_variance: Array | None = None,
) -> Array:
    """Give the whole squared distance `D^2 = d^T Sigma^-1 d`, for scores of slices or scans.

    Parameters
    ----------
    image, restorations, brain, ridge, covariance, scope, noise_variance
        As in `mahalanobis_map`; ``"patch"`` has no such distance.

    Returns
    -------
    numpy.ndarray
        float64: `(Z,)` with scope ``"slice"``, zero for slices without brain; `(1,)` with
        ``"volume"``. It grows with the number of brain voxels: divide by that to compare.

    Raises
    ------
    InputError, SettingsError
        As `mahalanobis_map`.
    """
    if covariance == "patch":
        known = [name for name in get_args(Covariance) if name != "patch"]
        remedy = f"Choose one of {', '.join(known)}"
        raise SettingsError("covariance 'patch'", "has no distance of a slice", remedy)
    samples = _samples(image, restorations, brain, ridge, covariance, scope, noise_variance)
    total = np.zeros(image.shape[2])
    for z, whitened in _shares(samples, scope, "whitened"):
        total[z] = whitened @ whitened
    return total if scope == "slice" else total.sum(keepdims=True)


def shrinkage_intensity(
    gram: Array, voxels: int, covariance: Literal["ledoit_wolf", "oas"]
) -> float:
    """Share of the identity in a shrunk covariance, from products between samples alone.

    With `C = A^T A / N`, `norm(C)^2 = norm(A A^T)^2 / N^2` and `trace(C) = trace(A A^T) / N`, so no
    `P x P` matrix is needed.

    Parameters
    ----------
    gram
        `A A^T`, `(N, N)`, of deviations from the samples' mean.
    voxels
        Number `P` of columns of `A`.
    covariance
        See `atypia.scoring.shrinkage`.

    Returns
    -------
    float
        Between 0 and 1.
    """
    count = len(gram)
    squared = float((gram**2).sum()) / count**2
    fourth = float((np.diag(gram) ** 2).sum()) / count
    trace = float(np.trace(gram)) / count
    return float(shrinkage_share(squared, trace, fourth, count, voxels, covariance))


# -- reading slices ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Samples:
    """A scan and its restorations, from which slices are taken as float64.

    Parameters
    ----------
    image, restorations, noise
        `(X Y Z,)`, `(N, X Y Z)`, and the noise variance like the image, or None.
    shape
        `(X, Y, Z)`.
    voxels
        For each axial slice the flat indices of its brain voxels.
    ridge, covariance
        As in `mahalanobis_map`.
    """

    image: Array
    restorations: Array
    noise: Array | None
    shape: tuple[int, ...]
    voxels: Sequence[Array]
    ridge: float
    covariance: Covariance

    def columns(self, z: int) -> tuple[Array, Array]:
        """Give `d` `(P,)` and `A` `(N, P)` of a slice, over the root of the voxels' own variances.

        Those are what differs between voxels: of ``"diagonal"``, which then needs no `A`, and of
        ``"low_rank_diagonal"``.
        """
        index = self.voxels[z]
        deviations = np.take(self.restorations, index, axis=1).astype(np.float64)
        mean = deviations.mean(axis=0)
        deviations -= mean
        difference = self.image[index] - mean
        if self.covariance not in WITH_NOISE:
            return difference, deviations
        scale = np.sqrt(self.variance(index))
        if self.covariance == "diagonal":
            sample = (deviations**2).sum(axis=0) / max(len(deviations) - 1, 1)
            scale = np.sqrt(scale**2 + sample)
            deviations = deviations[:0]
        _require_positive(scale)
        return difference / scale, deviations / scale

    def variance(self, index: Array) -> Array:
        """Ridge and noise variance of voxels, float64."""
        noise = 0.0 if self.noise is None else self.noise[index].astype(np.float64)
        return np.full(index.shape, self.ridge) + noise


def _samples(
    image: Array,
    restorations: Array,
    brain: Array,
    ridge: float,
    covariance: Covariance,
    scope: Scope,
    noise_variance: Array | None,
) -> _Samples:
    for kind, name, known in (
        ("covariance", covariance, get_args(Covariance)),
        ("scope", scope, get_args(Scope)),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    if not (math.isfinite(ridge) and ridge >= 0):
        raise SettingsError(f"ridge {ridge}", "is no variance", "Give a number of zero or more")
    if noise_variance is not None and covariance not in WITH_NOISE:
        remedy = f"Leave it out, or choose one of {', '.join(WITH_NOISE)}"
        raise SettingsError(f"covariance {covariance!r}", "has no noise variance", remedy)
    require_shapes(image, restorations, brain, noise_variance)
    wide = image.shape[2]
    return _Samples(
        image=image.reshape(-1),
        restorations=restorations.reshape(len(restorations), -1),
        noise=None if noise_variance is None else noise_variance.reshape(-1),
        shape=image.shape,
        voxels=[np.flatnonzero(brain[:, :, z]) * wide + z for z in range(wide)],
        ridge=float(ridge),
        covariance=covariance,
    )


def require_shapes(
    image: Array, restorations: Array, brain: Array, noise_variance: Array | None = None
) -> None:
    """Refuse arrays that do not lie on one grid.

    Parameters
    ----------
    image, restorations, brain, noise_variance
        As in `mahalanobis_map`.

    Raises
    ------
    InputError
        Shapes differ, there is no restoration, the brain is not boolean, or a noise variance is
        negative or not finite.
    """
    if image.ndim != 3:
        raise InputError("image", f"has {image.ndim} dimensions, not 3", "Give one 3D image")
    if restorations.ndim != 4 or len(restorations) == 0:
        problem = f"have shape {restorations.shape}, not (N, X, Y, Z) with N of 1 or more"
        raise InputError("restorations", problem, "Stack them along the first axis")
    others = {"restorations": restorations.shape[1:], "brain": brain.shape}
    if noise_variance is not None:
        others["noise_variance"] = noise_variance.shape
    for name, shape in others.items():
        if shape != image.shape:
            problem = f"voxels of shape {shape} do not fit an image of {image.shape}"
            raise InputError(name, problem, "Resample them onto the image's grid")
    if brain.dtype != bool:
        raise InputError("brain", f"holds {brain.dtype}, not booleans", "Give a mask")
    if noise_variance is not None and not _is_variance(noise_variance[brain]):
        raise InputError("noise_variance", "is negative or not finite", "Give mean squares")


def _is_variance(values: Array) -> bool:
    return bool((np.isfinite(values) & (values >= 0)).all())


def _require_positive(variance: Array | float) -> None:
    if not np.all(np.asarray(variance) > 0):
        problem = "a variance is zero, so that the covariance has no inverse"
        raise InputError("restorations", problem, "Give a positive ridge")


# -- covariances of low rank ------------------------------------------------------------------


def _shares(
    samples: _Samples, scope: Scope, decomposition: Decomposition
) -> Iterator[tuple[int, Array]]:
    """Give for each slice with brain its number and its voxels' shares, `(P,)` float64."""
    # A covariance is made from its slices and then applied to them: one slice is read only once.
    columns = lru_cache(maxsize=1)(samples.columns)
    filled = [z for z, voxels in enumerate(samples.voxels) if voxels.size]
    groups = [[z] for z in filled] if scope == "slice" else [filled] if filled else []
    for group in groups:
        floor, coefficients = _correction(samples, group, columns, decomposition == "whitened")
        for z in group:
            difference, deviations = columns(z)
            # Either u sqrt(floor) or w, with d / sqrt(floor) for y.
            solved = (difference - coefficients @ deviations) / math.sqrt(floor)
            if decomposition == "whitened":
                yield z, np.abs(solved)
                continue
            products = difference / math.sqrt(floor) * solved
            if decomposition == "product":
                yield z, np.sqrt(np.maximum(products, 0))
            else:
                yield z, np.sign(products) * np.sqrt(np.abs(products))


def _correction(
    samples: _Samples,
    group: Sequence[int],
    columns: Callable[[int], tuple[Array, Array]],
    root: bool,
) -> tuple[float, Array]:
    """Give what all voxels have in common: `psi`, and the `c` of `sqrt(psi) y = d - c A`."""
    gram, along, voxels = np.zeros(()), np.zeros(()), 0
    for z in group:
        difference, deviations = columns(z)
        gram = gram + deviations @ deviations.T
        along = along + deviations @ difference
        voxels += difference.size
    weight, floor = _weights(samples, gram, voxels)
    _require_positive(floor)
    values, vectors = np.linalg.eigh(gram * (weight / floor))
    # Deviations from a mean have one eigenvalue of zero, which rounding may turn negative.
    values = np.maximum(values, 0)
    stretch = np.sqrt(1 + values)
    damping = 1 / (stretch * (1 + stretch)) if root else 1 / (1 + values)
    coefficients = vectors @ (damping * (vectors.T @ along)) * (weight / floor)
    return floor, coefficients


def _weights(samples: _Samples, gram: Array, voxels: int) -> tuple[float, float]:
    """Weight of `A^T A` in the covariance, and the variance that is added to all voxels alike."""
    count = len(samples.restorations)
    kind = samples.covariance
    if kind == "ledoit_wolf" or kind == "oas":
        share = shrinkage_intensity(gram, voxels, kind)
        typical = float(np.trace(gram)) / count / voxels
        return (1 - share) / count, share * typical + samples.ridge
    # In the columns of the two with noise each voxel's own variance is one already.
    return 1 / max(count - 1, 1), samples.ridge if kind == "low_rank" else 1.0


# -- covariances of patches -------------------------------------------------------------------


def _checked_window(patch: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(patch) != 3 or any(size < 1 or size % 2 == 0 for size in patch):
        raise SettingsError(f"patch {patch}", "is no window", "Give three odd numbers")
    return patch


def _patch_scores(samples: _Samples, brain: Array, z: int, window: tuple[int, int, int]) -> Array:
    """Root of the squared distance by brain voxel, of the patches round a slice's brain voxels."""
    found = np.zeros(samples.voxels[z].size)
    if not found.size:
        return found
    inside, columns = _slab(samples, brain, z, window)
    sliding = np.lib.stride_tricks.sliding_window_view
    centres = np.nonzero(brain[:, :, z])
    size = math.prod(window)
    counts = sliding(inside, window)[*centres, 0].reshape(-1, size).sum(axis=1)
    windows = sliding(columns, window, axis=(1, 2, 3))
    step = max(1, PATCH_NUMBERS // (len(columns) * size))
    for start in range(0, found.size, step):
        part = slice(start, start + step)
        x, y = centres[0][part], centres[1][part]
        chunk = np.moveaxis(windows[:, x, y, 0].reshape(len(columns), -1, size), 0, 1)
        found[part] = _patch_distances(chunk[:, 0], chunk[:, 1:])
    return np.asarray(np.sqrt(np.maximum(found, 0) / counts))


def _slab(
    samples: _Samples, brain: Array, z: int, window: tuple[int, int, int]
) -> tuple[Array, Array]:
    """Give the padded slices round `z`: where the brain is, and `y` followed by the rows of `B`.

    Outside the brain and the volume both are zero, which leaves those voxels without influence.
    """
    half = [size // 2 for size in window]
    shape = tuple(n + 2 * h for n, h in zip(samples.shape[:2], half[:2], strict=True))
    inside = np.zeros((*shape, window[2]), dtype=bool)
    columns = np.zeros((1 + len(samples.restorations), *inside.shape))
    for layer in range(window[2]):
        source = z - half[2] + layer
        if not 0 <= source < samples.shape[2]:
            continue
        difference, deviations = samples.columns(source)
        x, y = (axis + h for axis, h in zip(np.nonzero(brain[:, :, source]), half, strict=False))
        inside[x, y, layer] = True
        columns[0, x, y, layer] = difference
        columns[1:, x, y, layer] = deviations / math.sqrt(max(len(deviations) - 1, 1))
    return inside, columns


def _patch_distances(standardised: Array, factors: Array) -> Array:
    """Give `y^T (I + B^T B)^-1 y` for `y` `(n, K)` and `B` `(n, N, K)` by the smaller matrix."""
    samples, size = factors.shape[1:]
    if size <= samples:
        inner = np.swapaxes(factors, 1, 2) @ factors + np.eye(size)
        solved = np.linalg.solve(inner, standardised[..., None])[..., 0]
        return np.asarray((standardised * solved).sum(axis=1))
    inner = factors @ np.swapaxes(factors, 1, 2) + np.eye(samples)
    along = (factors @ standardised[..., None])[..., 0]
    solved = np.linalg.solve(inner, along[..., None])[..., 0]
    return np.asarray((standardised**2).sum(axis=1) - (along * solved).sum(axis=1))
