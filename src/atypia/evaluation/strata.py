"""Strata: figures by size of the lesions, site, sex and age, where the scans tell them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from atypia.evaluation.intervals import mean_over_subjects
from atypia.evaluation.lesion_figures import interval_names
from atypia.evaluation.lesion_rows import ScanRow, lesion_wise_figures

AGE_EDGES = (0.0, 20.0, 40.0, 60.0, 80.0, math.inf)
"""Edges of the age bins in years; an age on an edge belongs to the older ones."""
FIGURES = ("score", "flagged", "ap", "auroc", "dice", "own_dice")
"""Figures of a scan whose means are told by stratum."""


def age_bin(age: float | None, edges: Sequence[float] = AGE_EDGES) -> str:
    """Name the bin of an age, e.g. ``"40 to 60 years"``; empty for an unknown one.

    Raises
    ------
    SettingsError
        The edges do not rise.
    """
    names = interval_names(edges, "years", "age edges")
    number = -1 if age is None or not math.isfinite(age) else bisect_right(edges, age) - 1
    return names[number] if 0 <= number < len(names) else ""


KINDS: Mapping[str, Callable[[ScanRow], str]] = {
    "site": lambda row: row["site"],
    "sex": lambda row: row["sex"],
    "age": lambda row: age_bin(row["age"]),
}
"""Kind of stratum -> the stratum of a scan, empty for unknown."""


def strata_rows(scans: Iterable[ScanRow], marked: Callable[[str], str]) -> list[dict[str, Any]]:
    """Give the figures of every condition, method and stratum, over the scans in it.

    Parameters
    ----------
    scans
        Rows of `atypia.evaluation.evaluation.Evaluation.scans`.
    marked
        Gives the name of a method as the tables show it.

    Returns
    -------
    list of dict
        `by` names the kind. Rows by ``"size"`` tell the lesions of one mask, the others the means
        of `FIGURES`. A kind of which all scans tell the same is left out.
    """
    everything = list(scans)
    groups: dict[tuple[str, str], list[ScanRow]] = {}
    for row in everything:
        groups.setdefault((row["condition"], row["method"]), []).append(row)
    rows = []
    for kind, stratum_of in KINDS.items():
        strata = {row["scan"]: stratum_of(row) for row in everything}
        names = sorted(set(strata.values()) - {""})
        if len(set(strata.values())) < 2:
            continue
        for (condition, method), members in groups.items():
            for name in names:
                there = [row for row in members if strata[row["scan"]] == name]
                if there:
                    labels = {"condition": condition, "method": marked(method), "by": kind}
                    rows.append({**labels, "stratum": name, **_means(there)})
    for (condition, method), members in groups.items():
        labels = {"condition": condition, "method": marked(method), "by": "size"}
        rows += [{**labels, **one} for one in _sizes(members)]
    return rows


def _means(scans: Sequence[ScanRow]) -> dict[str, Any]:
    subjects = [row["person"] for row in scans]
    return {
        "scans": len(scans),
        "subjects": len(set(subjects)),
        **{name: mean_over_subjects((r.get(name) for r in scans), subjects) for name in FIGURES},
    }


def _sizes(scans: Sequence[ScanRow]) -> list[dict[str, Any]]:
    rows = []
    masks = dict.fromkeys(mask for row in scans for mask in row.get("lesion_wise", ()))
    for mask in masks:
        there = [row for row in scans if mask in row.get("lesion_wise", ())]
        subjects = [row["person"] for row in there]
        for size in there[0]["lesion_wise"][mask]["by_size"]:
            counts = [row["lesion_wise"][mask]["by_size"][size] for row in there]
            rows.append(
                {
                    "mask": mask,
                    "stratum": size,
                    "scans": len(there),
                    "subjects": len(set(subjects)),
                    **lesion_wise_figures(counts, subjects),
                }
            )
    return rows
