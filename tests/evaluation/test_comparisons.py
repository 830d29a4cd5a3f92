"""Paired comparisons from rows of scans: folds are averaged, and each scan is of one person."""

from __future__ import annotations

from typing import Any

import pytest

from atypia.evaluation.comparisons import comparison_rows

FOLDS = {"a": {"t0": (0.1, 0.5), "t1": (0.2, 0.6)}, "b": {"t0": (0.5, 0.1), "t1": (0.4, 0.0)}}


def rows(fold: int) -> list[dict[str, Any]]:
    return [
        {"scan": scan, "person": f"p {scan}", "condition": "tumour", "method": m, "ap": ap[fold]}
        for m, scans in FOLDS.items()
        for scan, ap in scans.items()
    ]


def test_every_fold_counts() -> None:
    (row,) = comparison_rows([*rows(0), *rows(1)], "a", str)
    assert row["pairs"] == 2
    # Means of t0 are 0.3 and 0.3, of t1 0.4 and 0.2; the last fold alone would say 0.5.
    assert row["difference"] == pytest.approx(0.1)
    (turned,) = comparison_rows([*rows(1), *rows(0)], "a", str)
    assert turned["difference"] == pytest.approx(0.1)


def test_a_healthy_scan_of_the_same_name_is_of_another_person() -> None:
    # Two visits of one person, and healthy people whose scans are called alike.
    ill = [row | {"person": "p"} for row in rows(0)]
    well = [row | {"condition": "healthy", "ap": None} for row in rows(0)]
    (row,) = comparison_rows([*ill, *well], "a", str)
    assert row["pairs"] == 1
