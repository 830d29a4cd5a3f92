"""A tiny weight set as it would come with the package, for tests that predict without training."""

from __future__ import annotations

from pathlib import Path

from atypia import files
from atypia.cohort import Cohort
from atypia.cohort.simulated import write_simulated
from atypia.detectors import shipped
from atypia.detectors.model_folder import load_detector, save_detector
from atypia.registry import detector_class
from atypia.simulation import SimulationSettings

NAME = "denoising_autoencoder"


def brains(folder: Path, modality: str, first: int, number: int) -> Cohort:
    """Simulate healthy brains at 6 mm."""
    simulation = SimulationSettings.make({"spacing_mm": 6.0, "modality": modality})
    return write_simulated([(simulation, range(first, first + number))], folder)


def tiny_weights(folder: Path) -> Path:
    """Fit, pack and calibrate; give the folder that stands for `shipped.FOLDER`."""
    kind = detector_class(NAME)
    settings = kind.settings_class.make({"modality": "any"}, "tiny")
    detector = kind(settings).fit(brains(folder / "learning", "any", 0, 3))
    place = folder / NAME
    place.mkdir()
    save_detector(detector, place, half=True)
    detector = load_detector(place)
    for contrast in ("T1w", "T2w", "FLAIR"):
        calibration = detector.calibrate(brains(folder / contrast, contrast, 100, 3))
        calibration.save(place / shipped.CALIBRATIONS / f"{contrast}.json")
    files.write_json(place / shipped.CARD, {"summary": "tiny", "known_failures": ["all of them"]})
    return folder
