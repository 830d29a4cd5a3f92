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
from atypia.calibration.strata import HealthyStrata

__all__ = [
    "RATES",
    "Calibration",
    "Drift",
    "HealthyStrata",
    "PValue",
    "Threshold",
    "cluster_limit",
    "drift_of",
    "require_scans",
]
