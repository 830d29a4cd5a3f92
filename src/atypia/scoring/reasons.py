"""Reasons: scan-level figures that tell an artefact from a lesion, whatever the method.

An artefact is made where the image is made, so it shows in k-space, in whole slices, in the noise
or over the whole brain. A lesion is a place that stands out from its surroundings, mostly on one
side. Every figure is a number that means nothing by itself; healthy scans give it a meaning
(`atypia.calibration.reasons`). None depends on the scale of the intensities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from atypia.scoring.spectrum import highest_point, line_roughness
from atypia.volume import Array

Kind = Literal["artefact", "lesion"]

AXES = ("left-right", "back-front", "foot-head")
"""Of the working grid, which is in RAS+ order."""
CUT = 3.0
"""Intensities are cut at this many interquartile ranges from the median: a lesion counts little."""
LEAST_SLICE = 0.2
"""A slice with less brain than this share of the largest slice's is not looked at."""
NEIGHBOURS = 7
"""Slices with whose usual jump a jump is compared."""
RIM_MM = 6.0
FOCUS_MM = 4.0
"""Standard deviation of the Gaussian that smooths a score map before places are compared."""
LOW, HIGH, HIGHEST = 0.05, 0.9, 0.999
"""Quantiles of scores: where a method's scale begins, what is high in a slice or in the brain, and
what stands out of it."""
TINY = 1e-9


@dataclass(frozen=True)
class Figure:
    """What a figure is a sign of.

    Parameters
    ----------
    kind
        Artefact or lesion.
    high
        In words, what an unusually high value means.
    low
        The same for an unusually low one; empty where only high values count.
    """

    kind: Kind
    high: str
    low: str = ""


FIGURES: Mapping[str, Figure] = {
    "global_score": Figure("artefact", "The score is raised in the whole brain, not in one place"),
    "kspace_point": Figure(
        "artefact",
        "Single points of k-space are too strong, as by spikes, stripes, ripples or interference",
    ),
    **{
        f"kspace_lines_{letter}": Figure(
            "artefact",
            f"Neighbouring lines of k-space differ too much ({axis}), as by ghosts, lost or wrong "
            "lines, or motion",
        )
        for letter, axis in zip("xyz", AXES, strict=True)
    },
    **{
        f"slice_jump_{letter}": Figure(
            "artefact",
            f"The image jumps from one slice to the next ({axis}), as by lost or shifted slices, a "
            "cut or folded field of view",
        )
        for letter, axis in zip("xyz", AXES, strict=True)
    },
    "noise": Figure(
        "artefact",
        "Neighbouring voxels differ too much, as by noise",
        "Neighbouring voxels are too alike, as in a blurred or empty image",
    ),
    "rim": Figure(
        "artefact",
        "The brain's rim is too bright, as by signal from outside or another brain mask",
        "The brain's rim is too dark, as by blur, motion or ringing",
    ),
    "shading": Figure("artefact", "Brightness changes too much across the brain, as by a coil"),
    "focus": Figure("lesion", "One place scores far above the slices that it lies in"),
    "one_side": Figure("lesion", "One side of the brain scores far above the other"),
}
"""Code -> figure, in the order of `figures_of`."""


def figures_of(
    image: Array, score: Array, brain: Array, spacing_mm: tuple[float, float, float]
) -> dict[str, float]:
    """Measure every figure of one scan.

    Parameters
    ----------
    image
        `(X, Y, Z)`, RAS+, on the working grid; any scale.
    score
        `(X, Y, Z)`, higher = more abnormal.
    brain
        `(X, Y, Z)` boolean, not empty.
    spacing_mm
        Voxel size along X, Y, Z.

    Returns
    -------
    dict
        Code of `FIGURES` -> finite value.
    """
    scaled = _scaled(image, brain)
    focus, one_side = _places(score, brain, spacing_mm)
    values = (
        float(np.quantile(score[brain], 0.25)),
        highest_point(scaled, brain, spacing_mm),
        *line_roughness(scaled, brain),
        *(_highest_jump(scaled, brain, axis) for axis in range(3)),
        _noise(scaled, brain),
        _rim(scaled, brain, spacing_mm),
        _shading(scaled, brain),
        focus,
        one_side,
    )
    return {name: float(value) for name, value in zip(FIGURES, values, strict=True)}


