"""Intervals over subjects: how they are made, scans of one subject together, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from atypia.evaluation import auroc, bootstrap_interval
from atypia.evaluation.bca import bca_interval
from atypia.evaluation.intervals import (
    auroc_over_subjects,
    figure_over_subjects,
    mean_over_subjects,
)


def own(count: int) -> list[str]:
    """Every scan is its own subject, their names out of order."""
    return [f"s{(7 * i) % count}" for i in range(count)]


def test_means_are_bca_from_five_subjects_on_and_percentiles_below() -> None:
    values = [1.0, 5.0, 2.0, 2.0, 30.0]
    found = mean_over_subjects(values, own(5))
    assert found["mean"] == np.mean(values)
    assert found["interval"] == pytest.approx(bca_interval(values, seed=0), abs=1e-12)
    assert found["interval_by"] == "bca"
    few = mean_over_subjects(values[:4], own(4))
    assert few["interval"] == pytest.approx(bootstrap_interval(values[:4], seed=0), abs=1e-12)
    assert few["interval_by"] == "percentile"


def test_large_cohorts_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 50, 40).astype(float).tolist()
    whole = mean_over_subjects(values, own(41)[:40])
    monkeypatch.setattr("atypia.evaluation.intervals._PIECE", 1000)
    assert mean_over_subjects(values, own(41)[:40]) == whole


def test_nothing_and_one_subject_have_no_interval() -> None:
    assert mean_over_subjects([], []) == {"mean": None, "interval": None}
    assert mean_over_subjects([None], ["a"]) == {"mean": None, "interval": None}
    # Two scans of one subject tell nothing about subjects.
    assert mean_over_subjects([1.0, 3.0, None], ["a", "a", "b"]) == {"mean": 2, "interval": None}


def test_scans_of_one_subject_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    subjects = rng.normal(size=12)
    once = mean_over_subjects(subjects.tolist(), [str(i) for i in range(12)])
    four = mean_over_subjects(
        np.repeat(subjects, 4).tolist(), [str(i) for i in range(12) for _ in range(4)]
    )
    assert four["interval"] == pytest.approx(once["interval"], abs=1e-3)
    apart = mean_over_subjects(np.repeat(subjects, 4).tolist(), [str(i) for i in range(48)])
    width = once["interval"][1] - once["interval"][0]
    assert apart["interval"][1] - apart["interval"][0] < 0.6 * width


def test_figures_of_sums() -> None:
    rows = [(4, 1), (2, 2), (0, 0), (5, 0), (1, 1), (3, 3)]
    found = figure_over_subjects(rows, own(6), lambda sums: float(sums[1] / sums[0]))
    assert found["mean"] == 7 / 15
    index = np.arange(6.0)
    table = np.array(rows)

    def ratio(chosen: np.ndarray) -> float:
        picked = table[chosen.astype(int)].sum(0)
        return float(picked[1] / picked[0])

    assert found["interval"] == pytest.approx(
        bca_interval(index, seed=0, statistic=ratio), abs=1e-12
    )
    # Only scans without any lesion may be drawn: then there is no share.
    rare = [(0, 0)] * 5 + [(1, 1)]
    none = figure_over_subjects(
        rare, own(6), lambda sums: float(sums[1] / sums[0]) if sums[0] else None
    )
    assert none == {"mean": 1.0, "interval": None}
    undefined = figure_over_subjects([(0, 0)] * 6, own(6), lambda sums: None)
    assert undefined == {"mean": None, "interval": None}


def test_auroc_is_that_of_the_scans() -> None:
    rng = np.random.default_rng(0)
    healthy, abnormal = rng.normal(size=9).tolist(), rng.normal(1, 1, 7).tolist()
    found = auroc_over_subjects(healthy, abnormal, own(9), [f"a{i}" for i in range(7)])
    assert found["mean"] == auroc(healthy, abnormal)
    assert found["interval"] == bca_interval(healthy, abnormal, seed=0, statistic=auroc)
    assert found["interval_by"] == "bca"
    few = auroc_over_subjects(healthy[:4], abnormal, own(5)[:4], own(8)[:7])
    assert few["interval"] == bootstrap_interval(healthy[:4], abnormal, seed=0, statistic=auroc)
    assert few["interval_by"] == "percentile"
    assert auroc_over_subjects([], abnormal, [], own(8)[:7]) == {"mean": None, "interval": None}


def test_auroc_draws_scans_of_one_subject_together() -> None:
    rng = np.random.default_rng(2)
    healthy, abnormal = rng.normal(size=8), rng.normal(1, 1, 8)
    names = [str(i) for i in range(8)]
    once = auroc_over_subjects(healthy.tolist(), abnormal.tolist(), names, names)
    twice = auroc_over_subjects(
        np.repeat(healthy, 2).tolist(), abnormal.tolist(), sorted(names * 2), names
    )
    assert twice == once


def test_coverage_over_subjects_with_several_scans() -> None:
    rng = np.random.default_rng(0)
    draws = 200
    names = [str(i) for i in range(25) for _ in range(3)]
    held = {"subjects": 0, "scans": 0}
    for _ in range(draws):
        values = np.repeat(rng.normal(size=25), 3) + rng.normal(0, 0.3, 75)
        for kind, whose in (("subjects", names), ("scans", [str(i) for i in range(75)])):
            low, high = mean_over_subjects(values.tolist(), whose)["interval"]
            held[kind] += low <= 0 <= high
    # Asked are 95 %; BCa of 25 subjects is a little too narrow.
    low, high = stats.binom.interval(0.999, draws, 0.93)
    assert low <= held["subjects"] <= high
    # Scans that are taken for subjects give intervals that do not hold what they promise.
    assert held["scans"] < low
