"""Rows of paired comparisons: one method against all others, by condition and figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from atypia.evaluation.lesion_rows import ScanRow
from atypia.evaluation.paired import compare_methods

COMPARED = ("ap", "dice")
"""Figures of a scan in which methods are compared."""


def comparison_rows(
    scans: Sequence[ScanRow], reference: str, marked: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Compare one method with every other one on the scans that both have.

    Parameters
    ----------
    scans
        Rows of all scans. One that several folds have tested counts once, with its mean.
    reference
        The method that comes first in each comparison.
    marked
        Gives the name of a method as the tables show it.

    Returns
    -------
    list of dict
        `atypia.evaluation.paired.PairedFigures` by condition, figure and other method; p-values
        are corrected over the other methods, within one condition and figure.
    """
    rows: list[dict[str, Any]] = []
    for condition in dict.fromkeys(row["condition"] for row in scans):
        for figure in COMPARED:
            found_in: dict[str, dict[str, list[float]]] = {}
            persons: dict[str, str] = {}
            for row in scans:
                if row["condition"] == condition and row.get(figure) is not None:
                    folds = found_in.setdefault(row["method"], {}).setdefault(row["scan"], [])
                    folds.append(row[figure])
                    persons[row["scan"]] = row["person"]
            if reference not in found_in:
                continue
            values = {
                method: {scan: float(np.mean(folds)) for scan, folds in by_scan.items()}
                for method, by_scan in found_in.items()
            }
            rows += [
                {
                    "condition": condition,
                    "figure": figure,
                    "method": marked(reference),
                    "other": marked(other),
                    **found.to_json(),
                }
                for other, found in compare_methods(values, reference, persons).items()
            ]
    return rows
