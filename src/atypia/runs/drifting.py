"""Drift of a model: new healthy-looking scans scored and compared with its calibration."""

from __future__ import annotations

from pathlib import Path

from atypia.calibration import Drift, drift_of
from atypia.calibration.drift import RATE, require_enough
from atypia.cohort.scan import Cohort
from atypia.cohort.splits import require_disjoint
from atypia.detectors.base import Detector
from atypia.errors import ModelError
from atypia.progress import Progress, silent, track


def drift_of_detector(
    detector: Detector,
    healthy: Cohort,
    *,
    rate: float = RATE,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Drift:
    """Test whether new healthy-looking scans score like those of a detector's calibration.

    Parameters
    ----------
    detector
        Fitted and calibrated.
    healthy
        New scans, one a person, of nobody whom the detector was trained or calibrated on.
    rate
        False alarms that are accepted.
    cache
        Folder of prepared scans.

    Raises
    ------
    ModelError
        There is no calibration.
    LeakageError
        A subject was used for training or calibration.
    CohortError
        A scan is labelled abnormal.
    InputError
        There are too few scans to show a drift at this rate.
    """
    calibration = detector.calibration
    if calibration is None:
        raise ModelError(detector.method, "is not calibrated", "Run `atypia calibrate` first")
    require_enough(len(calibration.subject_scores), len(healthy), rate)
    healthy.require_healthy("a drift check")
    require_disjoint(healthy, detector.trained_on["people"], "drift", "training")
    require_disjoint(healthy, calibration.people, "drift", "calibration")
    scores = [detector._scored(scan, cache)[1] for scan in track(healthy.scans, "drift", progress)]
    return drift_of(calibration.subject_scores, scores, rate)
