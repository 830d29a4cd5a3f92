"""Conformal: p-values and limits from healthy values, right however few the healthy scans are.

If a further healthy scan is exchangeable with the `n` that are known (any order of the `n + 1` is
as likely as any other), then for every rate `alpha`

    P(p-value <= alpha) <= alpha        and        P(value > limit(alpha)) <= alpha.

Nothing else is assumed: neither the shape of the distribution nor a number of scans (Vovk,
Gammerman & Shafer 2005). The probability is over the drawing of healthy scans and of the new one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atypia.errors import SettingsError
from atypia.scoring.thresholds import threshold_from_healthy


@dataclass(frozen=True)
class PValue:
    """Share of healthy scans that reach a value.

    Parameters
    ----------
    value
        Above 0, up to 1.
    among
        The healthy scans that it was compared with, in words.
    extrapolated
        It comes from a fitted tail, and no healthy scan reaches that far: an estimate, no promise.
    """

    value: float
    among: str
    extrapolated: bool = False


def conformal_p_value(value: float, healthy: Sequence[float]) -> float:
    """Give `(1 + #healthy >= value) / (1 + n)`; its smallest possible value is `1 / (1 + n)`."""
    return (1 + sum(one >= value for one in healthy)) / (1 + len(healthy))


def conformal_limit(healthy: Sequence[float], rate: float) -> float:
    """Give the value above which a further healthy scan lies with a probability of at most `rate`.

    It is the `ceil((1 - rate) (n + 1))`-th smallest of the healthy values.

    Raises
    ------
    SettingsError
        There are fewer than `scans_needed(rate)` values, or the rate is not between 0 and 1.
    """
    limit = threshold_from_healthy(healthy, "conformal", alpha=rate)
    if math.isinf(limit):
        raise too_few(len(healthy), rate)
    return limit


def scans_needed(rate: float) -> int:
    """Give the number of healthy scans from which a rate can be promised: `1 / rate - 1`."""
    # The subtracted part keeps 1 / 0.07 * 0.07 and the like from asking for one more.
    return math.ceil(1 / rate - 1 - 1e-9)


def too_few(scans: int, rate: float) -> SettingsError:
    """Build the error for a rate that so few healthy scans cannot promise."""
    return SettingsError(
        f"a scan FPR of {rate:g}",
        f"needs at least {scans_needed(rate)} healthy scans, there are {scans}",
        f"Give more scans, or a rate of {_rounded_up(1 / (scans + 1)):g} or more, or extrapolate "
        "(--extrapolate)",
    )


def _rounded_up(rate: float) -> float:
    return math.ceil(rate * 1000) / 1000
