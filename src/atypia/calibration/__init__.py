"""Calibration: what counts as abnormal, learnt from held-out healthy scans after the fit."""

from atypia.calibration.calibration import (
    RATES,
    Calibration,
    Threshold,
    cluster_limit,
    require_scans,
)
from atypia.calibration.conformal import PValue
from atypia.calibration.drift import Drift, drift_of
from atypia.calibration.reasons import Reason, can_tell, reasons_of, verdict_of
from atypia.calibration.strata import HealthyStrata

__all__ = [
    "RATES",
    "Calibration",
    "Drift",
    "HealthyStrata",
    "PValue",
    "Reason",
    "Threshold",
    "can_tell",
    "cluster_limit",
    "drift_of",
    "reasons_of",
    "require_scans",
    "verdict_of",
]
