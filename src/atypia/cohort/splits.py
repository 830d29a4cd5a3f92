"""Splits by subject, seeded, and the check that no subject stands on both sides of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from atypia.cohort.scan import Cohort, Scan
from atypia.errors import CohortError, LeakageError, SettingsError


def split(cohort: Cohort, shares: Mapping[str, float], seed: int = 0) -> dict[str, Cohort]:
    """Divide a cohort at random into named parts; all scans of a subject go to the same part.

    Parameters
    ----------
    cohort
        At least as many subjects as parts.
    shares
        Part -> share of the subjects, e.g. ``{"train": 0.75, "calibration": 0.25}``; they sum
        to one.
    seed
        Same seed, same parts, whatever the order of the scans.

    Returns
    -------
    dict
        Part -> cohort, every scan with its `split` filled.
    """
    total = sum(shares.values())
    if not shares or min(shares.values()) <= 0 or not abs(total - 1) <= 1e-6:
        raise SettingsError("split", f"shares {dict(shares)}", "Give positive shares that sum to 1")
    people = sorted({scan.person for scan in cohort})
    if len(people) < len(shares):
        raise CohortError(
            cohort.name, f"has {len(people)} subjects for {len(shares)} parts", "Ask for fewer"
        )
    order = [people[i] for i in np.random.default_rng(seed).permutation(len(people))]
    edges = np.round(np.cumsum([0.0, *shares.values()]) * len(people)).astype(int)
    # Rounding must not starve a part: each keeps at least one subject.
    for i in range(1, len(edges)):
        edges[i] = max(edges[i], edges[i - 1] + 1)
    for i in range(len(edges) - 1, 0, -1):
        edges[i] = min(edges[i], len(people) - (len(edges) - 1 - i))
    part_of = {
        person: name
        for name, start, stop in zip(shares, edges[:-1], edges[1:], strict=True)
        for person in order[start:stop]
    }
    scans = [replace(scan, split=part_of[scan.person]) for scan in cohort]
    return {
        name: Cohort(tuple(s for s in scans if s.split == name), f"{cohort.name}/{name}")
        for name in shares
    }


def require_disjoint(scans: Iterable[Scan], others: Iterable[str], here: str, there: str) -> None:
    """Refuse scans of subjects that are already used elsewhere.

    Parameters
    ----------
    scans
        The scans to be used now.
    others
        `Scan.person` of the subjects used before.
    here, there
        What both sides are used for, e.g. ``"calibration"`` and ``"training"``.

    Raises
    ------
    LeakageError
        A subject is on both sides.
    """
    taken = set(others)
    both = [scan.id for scan in scans if scan.person in taken]
    if both:
        shown = ", ".join(both[:3]) + (f" and {len(both) - 3} more" if len(both) > 3 else "")
        raise LeakageError(
            f"{here} cohort",
            f"holds subjects that were used for {there}: {shown}",
            "Split by subject, e.g. with `atypia split`",
        )
