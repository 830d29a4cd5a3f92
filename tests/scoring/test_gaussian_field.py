"""Gaussians of locations against scikit-learn and float64 formulas, one location at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.covariance import OAS, LedoitWolf, ShrunkCovariance

from atypia.errors import InputError, SettingsError
from atypia.scoring import gaussian_field
from atypia.scoring.gaussian_field import fit_gaussian_field, mahalanobis
from atypia.volume import Array

SUBJECTS, LOCATIONS, FEATURES = 14, 25, 6
FLOOR = 0.02


def healthy(seed: int = 0, offset: float = 0.0) -> tuple[Array, Array]:
    """Correlated features whose mean and scale differ between locations; some are absent."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((LOCATIONS, FEATURES, FEATURES))
    vectors = np.einsum("lde,sle->sld", mixing, rng.standard_normal((SUBJECTS, *mixing.shape[:2])))
    vectors = vectors + offset + 3 * rng.standard_normal((LOCATIONS, FEATURES))
    present = rng.random((SUBJECTS, LOCATIONS)) < 0.8
    vectors[~present] = np.nan
    return vectors.astype(np.float32), present


def surroundings() -> Array:
    """Both neighbours on a line; those at the ends have one."""
    own = np.arange(LOCATIONS)
    return np.stack([own - 1, np.where(own + 1 < LOCATIONS, own + 1, -1)], axis=1)


def samples_at(vectors: Array, present: Array, places: list[int]) -> Array:
    return np.concatenate([vectors[present[:, p], p] for p in places]).astype(np.float64)


def theirs(samples: Array, shrinkage: Any) -> tuple[Array, Array]:
    """Mean and covariance by scikit-learn, with the floor."""
    models = {"ledoit_wolf": LedoitWolf, "oas": OAS}
    if isinstance(shrinkage, str):
        model = models[shrinkage](assume_centered=False)
    else:
        model = ShrunkCovariance(shrinkage=shrinkage)
    model.fit(samples)
    return model.location_, model.covariance_ + FLOOR * np.eye(samples.shape[1])


def literal_distance(vector: Array, mean: Array, covariance: Array) -> float:
    away = vector.astype(np.float64) - mean
    return float(np.sqrt(away @ np.linalg.inv(covariance) @ away))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", "oas", 0.0, 0.3, 1.0])
def test_each_location_is_that_of_scikit_learn(
    shrinkage: Any, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without memory each location is a part of its own.
    monkeypatch.setattr(gaussian_field, "MEGABYTES", 0 if pooled else 16)
    vectors, present = healthy(offset=50)
    near = surroundings() if pooled else None
    field = fit_gaussian_field(vectors, present, shrinkage, near, FLOOR)
    scan = np.random.default_rng(1).normal(50, 5, (LOCATIONS, FEATURES)).astype(np.float32)
    distances = mahalanobis(field, scan)
    for place in range(LOCATIONS):
        around = [] if near is None else [int(n) for n in near[place] if n >= 0]
        mean, covariance = theirs(samples_at(vectors, present, [place, *around]), shrinkage)
        np.testing.assert_allclose(field.mean[place], mean, rtol=1e-5)
        factor = field.factor[place].astype(np.float64)
        np.testing.assert_allclose(factor @ covariance @ factor.T, np.eye(FEATURES), atol=2e-4)
        expected = literal_distance(scan[place], mean, covariance)
        assert distances[place] == pytest.approx(expected, rel=2e-4)
    assert field.mean.dtype == field.factor.dtype == distances.dtype == np.float32


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", "oas", 0.2])
def test_locations_without_samples_have_the_gaussian_of_all(shrinkage: Any) -> None:
    vectors, present = healthy()
    present[:, 4] = False
    present[1:, 9] = False
    present[0, 9] = True
    vectors[0, 9] = 1
    field = fit_gaussian_field(vectors, present, shrinkage, floor=FLOOR)
    mean, covariance = theirs(samples_at(vectors, present, list(range(LOCATIONS))), shrinkage)
    scan = np.random.default_rng(1).normal(0, 5, (LOCATIONS, FEATURES)).astype(np.float32)
    distances = mahalanobis(field, scan)
    for place in (4, 9):
        np.testing.assert_allclose(field.mean[place], mean, rtol=1e-5, atol=1e-5)
        expected = literal_distance(scan[place], mean, covariance)
        assert distances[place] == pytest.approx(expected, rel=1e-4)
    # Samples of a neighbour are samples.
    near = np.full((LOCATIONS, 1), -1)
    near[4] = 3
    field = fit_gaussian_field(vectors, present, shrinkage, near, FLOOR)
    np.testing.assert_array_equal(field.mean[4], field.mean[3])


def test_a_location_that_names_itself_counts_once() -> None:
    vectors, present = healthy()
    own = np.arange(LOCATIONS)[:, None]
    plain, named = (fit_gaussian_field(vectors, present, neighbours=n) for n in (None, own))
    np.testing.assert_array_equal(plain.factor, named.factor)


def test_distances_of_chosen_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_field, "MEGABYTES", 0)
    field = fit_gaussian_field(*healthy())
    numbers = np.array([3, 3, 20, 0])
    vectors = np.random.default_rng(1).normal(0, 5, (4, FEATURES)).astype(np.float32)
    found = mahalanobis(field, vectors, numbers)
    for row, number in enumerate(numbers):
        everywhere = np.repeat(vectors[row : row + 1], LOCATIONS, axis=0)
        assert found[row] == pytest.approx(mahalanobis(field, everywhere)[number], rel=1e-6)
    assert mahalanobis(field, field.mean).tolist() == [0] * LOCATIONS


