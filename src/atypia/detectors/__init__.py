"""Detectors: one file a method, all behind `Detector`."""

from atypia.detectors.base import Detector, DetectorSettings, Finding, Prediction, TrainingSet
from atypia.detectors.model_folder import load_detector

__all__ = [
    "Detector",
    "DetectorSettings",
    "Finding",
    "Prediction",
    "TrainingSet",
    "load_detector",
]
