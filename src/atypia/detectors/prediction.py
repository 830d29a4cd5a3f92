"""What a method says about a scan (`Finding`), and what the user gets (`Prediction`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from atypia.calibration import Calibration, Reason, Threshold, can_tell, reasons_of, verdict_of
from atypia.cohort.scan import Scan
from atypia.scoring.components import Lesion, lesions_of, only_larger, without_small
from atypia.volume import Array, Volume


@dataclass(frozen=True, eq=False)
class Finding:
    """What a method says about one scan, on the working grid.

    Parameters
    ----------
    score
        `(X, Y, Z)`, higher = more abnormal; values outside the brain are ignored.
    restoration
        The scan as it would look healthy, normalised intensities.
    mask
        The method's own label-free segmentation, if it makes one.
    scores
        Subject-level scores of the method's own, by name.
    details
        JSON values worth showing, e.g. a threshold curve.
    """

    score: Array
    restoration: Array | None = None
    mask: Array | None = None
    scores: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a detector found in one scan; every volume is on the scan's own grid.

    Parameters
    ----------
    score_map
        Anomaly score, zero outside the brain.
    brain
        Brain mask that was used.
    score
        Subject-level score: the one of `scores` that the settings name.
    scores
        All subject-level scores by name.
    mask, threshold, p_value, lesions
        By the calibration; None and empty without one.
    p_value_among
        The healthy scans that the p-value compares with, in words.
    p_value_extrapolated
        The p-value comes from a fitted tail: no healthy scan scores so high.
    verdict
        "nothing unusual", "artefact", "lesion" or "artefact and lesion", each by `reasons`; None
        without a calibration that knows the figures of enough healthy scans.
    reasons
        What is unusual about the scan as a whole.
    restoration
        In the scan's own intensity units, zero outside the brain; None if the method has none.
    own_mask
        The method's own label-free segmentation; None if it makes none.
    details
        JSON values of the method.
    """

    scan: Scan
    score_map: Volume
    brain: Volume
    score: float
    scores: dict[str, float] = field(default_factory=dict)
    restoration: Volume | None = None
    own_mask: Volume | None = None
    details: dict[str, Any] = field(default_factory=dict)
    mask: Volume | None = None
    threshold: Threshold | None = None
    p_value: float | None = None
    p_value_among: str | None = None
    p_value_extrapolated: bool = False
    verdict: str | None = None
    reasons: tuple[Reason, ...] = ()
    lesions: tuple[Lesion, ...] = ()


def apply_calibration(prediction: Prediction, calibration: Calibration | None) -> Prediction:
    """Add mask, lesions and p-values to a prediction; the score map stays as it is."""
    if calibration is None:
        return prediction
    score = prediction.score_map
    flagged = (score.data > calibration.voxel_threshold) & prediction.brain.data
    mask = without_small(score.with_data(flagged, "mask"), calibration.smallest_mm3)
    if calibration.cluster_mm3 is not None:
        mask = only_larger(mask, calibration.cluster_mm3)
    judged = calibration.subject_p_value(prediction.score, prediction.scan)
    return replace(
        prediction,
        mask=mask,
        threshold=calibration.threshold,
        p_value=judged.value,
        p_value_among=judged.among,
        p_value_extrapolated=judged.extrapolated,
        lesions=tuple(_judged(lesion, calibration) for lesion in lesions_of(mask, score)),
    )


def with_reasons(
    prediction: Prediction, calibration: Calibration, figures: Mapping[str, float]
) -> Prediction:
    """Add what tells an artefact from a lesion, by the figures of the scan."""
    if not can_tell(calibration.figures):
        return prediction
    reasons = reasons_of(figures, calibration.figures)
    return replace(prediction, verdict=verdict_of(reasons), reasons=reasons)


def _judged(lesion: Lesion, calibration: Calibration) -> Lesion:
    found = calibration.cluster_p_value(lesion.size_mm3)
    if found is None:
        return lesion
    return replace(lesion, p_value=found.value, extrapolated=found.extrapolated)
