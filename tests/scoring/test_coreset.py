"""Greedy coresets against full distances in float64 for each pick, and what they must not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.errors import InputError, SettingsError
from atypia.scoring import coreset
from atypia.scoring.coreset import greedy_coreset
from atypia.volume import Array


def literal_coreset(vectors: Array, count: int, start: int) -> list[int]:
    """All distances to the last pick, for every pick."""
    vectors = vectors.astype(np.float64)
    picks = [start]
    nearest = np.full(len(vectors), np.inf)
    while len(picks) < count:
        nearest = np.minimum(nearest, ((vectors - vectors[picks[-1]]) ** 2).sum(axis=1))
        picks.append(int(nearest.argmax()))
    return picks


def cloud(kind: str, count: int = 3000, wide: int = 12) -> Array:
    rng = np.random.default_rng(3)
    normal = rng.standard_normal((count, wide))
    if kind == "far":  # from the origin: products of such vectors leave no digits in float32
        normal += 3000
    elif kind == "clusters":
        normal = 0.1 * normal + 5 * rng.standard_normal((20, wide))[rng.integers(20, size=count)]
    elif kind == "outlier":
        normal[7] = 1e5
    elif kind == "heavy":
        normal = rng.standard_cauchy((count, wide))
    return normal.astype(np.float32)


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make lists and blocks small, and note how many lists were made."""
    made: list[int] = []
    whole = coreset._short_list

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return whole(*arguments)

    monkeypatch.setattr(coreset, "_short_list", counted)
    monkeypatch.setattr(coreset, "LISTED", 64)
    monkeypatch.setattr(coreset, "ROWS", 700)
    monkeypatch.setattr(coreset, "CENTRES", 7)
    return made


@pytest.mark.parametrize("kind", ["normal", "far", "clusters", "outlier", "heavy"])
def test_picks_are_those_of_full_distances(kind: str, short_lists: list[int]) -> None:
    vectors = cloud(kind)
    found = greedy_coreset(vectors, 300, start=11)
    assert found.tolist() == literal_coreset(vectors, 300, 11)
    assert found.dtype == np.int64
    assert 2 < len(short_lists) < 150


def test_one_list_holds_few_vectors() -> None:
    vectors = cloud("normal", 500)
    assert greedy_coreset(vectors, 120, start=0).tolist() == literal_coreset(vectors, 120, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**20), st.data())
def test_picks_are_distinct_and_cover(count: int, wide: int, seed: int, data: Any) -> None:
    # Small whole numbers: many vectors are the same, and many distances.
    vectors = np.random.default_rng(seed).integers(0, 3, (count, wide)).astype(np.float32)
    wanted = data.draw(st.integers(1, count))
    picks = greedy_coreset(vectors, wanted, seed)
    assert len(set(picks.tolist())) == wanted
    distinct = len(np.unique(vectors, axis=0))
    assert len(np.unique(vectors[picks], axis=0)) == min(wanted, distinct)
    # Whatever the ties, a pick lies as far from those before it as any vector does.
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    for done in range(1, wanted):
        nearest = apart[:, picks[:done]].min(axis=1)
        assert nearest[picks[done]] >= nearest.max() - 1e-6


def test_more_same_vectors_than_a_list_holds(short_lists: list[int]) -> None:
    vectors = np.full((300, 3), 0.3, np.float32)
    vectors[:5] = cloud("normal", 5, 3)
    picks = greedy_coreset(vectors, 300).tolist()
    assert sorted(picks) == list(range(300))
    assert set(range(5)) < set(picks[:6])


def test_seed_decides_start_and_projection() -> None:
    vectors = cloud("normal", 400, 40)
    same = [greedy_coreset(vectors, 20, seed=5, projected=8) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    other = greedy_coreset(vectors, 20, seed=6, projected=8)
    assert other[0] != same[0][0]
    started = [greedy_coreset(vectors, 20, seed=s, projected=8, start=3) for s in (5, 6)]
    assert started[0][0] == started[1][0] == 3
    assert started[0].tolist() != started[1].tolist()


def test_projection_keeps_distances_nearly() -> None:
    vectors = cloud("clusters", 600, 300)
    points = coreset._points(vectors, 128, 0)
    assert points.rounded.shape == (600, 128)
    np.testing.assert_allclose(points.rounded.numpy(), points.exact(slice(None)), rtol=1e-6)
    pairs = np.random.default_rng(0).integers(600, size=(2, 2000))
    pairs = pairs[:, pairs[0] != pairs[1]]
    before = np.linalg.norm(vectors[pairs[0]] - vectors[pairs[1]], axis=1)
    after = np.linalg.norm(points.rounded[pairs[0]] - points.rounded[pairs[1]], axis=1)
    # The relative error has a standard deviation of 1 / sqrt(2 * 128) = 0.06.
    assert np.std(after / before) == pytest.approx(0.0625, rel=0.4)
    assert np.mean(after / before) == pytest.approx(1, abs=0.05)
    found = greedy_coreset(vectors, 40, start=0)
    assert found.tolist() == literal_coreset(points.exact(slice(None)), 40, 0)
    assert coreset._points(vectors, None, 0).rounded.shape == (600, 300)
    assert coreset._points(vectors, 300, 0).directions is None


def test_clusters_get_a_pick_each_before_any_gets_two() -> None:
    rng = np.random.default_rng(1)
    cluster = rng.integers(20, size=2500)
    vectors = rng.standard_normal((20, 300))[cluster] + 0.1 * rng.standard_normal((2500, 300))
    picks = greedy_coreset(vectors.astype(np.float32), 20)
    assert sorted(cluster[picks]) == list(range(20))


def test_progress_is_told_after_each_pick() -> None:
    heard: list[tuple[str, int, int]] = []
    greedy_coreset(cloud("normal", 50), 5, progress=lambda *told: heard.append(told[:3]))
    assert heard == [("coreset", done, 5) for done in range(1, 6)]


@pytest.mark.parametrize("count", [0, 51])
def test_refuses_impossible_counts(count: int) -> None:
    with pytest.raises(SettingsError, match=f"count {count}"):
        greedy_coreset(cloud("normal", 50), count)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_refuses_what_is_no_vector(value: float) -> None:
    vectors = cloud("normal", 50)
    with pytest.raises(InputError, match="vectors"):
        greedy_coreset(vectors[0], 1)
    with pytest.raises(InputError, match="vectors"):
        greedy_coreset(vectors[:0], 1)
    vectors[3, 2] = value
    with pytest.raises(InputError, match="NaN, infinite or huge"):
        greedy_coreset(vectors, 2)


def test_refuses_impossible_starts_and_projections() -> None:
    with pytest.raises(SettingsError, match="start 50"):
        greedy_coreset(cloud("normal", 50), 2, start=50)
    with pytest.raises(SettingsError, match="projected 0"):
        greedy_coreset(cloud("normal", 50), 2, projected=0)
