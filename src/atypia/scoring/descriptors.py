"""Descriptors of what a scan looks like round every voxel, at several scales, without learning.

Sources: scale-normalised derivatives (Lindeberg 1998, doi:10.1023/A:1008045108935); MIND (Heinrich
et al. 2012, doi:10.1016/j.media.2012.05.008).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.resampling import box_of_voxels
from atypia.scoring.brain_means import TINY, BrainBox, Floats, mean_under, summed
from atypia.volume import Array

GROUPS = ("intensity", "gradient", "texture", "self_similarity", "asymmetry")
"""Every group of descriptors, in the usual order."""
SIDES = ("left", "right", "back", "front", "down", "up")
"""Of a voxel, in the order of the features of self-similarity."""
FIGURES = {"gradient": ("gradient", "laplacian", "coherence"), "texture": ("mean", "deviation")}
"""What groups say at each scale that say more than one thing."""
EVEN = 1e-3
"""Share of the brain's mean contrast below which a place counts as even."""
LEAST_SIGMA = 0.2
"""Finest scale, in voxels; the weights of a finer Gaussian vanish beyond its own voxel."""


def describe(
    image: Array,
    brain: Array,
    spacing_mm: tuple[float, float, float],
    scales_mm: Sequence[float] = (2.0, 4.0, 8.0),
    groups: Sequence[str] = GROUPS,
    affine: ArrayLike | None = None,
    *,
    neighbour_mm: float = 2.0,
) -> tuple[Floats, tuple[str, ...]]:
    """Describe every voxel of a brain by figures of its surroundings.

    Nothing outside of the brain counts: each mean is one over the brain's voxels, so that the
    brain does not darken towards its border, and the image may hold anything outside of it.

    ================  ==============================================================================
    intensity         Mean under a Gaussian whose standard deviation is the scale.
    gradient          Of this mean: magnitude of its gradient times the scale; its Laplacian times
                      the squared scale; coherence, the fractional anisotropy of the structure
                      tensor (0 no direction, 1 one direction).
    texture           Mean and standard deviation over a cube that reaches the scale to each side,
                      and at least to the next voxel.
    self_similarity   MIND: exp(-D / V) for six neighbours; D is the squared difference to the
                      neighbour under a Gaussian, V the mean of the six D. The factor that makes
                      the largest of them 1 is left out.
    asymmetry         The Gaussian mean minus that at the mirrored place (x -> -x in the world);
                      0 where that place is not in the brain.
    ================  ==============================================================================

    Parameters
    ----------
    image
        `(X, Y, Z)`.
    brain
        `(X, Y, Z)` boolean.
    spacing_mm
        Voxel size along X, Y, Z.
    scales_mm
        Scales of all groups but self-similarity.
    groups
        Some of `GROUPS`, in the order in which they are wanted.
    affine
        4x4, voxel to world mm, for the plane of asymmetry; its first axis must run along x. None
        for the plane in the middle of the grid.
    neighbour_mm
        How far the neighbours of self-similarity are away (in whole voxels, at least one); the
        standard deviation of its Gaussian is half of this.

    Returns
    -------
    tuple
        Features `(F, X, Y, Z)`, float32, zero outside of the brain, and their F names, such as
        ``"laplacian_4mm"``: group by group, each from the first scale to the last.

    Raises
    ------
    InputError
        The brain is of another shape than the image, or the first axis does not run along x.
    SettingsError
        An unknown group, or a scale that is too fine for the grid.
    """
    if image.ndim != 3 or image.shape != brain.shape:
        problem = f"shapes {image.shape} and {brain.shape} are not those of one 3D grid"
        raise InputError("image and brain", problem, "Give the brain on the grid of the image")
    for scale in (*scales_mm, neighbour_mm):
        if scale < LEAST_SIGMA * max(spacing_mm):
            problem = f"too fine for voxels of {max(spacing_mm):g} mm"
            remedy = f"Use at least {LEAST_SIGMA * max(spacing_mm):g} mm"
            raise SettingsError(f"scale {scale:g} mm", problem, remedy)
    brain = brain.astype(bool, copy=False)
    names = descriptor_names(groups, scales_mm)
    features = np.zeros((len(names), *image.shape), np.float32)
    if not brain.any():
        return features, names
    steps = _steps(neighbour_mm, spacing_mm)
    mirror_sum = image.shape[0] - 1.0 if affine is None else mirror_sum_of(affine)
    box = box_of_voxels(brain)
    scan = BrainBox.cut(image, brain, box, max(steps), spacing_mm)
    mirror_sum -= 2 * (box[0].start - scan.margin)
    by_scale = PER_SCALE | {"asymmetry": partial(_asymmetry, mirror_sum=mirror_sum)}
    found: list[Floats] = []
    for group in groups:
        if group == "self_similarity":
            found += _self_similarity(scan, neighbour_mm / 2, steps)
        else:
            figures = [by_scale[group](scan, scale) for scale in scales_mm]
            found += [at_scale for figure in zip(*figures, strict=True) for at_scale in figure]
    inner = tuple(slice(scan.margin, -scan.margin) for _ in range(3))
    for feature, values in zip(features, found, strict=True):
        feature[box] = np.where(brain[box], values[inner], 0)
    return features, names


