"""Ranks of methods: which comes first, condition by condition, and on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from atypia.evaluation.table import Column, Row

RANK_COLUMNS = (
    Column("method", "method", "Baselines are marked with *."),
    Column("mean_rank", "mean rank", "Of the mean average precision, over conditions; 1 is best."),
    Column("first", "first", "Conditions in which no method has a higher average precision."),
    Column("conditions", "conditions", "Number of conditions."),
)


def rank_rows(lesions: Sequence[Row], figure: str = "ap") -> list[dict[str, Any]]:
    """Rank methods by a figure's mean in each condition; equal ones share the mean of their ranks.

    Parameters
    ----------
    lesions
        Rows of `Evaluation.lesion_rows`.

    Returns
    -------
    list of dict
        See `RANK_COLUMNS`, the best first. Conditions in which a method lacks the figure are left
        out for all, so that means are over the same conditions.
    """
    by_condition: dict[str, dict[str, float]] = {}
    methods = list(dict.fromkeys(row["method"] for row in lesions))
    for row in lesions:
        if row[figure]["mean"] is not None:
            by_condition.setdefault(row["condition"], {})[row["method"]] = row[figure]["mean"]
    complete = [found for found in by_condition.values() if len(found) == len(methods)]
    if not complete:
        return []
    values = np.array([[found[name] for name in methods] for found in complete])
    ranks = rankdata(-values, axis=1)
    best = (values == values.max(axis=1, keepdims=True)).sum(axis=0)
    rows = [
        {
            "method": name,
            "mean_rank": float(ranks[:, place].mean()),
            "first": int(best[place]),
            "conditions": len(complete),
        }
        for place, name in enumerate(methods)
    ]
    return sorted(rows, key=lambda row: row["mean_rank"])
