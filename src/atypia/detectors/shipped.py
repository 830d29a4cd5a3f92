"""Weights that come with the package: fitted detectors, and which calibration fits a scan.

::

    atypia/weights/NAME/
      detector.json, plan.json, weights.safetensors, settings.toml     a model folder
      calibrations/CONTRAST.json     what healthy scans of T1w, T2w, FLAIR and other contrast score
      card.json                      what it is, how it was made, what it reaches, how it fails
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atypia import files
from atypia.calibration import Calibration
from atypia.cohort.scan import Scan
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_detector
from atypia.detectors.tissue_prior import tissues_on
from atypia.errors import ModelError, unknown_name
from atypia.preprocessing import Prepared, prepare
from atypia.scoring.tissue_fit import contrast_of, fit_tissues

FOLDER = Path(__file__).parent.parent / "weights"
"""Where they lie in the installed package."""

DEFAULT = "ensemble"
"""What `atypia predict` uses when no model is named."""

CONTRASTS = ("T1w", "T2w", "FLAIR", "other")
"""What calibrations are told apart by."""

CALIBRATIONS = "calibrations"
CARD = "card.json"


@dataclass(frozen=True)
class WeightSet:
    """One fitted detector that comes with the package.

    Parameters
    ----------
    name
        As in `--weights NAME`.
    folder
        Its model folder.
    card
        The model card: JSON values.
    """

    name: str
    folder: Path
    card: Mapping[str, Any]

    @property
    def size_mb(self) -> float:
        """Size of its files, megabytes."""
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file()) / 1e6


def shipped() -> dict[str, WeightSet]:
    """Give the weight sets that come with this installation, by name."""
    places = sorted(path.parent for path in FOLDER.glob(f"*/{CARD}"))
    return {p.name: WeightSet(p.name, p, files.read_json(p / CARD)) for p in places}


def folder_of(weights: str | Path) -> Path:
    """Give the model folder of a weight set's name, or of a path.

    Raises
    ------
    SettingsError
        It is neither a name nor a folder.
    """
    there = shipped()
    if str(weights) in there:
        return there[str(weights)].folder
    if Path(weights).is_dir():
        return Path(weights)
    raise unknown_name("weights", str(weights), there)


def load_weights(weights: str | Path = DEFAULT, contrast: str | None = None) -> Detector:
    """Load a weight set, or a model folder, with the calibration of a contrast.

    Parameters
    ----------
    weights
        A name of `shipped`, or the path of a model folder.
    contrast
        One of `CONTRASTS`; None or a model without calibrations by contrast: its only one.

    Raises
    ------
    SettingsError
        The name or the contrast is unknown.
    ModelError
        The folder is no model, is damaged, or a calibration belongs to another fit.
    """
    folder = folder_of(weights)
    if contrast is not None and contrast not in CONTRASTS:
        raise unknown_name("contrast", contrast, CONTRASTS)
    detector = load_detector(folder)
    place = folder / CALIBRATIONS / f"{contrast}.json"
    if contrast is not None and place.exists():
        calibration = Calibration.load(place)
        if calibration.detector != detector.digest():
            raise ModelError(place, "belongs to another fit", "Install atypia again")
        detector.calibration = calibration
    return detector


def by_contrast(weights: str | Path) -> bool:
    """Tell whether a model has calibrations by contrast."""
    return (folder_of(weights) / CALIBRATIONS).is_dir()


def contrast_of_scan(detector: Detector, scan: Scan, cache: Path | None = None) -> str:
    """Give the contrast of a scan: as its cohort names it, or as the image shows it.

    Parameters
    ----------
    detector
        Whose plan brings the scan onto the template.
    scan
        With a single image, or with one of the detector's modality.
    cache
        Of prepared scans.

    Returns
    -------
    str
        One of `CONTRASTS`.
    """
    modality = scan.modality(detector.trained_on["modality"])
    if modality in CONTRASTS:
        return modality
    plan = detector._fitted_plan()
    return contrast_shown(prepare(scan, plan, modality, cache))


def contrast_shown(prepared: Prepared) -> str:
    """Read the contrast off a scan that was aligned to the template."""
    image = torch.from_numpy(prepared.image.data.copy())
    brain = torch.from_numpy(prepared.brain.data.copy())
    _, levels = fit_tissues(image, brain, tissues_on(prepared.image.geometry)[0])
    return contrast_of(levels.tolist())
