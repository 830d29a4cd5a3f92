"""Metrics over subjects against scikit-learn and against counting every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from atypia.errors import InputError, SettingsError
from atypia.evaluation import (
    auroc,
    average_precision,
    bootstrap_interval,
    dice,
    fnr_at_tnr,
    fpr_at_tpr,
)

# Few distinct values, so that ties are common.
group = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=25)
masks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


def joined(healthy: list[float], abnormal: list[float]) -> tuple[list[int], list[float]]:
    return [0] * len(healthy) + [1] * len(abnormal), healthy + abnormal


@given(group, group)
def test_ranking_agrees_with_sklearn(healthy: list[float], abnormal: list[float]) -> None:
    labels, scores = joined(healthy, abnormal)
    assert auroc(healthy, abnormal) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(healthy, abnormal) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )


@given(group, group)
def test_auroc_counts_pairs(healthy: list[float], abnormal: list[float]) -> None:
    wins = [(a > h) + 0.5 * (a == h) for a in abnormal for h in healthy]
    assert auroc(healthy, abnormal) == pytest.approx(np.mean(wins), abs=1e-12)


@given(group, group, st.integers(0, 20).map(lambda n: n / 20))
def test_fpr_is_the_lowest_on_the_roc_curve(
    healthy: list[float], abnormal: list[float], tpr: float
) -> None:
    labels, scores = joined(healthy, abnormal)
    fprs, tprs, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = fprs[tprs >= tpr - 1e-9].min()
    assert fpr_at_tpr(healthy, abnormal, tpr) == pytest.approx(expected, abs=1e-12)


def test_fpr_of_a_share_that_floats_cannot_say() -> None:
    abnormal = [0.0] + [2.0] * 19
    assert fpr_at_tpr([1.0], abnormal, 0.95) == 0.0
    assert fpr_at_tpr([1.0], abnormal, 0.96) == 1.0


@given(masks)
def test_dice_counts_the_overlap(voxels: list[tuple[bool, bool]]) -> None:
    both = sum(a and b for a, b in voxels)
    size = sum(a + b for a, b in voxels)
    left, right = zip(*voxels, strict=True)
    assert dice(left, right) == (2 * both / size if size else 1.0)


def test_dice_of_empty_masks_is_one_and_of_one_empty_mask_zero() -> None:
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), np.uint8)
    assert dice(empty, empty) == 1.0
    assert dice(empty, full) == dice(full, empty) == 0.0
    with pytest.raises(InputError, match="shape"):
        dice(empty, full[0])


@pytest.mark.parametrize(("healthy", "abnormal"), [([], [1.0]), ([1.0], []), ([], [])])
def test_an_empty_group_gives_none(healthy: list[float], abnormal: list[float]) -> None:
    assert auroc(healthy, abnormal) is None
    assert average_precision(healthy, abnormal) is None
    assert fpr_at_tpr(healthy, abnormal, 0.95) is None
    assert bootstrap_interval(healthy, abnormal, statistic=auroc, seed=0) is None


def test_interval_is_repeatable_holds_the_mean_and_narrows() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 100)
    wide = bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, seed=1, level=0.5)
    assert wide is not None
    assert narrow is not None
    assert wide == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    # The normal approximation of the same interval.
    half = 1.96 * values.std(ddof=1) / 10
    assert wide == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_interval_of_a_statistic_of_two_groups() -> None:
    rng = np.random.default_rng(0)
    healthy, abnormal = rng.normal(0, 1, 30), rng.normal(1, 1, 20)
    interval = bootstrap_interval(healthy, abnormal, statistic=auroc, seed=0, resamples=500)
    value = auroc(healthy, abnormal)
    assert interval is not None
    assert value is not None
    assert 0.5 < interval[0] < value < interval[1] < 1.0


def test_interval_is_none_where_it_would_mean_nothing() -> None:
    assert bootstrap_interval([1.0], seed=0) is None
    assert bootstrap_interval([1.0, 2.0], seed=0, statistic=lambda values: None) is None


def test_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="scores of abnormal: hold NaN"):
        auroc([1.0], [np.nan])
    with pytest.raises(SettingsError, match="between 0 and 1"):
        fpr_at_tpr([1.0], [1.0], 1.1)
    with pytest.raises(SettingsError, match="level"):
        bootstrap_interval([1.0, 2.0], seed=0, level=95)
    with pytest.raises(SettingsError, match="does not fit"):
        bootstrap_interval([1.0, 2.0], [1.0, 2.0], seed=0)


def test_share_missed_when_healthy_subjects_must_pass() -> None:
    healthy, abnormal = [1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 4.0, 4.5, 6.0]
    # Four of five healthy ones pass at or below 4: two of the abnormal ones pass too.
    assert fnr_at_tnr(healthy, abnormal, 0.8) == 0.5
    assert fnr_at_tnr(healthy, abnormal, 1.0) == 0.75
    assert fnr_at_tnr(healthy, abnormal, 0.0) == 0.0
    assert fnr_at_tnr([], abnormal, 0.8) is None
