"""Quantise: nearest centres and modes, each against the plain formulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import SettingsError
from atypia.preprocessing.classes import PUBLISHED_CENTRES, Quantise, mode_filter
from atypia.preprocessing.intensity import ScaleRange
from atypia.preprocessing.step import State
from atypia.volume import Array
from tests.phantoms import phantom


def scaled() -> State:
    image, brain, _ = phantom(0)
    state, step = State(image, brain), ScaleRange(percentiles=(2, 98))
    return step.apply(state, step.measure(state))


def test_each_voxel_gets_its_nearest_published_centre() -> None:
    state = scaled()
    found = Quantise().apply(state, {}).image.data
    distance = np.abs(state.image.data[..., None].astype(np.float64) - PUBLISHED_CENTRES)
    inside = state.require_brain().data
    np.testing.assert_array_equal(found[inside], distance.argmin(-1)[inside])
    assert not found[~inside].any()
    assert len(np.unique(found)) > 5


def literal_mode(classes: Array, size: int) -> Array:
    before = size // 2
    padded = np.pad(classes, [(before, size - 1 - before)] * 3)
    out = np.zeros_like(classes)
    for place in itertools.product(*map(range, classes.shape)):
        window = padded[tuple(slice(p, p + size) for p in place)]
        out[place] = np.bincount(window.ravel()).argmax()  # the lowest of equally common ones
    return out


@given(st.integers(0, 2**31), st.sampled_from([2, 3]), st.integers(2, 5))
def test_modes_are_those_of_every_window(seed: int, size: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, count, tuple(rng.integers(1, 6, 3)))
    np.testing.assert_array_equal(mode_filter(classes, size, count), literal_mode(classes, size))


def test_learnt_centres_are_where_the_intensities_are() -> None:
    state = scaled()
    step = Quantise(centres=(), count=3)
    assert step.must_learn
    inside = state.require_brain().data
    rng = np.random.default_rng(0)
    values = rng.choice([0.2, 0.5, 0.9], inside.sum()) + rng.normal(0, 0.01, inside.sum())
    data = np.zeros(inside.shape, np.float32)
    data[inside] = values
    learnt = step.learnt([step.gather(State(state.image.with_data(data), state.brain))] * 2)
    assert not learnt.must_learn
    assert learnt.centres == pytest.approx((0.2, 0.5, 0.9), abs=0.005)
    assert step.learnt([step.gather(State(state.image.with_data(data), state.brain))] * 2) == learnt


def test_a_restoration_has_the_centres_intensities() -> None:
    step = Quantise()
    np.testing.assert_allclose(
        step.restore_intensity(np.array([0.0, 3.0, 9.0, 0.5]), {}),
        [PUBLISHED_CENTRES[0], PUBLISHED_CENTRES[3], PUBLISHED_CENTRES[9], 0.0847],
    )


@pytest.mark.parametrize("centres", [(0.5,), (0.5, 0.2), (0.2, 0.2)])
def test_centres_must_rise(centres: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="two or more that rise"):
        Quantise.make({"centres": centres})
