"""Drift: whether new healthy-looking scans still score like those of the calibration.

Two-sample Kolmogorov-Smirnov test of the subject-level scores. A drift says that p-values and
thresholds of the calibration do not hold for the new scans: another scanner, protocol, population.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from atypia.errors import InputError, SettingsError

RATE = 0.01
"""False alarms that are accepted."""
ONE_SIDED = 0.05
"""New scores that lie further up and further down, each by a test at this rate, are spread."""


@dataclass(frozen=True)
class Drift:
    """What the test found.

    Parameters
    ----------
    found
        The p-value is at most `rate`.
    statistic
        Largest distance between both cumulative shares of scans, 0 to 1.
    p_value
        Probability of such a distance without any drift.
    direction
        Of the new scores: ``"higher"``, ``"lower"``, or ``"spread"`` when they lie both further up
        and further down, or closer together, than the healthy ones do.
    calibrated, new
        Numbers of scans.
    calibrated_median, new_median
        Of the scores.
    rate
        False alarms that are accepted.
    """

    found: bool
    statistic: float
    p_value: float
    direction: str
    calibrated: int
    new: int
    calibrated_median: float
    new_median: float
    rate: float

    @property
    def sentence(self) -> str:
        """Say it in plain words."""
        medians = f"median {self.new_median:.4g} against {self.calibrated_median:.4g}"
        numbers = f"{self.new} new scans, {self.calibrated} of the calibration"
        told = f"({medians}; {numbers}; p = {self.p_value:.2g})"
        if not self.found:
            return f"No drift found: the new scans score like those of the calibration {told}."
        how = {
            "higher": "score higher than those of the calibration, so that too much may be flagged",
            "lower": "score lower than those of the calibration, so that lesions may be missed",
            "spread": "are spread otherwise than those of the calibration: p-values may be wrong",
        }[self.direction]
        return f"Drift found: the new scans {how} {told}. Calibrate again on scans like these."

    def to_json(self) -> dict[str, Any]:
        """Give the values by name."""
        return asdict(self) | {"sentence": self.sentence}


def drift_of(calibrated: Sequence[float], new: Sequence[float], rate: float = RATE) -> Drift:
    """Compare subject-level scores of new healthy-looking scans with those of a calibration.

    Parameters
    ----------
    calibrated
        `Calibration.subject_scores`.
    new
        Of other people, one scan each, under the same detector.
    rate
        False alarms that are accepted, between 0 and 1.

    Raises
    ------
    InputError
        So few scans cannot show any drift at this rate, or a score is not finite.
    SettingsError
        The rate is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise SettingsError("rate", f"{rate} is not between 0 and 1", "Give e.g. 0.01")
    old, other = np.asarray(calibrated, np.float64), np.asarray(new, np.float64)
    if not (np.isfinite(old).all() and np.isfinite(other).all()):
        raise InputError("subject scores", "hold NaN or infinite values", "Mend the scores")
    require_enough(old.size, other.size, rate)
    from scipy.stats import ks_2samp

    test = ks_2samp(old, other)
    # Old shares run ahead of new ones where the new scores are higher, and the other way round.
    sides = [ks_2samp(old, other, side).pvalue for side in ("greater", "less")]
    sign = "higher" if test.statistic_sign > 0 else "lower"
    return Drift(
        found=bool(test.pvalue <= rate),
        statistic=float(test.statistic),
        p_value=float(test.pvalue),
        direction="spread" if max(sides) <= ONE_SIDED else sign,
        calibrated=old.size,
        new=other.size,
        calibrated_median=float(np.median(old)),
        new_median=float(np.median(other)),
        rate=rate,
    )


def require_enough(calibrated: int, new: int, rate: float = RATE) -> None:
    """Refuse numbers of scans that could not show a drift if there were one.

    Raises
    ------
    InputError
        Even scores that do not overlap at all would have a p-value above `rate`.
    """
    if _lowest(calibrated, new) > rate:
        raise InputError(
            f"{new} new scans",
            f"are too few to show a drift from {calibrated} at {rate:.2%}",
            _remedy(calibrated, rate),
        )


def _lowest(old: int, new: int) -> float:
    """Give the lowest p-value there can be: that of two samples that do not overlap."""
    return 2 / math.comb(old + new, new) if old and new else 1.0


def _remedy(old: int, rate: float) -> str:
    enough = next((n for n in range(1, 1000) if _lowest(old, n) <= rate), None)
    return "Calibrate on more scans" if enough is None else f"Give at least {enough}"
