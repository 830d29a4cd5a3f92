"""Calibration: what counts as abnormal, learnt from held-out healthy scans after the fit."""

from atypia.calibration.calibration import Calibration, Threshold

__all__ = ["Calibration", "Threshold"]
