"""Nearest neighbours against all distances in float64, with ties, far clouds and lonely places."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.errors import InputError, SettingsError
from atypia.scoring import neighbours
from atypia.scoring.neighbours import density_weights, nearest, nearest_near
from atypia.volume import Array


def literal_nearest(query: Array, bank: Array, k: int) -> tuple[Array, Array]:
    """One query against the whole bank."""
    distance = np.sqrt(((bank.astype(np.float64) - query.astype(np.float64)) ** 2).sum(axis=1))
    order = np.argsort(distance, kind="stable")[:k]
    return distance[order], order


def literal_near(
    query: Array, place: Array, bank: Array, places: Array, radius: float, k: int
) -> tuple[Array, Array]:
    """One query against what is near its place, or against the nearest places."""
    apart = ((places - place) ** 2).sum(axis=1)
    counted = np.flatnonzero(apart <= radius**2)
    if len(counted) < k:
        counted = np.sort(np.argsort(apart, kind="stable")[:k])
    distance, order = literal_nearest(query, bank[counted], k)
    return distance, counted[order]


def compare(found: tuple[Array, Array], expected: list[tuple[Array, Array]]) -> None:
    distances, indices = (np.stack(part) for part in zip(*expected, strict=True))
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], distances, rtol=1e-12)
    assert found[0].dtype == np.float64
    assert found[1].dtype == np.int64


def clouds(kind: str, queries: int = 150, bank: int = 400, wide: int = 16) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    both = rng.standard_normal((queries + bank, wide))
    if kind == "far":  # from the origin: products of such vectors leave no digits in float32
        both += 5000
    elif kind == "two_far":  # from the mean, which is in the middle: centring does not help
        both += np.where(rng.random((queries + bank, 1)) < 0.5, 3000, -3000)
    elif kind == "whole":  # numbers, hence many equal distances
        both = rng.integers(0, 2, both.shape)
        both[:, 4:] = 0
    elif kind == "same":
        both[:, :] = 1
    both = both.astype(np.float32)
    return both[:queries], both[queries:]


KINDS = ["normal", "far", "two_far", "whole", "same"]


@pytest.mark.parametrize("k", [1, 3, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_that_of_all_distances(kind: str, k: int) -> None:
    queries, bank = clouds(kind)
    compare(nearest(queries, bank, k), [literal_nearest(query, bank, k) for query in queries])


def test_vectors_find_themselves_at_no_distance() -> None:
    _, bank = clouds("far")
    distances, indices = nearest(bank, bank, 2)
    np.testing.assert_array_equal(indices[:, 0], np.arange(len(bank)))
    assert (distances[:, 0] == 0).all()
    assert (distances[:, 1] > 1).all()


def test_float32_alone_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shows that the test with two clouds would notice if rounding were not allowed for.
    queries, bank = clouds("two_far")
    monkeypatch.setattr(neighbours._Search, "_limit", lambda *_: np.full(len(queries), -np.inf))
    _, indices = nearest(queries, bank)
    expected = [literal_nearest(query, bank, 1)[1] for query in queries]
    assert (indices != np.stack(expected)).any()


def test_small_memory_gives_the_same_and_is_kept() -> None:
    queries, bank = clouds("normal", 3000, 2000)
    whole = nearest(queries, bank, 3)
    tracemalloc.start()
    try:
        parts = nearest(queries, bank, 3, megabytes=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(whole[1], parts[1])
    np.testing.assert_array_equal(whole[0], parts[0])
    # Memory of torch is not traced: how many parts there are shows that the products are small.
    assert peak < 2 * 2**20 + bank.nbytes * 3
    assert len(list(neighbours._search(queries, bank, 3, 1).chunks(np.arange(3000), 2000))) > 200


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("radius", [0.0, 3.0, 8.0, 30.0, 1e6, np.inf])
@pytest.mark.parametrize("kind", ["normal", "whole"])
def test_near_is_that_of_places_one_by_one(
    kind: str, radius: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "QUERIES_A_CELL", 4)
    queries, bank = clouds(kind)
    rng = np.random.default_rng(4)
    # On a grid: many places are the same, at one distance, or just at the radius.
    places = rng.integers(-8, 9, (len(queries), 3)) * 4.0 + 100
    bank_places = rng.integers(-8, 9, (len(bank), 3)) * 4.0 + 100
    found = nearest_near(queries, places, bank, bank_places, radius, k)
    compare(
        found,
        [
            literal_near(query, place, bank, bank_places, radius, k)
            for query, place in zip(queries, places, strict=True)
        ],
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 30), st.integers(1, 30), st.data())
def test_near_holds_for_any_places(seed: int, count: int, stored: int, data: Any) -> None:
    rng = np.random.default_rng(seed)
    queries, bank = (rng.standard_normal((n, 3)).astype(np.float32) for n in (count, stored))
    flat = data.draw(st.sampled_from([(1, 1, 1), (1, 1, 0), (0, 0, 0)]))
    places, bank_places = (rng.uniform(-50, 50, (n, 3)) * flat for n in (count, stored))
    radius = data.draw(st.floats(0, 120))
    k = data.draw(st.integers(1, stored))
    found = nearest_near(queries, places, bank, bank_places, radius, k, megabytes=1)
    compare(
        found,
        [
            literal_near(query, place, bank, bank_places, radius, k)
            for query, place in zip(queries, places, strict=True)
        ],
    )


def test_a_lonely_query_takes_the_nearest_places_whatever_their_vectors() -> None:
    bank = np.array([[0.0], [5.0], [9.0]], np.float32)
    bank_places = np.array([[100, 0, 0], [30, 0, 0], [20, 0, 0]])
    query, place = np.array([[0.0]], np.float32), np.zeros((1, 3))
    distances, indices = nearest_near(query, place, bank, bank_places, 10, k=2)
    assert indices.tolist() == [[1, 2]]
    assert distances.tolist() == [[5, 9]]


def test_no_queries_give_no_neighbours() -> None:
    _, bank = clouds("normal")
    none, nowhere = np.empty((0, 16), np.float32), np.empty((0, 3))
    assert nearest(none, bank, 2)[0].shape == (0, 2)
    assert nearest_near(none, nowhere, bank, np.zeros((400, 3)), 5, 2)[1].shape == (0, 2)


def literal_weight(query: Array, bank: Array, index: int, b: int) -> float:
    """Equation 7 as it stands."""
    _, around = literal_nearest(bank[index], bank, b)
    exponentials = [np.exp(np.linalg.norm(query.astype(float) - bank[m])) for m in around]
    return float(1 - np.exp(np.linalg.norm(query.astype(float) - bank[index])) / sum(exponentials))


@pytest.mark.parametrize("b", [2, 9, 1000])
def test_weights_are_those_of_the_equation(b: int) -> None:
    queries, bank = clouds("normal")
    _, indices = nearest(queries, bank)
    found = density_weights(queries, indices[:, 0], bank, b)
    expected = [literal_weight(q, bank, i, b) for q, i in zip(queries, indices[:, 0], strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_array_equal(
        density_weights(queries, indices[:, 0], bank, b, megabytes=1), found
    )


def test_weights_stay_finite_far_away() -> None:
    queries, bank = clouds("normal")
    queries, bank = queries * 1e4, bank * 1e4  # exp of such distances and differences overflows
    _, indices = nearest(queries, bank)
    weights = density_weights(queries, indices[:, 0], bank)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert weights.max() > 0.9
    # Nearest near a place, not of all: others of the neighbourhood may lie nearer to the query.
    weights = density_weights(queries, np.zeros(len(queries), dtype=np.int64), bank)
    assert ((weights >= 0) & (weights <= 1)).all()


def test_weight_is_high_in_a_sparse_place() -> None:
    crowd = np.random.default_rng(0).normal(0, 0.01, (50, 4))
    bank = np.concatenate([crowd, [[10, 0, 0, 0]]]).astype(np.float32)
    queries = np.array([[1, 0, 0, 0], [11, 0, 0, 0]], np.float32)
    _, indices = nearest(queries, bank)
    dense, sparse = density_weights(queries, indices[:, 0], bank, 9)
    assert dense == pytest.approx(1 - 1 / 9, abs=0.01)
    assert sparse > 0.999


def test_refuses_what_does_not_fit() -> None:
    queries, bank = clouds("normal")
    places, bank_places = np.zeros((150, 3)), np.zeros((400, 3))
    with pytest.raises(InputError, match="queries: of shape"):
        nearest(queries[:, :3], bank)
    for k in (0, 401):
        with pytest.raises(SettingsError, match=f"k {k}"):
            nearest(queries, bank, k)
    with pytest.raises(InputError, match="query_places"):
        nearest_near(queries, places[:, :2], bank, bank_places, 5)
    with pytest.raises(InputError, match="bank_places"):
        nearest_near(queries, places, bank, bank_places[:-1], 5)
    with pytest.raises(InputError, match="bank_places"):
        nearest_near(queries, places, bank, bank_places + np.nan, 5)
    for radius in (-1.0, np.nan):
        with pytest.raises(SettingsError, match="radius_mm"):
            nearest_near(queries, places, bank, bank_places, radius)
    with pytest.raises(SettingsError, match="1 neighbours"):
        density_weights(queries, np.zeros(150, dtype=np.int64), bank, b=1)
    with pytest.raises(SettingsError, match="bank of 1"):
        density_weights(queries, np.zeros(150, dtype=np.int64), bank[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_refuses_numbers_that_cannot_be_compared(value: float) -> None:
    queries, bank = clouds("normal")
    for name, array in (("queries", queries), ("bank", bank)):
        kept = array[2, 2]
        array[2, 2] = value
        with pytest.raises(InputError, match=f"{name}: hold NaN"):
            nearest(queries, bank)
        array[2, 2] = kept
