"""The healthy spread: root mean square with a floor, computed scan by scan."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.scoring.spread import healthy_spread


def test_is_the_root_mean_square_plus_the_floor() -> None:
    residuals = np.random.default_rng(0).normal(size=(5, 4, 4, 4)).astype(np.float32)
    brain = np.zeros((4, 4, 4), bool)
    brain[1:3] = True
    plain = np.sqrt((residuals.astype(np.float64) ** 2).mean(axis=0))
    found = healthy_spread(iter(residuals), brain, 0.5)
    np.testing.assert_allclose(found, plain + 0.5 * np.median(plain[brain]), rtol=1e-5)
    assert found.dtype == np.float32


def test_is_positive_even_where_nothing_deviates() -> None:
    brain = np.ones((2, 2, 2), bool)
    assert (healthy_spread([np.zeros((2, 2, 2))], brain, 0.0) > 0).all()
    assert (healthy_spread([], brain, 0.1) > 0).all()


def test_without_brain_the_floor_is_absolute() -> None:
    found = healthy_spread([np.zeros((2, 2, 2))], np.zeros((2, 2, 2), bool), 0.5)
    assert found[0, 0, 0] == pytest.approx(0.5, abs=1e-5)
