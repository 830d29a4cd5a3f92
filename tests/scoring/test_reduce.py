"""The mean of the highest scores, against sorting them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atypia.scoring.reduce import top_mean
from atypia.volume import Array


@given(
    arrays(np.float32, (4, 5, 6), elements=st.floats(-100, 100, width=32)),
    arrays(bool, (4, 5, 6)),
    st.floats(0, 1),
)
def test_equals_the_mean_of_the_sorted_end(score: Array, brain: Array, share: float) -> None:
    assume(brain.any())
    highest = sorted(score[brain].tolist(), reverse=True)
    count = max(1, round(share * len(highest)))
    assert top_mean(score, brain, share) == pytest.approx(np.mean(highest[:count]), abs=1e-9)


def test_scores_outside_the_brain_do_not_count() -> None:
    score = np.array([[[9.0, 1, 2, 3]]])
    brain = np.array([[[False, True, True, True]]])
    assert top_mean(score, brain, 0.01) == 3
    assert top_mean(score, brain, 2 / 3) == 2.5
    assert top_mean(score, brain, 1.0) == 2
