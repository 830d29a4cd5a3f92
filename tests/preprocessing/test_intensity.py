"""Intensities that do not depend on the scanner's units, each step against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import SettingsError
from atypia.preprocessing.intensity import IterMaskRange, Normalise, NyulLandmarks, ScaleRange
from atypia.preprocessing.step import State, Step
from atypia.volume import Volume
from tests.phantoms import phantom

IMAGE, BRAIN, _ = phantom(0)
STEP = Normalise()


def normalised(image: Volume, step: Step = STEP) -> Volume:
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


@pytest.mark.parametrize("percentiles", [(1.0, 99.0), (0.0, 100.0), (2.0, 98.0)])
def test_a_range_is_mapped_to_zero_and_one(percentiles: tuple[float, float]) -> None:
    step = ScaleRange(percentiles=percentiles)
    found = normalised(IMAGE, step).data
    inside = IMAGE.data[BRAIN.data].astype(np.float64)
    low, high = np.percentile(inside, percentiles)
    expected = (np.clip(inside, low, high) - low) / (high - low)
    np.testing.assert_allclose(found[BRAIN.data], expected, atol=1e-6)
    assert not found[~BRAIN.data].any()
    back = step.restore_intensity(found, step.measure(State(IMAGE, BRAIN)))
    np.testing.assert_allclose(back[BRAIN.data], np.clip(inside, low, high), rtol=1e-5)


@pytest.mark.parametrize("centre", ["published", "middle"])
def test_the_range_of_itermask(centre: str) -> None:
    step = IterMaskRange(centre=centre)  # type: ignore[arg-type]
    found = normalised(IMAGE, step).data
    # The literal rule: bounds by counting voxels of the sorted volume.
    count = int(BRAIN.data.sum())
    ordered = np.sort(np.where(BRAIN.data, IMAGE.data, 0).ravel().astype(np.float64))
    high, low = ordered[-round(0.1 * count)], ordered[round(0.02 * count)]
    assert low == 0  # the background is larger than 2 percent of the brain
    expected = 6 * (IMAGE.data - high / 2) / high
    np.testing.assert_allclose(found[BRAIN.data], expected[BRAIN.data], atol=0.01)
    back = step.restore_intensity(found, step.measure(State(IMAGE, BRAIN)))
    np.testing.assert_allclose(back[BRAIN.data], IMAGE.data[BRAIN.data], rtol=1e-4)


def test_the_middle_and_the_published_centre_differ_where_the_background_is_small() -> None:
    whole = BRAIN.with_data(np.ones(BRAIN.shape), "mask")
    image = IMAGE.with_data(IMAGE.data + 100)
    steps = [IterMaskRange(), IterMaskRange(centre="middle")]
    low, high = np.quantile(image.data.astype(np.float64), (0.02, 0.9))
    centres = [step.measure(State(image, whole))["centre"] for step in steps]
    np.testing.assert_allclose(centres, [(high - low) / 2, (high + low) / 2])


def learnt_landmarks() -> NyulLandmarks:
    step = NyulLandmarks()
    assert step.must_learn
    states = [State(*phantom(seed)[:2]) for seed in range(3)]
    return step.learnt([step.gather(state) for state in states])


def test_landmarks_lie_on_the_cohorts() -> None:
    step = learnt_landmarks()
    assert not step.must_learn
    per_scan = []
    for seed in range(3):
        image, brain, _ = phantom(seed)
        marks = np.percentile(image.data[brain.data].astype(np.float64), step.percentiles)
        per_scan.append((marks - marks[0]) / (marks[-1] - marks[0]) * 100)
    np.testing.assert_allclose(step.scale, np.mean(per_scan, axis=0))
    values = normalised(IMAGE, step).data
    inside = IMAGE.data[BRAIN.data].astype(np.float64)
    marks = np.percentile(inside, step.percentiles)
    between = (inside >= marks[0]) & (inside <= marks[-1])
    expected = np.interp(inside, marks, step.scale)
    np.testing.assert_allclose(values[BRAIN.data][between], expected[between], atol=1e-4)
    # Beyond the landmarks the last pieces go straight on.
    assert values[BRAIN.data].min() < 0
    assert values[BRAIN.data].max() > 100
    assert not values[~BRAIN.data].any()


@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_landmarks_take_units_away_and_give_them_back(gain: float, offset: float) -> None:
    step = learnt_landmarks()
    image = IMAGE.with_data(IMAGE.data.astype(np.float64) * gain + offset)
    found = normalised(image, step).data
    np.testing.assert_allclose(found, normalised(IMAGE, step).data, atol=0.05)
    back = step.restore_intensity(found, step.measure(State(image, BRAIN)))
    np.testing.assert_allclose(back[BRAIN.data], image.data[BRAIN.data], atol=gain * 0.05 + 0.01)


@pytest.mark.parametrize("step", [ScaleRange(), IterMaskRange(), NyulLandmarks(scale=(0,) * 11)])
def test_a_constant_brain_gives_finite_intensities(step: Step) -> None:
    constant = IMAGE.with_data(np.full(IMAGE.shape, 9.0))
    state = State(constant, BRAIN)
    measured = step.measure(state)
    found = step.apply(state, measured).image.data
    assert np.isfinite(found).all()
    assert np.isfinite(step.restore_intensity(found, measured)).all()


@pytest.mark.parametrize("values", [{"percentiles": [50]}, {"percentiles": [5, 1]}, {"scale": [1]}])
def test_landmarks_that_make_no_sense(values: dict[str, list[float]]) -> None:
    with pytest.raises(SettingsError, match="rise|one value for each"):
        NyulLandmarks.make(values)