def _scaled(image: Array, brain: Array) -> Array:
    """Count from the brain's median, in interquartile ranges; zero outside."""
    low, middle, high = np.quantile(image[brain], (0.25, 0.5, 0.75))
    scaled = (image - np.float32(middle)) / np.float32(max(high - low, TINY))
    return np.where(brain, scaled.clip(-CUT, CUT), 0).astype(np.float32)


def _highest_jump(image: Array, brain: Array, axis: int) -> float:
    """Compare each slice's mean difference from the next one with the usual one around; log."""
    slices, inside = np.moveaxis(image, axis, 0), np.moveaxis(brain, axis, 0)
    both = inside[1:] & inside[:-1]
    counts = both.sum((1, 2))
    used = counts >= max(LEAST_SLICE * counts.max(), 1)
    if not used.any():
        return 0.0
    jumps = np.where(both, np.abs(np.diff(slices, axis=0)), 0).sum((1, 2))[used] / counts[used]
    jumps = np.log(jumps + TINY)
    return float((jumps - ndimage.median_filter(jumps, NEIGHBOURS, mode="nearest")).max())


def _noise(image: Array, brain: Array) -> float:
    """Give the median difference of a voxel from the mean of its six neighbours, as a logarithm."""
    cross = ndimage.generate_binary_structure(3, 1)
    inner = ndimage.binary_erosion(brain, cross)
    # What is rolled round the edge of the grid is not in the inner brain.
    around = np.zeros_like(image)
    for axis in range(3):
        around += np.roll(image, 1, axis) + np.roll(image, -1, axis)
    differences = np.abs(image - around / 6)[inner if inner.any() else brain]
    return float(np.log(np.median(differences) + TINY))


def _rim(image: Array, brain: Array, spacing_mm: tuple[float, float, float]) -> float:
    """Give the median intensity of the outer layers of the brain, at least one voxel thick."""
    layers = max(round(RIM_MM / max(spacing_mm)), 1)
    inner = ndimage.binary_erosion(brain, iterations=layers)
    return float(np.median(image[brain & ~inner]))


def _shading(image: Array, brain: Array) -> float:
    """Give the spread of the quadratic surface through the brain's middle intensities; log."""
    places = np.argwhere(brain)
    # Ten coefficients do not need more voxels than this.
    places = places[:: max(len(places) // 20_000, 1)]
    values = image[tuple(places.T)]
    x, y, z = (2 * places / (np.array(image.shape) - 1) - 1).T
    terms = np.column_stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, x * z])
    middle = np.abs(values) < CUT / 2
    if not middle.any():
        return float(np.log(TINY))
    weights = np.linalg.lstsq(terms[middle], values[middle], rcond=None)[0]
    return float(np.log((terms @ weights).std() + TINY))


def _places(
    score: Array, brain: Array, spacing_mm: tuple[float, float, float]
) -> tuple[float, float]:
    """Give how far places stand out from the slices they lie in, and from the other side.

    What is high in a whole slice, along any axis, or in the whole brain, is the pattern of an
    artefact and so no sign of a place. Counted from a low score, in units of the usual high
    ones: any offset and scale of the scores leave it as it is.
    """
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside = brain[box]
    sigma = [FOCUS_MM / spacing for spacing in spacing_mm]
    share = ndimage.gaussian_filter(inside.astype(np.float32), sigma, truncate=3)
    summed = ndimage.gaussian_filter(
        np.where(inside, score[box], 0).astype(np.float32), sigma, truncate=3
    )
    smooth = summed / np.maximum(share, 0.3)
    low, high = np.quantile(smooth[inside], (LOW, HIGH))
    usual = np.full(inside.shape, high, np.float32)
    for axis in range(3):
        levels = [
            np.quantile(s[b], HIGH) if b.any() else high
            for s, b in zip(np.moveaxis(smooth, axis, 0), np.moveaxis(inside, axis, 0), strict=True)
        ]
        shape = [-1 if other == axis else 1 for other in range(3)]
        usual = np.maximum(usual, np.array(levels, np.float32).reshape(shape))
    beyond = (smooth - low) / np.maximum(usual - low, TINY)
    across = np.arange(inside.shape[0])
    centre = float((across[:, None, None] * inside).sum() / inside.sum())
    mirrored = np.clip(np.round(2 * centre - across).astype(int), 0, len(across) - 1)
    paired = inside & inside[mirrored]
    sides = np.where(paired, np.abs(beyond - beyond[mirrored]), 0)[inside]
    return (
        float(np.log(np.quantile(beyond[inside], HIGHEST) + TINY)),
        float(np.log(np.quantile(sides, 0.99) + TINY)),
    )
