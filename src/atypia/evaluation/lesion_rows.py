"""Rows of lesion-wise figures: by condition, method and mask, all lesions of the scans together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atypia.evaluation.intervals import figure_over_subjects, mean_over_subjects
from atypia.evaluation.lesion_figures import LesionCounts

ScanRow = Mapping[str, Any]
"""One of `atypia.evaluation.evaluation.Evaluation.scans`."""

COUNTS = ("lesions", "detected", "components", "true_components")


def lesion_wise_rows(
    scans: Sequence[ScanRow], marked: Callable[[str], str], least_overlap: float
) -> list[dict[str, Any]]:
    """Give lesion-wise figures and distances by condition, method and mask.

    Parameters
    ----------
    scans
        Rows of all scans; those whose truth is unknown have no lesion-wise figures.
    marked
        Gives the name of a method as the tables show it.
    least_overlap
        By which lesions were detected; told in each row.
    """
    groups: dict[tuple[str, str, str], list[ScanRow]] = {}
    for row in scans:
        for mask in row.get("lesion_wise", ()):
            groups.setdefault((row["condition"], row["method"], mask), []).append(row)
    # Conditions in their order, as in the other tables.
    order = list(dict.fromkeys(row["condition"] for row in scans))
    rows = []
    for condition, method, mask in sorted(groups, key=lambda group: order.index(group[0])):
        there = groups[condition, method, mask]
        persons = [row["person"] for row in there]
        counts = [row["lesion_wise"][mask] for row in there]
        distances = [row.get("masks", {}).get(mask, {}).get("hd95_mm") for row in there]
        rows.append(
            {
                "condition": condition,
                "method": marked(method),
                "mask": mask,
                "scans": len(there),
                "subjects": len(set(persons)),
                "least_overlap": least_overlap,
                **lesion_wise_figures(counts, persons),
                "hd95_mm": mean_over_subjects(distances, persons),
            }
        )
    return rows


def lesion_wise_figures(
    counts: Sequence[Mapping[str, int]], subjects: Sequence[str]
) -> dict[str, Any]:
    """Give lesion-wise figures of several scans, all their lesions together.

    Parameters
    ----------
    counts
        `atypia.evaluation.lesion_figures.LesionCounts` of every scan, as JSON.
    subjects
        Whose scan it is; intervals are over subjects.
    """
    table = [[float(one[name]) for name in COUNTS] for one in counts]
    totals = [int(sum(column)) for column in zip(*table, strict=True)]
    figures: Mapping[str, Callable[[Any], float | None]] = {
        "recall": lambda sums: LesionCounts(*sums.tolist()).recall,
        "precision": lambda sums: LesionCounts(*sums.tolist()).precision,
        "f1": lambda sums: LesionCounts(*sums.tolist()).f1,
    }
    return {
        **dict(zip(COUNTS, totals, strict=True)),
        **{name: figure_over_subjects(table, subjects, of) for name, of in figures.items()},
        "false_positives": mean_over_subjects((row[2] - row[3] for row in table), subjects),
    }
