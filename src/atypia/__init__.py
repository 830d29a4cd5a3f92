"""atypia: unsupervised anomaly detection and segmentation in 3D medical images."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Calibration": "atypia.calibration",
    "Cohort": "atypia.cohort",
    "Detector": "atypia.detectors",
    "DetectorSettings": "atypia.detectors",
    "METHODS": "atypia.registry",
    "Prediction": "atypia.detectors",
    "Scan": "atypia.cohort",
    "SimulationSettings": "atypia.simulation",
    "Volume": "atypia.volume",
    "detector_class": "atypia.registry",
    "load_detector": "atypia.detectors",
    "open_cohort": "atypia.cohort",
    "read": "atypia.io",
    "save_detector": "atypia.detectors",
    "simulate_subject": "atypia.simulation",
    "split": "atypia.cohort",
    "write": "atypia.io",
}

__all__ = sorted([*_PLACES, "__version__"])


def __getattr__(name: str) -> Any:
    # Names are imported when they are first used, so that `import atypia` stays quick.
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'atypia' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
