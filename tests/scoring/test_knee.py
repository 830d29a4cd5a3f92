"""The knee: a known tangent is recovered, a poor fit falls back, and a flat curve has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.scoring.knee import POOR_FIT, first_above, slope_of

PERCENT = np.arange(2.0, 101.0, 2.0)


@given(st.floats(0.05, 5), st.floats(0.002, 0.0155), st.booleans())
@settings(max_examples=40)
def test_a_tangent_and_its_derivative_are_recovered(a: float, b: float, bounded: bool) -> None:
    curve = a * np.tan(b * PERCENT)
    fit = slope_of(PERCENT, curve, np.inf, bounded)
    assert fit.fitted is not None
    assert fit.determination == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(fit.fitted, curve, rtol=1e-3, atol=1e-4 * a)
    early = PERCENT <= 80
    expected = a * b / np.cos(b * PERCENT) ** 2
    np.testing.assert_allclose(fit.slope[early], expected[early], rtol=1e-2)


def test_noise_moves_the_knee_little() -> None:
    a, b, gamma = 1.0, 0.014, 0.05
    noise = np.random.default_rng(0).normal(0, 0.02, PERCENT.size)
    fit = slope_of(PERCENT, a * np.tan(b * PERCENT) + noise, np.inf, True)
    assert fit.fitted is not None
    truth = 100 * np.arccos(np.sqrt(a * b / gamma)) / (100 * b)
    found = first_above(fit.slope, gamma)
    assert found is not None
    assert PERCENT[found] == pytest.approx(truth, abs=3)


def test_points_beyond_the_limit_are_not_fitted() -> None:
    curve = np.tan(0.01 * PERCENT)
    spoilt = curve.copy()
    spoilt[PERCENT > 90] = 50.0
    fit = slope_of(PERCENT, spoilt, 2.0, True)
    assert fit.fitted is not None
    np.testing.assert_allclose(fit.fitted, curve, rtol=1e-4)
    whole = slope_of(PERCENT, spoilt, np.inf, True)
    assert whole.fitted is None or not np.allclose(whole.fitted, curve, rtol=1e-2)


def test_a_poor_fit_falls_back_on_differences() -> None:
    # An S-shaped curve, which no tangent describes.
    curve = 1 / (1 + np.exp(-(PERCENT - 30) / 3))
    fit = slope_of(PERCENT, curve, np.inf, True)
    assert fit.fitted is None
    assert fit.determination is not None
    assert fit.determination < POOR_FIT
    assert PERCENT[fit.slope.argmax()] == pytest.approx(30, abs=2)
    # The moving average keeps the area under the slope.
    assert fit.slope.sum() * 2 == pytest.approx(curve[-1], rel=0.02)


def test_differences_of_a_straight_line_are_its_slope() -> None:
    # Everything lies above the limit: nothing is left to fit.
    fit = slope_of(PERCENT, 0.3 * PERCENT, -1.0, True)
    assert (fit.fitted, fit.determination) == (None, None)
    np.testing.assert_allclose(fit.slope, 0.3)


def test_a_bounded_fit_keeps_its_pole_beyond_the_curve() -> None:
    # The pole of this curve lies at 95 percent; what comes near it is not fitted.
    curve = np.tan(np.pi / 190 * np.minimum(PERCENT, 94))
    free, bounded = (slope_of(PERCENT, curve, 4.0, bounded=b) for b in (False, True))
    assert free.fitted is not None
    assert bounded.fitted is not None
    assert free.fitted[-1] < 0  # on the far side of the pole
    assert (np.diff(bounded.fitted) > 0).all()


def test_a_flat_curve_has_no_knee() -> None:
    fit = slope_of(PERCENT, np.zeros_like(PERCENT), np.inf, True)
    assert first_above(fit.slope, 1e-6) is None


def test_the_first_point_above_gamma() -> None:
    slope = np.array([0.1, 0.5, 0.2, 0.9])
    assert first_above(slope, 0.3) == 1
    assert first_above(slope, 0.5) == 3
    assert first_above(slope, 0.9) is None
    assert first_above(slope, 0.0) == 0
