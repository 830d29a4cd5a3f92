"""Ensembles: the same healthy share from every model, whatever its unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.errors import InputError, SettingsError
from atypia.scoring.ensemble import LEVELS, HealthyQuantiles, combine

HEALTHY = np.random.default_rng(0).gamma(2.0, size=50_000)
USUAL = HealthyQuantiles.learn(HEALTHY)
SCORES = np.random.default_rng(1).gamma(2.0, size=(6, 7, 8)).astype(np.float32)


def literal_rank(score: float, healthy: np.ndarray) -> float:
    low, high = healthy.min(), healthy.max()
    return float(np.mean(healthy <= score)) + max(0.0, score - high) / (high - low)


def test_ranks_are_shares_of_healthy_scores() -> None:
    scores = np.concatenate([HEALTHY[:200], [-1.0, 0.0, HEALTHY.max(), 40.0, 400.0]])
    expected = [literal_rank(score, HEALTHY) for score in scores]
    np.testing.assert_allclose(USUAL.ranks(scores), expected, atol=1e-3)
    # In the tail, where abnormal scores begin, they are finer.
    tail = np.sort(HEALTHY)[-400:]
    expected = [literal_rank(score, HEALTHY) for score in tail]
    error = np.abs(USUAL.ranks(tail) - expected)
    assert (error <= 0.05 * (1 - np.array(expected)) + 4e-5).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_order_is_kept(healthy: list[float], seed: int) -> None:
    usual = HealthyQuantiles.learn(np.array(healthy))
    scores = np.sort(np.random.default_rng(seed).uniform(-1e6, 3e6, 50))
    ranks = usual.ranks(scores)
    assert (np.diff(ranks) >= 0).all()
    beyond = scores > max(healthy)
    assert (np.diff(ranks[beyond]) > 0).all()
    assert (ranks[beyond] > 1).all()
    assert (ranks[scores < min(healthy)] == 0).all()
    assert ((ranks[~beyond] >= 0) & (ranks[~beyond] <= 1)).all()


def test_order_beyond_the_maximum_is_kept_in_float32() -> None:
    far = np.linspace(HEALTHY.max(), 5 * HEALTHY.max(), 10_000).reshape(10, 1000)
    found = combine([far], [USUAL])
    assert found.dtype == np.float32
    assert (np.diff(found.ravel()) > 0).all()


def test_a_models_unit_does_not_matter() -> None:
    other = HealthyQuantiles.learn(1000 * HEALTHY - 7)
    scores = np.concatenate([SCORES.ravel(), [50.0]]).astype(np.float64)
    np.testing.assert_allclose(other.ranks(1000 * scores - 7), USUAL.ranks(scores), atol=1e-9)


@pytest.mark.parametrize("how", ["mean", "max", "geometric", "voting"])
def test_ways_voxel_by_voxel(how: str) -> None:
    rng = np.random.default_rng(3)
    healthy = [rng.gamma(2, size=3000), rng.normal(50, 9, 2000), rng.random(1000) ** 4]
    usual = [HealthyQuantiles.learn(h) for h in healthy]
    maps = [SCORES, rng.normal(52, 12, SCORES.shape), rng.random(SCORES.shape) * 1.1]
    found = combine(maps, usual, how, rate=0.1)
    assert found.dtype == np.float32
    assert found.shape == SCORES.shape
    for voxel in np.ndindex(SCORES.shape):
        ranks = [float(u.ranks(m[voxel])) for m, u in zip(maps, usual, strict=True)]
        expected = {
            "mean": sum(ranks) / 3,
            "max": max(ranks),
            "geometric": (ranks[0] * ranks[1] * ranks[2]) ** (1 / 3),
            "voting": sum(
                float(m[voxel]) > np.quantile(h, 0.9) for m, h in zip(maps, healthy, strict=True)
            ) / 3,
        }[how]  # fmt: skip
        assert found[voxel] == pytest.approx(expected, rel=1e-6)


def test_each_model_votes_for_its_rate_of_healthy_voxels() -> None:
    rng = np.random.default_rng(4)
    usual = [USUAL, HealthyQuantiles.learn(rng.standard_cauchy(50_000))]
    maps = [rng.gamma(2, size=40_000), rng.standard_cauchy(40_000)]
    for rate in (0.5, 0.05, 0.001):
        votes = combine(maps, usual, "voting", rate)
        assert set(np.unique(votes)) <= {0.0, 0.5, 1.0}
        assert votes.mean() == pytest.approx(rate, rel=0.3)


def test_kept_quantiles_give_the_same_ranks() -> None:
    again = HealthyQuantiles(np.array(USUAL.quantiles.tolist()))
    np.testing.assert_array_equal(again.ranks(SCORES), USUAL.ranks(SCORES))
    with pytest.raises(ValueError, match="read-only"):
        again.quantiles[0] = 1


def test_healthy_scores_that_are_all_equal() -> None:
    usual = HealthyQuantiles.learn(np.full(5, 2.0))
    np.testing.assert_array_equal(usual.ranks([1.0, 2.0, 3.0]), [0.0, 1.0, 2.0])


def test_misuse_is_refused() -> None:
    for bad in (np.zeros((2, 2)), np.zeros(0), np.array([1.0, np.nan])):
        with pytest.raises(InputError, match="healthy scores"):
            HealthyQuantiles.learn(bad)
    for wrong in (np.zeros(3), -LEVELS, np.full(LEVELS.shape, np.inf)):
        with pytest.raises(InputError, match="ascending"):
            HealthyQuantiles(wrong)
    with pytest.raises(SettingsError, match="Did you mean 'voting'"):
        combine([SCORES], [USUAL], "votin")
    with pytest.raises(SettingsError, match="rate"):
        combine([SCORES], [USUAL], "voting", rate=0.0)
    with pytest.raises(InputError, match="2 maps and 1"):
        combine([SCORES, SCORES], [USUAL])
    with pytest.raises(InputError, match="0 maps"):
        combine([], [])
    for other in (SCORES[1:], np.where(SCORES > 1, np.nan, 0)):
        with pytest.raises(InputError, match="score map 1"):
            combine([SCORES, other], [USUAL, USUAL])
