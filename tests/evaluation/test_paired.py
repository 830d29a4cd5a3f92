"""Paired comparisons against scipy, and how often they cry wolf."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats

from atypia.errors import AtypiaError, InputError
from atypia.evaluation.bca import bca_interval
from atypia.evaluation.paired import (
    compare,
    compare_methods,
    holm,
    sign_flip_p,
    wilcoxon_p,
)


def sample(count: int, shift: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=count)
    return base + shift + 0.5 * rng.normal(size=count), base


@pytest.mark.parametrize("count", [3, 7, 12, 40])
def test_wilcoxon_is_scipys(count: int) -> None:
    first, second = sample(count)
    assert compare(first, second).wilcoxon_p == stats.wilcoxon(first, second).pvalue


def test_wilcoxon_drops_zeros_and_bears_ties() -> None:
    assert wilcoxon_p([0.0, 0.0]) == 1
    with_zeros = [0.0, 1.0, 2.0, 3.5, -0.5, 0.0]
    assert wilcoxon_p(with_zeros) == stats.wilcoxon([1.0, 2.0, 3.5, -0.5]).pvalue
    assert 0 < wilcoxon_p([1.0, 1.0, -1.0, 2.0, 2.0]) <= 1


@pytest.mark.parametrize("count", [2, 6, 10])
def test_all_flips_are_scipys_permutations(count: int) -> None:
    first, second = sample(count)
    found, exact = sign_flip_p(first - second)
    expected = stats.permutation_test(
        (first - second,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert exact
    assert found == pytest.approx(expected, abs=1e-12)


def test_flips_are_counted_by_hand() -> None:
    given = np.array([0.1, 0.2, 0.3, -0.3, 0.0])
    sums = [abs(np.dot(s, given[:4])) for s in product((1, -1), repeat=4)]
    # 0.1 + 0.2 is not 0.3 in floats: equal sums must count as equal.
    expected = np.mean([s >= 0.3 - 1e-9 for s in sums])
    assert sign_flip_p(given) == (expected, True)
    assert sign_flip_p(np.zeros(4)) == (1.0, True)
    assert sign_flip_p([2.0]) == (1.0, True)


def test_exact_up_to_twelve_and_random_beyond() -> None:
    first, second = sample(13, 0.3)
    given = first - second
    assert sign_flip_p(given[:12])[1]
    assert sign_flip_p(np.append(given[:12], 0.0))[1]
    found, exact = sign_flip_p(given, seed=1)
    signs = np.array(list(product((1.0, -1.0), repeat=13)))
    truth = np.mean(np.abs(signs @ given) >= abs(given.sum()) - 1e-12)
    assert not exact
    assert found == pytest.approx(truth, abs=4 * np.sqrt(truth * (1 - truth) / 9999))
    assert found == sign_flip_p(given, seed=1)[0] != sign_flip_p(given, seed=2)[0]
    # The observed signs count too: never zero.
    assert sign_flip_p(np.full(60, 1.0))[0] == 1 / 10_000


def test_the_figures_of_one_comparison() -> None:
    first, second = sample(20)
    found = compare(first, second)
    assert (found.pairs, found.interval_by) == (20, "bca")
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.interval == pytest.approx(bca_interval(first - second, seed=0), abs=1e-6)
    other = compare(second, first)
    assert other.difference == -found.difference
    assert other.permutation_p == found.permutation_p
    assert compare(first[:3], second[:3]).interval_by == "percentile"
    alone = compare([1.0], [2.0])
    assert (alone.interval, alone.interval_by, alone.wilcoxon_p) == (None, None, 1)
    same = compare(first, first)
    assert (same.difference, same.wilcoxon_p, same.permutation_p) == (0, 1, 1)
    # Rounding is no difference.
    assert compare([0.1 + 0.2, 0.5], [0.3, 0.5]).difference == 0


def test_false_alarms_keep_the_level() -> None:
    rng = np.random.default_rng(0)
    draws = 400
    alarms = sum(sign_flip_p(rng.standard_t(3, 9))[0] <= 0.05 for _ in range(draws))
    low, high = stats.binom.interval(0.999, draws, 0.05)
    assert low <= alarms <= high


def literal_holm(p_values: list[float]) -> list[float]:
    """Smallest level at which the step-down procedure rejects each hypothesis."""
    levels = sorted({min(1.0, k * p) for p in p_values for k in range(1, len(p_values) + 1)} | {1})

    def rejected(level: float) -> set[int]:
        left, out = list(range(len(p_values))), set()
        while left:
            best = min(left, key=lambda i: p_values[i])
            if min(1.0, len(left) * p_values[best]) > level:
                break
            out.add(best)
            left.remove(best)
        return out

    return [next(v for v in levels if i in rejected(v)) for i in range(len(p_values))]


def test_holm() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    rng = np.random.default_rng(0)
    for count in range(1, 7):
        p_values = rng.uniform(0, 0.3, count).tolist()
        assert holm(p_values) == pytest.approx(literal_holm(p_values))


def test_methods_are_compared_on_the_scans_that_both_have() -> None:
    first, second = sample(8)
    scans = [f"s{i}" for i in range(8)]
    values = {
        "weak": dict(zip(reversed(scans), second[::-1].tolist(), strict=True)),
        "ours": dict(zip(scans, first.tolist(), strict=True)),
        "partial": dict(zip(scans[:6], second[:6].tolist(), strict=True)),
        "elsewhere": {"other": 1.0},
    }
    found = compare_methods(values, "ours")
    assert list(found) == ["weak", "partial"]
    plain = compare(first, second)
    assert found["weak"].permutation_p == plain.permutation_p
    assert found["partial"].pairs == 6
    corrected = holm([found[name].permutation_p for name in found])
    assert [one.permutation_p_holm for one in found.values()] == corrected
    assert [one.wilcoxon_p_holm for one in found.values()] == holm(
        [one.wilcoxon_p for one in found.values()]
    )
    json.dumps(found["weak"].to_json(), allow_nan=False)
    with pytest.raises(AtypiaError, match="nobody"):
        compare_methods(values, "nobody")


def test_scans_of_one_subject_are_averaged() -> None:
    values = {"a": {"s1": 1.0, "s2": 3.0, "s3": 5.0}, "b": {"s1": 0.0, "s2": 0.0, "s3": 1.0}}
    found = compare_methods(values, "a", {"s1": "x", "s2": "x", "s3": "y"})["b"]
    assert (found.pairs, found.difference) == (2, 3.0)


def test_misuse_is_refused() -> None:
    for first, second in (([1.0], [1.0, 2.0]), ([], [])):
        with pytest.raises(InputError, match="pairs"):
            compare(first, second)
    with pytest.raises(InputError, match="NaN"):
        compare([np.nan], [1.0])
