"""Normalise: robust z-scores that do not depend on the scanner's units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.preprocessing.intensity import Normalise
from atypia.preprocessing.step import State
from atypia.volume import Volume
from tests.phantoms import phantom

IMAGE, BRAIN, _ = phantom(0)
STEP = Normalise()


def normalised(image: Volume, step: Normalise = STEP) -> Volume:
    state = State(image, BRAIN)
    return step.apply(state, step.measure(state)).image


def test_the_brain_has_mean_zero_and_deviation_one() -> None:
    image = normalised(IMAGE)
    inside = image.data[BRAIN.data]
    assert image.data.dtype == np.float32
    assert inside.mean() == pytest.approx(0, abs=0.02)
    assert inside.std() == pytest.approx(1, abs=0.05)
    assert not image.data[~BRAIN.data].any()


@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_units_do_not_matter(gain: float, offset: float) -> None:
    other = IMAGE.with_data(IMAGE.data.astype(np.float64) * gain + offset)
    np.testing.assert_allclose(normalised(other).data, normalised(IMAGE).data, atol=0.02)


def test_a_few_extreme_voxels_do_not_rescale_the_brain() -> None:
    data = IMAGE.data.copy()
    hot = np.argwhere(BRAIN.data)[:5]
    data[tuple(hot.T)] = 1e6
    image = normalised(IMAGE.with_data(data))
    assert (image.data[tuple(hot.T)] == STEP.limit).all()
    rest = BRAIN.data.copy()
    rest[tuple(hot.T)] = False
    assert np.abs(image.data - normalised(IMAGE).data)[rest].max() < 0.1


def test_the_limit_cuts_both_ends() -> None:
    image = normalised(IMAGE, Normalise(limit=0.5)).data
    assert (image.min(), image.max()) == (-0.5, 0.5)


def test_intensities_are_restored() -> None:
    measured = STEP.measure(State(IMAGE, BRAIN))
    back = STEP.restore_intensity(normalised(IMAGE).data, measured)
    np.testing.assert_allclose(back[BRAIN.data], IMAGE.data[BRAIN.data], rtol=1e-4)


def test_unsigned_integers_do_not_wrap() -> None:
    whole = np.clip(IMAGE.data.round(), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(
        normalised(IMAGE.with_data(whole)).data, normalised(IMAGE).data, atol=0.05
    )


def test_a_constant_brain_stays_at_zero() -> None:
    assert not normalised(IMAGE.with_data(np.full(IMAGE.shape, 9.0))).data.any()
