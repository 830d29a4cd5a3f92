"""Detectors: one file a method, all behind `Detector`."""

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.model_folder import load_detector, save_detector
from atypia.detectors.prediction import Finding, Prediction

__all__ = [
    "Detector",
    "DetectorSettings",
    "Finding",
    "Prediction",
    "TrainingSet",
    "load_detector",
    "save_detector",
]
