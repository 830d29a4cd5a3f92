"""The median in the brain's box is the median of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from atypia.scoring.smooth import median_in_brain
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
