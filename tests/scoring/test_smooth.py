"""Smoothing: the median in the brain's box, means in the brain, minima, edges that stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from atypia.scoring.smooth import (
    guided_in_brain,
    least_then_mean,
    mean_in_brain,
    median_in_brain,
)
from atypia.volume import Array


@given(
    arrays(np.float32, (7, 9, 8), elements=st.floats(-5, 5, width=32)),
    arrays(bool, (7, 9, 8)),
    st.sampled_from([3, 5]),
)
@settings(max_examples=30)
def test_equals_scipy_on_the_whole_volume(score: Array, brain: Array, size: int) -> None:
    brain[:, :2] = False  # so that the box is smaller than the volume
    whole = ndimage.median_filter(np.where(brain, score, 0), size, mode="constant")
    found = median_in_brain(score, brain, size)
    np.testing.assert_array_equal(found, np.where(brain, whole, 0))
    assert found.dtype == np.float32


@pytest.mark.parametrize("corner", [0, 4])
def test_equals_scipy_for_a_brain_in_a_corner(corner: int) -> None:
    score = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    brain = np.zeros(score.shape, bool)
    brain[corner : corner + 4, corner : corner + 5, corner : corner + 3] = True
    whole = ndimage.median_filter(np.where(brain, score, 0), 5, mode="constant")
    np.testing.assert_array_equal(median_in_brain(score, brain, 5), np.where(brain, whole, 0))


def test_size_one_and_no_brain() -> None:
    score = np.random.default_rng(0).normal(size=(4, 4, 4))
    brain = score > 0
    np.testing.assert_array_equal(
        median_in_brain(score, brain, 1), np.where(brain, score, 0).astype(np.float32)
    )
    assert not median_in_brain(score, np.zeros((4, 4, 4), bool), 5).any()


@given(arrays(np.float32, (6, 7, 8), elements=st.floats(-5, 5, width=32)), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_means_look_at_the_brain_only(score: Array, seed: int) -> None:
    brain = np.random.default_rng(seed).random(score.shape) < 0.6
    found = mean_in_brain(score, brain, 3)
    place = tuple(np.argwhere(brain)[0]) if brain.any() else (0, 0, 0)
    around = tuple(slice(max(i - 1, 0), i + 2) for i in place)
    if brain.any():
        assert found[place] == pytest.approx(score[around][brain[around]].mean(), abs=1e-4)
    assert not found[~brain].any()
    np.testing.assert_allclose(mean_in_brain(np.ones_like(score), brain, 5)[brain], 1, rtol=1e-5)


def test_minima_take_single_voxels_away_and_borders_fade() -> None:
    score = np.zeros((12, 12, 12), np.float32)
    score[3, 3, 3] = 9
    assert not least_then_mean(score, 3, 1).any()
    even = least_then_mean(np.ones_like(score), 3, 5)
    assert even[6, 6, 6] == pytest.approx(1)
    assert even[0, 0, 0] == pytest.approx(27 / 125)


def test_the_guided_filter_keeps_the_scans_edges() -> None:
    rng = np.random.default_rng(0)
    inside = np.zeros((20, 20, 20), bool)
    inside[6:14, 6:14, 6:14] = True
    brain = np.ones_like(inside)
    score = (inside + 0.3 * rng.normal(size=inside.shape)).astype(np.float32)
    image = inside.astype(np.float32)
    guided, mean = guided_in_brain(score, image, brain, 5), mean_in_brain(score, brain, 5)

    def error(found: Array) -> float:
        return float(np.abs(found - inside).mean())

    assert error(guided) < 0.5 * error(mean)
    assert error(guided) < 0.5 * error(score)
    np.testing.assert_allclose(
        guided_in_brain(np.full_like(score, 2), image, brain, 5), 2, rtol=1e-4
    )
