"""Figures with their interval over subjects: scans of one subject are drawn together.

BCa (`atypia.evaluation.bca`) from five subjects on; percentiles of the same resamples below, where
the jackknife that BCa needs has too few values. Every figure tells which one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.evaluation.bca import bca_ends, bca_interval
from atypia.evaluation.subject import auroc, bootstrap_interval

Values = NDArray[np.float64]
Figure = dict[str, Any]
"""`mean`, `interval` (None where there is none), and with an interval `interval_by`."""

LEAST_SUBJECTS = 5
"""From so many subjects on (in each group) intervals are BCa."""
BCA, PERCENTILE = "bca", "percentile"
_RESAMPLES, _LEVEL, _SEED = 2000, 0.95, 0
# Drawn at a time, so that large cohorts need no matrix of all resamples.
_PIECE = 1 << 20


def mean_over_subjects(values: Iterable[float | None], subjects: Iterable[str]) -> Figure:
    """Give the mean over scans with its interval over subjects.

    Parameters
    ----------
    values
        One a scan; None does not count.
    subjects
        Whose scan it is.
    """
    there = [(v, s) for v, s in zip(values, subjects, strict=True) if v is not None]
    rows = [(value, 1.0) for value, _ in there]
    return figure_over_subjects(rows, [subject for _, subject in there], _ratio)


def figure_over_subjects(
    rows: Sequence[Sequence[float]],
    subjects: Sequence[str],
    of: Callable[[Values], float | None],
) -> Figure:
    """Give a figure of sums over scans with its interval over subjects.

    Parameters
    ----------
    rows
        K numbers a scan, e.g. its true and detected lesions.
    subjects
        Whose scan it is.
    of
        Gives the figure of the K sums, None where it is not defined. Then there is no interval.
    """
    if not rows:
        return {"mean": None, "interval": None}
    known = np.unique(np.asarray(subjects), return_inverse=True)[1]
    # In order of appearance, so that one scan a subject is the plain bootstrap of the scans.
    order = np.argsort(np.unique(known, return_index=True)[1])
    sums = np.zeros((order.size, len(rows[0])))
    np.add.at(sums, np.argsort(order)[known], np.asarray(rows, dtype=np.float64))
    estimate = of(sums.sum(0))
    return {"mean": estimate, "interval": None} | (
        {} if estimate is None else _sums_interval(sums, of, estimate)
    )


def auroc_over_subjects(
    healthy: Sequence[float],
    abnormal: Sequence[float],
    healthy_subjects: Sequence[str],
    abnormal_subjects: Sequence[str],
) -> Figure:
    """Give the AUROC of scans with its interval over subjects, drawn within each group.

    Parameters
    ----------
    healthy, abnormal
        Scores of the scans.
    healthy_subjects, abnormal_subjects
        Whose scans they are.
    """
    area = auroc(healthy, abnormal)
    if area is None:
        return {"mean": None, "interval": None}
    groups = [
        _by_subject(healthy, healthy_subjects),
        _by_subject(abnormal, abnormal_subjects),
    ]
    if all(len(scans) == 1 for group in groups for scans in group):
        drawn: list[ArrayLike] = [np.concatenate(group) for group in groups]
        statistic: Callable[..., float | None] = auroc
    else:
        drawn = [np.arange(len(group)) for group in groups]

        def statistic(*chosen: Values) -> float | None:
            scores = [
                np.concatenate([group[int(i)] for i in numbers])
                for group, numbers in zip(groups, chosen, strict=True)
            ]
            return auroc(*scores)

    fewest = min(len(group) for group in groups)
    method, by = (
        (bca_interval, BCA) if fewest >= LEAST_SUBJECTS else (bootstrap_interval, PERCENTILE)
    )
    interval = method(*drawn, seed=_SEED, statistic=statistic)
    return {"mean": area, "interval": interval} | ({"interval_by": by} if interval else {})


def _sums_interval(
    sums: Values, of: Callable[[Values], float | None], estimate: float
) -> dict[str, Any]:
    """Give interval and method; nothing for one subject or a resample without the figure."""
    count = len(sums)
    if count < 2:
        return {}
    rng = np.random.default_rng(_SEED)
    at_once = max(_PIECE // count, 1)
    pieces = [
        sums[rng.integers(0, count, (min(at_once, _RESAMPLES - start), count))].sum(1)
        for start in range(0, _RESAMPLES, at_once)
    ]
    drawn = _all_of(np.concatenate(pieces), of)
    if drawn is None:
        return {}
    if count < LEAST_SUBJECTS:
        low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return {"interval": (float(low), float(high)), "interval_by": PERCENTILE}
    left_out = _all_of(np.array([np.delete(sums, i, 0).sum(0) for i in range(count)]), of)
    if left_out is None:
        return {}
    return {"interval": bca_ends(estimate, drawn, [left_out], _LEVEL), "interval_by": BCA}


def _all_of(rows: Values, of: Callable[[Values], float | None]) -> Values | None:
    found = [of(row) for row in rows]
    return None if any(value is None for value in found) else np.array(found, dtype=np.float64)


def _ratio(sums: Values) -> float:
    return float(sums[0] / sums[1])


def _by_subject(scores: Sequence[float], subjects: Sequence[str]) -> list[list[float]]:
    groups: dict[str, list[float]] = {}
    for score, subject in zip(scores, subjects, strict=True):
        groups.setdefault(subject, []).append(score)
    return list(groups.values())
