"""Predicting with weights that come with the package: scans by contrast, each with its calibration.

::

    OUT/             the results, if all scans have one contrast
    OUT/CONTRAST/    else those of each contrast
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atypia.calibration import Calibration
from atypia.cohort.scan import Cohort, Scan
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import save_calibration, save_detector
from atypia.detectors.shipped import (
    DEFAULT,
    by_contrast,
    contrast_of_scan,
    folder_of,
    load_weights,
)
from atypia.errors import AtypiaError, CohortError, OutputError
from atypia.progress import Progress, silent, track
from atypia.runs.outcome import RunReport
from atypia.runs.predicting import predict_cohort


@dataclass(frozen=True)
class Predicted:
    """The results of the scans of one contrast.

    Parameters
    ----------
    contrast
        One of `atypia.detectors.shipped.CONTRASTS`; empty for a model with one calibration.
    folder
        Where they lie.
    report
        What was done and what failed.
    """

    contrast: str
    folder: Path
    report: RunReport


def predict_with_weights(
    cohort: Cohort,
    output: str | Path,
    *,
    weights: str | Path = DEFAULT,
    contrast: str | None = None,
    cache: Path | None = None,
    workers: int | None = 1,
    derivatives: bool = True,
    progress: Progress = silent,
) -> tuple[Predicted, ...]:
    """Predict scans by weights that need no training.

    Parameters
    ----------
    cohort
        Raw or stripped scans, each with one image.
    output
        The results folder.
    weights
        A name of `atypia.detectors.shipped.shipped`, or a model folder.
    contrast
        Of all scans; None: as the cohort names it, or as each image shows it.
    cache, workers, derivatives, progress
        As in `predict_cohort`.

    Returns
    -------
    tuple of Predicted
        One a contrast. A scan that cannot be read fails in the last of them.

    Raises
    ------
    SettingsError
        Weights or contrast are unknown.
    """
    output = Path(output)
    model = str(folder_of(weights))
    with ExitStack() as stack:
        if cache is None:
            # A scan of unknown contrast is prepared before it is known who predicts it.
            temporary = tempfile.TemporaryDirectory(prefix="atypia-")
            cache = Path(stack.enter_context(temporary))
        groups: dict[str, list[Scan]] = {}
        failed: list[Scan] = []
        if contrast is None and by_contrast(weights):
            detector = load_weights(weights)
            for scan in track(cohort.scans, "contrast", progress):
                try:
                    shown = contrast_of_scan(detector, scan, cache)
                except AtypiaError:
                    failed.append(scan)
                    continue
                groups.setdefault(shown, []).append(scan)
        else:
            groups[contrast or ""] = list(cohort)
        if failed:
            # They fail again where the others are predicted, so that the results name them.
            last = next(reversed(groups), "other")
            groups.setdefault(last, []).extend(failed)
        results = []
        for shown, scans in groups.items():
            folder = output if len(groups) == 1 else output / shown
            report = predict_cohort(
                load_weights(weights, shown or None),
                Cohort(tuple(scans), cohort.name),
                folder,
                model=model,
                cache=cache,
                workers=workers,
                derivatives=derivatives,
                progress=progress,
            )
            results.append(Predicted(shown, folder, report))
    return tuple(results)


def calibrate_site(
    weights: str | Path,
    healthy: Cohort,
    folder: str | Path,
    contrast: str | None,
    rules: dict[str, Any],
    *,
    cache: Path | None = None,
    progress: Progress = silent,
) -> tuple[Calibration | None, Detector]:
    """Adapt weights that come with the package to a scanner, without training.

    Parameters
    ----------
    weights
        A name of `atypia.detectors.shipped.shipped`, or a model folder.
    healthy
        Healthy scans of the scanner, of one contrast; about 50.
    folder
        The model folder that is written: the weights as they are, and the new calibration.
    contrast
        Whose shipped calibration the new one replaces; None: as the first scan shows it.
    rules
        Other arguments of `Detector.calibrate`.

    Returns
    -------
    tuple
        The calibration that the weights came with, and the adapted detector.

    Raises
    ------
    CohortError
        There are no scans.
    OutputError
        `folder` holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(folder, "is not empty", "Choose another folder for the adapted weights")
    if not len(healthy):
        raise CohortError(healthy.name, "has no scans", "Give about 50 healthy scans")
    if contrast is None and by_contrast(weights):
        contrast = contrast_of_scan(load_weights(weights), healthy[0], cache)
    detector = load_weights(weights, contrast)
    before = detector.calibration
    detector.calibrate(healthy, **rules, cache=cache, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    # As they were calibrated, to the last digit.
    save_detector(detector, folder)
    save_calibration(detector, folder)
    return before, detector
