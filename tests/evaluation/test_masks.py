"""Figures of a mask against known shapes, and against a literal formulation."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.evaluation.masks import average_surface_distance, mask_figures, peak_signal_to_noise

SHAPE = (14, 12, 10)


def block(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[start:stop, 3:9, 3:8] = True
    return mask


def literal_distance(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> float:
    """All distances between all surface voxels."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(3):
            for step in (-1, 1):
                inside &= np.roll(padded, step, axis)
        return np.argwhere(padded & ~inside) * spacing

    a, b = surface(first), surface(second)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return float(np.concatenate([distances.min(1), distances.min(0)]).mean())


def test_overlap_of_two_blocks() -> None:
    figures = mask_figures(block(2, 8), block(4, 10), (1.0, 1.0, 1.0))
    assert figures.dice == pytest.approx(4 / 6)
    assert figures.iou == pytest.approx(4 / 8)
    assert figures.sensitivity == pytest.approx(4 / 6)
    assert figures.precision == pytest.approx(4 / 6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_surface_distance_is_the_literal_one(spacing: tuple[float, float, float]) -> None:
    first, second = block(2, 8), block(4, 11)
    second[5:7, 4:6, 7:9] = True
    found = average_surface_distance(first, second, spacing)
    assert found == pytest.approx(literal_distance(first, second, np.array(spacing)))
    assert average_surface_distance(first, first, spacing) == 0


def test_empty_masks_have_no_distance_and_no_precision() -> None:
    nothing = np.zeros(SHAPE, bool)
    missed = mask_figures(nothing, block(2, 8), (1.0, 1.0, 1.0))
    assert (missed.dice, missed.sensitivity) == (0, 0)
    assert missed.precision is None
    assert missed.assd_mm is None
    right = mask_figures(nothing, nothing, (1.0, 1.0, 1.0))
    assert (right.dice, right.iou, right.sensitivity) == (1, 1, None)


def test_peak_signal_to_noise() -> None:
    image = np.linspace(0, 100, 1680, dtype=np.float32).reshape(SHAPE)
    region = block(2, 8)
    peak = float(image[region].max())
    found = peak_signal_to_noise(image, image + 2, region)
    assert found == pytest.approx(10 * np.log10(peak**2 / 4), rel=1e-5)
    assert peak_signal_to_noise(image, image, region) is None
    assert peak_signal_to_noise(image, image, np.zeros(SHAPE, bool)) is None