def mirror_sum_of(affine: ArrayLike) -> float:
    """Give the sum of two places along the first axis (in voxels) that mirror each other.

    A voxel i lies at x = a i + b, so that the mirrored place -x is that of -2 b / a - i.

    Parameters
    ----------
    affine
        4x4, voxel to world mm, RAS+.

    Raises
    ------
    InputError
        The first axis is oblique.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    step = matrix[0, 0]
    oblique = np.abs([*matrix[0, 1:3], *matrix[1:3, 0]]).max()
    if oblique > 1e-3 * abs(step):
        problem = "its first axis does not run along x, so that no voxels mirror each other"
        raise InputError("affine", problem, "Resample the scan onto the template's grid")
    return float(-2 * matrix[0, 3] / step)


def _intensity(scan: BrainBox, scale: float) -> list[Floats]:
    return [scan.smooth(scale) + scan.mean]


def _gradient(scan: BrainBox, scale: float) -> list[Floats]:
    """Take differences of the smooth image, the derivatives of a discrete scale space."""
    smooth = scan.smooth(scale)
    slopes: list[Floats] = []
    laplacian = np.zeros_like(smooth)
    for axis, step in enumerate(scan.spacing_mm):
        # The margin that wraps round is empty and cut off in the end.
        before, after = np.roll(smooth, 1, axis), np.roll(smooth, -1, axis)
        slopes.append((after - before) * np.float32(scale / (2 * step)) * scan.brain)
        laplacian += (before + after - 2 * smooth) * np.float32((scale / step) ** 2)
    magnitude = np.sqrt(sum(slope * slope for slope in slopes))
    return [magnitude, laplacian, _coherence(slopes, scan, scale)]


def _coherence(slopes: list[Floats], scan: BrainBox, scale: float) -> Floats:
    """Give sqrt(3/2) |T - I tr(T)/3| / |T| of the structure tensor, towards 0 in even places."""
    matrices = scan.gaussian(scale)
    trace, squares = np.zeros_like(scan.brain), np.zeros_like(scan.brain)
    for i, j in combinations_with_replacement(range(3), 2):
        part = summed(matrices, slopes[i] * slopes[j])
        squares += part * part * (1 if i == j else 2)
        if i == j:
            trace += part
    inside = scan.brain > 0
    even = (EVEN * float(np.sqrt(squares[inside]).mean())) ** 2
    anisotropic = np.maximum(squares - trace * trace / 3, 0)
    share: Floats = np.sqrt(1.5 * anisotropic / np.maximum(squares + np.float32(even), TINY))
    return share


def _texture(scan: BrainBox, scale: float) -> list[Floats]:
    matrices = scan.cube(scale)
    mean = mean_under(matrices, scan.image, scan.brain)
    squares = mean_under(matrices, scan.image * scan.image, scan.brain)
    return [mean + scan.mean, np.sqrt(np.maximum(squares - mean * mean, 0))]


def _asymmetry(scan: BrainBox, scale: float, mirror_sum: float) -> list[Floats]:
    mirrored = _mirror_matrix(len(scan.brain), mirror_sum)
    smooth = scan.smooth(scale) * scan.brain
    share = np.tensordot(mirrored, scan.brain, 1)
    other: Floats = np.tensordot(mirrored, smooth, 1)
    other /= np.maximum(share, TINY)
    return [np.where(share >= 0.5, smooth - other, np.float32(0))]


def _mirror_matrix(count: int, mirror_sum: float) -> Floats:
    """Give the `(count, count)` matrix that interpolates linearly at the mirrored places."""
    apart = mirror_sum - np.arange(count)[:, None] - np.arange(count)
    return np.asarray(np.maximum(1 - abs(apart), 0), np.float32)


PER_SCALE: dict[str, Callable[[BrainBox, float], list[Floats]]] = {
    "intensity": _intensity,
    "gradient": _gradient,
    "texture": _texture,
}
"""The groups that are worked out scale by scale from the scan alone."""


def _self_similarity(scan: BrainBox, sigma_mm: float, steps: tuple[int, int, int]) -> list[Floats]:
    """Give MIND to the neighbour before and after along X, Y, Z.

    Pairs that are not both in the brain do not count. The distance to the neighbour before is that
    from this neighbour to the one after it, so that three of six need to be summed.
    """
    matrices = scan.gaussian(sigma_mm)
    distances: list[Floats] = []
    for axis, step in enumerate(steps):
        both = scan.brain * np.roll(scan.brain, -step, axis)
        difference = (scan.image - np.roll(scan.image, -step, axis)) * both
        after = mean_under(matrices, difference * difference, both)
        distances += [np.roll(after, step, axis), after]
    mean = np.asarray(np.mean(distances, axis=0), np.float32)
    # Where all is alike, rounding errors must not look like structure.
    even = EVEN * float(mean[scan.brain > 0].mean())
    variance: Floats = np.maximum(mean, max(even, float(TINY)))
    return [np.exp(-distance / variance) for distance in distances]


def _steps(neighbour_mm: float, spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    x, y, z = (max(round(neighbour_mm / step), 1) for step in spacing_mm)
    return x, y, z


def descriptor_names(groups: Sequence[str], scales_mm: Sequence[float]) -> tuple[str, ...]:
    """Name the features that `describe` gives, in its order.

    Raises
    ------
    SettingsError
        An unknown group.
    """
    names: list[str] = []
    for group in groups:
        if group not in GROUPS:
            raise unknown_name("descriptor group", group, GROUPS)
        if group == "self_similarity":
            names += [f"{group}_{side}" for side in SIDES]
        else:
            figures = FIGURES.get(group, (group,))
            names += [f"{name}_{scale:g}mm" for name in figures for scale in scales_mm]
    return tuple(names)
