"""Strata of a calibration: which healthy scans a scan is compared with, by site, sex and age."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
from pydantic import Field

from atypia.errors import unknown_name
from atypia.settings import Settings

NAMES = ("site", "sex", "age")
"""What scans can be alike in."""
AGE_BINS = 4
LEAST = 19
"""Healthy scans from which a stratum is used: p-values down to 5 percent."""


class Described(Protocol):
    """What must be known about a scan."""

    @property
    def site(self) -> str:
        """As the data set spells it; empty for unknown."""

    @property
    def sex(self) -> str:
        """As the data set spells it; empty for unknown."""

    @property
    def age(self) -> float | None:
        """Years."""


class HealthyStrata(Settings):
    """The strata of the healthy scans of a calibration."""

    by: tuple[str, ...] = Field(min_length=1)
    """Names from `NAMES`, in their order."""
    labels: tuple[str, ...]
    """Stratum of every healthy scan, e.g. ``"site A, age 20-34"``; empty for unknown."""
    age_edges: tuple[float, ...] = ()
    """Edges of the age bins, years."""
    least: int = Field(LEAST, ge=1)
    """Healthy scans that a stratum must have to be used."""

    @classmethod
    def of(cls, scans: Sequence[Described], by: Sequence[str] = NAMES, least: int = LEAST) -> Self:
        """Sort healthy scans into strata; ages into bins with about as many scans each.

        Raises
        ------
        SettingsError
            A name is unknown.
        """
        for name in by:
            if name not in NAMES:
                raise unknown_name("stratum", name, NAMES)
        ages = [scan.age for scan in scans if scan.age is not None]
        edges: tuple[float, ...] = ()
        if "age" in by and ages:
            unique = np.unique(np.quantile(ages, np.linspace(0, 1, AGE_BINS + 1)))
            edges = tuple(float(edge) for edge in unique)
        chosen = tuple(name for name in NAMES if name in by)
        labels = tuple(_label(scan, chosen, edges) for scan in scans)
        return cls.make({"by": chosen, "labels": labels, "age_edges": edges, "least": least})

    def label_of(self, scan: Described) -> str:
        """Name the stratum of a scan; empty when something is unknown, or its age out of range."""
        return _label(scan, self.by, self.age_edges)

    def members(self, label: str) -> list[int]:
        """Give the healthy scans of a stratum, by their places in the calibration."""
        return [i for i, own in enumerate(self.labels) if own and own == label]


def _label(scan: Described, by: Sequence[str], edges: Sequence[float]) -> str:
    parts = {"site": scan.site, "sex": scan.sex, "age": _bin(scan.age, edges)}
    known = all(parts[name] for name in by)
    return ", ".join(f"{name} {parts[name]}" for name in by) if known else ""


def _bin(age: float | None, edges: Sequence[float]) -> str:
    """Name the bin; empty for an age that no healthy scan of the calibration reaches."""
    if age is None or not edges or not edges[0] <= age <= edges[-1]:
        return ""
    bins = list(pairwise(edges)) or [(edges[0], edges[0])]
    low, high = bins[int(np.searchsorted(edges[1:-1], age, side="right"))]
    return f"{low:g}-{high:g}"
