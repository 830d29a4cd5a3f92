"""Thresholds against closed forms, binomial counts and textbook formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from atypia.errors import InputError, SettingsError
from atypia.scoring.thresholds import (
    HEALTHY_METHODS,
    HISTOGRAM_METHODS,
    threshold_by_histogram,
    threshold_from_healthy,
    threshold_sweep,
)

LEVELS = 256
NORMAL = 5 + 2 * special.ndtri((np.arange(200_001) + 0.5) / 200_001)
"""Quantiles of a normal distribution: no sampling error."""


@pytest.mark.parametrize(
    ("method", "options", "deviations"),
    [
        ("percentile", {}, special.ndtri(0.95)),
        ("percentile", {"percentile": 30.0}, special.ndtri(0.3)),
        ("sigma", {}, 3.0),
        ("sigma", {"k": 0.5}, 0.5),
        ("mad", {}, 3.0),
        ("mad", {"k": 2.0}, 2.0),
        ("iqr", {}, 4 * special.ndtri(0.75)),
        ("contamination", {"rate": 0.01}, special.ndtri(0.99)),
        ("conformal", {}, special.ndtri(0.95)),
        ("conformal", {"alpha": 0.2}, special.ndtri(0.8)),
    ],
)
def test_methods_on_a_normal_distribution(
    method: str, options: dict[str, float], deviations: float
) -> None:
    found = threshold_from_healthy(NORMAL.reshape(3, -1), method, **options)  # type: ignore[arg-type]
    assert found == pytest.approx(5 + 2 * deviations, abs=2e-3)


def test_sigma_takes_the_population_deviation_and_mad_the_median() -> None:
    assert threshold_from_healthy([0, 4], "sigma", k=1) == 4.0
    assert threshold_from_healthy([0, 1, 1, 2, 100], "mad", k=1) == pytest.approx(1 + 1.4826)
    assert threshold_from_healthy([0, 1, 2, 3, 4], "iqr") == 6.0


def literal_conformal(scores: list[float], alpha: float) -> float:
    n = len(scores)
    at_or_below = [(s, sum(other <= s for other in scores)) for s in sorted(scores)]
    enough = [s for s, count in at_or_below if count / n >= (1 - alpha) * (n + 1) / n - 1e-12]
    return enough[0] if enough else math.inf


@pytest.mark.parametrize("n", [1, 5, 18, 19, 20, 38, 39, 40, 77])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5])
def test_conformal_is_the_corrected_quantile(n: int, alpha: float) -> None:
    scores = np.random.default_rng(n).integers(0, 30, n).astype(float).tolist()
    assert threshold_from_healthy(scores, "conformal", alpha=alpha) == literal_conformal(
        scores, alpha
    )


def test_conformal_counts_exactly() -> None:
    assert (1 - 0.18) * 150 > 123
    assert threshold_from_healthy(np.arange(1, 150), "conformal", alpha=0.18) == 123


def test_conformal_is_infinite_without_enough_scores() -> None:
    assert threshold_from_healthy(np.arange(18), "conformal") == math.inf
    assert threshold_from_healthy(np.arange(19), "conformal") == 18.0


@pytest.mark.parametrize("n", [19, 99])
def test_conformal_keeps_its_rate_on_held_out_healthy_scores(n: int) -> None:
    # For these n the rate is exactly 5 %, so that too high a threshold fails as well.
    rng = np.random.default_rng(0)
    draws = np.exp(rng.standard_normal((4000, n + 1)))
    low, high = stats.binom.interval(0.999, len(draws), 0.05)
    flagged = {
        method: sum(row[-1] > threshold_from_healthy(row[:-1], method) for row in draws)
        for method in ("conformal", "percentile")
    }
    assert low <= flagged["conformal"] <= high
    if n == 19:
        # The plain percentile of few scores breaks its promise; the interval can tell.
        assert flagged["percentile"] > high


@pytest.mark.parametrize("method", HEALTHY_METHODS)
@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [1.0, np.inf], [-np.inf]])
def test_unusable_healthy_scores_are_refused(method: str, bad: list[float]) -> None:
    with pytest.raises(InputError, match="healthy scores"):
        threshold_from_healthy(bad, method, rate=0.1)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("percentil", {}, "Did you mean 'percentile'"),
        ("percentile", {"percentile": 101.0}, "between 0 and 100"),
        ("contamination", {}, "rate: is missing"),
        ("contamination", {"rate": 0.0}, "between 0 and 1"),
        ("conformal", {"alpha": 1.0}, "between 0 and 1"),
        ("sigma", {"k": -1.0}, "zero or more"),
        ("mad", {"k": math.nan}, "zero or more"),
    ],
)
def test_wrong_settings_are_refused(method: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        threshold_from_healthy([1.0, 2.0], method, **options)  # type: ignore[arg-type]


# --- Thresholds by the histogram. The oracles take counts and give the last bin of the lower part.


def literal_otsu(counts: np.ndarray) -> int:
    level = np.arange(LEVELS, dtype=np.float64)
    between = []
    for last in range(LEVELS - 1):
        lower, upper = counts[: last + 1], counts[last + 1 :]
        w0, w1 = lower.sum() / counts.sum(), upper.sum() / counts.sum()
        mean0 = (lower * level[: last + 1]).sum() / lower.sum()
        mean1 = (upper * level[last + 1 :]).sum() / upper.sum()
        between.append(w0 * w1 * (mean0 - mean1) ** 2)
    return int(np.argmax(between))


def literal_yen(counts: np.ndarray) -> int:
    share = counts / counts.sum()
    criterion = []
    for last in range(LEVELS - 1):
        lower, upper = share[: last + 1], share[last + 1 :]
        apart = -math.log((lower**2).sum() * (upper**2).sum())
        criterion.append(apart + 2 * math.log(lower.sum() * upper.sum()))
    return int(np.argmax(criterion))


def literal_triangle(counts: np.ndarray) -> int:
    peak, low, high = int(counts.argmax()), 0, LEVELS - 1
    end = low if peak - low >= high - peak else high
    between = range(min(peak, end), max(peak, end) + 1)
    corner, along = np.array([end, 0.0]), np.array([peak - end, counts[peak]])
    distances = []
    for level in between:
        point = np.array([level, counts[level]]) - corner
        below = point[1] * abs(along[0]) - abs(point[0]) * along[1]
        distances.append(-below / np.hypot(*along))
    return between[int(np.argmax(distances))]


def cross_entropies(counts: np.ndarray) -> np.ndarray:
    """Give the cross-entropy by the last bin of the lower part, up to a constant."""
    level = np.arange(LEVELS, dtype=np.float64)
    # The mean of the lowest level alone is zero, whose logarithm is not there.
    entropy = [math.inf]
    for last in range(1, LEVELS - 1):
        parts = 0.0
        for part in (slice(0, last + 1), slice(last + 1, LEVELS)):
            weight = (counts[part] * level[part]).sum()
            parts -= weight * math.log(weight / counts[part].sum())
        entropy.append(parts)
    return np.array(entropy)


def literal_li(counts: np.ndarray) -> int:
    return int(cross_entropies(counts).argmin())


def random_counts(seed: int) -> np.ndarray:
    """Two peaks of random places, widths and heights, with counting noise."""
    rng = np.random.default_rng(seed)
    level = np.arange(LEVELS)
    centres = rng.uniform((20, 130), (110, 235))
    widths, heights = rng.uniform(6, 25, 2), rng.uniform(50, 1000, 2)
    peaks = heights[:, None] * np.exp(-0.5 * ((level - centres[:, None]) / widths[:, None]) ** 2)
    # No bin is empty, so that the range of the scores is that of the bins.
    return np.asarray(1 + rng.poisson(peaks.sum(axis=0)))


def found_bin(counts: np.ndarray, method: str, seed: int) -> int:
    # Scores of any unit and offset; level k falls into bin k of 256.
    scale, offset = 10.0 ** (seed % 7 - 3), 3.0 * (seed % 5 - 2)
    scores = offset + scale * np.repeat(np.arange(LEVELS, dtype=np.float64), counts)
    found = threshold_by_histogram(scores, method)
    return int((found - scores.min()) / np.ptp(scores) * LEVELS)


@pytest.mark.parametrize(
    ("method", "literal"),
    [
        ("otsu", literal_otsu),
        ("yen", literal_yen),
        ("triangle", literal_triangle),
    ],
)
def test_histogram_methods_are_the_published_ones_to_one_bin(method: str, literal: object) -> None:
    for seed in range(200):
        counts = random_counts(seed)
        expected = literal(counts)  # type: ignore[operator]
        assert abs(found_bin(counts, method, seed) - expected) <= 1, seed


def test_li_minimises_the_cross_entropy() -> None:
    bins = []
    for seed in range(200):
        counts = random_counts(seed)
        found = found_bin(counts, "li", seed)
        entropy = cross_entropies(counts)
        best, worst = entropy.min(), entropy[1:].max()
        assert min(entropy[found - 1 : found + 2]) - best <= 1e-3 * (worst - best), seed
        bins.append(abs(found - int(entropy.argmin())))
    # The iteration may stop at a bump of the noise that is nearly as low as the lowest place.
    assert np.mean(np.array(bins) <= 1) >= 0.99


def test_the_oracles_differ_from_each_other() -> None:
    # Otherwise the test above could not tell one method from another.
    found = {
        oracle: [oracle(random_counts(seed)) for seed in range(20)]
        for oracle in (literal_otsu, literal_yen, literal_triangle, literal_li)
    }
    rows = list(found.values())
    for i, row in enumerate(rows):
        for other in rows[:i]:
            assert np.abs(np.subtract(row, other)).max() > 3


@pytest.mark.parametrize("method", HISTOGRAM_METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_a_map_of_any_type_is_split_between_its_two_peaks(method: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    score = rng.normal(100, 10, (20, 20, 3))  # a last axis of three is no colour
    score[:5] = rng.normal(600, 10, (5, 20, 3))
    kept = score.astype(dtype)
    before = kept.copy()
    assert 100 <= threshold_by_histogram(kept, method) <= 600
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize("method", HISTOGRAM_METHODS)
@pytest.mark.parametrize("value", [0.0, -7.25, 1e30])
def test_nothing_lies_above_the_threshold_of_a_flat_map(method: str, value: float) -> None:
    score = np.full((4, 4, 4), value, np.float32)
    assert not (score > threshold_by_histogram(score, method)).any()


@pytest.mark.parametrize("method", HISTOGRAM_METHODS)
def test_unusable_maps_and_settings_are_refused(method: str) -> None:
    for bad in (np.zeros((0, 3)), np.array([1.0, np.nan]), np.array([0, np.inf]), np.array(["a"])):
        with pytest.raises(InputError, match="score map"):
            threshold_by_histogram(bad, method)
    with pytest.raises(SettingsError, match="bins"):
        threshold_by_histogram([1.0, 2.0], method, bins=1)
    with pytest.raises(SettingsError, match="Known: li, otsu, triangle, yen"):
        threshold_by_histogram([1.0, 2.0], "kmeans")


# --- Sweep


def literal_components(above: np.ndarray) -> list[int]:
    """Sizes of the components, by walking from voxel to voxel."""
    left = {tuple(int(i) for i in voxel) for voxel in np.argwhere(above)}
    sizes = []
    while left:
        reached = [left.pop()]
        for x, y, z in reached:
            steps = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
            for dx, dy, dz in steps:
                beside = (x + dx, y + dy, z + dz)
                if beside in left:
                    left.remove(beside)
                    reached.append(beside)
        sizes.append(len(reached))
    return sizes


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_counts_what_lies_above_each_threshold(seed: int) -> None:
    # Integer scores, some of them equal to a threshold.
    score = np.random.default_rng(seed).integers(0, 11, (7, 6, 8)).astype(np.float32)
    sweep = threshold_sweep(score, 0, 10, count=11)
    np.testing.assert_array_equal(sweep.thresholds, np.arange(11))
    for i, threshold in enumerate(range(11)):
        above = score > threshold
        sizes = literal_components(above)
        assert sweep.volumes[i] == above.sum() == sum(sizes)
        assert sweep.components[i] == len(sizes)
        assert sweep.largest_component[i] == max(sizes, default=0)
        assert sweep.coverage[i] == above.sum() / score.size
        expected = (score[above].mean(), score[above].std()) if sizes else (np.nan, np.nan)
        found = (sweep.mean_score[i], sweep.std_score[i])
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_sweep_has_fifty_thresholds_and_refuses_misuse() -> None:
    score = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    sweep = threshold_sweep(score, 0, 30)
    assert sweep.thresholds.shape == (50,)
    assert (np.diff(sweep.volumes) <= 0).all()
    for low, high in ((1, 1), (2, 1), (0, math.inf), (math.nan, 1)):
        with pytest.raises(SettingsError, match="no range"):
            threshold_sweep(score, low, high)
    with pytest.raises(SettingsError, match="count"):
        threshold_sweep(score, 0, 1, count=1)
    with pytest.raises(InputError, match="NaN"):
        threshold_sweep(np.full((2, 2, 2), np.nan), 0, 1)
