"""Distributions: the subject-level scores of a run by condition, site, sex and age, as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from atypia.report import charts
from atypia.report.results import Entry, Results

MOST_DOTS = 40
"""Scans of one group that are drawn one by one; of more, only those beyond the line."""
MOST_BEYOND = 15
"""Of those, how many at each end."""
MOST_GROUPS = 20
LEAST_MEDIAN = 3
"""Scans of a group from which its median is drawn."""
BETWEEN = (5, 25, 50, 75, 95)
"""Percentiles: ends of the line, of the box, and the stroke in it."""
DECADE = 10
UNIT = "subject-level anomaly score"
STEP, TOP = 30, 6


@dataclass(frozen=True)
class Distribution:
    """One chart, what it groups by, and its title."""

    name: str
    title: str
    chart: Markup


def distributions(found: Results) -> list[Distribution]:
    """Draw the scores by site, sex and age, each where at least two groups are known."""
    sorted_by = {"site": _known(found, "site"), "sex": _known(found, "sex"), "age": _ages(found)}
    return [
        Distribution(
            name, _title(name, groups), by_group(groups, _healthy(found), f"Scores by {name}")
        )
        for name, groups in sorted_by.items()
        if sum(group != "unknown" for group in groups) > 1
    ]


def by_condition(found: Results) -> Markup:
    """Draw the scores of a large run by condition."""
    groups = {name: [e.score for e in entries] for name, entries in found.conditions.items()}
    return by_group(groups, _healthy(found), "Subject-level scores by condition")


def by_group(
    groups: Mapping[str, Sequence[float]], reference: Sequence[float], label: str
) -> Markup:
    """Draw one line, box and median a group, above the healthy scores of the calibration.

    Parameters
    ----------
    groups
        Name -> scores; the first `MOST_GROUPS` are drawn.
    reference
        Scores of the healthy calibration scans, empty without a calibration.
    label
        What the chart shows, for readers who cannot see it.
    """
    shown = {"calibration": reference, **dict(list(groups.items())[:MOST_GROUPS])}
    shown = {name: values for name, values in shown.items() if len(values)}
    bottom = TOP + STEP * len(shown)
    everything = [value for values in shown.values() for value in values]
    across = charts._Scale.over(everything, charts.LABELS, charts.WIDTH - 12)
    parts = charts._axis(across, TOP, bottom, UNIT)
    if reference:
        left, right = across(min(reference)), across(max(reference))
        parts.append(
            f'<rect class="band" x="{left}" y="{TOP}" width="{max(right - left, 1):.1f}" '
            f'height="{bottom - TOP}"/>'
        )
    for row, (name, values) in enumerate(shown.items()):
        kind = {"calibration": "reference", "healthy": "plain"}.get(name, "main")
        parts += _row(name, values, TOP + STEP * (row + 0.5), across, kind)
    return charts._svg(parts, charts.WIDTH, bottom + 40, label)


def _row(
    name: str, values: Sequence[float], middle: float, across: charts._Scale, kind: str
) -> list[str]:
    count = f"{charts._plain(name, charts.LONGEST - 5)} ({len(values)})"
    parts = [charts._text(charts.LABELS - 10, middle + 4, count, "end", "row")]
    low, first, half, last, high = (float(v) for v in np.percentile(values, BETWEEN))
    dots = sorted(values)
    if len(values) > MOST_DOTS:
        below, above = [v for v in dots if v < low], [v for v in dots if v > high]
        dots = below[:MOST_BEYOND] + above[-MOST_BEYOND:]
        parts.append(
            f'<line class="whisker" x1="{across(low)}" x2="{across(high)}" y1="{middle}" '
            f'y2="{middle}"/><rect class="box" x="{across(first)}" y="{middle - 7}" '
            f'width="{max(across(last) - across(first), 1):.1f}" height="14"/>'
        )
    for i, value in enumerate(dots):
        # Spread by order, not by chance: the same page comes out every time.
        spread = 2 * ((i * 0.618) % 1) - 1 if len(dots) > 1 else 0
        y = middle + STEP * 0.28 * spread
        parts.append(f'<circle class="{kind}" cx="{across(value)}" cy="{y:.1f}" r="3"/>')
    if len(values) < LEAST_MEDIAN:
        return parts
    told = f"{name}: {len(values)} scans, median {half:.3g}, middle half {first:.3g} to {last:.3g}"
    parts.append(
        f'<line class="median" x1="{across(half)}" x2="{across(half)}" y1="{middle - 9}" '
        f'y2="{middle + 9}"><title>{escape(told)}</title></line>'
    )
    return parts


def _known(found: Results, name: str) -> dict[str, list[float]]:
    """Group scores by a property; the highest median first, unknown last."""
    groups: dict[str, list[float]] = {}
    for entry in found.done:
        groups.setdefault(str(entry.description.get(name) or "unknown"), []).append(entry.score)
    order = sorted(groups, key=lambda g: (g == "unknown", -float(np.median(groups[g])), g))
    return {group: groups[group] for group in order}


def _ages(found: Results) -> dict[str, list[float]]:
    """Group scores by age: in the bins of the calibration if it has any, else in decades."""
    edges = _edges(found.run["calibration"])
    groups: dict[tuple[float, str], list[float]] = {}
    for entry in found.done:
        groups.setdefault(_age_group(entry, edges), []).append(entry.score)
    return {name: groups[order, name] for order, name in sorted(groups)}


def _age_group(entry: Entry, edges: Sequence[float]) -> tuple[float, str]:
    """Give order and name of the bin of a scan."""
    age = entry.description.get("age")
    if age is None:
        return np.inf, "unknown"
    if not edges:
        decade = int(age // DECADE) * DECADE
        return decade, f"{decade}-{decade + DECADE - 1}"
    if age < edges[0]:
        return -np.inf, f"below {edges[0]:g}"
    if age > edges[-1]:
        return edges[-1], f"above {edges[-1]:g}"
    low, high = next((a, b) for a, b in pairwise(edges) if age <= b)
    return low, f"{low:g}-{high:g}"


def _edges(calibration: Mapping[str, Any] | None) -> Sequence[float]:
    strata = (calibration or {}).get("strata") or {}
    edges: Sequence[float] = strata.get("age_edges") or ()
    return edges if len(edges) > 1 else ()


def _healthy(found: Results) -> Sequence[float]:
    calibration = found.run["calibration"]
    return () if calibration is None else tuple(map(float, calibration["subject_scores"]))


def _title(name: str, groups: Mapping[str, Sequence[float]]) -> str:
    left = len(groups) - MOST_GROUPS
    note = f"; {left} more groups with lower medians are not drawn" if left > 0 else ""
    return f"Scores by {name}{note}"
