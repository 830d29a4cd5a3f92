"""Reasons and verdict: which figures of a scan no healthy scan has, with p-values that hold.

Per kind, artefact or lesion, several figures are looked at, so one of them is easily a little
unusual in a healthy scan. Each is therefore counted in standard deviations from all *other* scans,
the new one among the healthy ones, and compared with the largest count of each scan: the p-value of
a figure is the share of the `n + 1` scans with any figure of its kind at least as unusual. The new
scan is treated like every healthy one, so for one more exchangeable healthy scan the chance of any
reason of a kind is at most the level, whatever the distribution (full conformal prediction: Vovk,
Gammerman & Shafer 2005; the largest of several figures: Westfall & Young 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from atypia.calibration.conformal import scans_needed
from atypia.scoring.reasons import FIGURES, Kind

LEVEL = 0.05
"""P-value up to which a figure is a reason. It takes 19 healthy scans."""
KINDS: tuple[Kind, ...] = ("artefact", "lesion")
NOTHING = "nothing unusual"
LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class Reason:
    """A figure that sets a scan apart from healthy ones.

    Parameters
    ----------
    code
        Name in `atypia.scoring.reasons.FIGURES`; followed by ``_low`` for an unusually low value.
    kind
        What it speaks for.
    p_value
        Share of scans with a figure of this kind that is at least as unusual.
    text
        One sentence.
    """

    code: str
    kind: Kind
    p_value: float
    text: str

    def to_json(self) -> dict[str, Any]:
        """Give the values by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make a reason of what `to_json` gave."""
        return cls(**values)


def reasons_of(
    figures: Mapping[str, float], healthy: Mapping[str, Sequence[float]], level: float = LEVEL
) -> tuple[Reason, ...]:
    """Tell what is unusual about a scan, artefacts first, the most unusual figure first.

    Parameters
    ----------
    figures
        Of the scan: code -> value.
    healthy
        Code -> one value a healthy scan. Codes that are not in both, or unknown, do not count.
    level
        Chance that a healthy scan is given any reason of a kind.

    Returns
    -------
    tuple of Reason
        Empty too where there are fewer than `scans_needed(level)` healthy scans.
    """
    reasons: list[Reason] = []
    for kind in KINDS:
        names = [
            name
            for name, figure in FIGURES.items()
            if figure.kind == kind and name in figures and name in healthy
        ]
        if not names or not can_tell(healthy, level):
            continue
        pool = np.array([[*healthy[name], figures[name]] for name in names], np.float64).T
        deviations = _from_the_others(pool)
        two_sided = np.array([bool(FIGURES[name].low) for name in names])
        unusual = np.where(two_sided, np.abs(deviations), deviations)
        largest = unusual.max(axis=1)
        for column in np.argsort(-unusual[-1], kind="stable"):
            p_value = float((largest >= unusual[-1, column]).mean())
            if p_value <= level:
                reasons.append(_reason(names[column], p_value, deviations[-1, column] < 0))
    return tuple(reasons)


def can_tell(healthy: Mapping[str, Sequence[float]], level: float = LEVEL) -> bool:
    """Tell whether there are healthy scans enough for any reason."""
    return bool(healthy) and min(map(len, healthy.values())) >= scans_needed(level)


def verdict_of(reasons: Sequence[Reason]) -> str:
    """Give ``"nothing unusual"``, ``"artefact"``, ``"lesion"`` or ``"artefact and lesion"``."""
    kinds = {reason.kind for reason in reasons}
    return " and ".join(kind for kind in KINDS if kind in kinds) or NOTHING


def _reason(name: str, p_value: float, low: bool) -> Reason:
    figure = FIGURES[name]
    low = low and bool(figure.low)
    text = figure.low if low else figure.high
    return Reason(f"{name}_low" if low else name, figure.kind, p_value, f"{text}.")


def _from_the_others(pool: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count how many standard deviations of all other rows each row lies from their mean."""
    others = len(pool) - 1
    centred = pool - pool.mean(axis=0)
    mean = -centred / others
    squares = np.square(centred).sum(axis=0) - np.square(centred)
    variance = np.maximum(squares / others - np.square(mean), 0) * others / max(others - 1, 1)
    # Rounding leaves a little where all others are equal.
    least = LEAST_SPREAD * np.maximum(np.abs(pool).max(axis=0), LEAST_SPREAD)
    deviations: NDArray[np.float64] = (centred - mean) / np.maximum(np.sqrt(variance), least)
    return deviations
