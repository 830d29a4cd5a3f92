"""Splits by subject, seeded and stratified, and the check that no subject is on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from atypia.cohort.scan import Cohort, Scan
from atypia.cohort.strata import Strata
from atypia.errors import CohortError, LeakageError, SettingsError


def split(
    cohort: Cohort,
    shares: Mapping[str, float],
    seed: int = 0,
    stratify: Sequence[str] = (),
) -> dict[str, Cohort]:
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
    stratify
        Names from `atypia.cohort.strata.STRATA`: every part gets its share of every site, sex and
        age bin, as far as whole people can be shared out.

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
    counts = _counts(shares, len(people))
    if stratify:
        dealt = _dealt(counts)
        part_of = dict(zip(Strata.of(cohort, stratify).order(seed), dealt, strict=True))
    else:
        order = [people[i] for i in np.random.default_rng(seed).permutation(len(people))]
        names = [name for name, count in counts.items() for _ in range(count)]
        part_of = dict(zip(order, names, strict=True))
    scans = [replace(scan, split=part_of[scan.person]) for scan in cohort]
    return {
        name: Cohort(tuple(s for s in scans if s.split == name), f"{cohort.name}/{name}")
        for name in shares
    }


def folds(
    cohort: Cohort,
    count: int,
    shares: Mapping[str, float],
    seed: int = 0,
    stratify: Sequence[str] = (),
    test: str = "test",
) -> list[dict[str, Cohort]]:
    """Divide a cohort for cross-validation: everyone is tested in exactly one fold.

    Parameters
    ----------
    cohort
        At least as many subjects as folds.
    count
        Number of folds, two or more.
    shares
        How the subjects that a fold does not test are divided, as for `split`.
    test
        Name of the part that is tested.

    Returns
    -------
    list of dict
        For each fold, part -> cohort; the part `test` comes last.
    """
    if count < 2 or test in shares:
        problem = f"{count} folds of {', '.join([*shares, test])}"
        raise SettingsError("folds", problem, f"Give two or more, and no other part named {test}")
    parts = split(cohort, {str(i): 1 / count for i in range(count)}, seed, stratify)
    divided = []
    for i, part in parts.items():
        rest = tuple(scan for other in parts.values() if other is not part for scan in other)
        rest_parts = split(Cohort(rest, cohort.name), shares, seed, stratify)
        tested = tuple(replace(scan, split=test) for scan in part)
        name = f"{cohort.name}/{test} of fold {i}"
        divided.append(rest_parts | {test: Cohort(tested, name)})
    return divided


def _counts(shares: Mapping[str, float], people: int) -> dict[str, int]:
    """Give the number of people of each part."""
    edges = np.round(np.cumsum([0.0, *shares.values()]) * people).astype(int)
    # Rounding must not starve a part: each keeps at least one subject.
    for i in range(1, len(edges)):
        edges[i] = max(edges[i], edges[i - 1] + 1)
    for i in range(len(edges) - 1, 0, -1):
        edges[i] = min(edges[i], people - (len(edges) - 1 - i))
    return {name: int(n) for name, n in zip(shares, np.diff(edges), strict=True)}


def _dealt(counts: Mapping[str, int]) -> list[str]:
    """Give parts in an order of which every stretch has about its share of each part."""
    people = sum(counts.values())
    given = dict.fromkeys(counts, 0)
    order = []
    for number in range(1, people + 1):
        # Whoever lacks most; of several, the first.
        name = max(counts, key=lambda part: counts[part] * number / people - given[part])
        given[name] += 1
        order.append(name)
    return order


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