def test_healthy_scans_lie_at_the_root_of_the_number_of_features() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((FEATURES, FEATURES))
    vectors = rng.standard_normal((3000, 4, FEATURES)) @ mixing.T
    everything = np.ones(vectors.shape[:2], dtype=bool)
    field = fit_gaussian_field(vectors[:2000], everything[:2000], floor=0)
    squares = np.stack([mahalanobis(field, scan) for scan in vectors[2000:]]) ** 2
    assert squares.mean() == pytest.approx(FEATURES, rel=0.05)
    # Of a chi-squared variable.
    assert squares.var() == pytest.approx(2 * FEATURES, rel=0.15)


def test_needs_a_floor_where_samples_are_the_same() -> None:
    same = np.ones((5, 3, FEATURES), np.float32)
    present = np.ones((5, 3), dtype=bool)
    with pytest.raises(InputError, match="no inverse at 3"):
        fit_gaussian_field(same, present, floor=0)
    field = fit_gaussian_field(same, present, floor=0.25)
    away = mahalanobis(field, same[0] + np.eye(FEATURES, dtype=np.float32)[0])
    np.testing.assert_allclose(away, 2, rtol=1e-6)


def test_refuses_what_does_not_fit() -> None:
    vectors, present = healthy()
    field = fit_gaussian_field(vectors, present)
    cases: list[tuple[str, tuple[Any, ...]]] = [
        ("vectors", (vectors[0], present)),
        ("present", (vectors, present[:, 1:])),
        ("present", (vectors, present.astype(np.int8))),
        ("vectors: hold NaN", (vectors, np.ones_like(present))),
        ("present: leaves 0", (vectors, np.zeros_like(present))),
        ("neighbours", (vectors, present, 0.1, np.zeros((3, 2), dtype=int))),
        ("neighbours", (vectors, present, 0.1, np.zeros((LOCATIONS, 2)))),
        ("neighbours: name", (vectors, present, 0.1, np.full((LOCATIONS, 2), LOCATIONS))),
        ("neighbours: name", (vectors, present, 0.1, np.full((LOCATIONS, 2), -2))),
    ]
    for match, arguments in cases:
        with pytest.raises(InputError, match=match):
            fit_gaussian_field(*arguments)
    for vector in (vectors[0, 1:], vectors[0, :, 1:]):
        with pytest.raises(InputError, match="vectors"):
            mahalanobis(field, vector)


def test_refuses_impossible_settings() -> None:
    vectors, present = healthy()
    wrong: Any = "ledoitwolf"
    with pytest.raises(SettingsError, match="Did you mean 'ledoit_wolf'"):
        fit_gaussian_field(vectors, present, wrong)
    for share in (-0.1, 1.1, np.nan):
        with pytest.raises(SettingsError, match="shrinkage"):
            fit_gaussian_field(vectors, present, share)
    for floor in (-0.1, np.nan, np.inf):
        with pytest.raises(SettingsError, match="floor"):
            fit_gaussian_field(vectors, present, floor=floor)
