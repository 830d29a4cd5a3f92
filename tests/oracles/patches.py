"""Patches literally: one patch, one voxel after the other, in float64; nothing of the package."""

from __future__ import annotations

import itertools
import math

import numpy as np

from atypia.volume import Array

Box = tuple[slice, slice, slice]


def literal_starts(length: int, size: int, stride: int, complete: bool) -> list[int]:
    """Walk along an axis."""
    starts, start = [], 0
    while start + size <= length:
        starts.append(start)
        start += stride
    if complete and starts[-1] + size != length:
        starts.append(length - size)
    return starts


def literal_boxes(starts: tuple[tuple[int, ...], ...], size: tuple[int, ...]) -> list[Box]:
    """Give the boxes in the order of their numbers."""
    boxes = []
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                corner = (x, y, z)
                box = [slice(c, c + n) for c, n in zip(corner, size, strict=True)]
                boxes.append((box[0], box[1], box[2]))
    return boxes


def literal_window(size: tuple[int, ...], blending: str) -> Array:
    """Give the weight of each voxel of a patch by the formula of the window."""
    found = np.empty(size)
    for voxel in itertools.product(*(range(n) for n in size)):
        weight = 1.0
        for place, n in zip(voxel, size, strict=True):
            if blending == "hann":
                weight *= 0.5 - 0.5 * math.cos(2 * math.pi * (place + 0.5) / n)
            elif blending == "gaussian":
                weight *= math.exp(-(((place - (n - 1) / 2) / (n / 4)) ** 2) / 2)
        found[voxel] = weight
    return found


def literal_scores(
    scores: Array,
    boxes: list[Box],
    shape: tuple[int, ...],
    aggregation: str,
    window: Array,
) -> Array:
    """Collect for every voxel the scores of the patches that cover it; NaN leaves a patch out."""
    found = np.zeros(shape)
    for voxel in np.ndindex(shape):
        values, weights = [], []
        for score, box in zip(scores.ravel(), boxes, strict=True):
            inside = [v - part.start for v, part in zip(voxel, box, strict=True)]
            covered = all(0 <= i < n for i, n in zip(inside, window.shape, strict=True))
            if covered and not math.isnan(score):
                values.append(float(score))
                weights.append(window[tuple(inside)])
        if not values:
            continue
        if aggregation == "mean":
            found[voxel] = np.dot(values, weights) / sum(weights)
        else:
            found[voxel] = max(values) if aggregation == "max" else min(values)
    return found


def literal_interpolation(scores: Array, centres: list[Array], shape: tuple[int, ...]) -> Array:
    """Interpolate `(n1, n2, n3)` scores at every voxel by the eight patches round it."""

    def ends(place: float, along: Array) -> list[tuple[int, float]]:
        place = min(max(place, along[0]), along[-1])
        for index in range(len(along) - 1):
            if along[index] <= place <= along[index + 1]:
                far = (place - along[index]) / (along[index + 1] - along[index])
                return [(index, 1 - far), (index + 1, far)]
        return [(0, 1.0)]

    def at(voxel: tuple[int, ...]) -> float:
        total = weight = 0.0
        corners = (ends(v, along) for v, along in zip(voxel, centres, strict=True))
        for (i, a), (j, b), (k, c) in itertools.product(*corners):
            if not math.isnan(scores[i, j, k]):
                total += a * b * c * scores[i, j, k]
                weight += a * b * c
        return total / weight if weight > 0 else 0.0

    return np.array([at(voxel) for voxel in np.ndindex(shape)]).reshape(shape)
