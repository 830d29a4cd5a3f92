"""Strata: groups of people who are alike in site, sex and age, to be shared out evenly.

People are put in an order in which those of one site stand together, within it those of one sex,
within that those of one age bin; parts are then dealt along this order. So a stratum that is too
small for the parts shares them with its neighbours, and sites and sexes stay balanced all the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from atypia import files
from atypia.cohort.scan import Cohort, Scan
from atypia.errors import unknown_name

STRATA = ("site", "sex", "age")
"""What people can be alike in, from the outermost order to the innermost."""
AGE_BINS = 4
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Strata:
    """The strata of a cohort.

    Parameters
    ----------
    by
        Names from `STRATA`, in their order.
    labels
        Person -> what `by` says about them; age bins as ``"20-34"``, in years.
    bins
        Labels of the age bins, the youngest first.
    """

    by: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    bins: tuple[str, ...]

    @classmethod
    def of(cls, cohort: Cohort, by: Sequence[str] = STRATA, age_bins: int = AGE_BINS) -> Self:
        """Sort the people of a cohort into strata.

        Parameters
        ----------
        by
            Names from `STRATA`, any order.
        age_bins
            Bins with about the same number of people each.

        Raises
        ------
        SettingsError
            A name is unknown.
        """
        for name in by:
            if name not in STRATA:
                raise unknown_name("stratum", name, STRATA)
        scans: dict[str, list[Scan]] = defaultdict(list)
        for scan in sorted(cohort, key=lambda scan: scan.id):
            scans[scan.person].append(scan)
        ages = {person: _age(own) for person, own in scans.items()}
        edges = _edges([age for age in ages.values() if age is not None], age_bins)
        chosen = tuple(name for name in STRATA if name in by)
        labels = {
            person: tuple(
                _bin(ages[person], edges) if name == "age" else _first(own, name) for name in chosen
            )
            for person, own in scans.items()
        }
        bins = tuple(_named(low, high) for low, high in pairwise(edges))
        return cls(chosen, labels, (*bins, UNKNOWN))

    def order(self, seed: int) -> list[str]:
        """Put the people in an order for dealing out parts: by strata, by chance within."""

        def key(person: str) -> list[str | int]:
            own = self.labels[person]
            ranks: list[str | int] = []
            for depth, name in enumerate(self.by):
                # Ages have an order, so that a small bin shares with the next one.
                by_chance = files.digest(str(seed), *own[: depth + 1])
                ranks.append(self.bins.index(own[depth]) if name == "age" else by_chance)
            return [*ranks, files.digest(str(seed), person)]

        return sorted(self.labels, key=key)

    def small(self, parts: int) -> dict[tuple[str, ...], int]:
        """Give the strata with fewer people than there are parts, and how many they have."""
        counts = Counter(self.labels.values())
        return {label: n for label, n in sorted(counts.items()) if n < parts}

    def table(self, parts: Mapping[str, Cohort]) -> dict[str, dict[str, int]]:
        """Count the people of every part by what they are alike in.

        Returns
        -------
        dict
            E.g. ``"site A"`` -> part -> people.
        """
        rows: dict[str, dict[str, int]] = {}
        for name, part in parts.items():
            for person in {scan.person for scan in part}:
                for what, label in zip(self.by, self.labels[person], strict=True):
                    row = rows.setdefault(f"{what} {label}", dict.fromkeys(parts, 0))
                    row[name] += 1
        return dict(sorted(rows.items()))


def _first(scans: Sequence[Scan], name: str) -> str:
    return next((value for scan in scans if (value := str(getattr(scan, name)))), UNKNOWN)


def _age(scans: Sequence[Scan]) -> float | None:
    """Give the age at the first visit whose age is known."""
    return min((scan.age for scan in scans if scan.age is not None), default=None)


def _edges(ages: Sequence[float], count: int) -> list[float]:
    if not ages:
        return []
    edges = np.unique(np.quantile(ages, np.linspace(0, 1, count + 1)))
    return [float(edge) for edge in edges] if len(edges) > 1 else [float(edges[0])] * 2


def _bin(age: float | None, edges: Sequence[float]) -> str:
    if age is None:
        return UNKNOWN
    number = int(np.searchsorted(edges[1:-1], age, side="right"))
    return _named(edges[number], edges[number + 1])


def _named(low: float, high: float) -> str:
    return f"{low:g}-{high:g}"
