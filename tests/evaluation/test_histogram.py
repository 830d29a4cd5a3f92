"""ScoreHistogram against scikit-learn and against literal counting over every threshold."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from atypia.errors import AtypiaError, InputError, SettingsError
from atypia.evaluation import RankingResult, ScoreHistogram

# Eighths up to 125 have at most 10 bits of mantissa: equal ones share a bin, others do not.
few = st.integers(-1000, 1000).map(lambda value: value / 8)
any_float = st.one_of(few, st.floats(-(2.0**127), 2.0**127, width=32))


def pairs(elements: st.SearchStrategy[float]) -> st.SearchStrategy[list[tuple[float, bool]]]:
    return st.lists(st.tuples(elements, st.booleans()), min_size=1, max_size=60)


def split(data: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = zip(*data, strict=True)
    return np.array(scores, np.float32), np.array(labels, bool)


def histogram(scores: object, labels: object = None) -> ScoreHistogram:
    made = ScoreHistogram()
    made.update(scores, labels)  # type: ignore[arg-type]
    return made


def literal_counts(scores: np.ndarray, labels: np.ndarray, t: float) -> tuple[int, int, int, int]:
    flagged = scores > t
    tp, fp = int((flagged & labels).sum()), int((flagged & ~labels).sum())
    return tp, fp, int(labels.sum()) - tp, int((~labels).sum()) - fp


def literal_best_dice(scores: np.ndarray, labels: np.ndarray) -> float:
    flagged = [scores >= value for value in np.unique(scores)]
    return max(float(2 * (f & labels).sum() / (f.sum() + labels.sum())) for f in flagged)


def check_against_sklearn(scores: np.ndarray, labels: np.ndarray, tolerance: float) -> None:
    result = histogram(scores, labels).result()
    assert result.average_precision == pytest.approx(
        average_precision_score(labels, scores), abs=tolerance
    )
    assert result.auroc == pytest.approx(roc_auc_score(labels, scores), abs=tolerance)


@settings(max_examples=30)
@given(pairs(few))
def test_few_distinct_scores_agree_exactly(data: list[tuple[float, bool]]) -> None:
    scores, labels = split(data)
    if labels.all() or not labels.any():
        return
    check_against_sklearn(scores, labels, 1e-12)
    best = histogram(scores, labels).result().best_dice
    assert best == pytest.approx(literal_best_dice(scores, labels), abs=1e-12)


@pytest.mark.parametrize("tail", ["normal", "offset", "lognormal", "cauchy", "negative", "sparse"])
def test_continuous_scores_agree_to_a_thousandth(tail: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(40_000) < 0.02
    normal = rng.standard_normal(labels.size)
    scores = {
        "normal": normal + 1.5 * labels,
        "offset": normal + 1.5 * labels + 20,
        "lognormal": np.exp(3 * (normal + labels)),
        "cauchy": np.abs(rng.standard_cauchy(labels.size)) * (1 + 9 * labels),
        "negative": -np.exp(3 * (normal - labels)),
        "sparse": np.maximum(normal + 1.5 * labels - 1, 0),
    }[tail].astype(np.float32)
    check_against_sklearn(scores, labels, 1e-3)
    result = histogram(scores, labels).result()
    precision, recall, _ = precision_recall_curve(labels, scores)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert result.best_dice == pytest.approx(dice.max(), abs=1e-3)


@settings(max_examples=30)
@given(pairs(any_float))
def test_auroc_is_off_by_at_most_half_of_the_tied_pairs(data: list[tuple[float, bool]]) -> None:
    scores, labels = split(data)
    result = histogram(scores, labels).result()
    if result.auroc is not None:
        assert result.tied_pairs is not None
        error = abs(result.auroc - roc_auc_score(labels, scores))
        assert error <= result.tied_pairs / 2 + 1e-12


def test_scores_that_crowd_far_from_zero_are_told_by_the_tied_pairs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(5000) < 0.1
    crowded = histogram(1e5 + rng.standard_normal(5000), labels).result()
    spread = histogram(rng.standard_normal(5000), labels).result()
    assert crowded.tied_pairs is not None
    assert spread.tied_pairs is not None
    assert crowded.tied_pairs > 0.4
    assert spread.tied_pairs < 0.001


@settings(max_examples=30)
@given(pairs(any_float), st.integers(0, 60), st.randoms(use_true_random=False))
def test_merged_parts_in_any_order_are_one_update(
    data: list[tuple[float, bool]], cut: int, random: object
) -> None:
    whole = histogram(*split(data)).result()
    random.shuffle(data)  # type: ignore[attr-defined]
    parts = ScoreHistogram()
    for part in (data[:cut], data[cut:]):
        if part:
            parts.merge(histogram(*split(part)))
    assert parts.result() == whole


@settings(max_examples=30)
@given(pairs(any_float), st.floats(0, 1))
def test_its_own_thresholds_count_exactly(data: list[tuple[float, bool]], q: float) -> None:
    scores, labels = split(data)
    made = histogram(scores, labels)
    threshold = made.quantile(q, among="all")
    assert made.counts_at(threshold) == literal_counts(scores, labels, threshold)
    assert made.share_above(threshold, among="all") == np.mean(scores > threshold)
    assert np.mean(scores > threshold) <= 1 - q + 1e-9
    result = made.result()
    if result.best_dice_threshold is not None:
        tp, fp, fn, _ = literal_counts(scores, labels, result.best_dice_threshold)
        assert result.best_dice == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
        assert made.dice_at(result.best_dice_threshold) == pytest.approx(result.best_dice)


@settings(max_examples=30)
@given(pairs(any_float), st.floats(-1e38, 1e38))
def test_a_threshold_of_ones_own_counts_to_within_its_bin(
    data: list[tuple[float, bool]], threshold: float
) -> None:
    scores, labels = split(data)
    made = histogram(scores, labels)
    flagged = sum(made.counts_at(threshold)[:2])
    assert flagged <= np.sum(scores > threshold)
    assert flagged >= np.sum(scores > threshold + abs(threshold) / 2**11 + 1e-38)
    assert made.counts_at(np.inf)[:2] == (0, 0)
    assert sum(made.counts_at(-np.inf)[:2]) == scores.size


@settings(max_examples=30)
@given(
    hnp.arrays(np.float32, st.integers(1, 80), elements=st.floats(0.5, 64, width=32)),
    st.floats(0.01, 0.99),
)
def test_quantile_is_that_of_the_scores_to_within_a_bin(scores: np.ndarray, q: float) -> None:
    exact = float(np.quantile(scores, q, method="inverted_cdf"))
    found = histogram(scores).quantile(q)
    # At a step of the distribution, rounding decides between two neighbouring scores.
    lower = float(np.quantile(scores, q - 1e-6, method="inverted_cdf"))
    assert lower <= found <= exact * (1 + 2**-11)


@settings(max_examples=30)
@given(pairs(few))
def test_negative_zero_is_zero(data: list[tuple[float, bool]]) -> None:
    scores, labels = split(data)
    scores[::2] = 0.0
    signed = np.where(scores == 0, np.float32(-0.0), scores)
    assert histogram(signed, labels).result() == histogram(scores, labels).result()


def test_threshold_beside_zero_separates_zero_from_its_neighbours() -> None:
    tiny = np.float32(1e-30)
    made = histogram(np.array([-tiny, -0.0, 0.0, tiny], np.float32), [False, True, True, False])
    assert made.counts_at(0.0) == (0, 1, 2, 1)
    assert made.counts_at(-1e-45) == (2, 1, 0, 1)
    assert made.result().best_dice == pytest.approx(0.8)
    threshold = made.result().best_dice_threshold
    assert threshold is not None
    assert -1e-40 < threshold < 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.uint8])
def test_every_real_type_and_memory_order(dtype: type[np.number[Any]]) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((9, 10, 11)) < 0.3
    scores = (rng.integers(0, 40, labels.shape) + 20 * labels).astype(dtype)
    expected = histogram(scores.astype(np.float32), labels).result()
    assert histogram(scores, labels).result() == expected
    assert histogram(np.asfortranarray(scores), np.asfortranarray(labels)).result() == expected
    assert histogram(np.asfortranarray(scores), labels).result() == expected
    assert histogram(scores[::-1, ::-1], labels[::-1, ::-1].astype(np.uint8)).result() == expected


def test_more_voxels_than_one_piece() -> None:
    scores = np.zeros(200_000, np.float16)
    scores[-3:] = [1, 2, 3]
    labels = np.zeros(scores.size, bool)
    labels[-2:] = True
    result = histogram(scores, labels).result()
    assert result == RankingResult(
        1.0, 1.0, 1.0, result.best_dice_threshold, 2, 199_998, tied_pairs=0.0
    )


def test_inputs_are_left_alone() -> None:
    scores = np.array([-0.0, 2.0, -3.0], np.float32)
    kept = scores.tobytes()
    histogram(scores, [True, False, True])
    assert scores.tobytes() == kept


@pytest.mark.parametrize("labels", [[True, True], [False, False], None])
def test_one_class_alone_has_no_ranking(labels: list[bool] | None) -> None:
    result = histogram([1.0, 2.0], labels).result()
    assert (result.average_precision, result.auroc, result.best_dice) == (None, None, None)
    assert result.best_dice_threshold is None
    assert result.tied_pairs is None
    assert result.positives + result.negatives == 2
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["auroc"] is None


def test_nothing_at_all() -> None:
    empty = histogram(np.zeros((0, 3, 3), np.float32))
    assert empty.result() == RankingResult(None, None, None, None, 0, 0)
    assert empty.counts_at(0.0) == (0, 0, 0, 0)
    assert empty.dice_at(0.0) == 1.0
    for ask in (empty.quantile, empty.share_above):
        with pytest.raises(InputError, match="holds no negative voxel"):
            ask(0.5)


def test_calibration_counts_the_healthy_voxels_alone() -> None:
    made = histogram(np.arange(1, 101), np.arange(1, 101) > 90)
    threshold = made.quantile(0.9)
    assert 81 <= threshold < 81.1
    assert made.share_above(threshold) == 0.1
    assert made.share_above(threshold, among="all") == 0.19


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_unusable_scores_are_refused_and_nothing_is_added(bad: float) -> None:
    made = histogram([1.0, 2.0], [True, False])
    before = made.result()
    with pytest.raises(AtypiaError, match="NaN, infinite or huge"):
        made.update(np.array([3.0, bad]), [True, True])
    assert made.result() == before


def test_other_misuse_is_refused() -> None:
    made = ScoreHistogram()
    with pytest.raises(InputError, match="shape"):
        made.update(np.zeros(3), np.zeros(2, bool))
    with pytest.raises(InputError, match="not real numbers"):
        made.update(np.zeros(3, complex))
    with pytest.raises(SettingsError, match="between 0 and 1"):
        made.quantile(1.5)
    with pytest.raises(SettingsError, match="not a number"):
        made.counts_at(float("nan"))


@pytest.mark.parametrize("score", [-3.4e38, 3.4e38, -1e-45, 1e-45])
def test_extreme_scores_have_finite_thresholds(score: float) -> None:
    scores = np.array([score, score], np.float32)
    result = histogram(scores, [True, False]).result()
    assert result.best_dice_threshold is not None
    assert np.isfinite(result.best_dice_threshold)
    assert (scores > result.best_dice_threshold).all()
