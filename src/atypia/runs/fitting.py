"""Fitting a method together with the baselines it will be compared with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from atypia import files
from atypia.calibration.strata import LEAST
from atypia.cohort.scan import Cohort
from atypia.detectors.base import Detector, DetectorSettings
from atypia.detectors.model_folder import (
    load_baselines,
    load_detector,
    save_calibration,
    save_detector,
)
from atypia.detectors.training_scans import PEOPLE
from atypia.errors import ModelError, OutputError
from atypia.progress import Progress, silent
from atypia.registry import METHODS, detector_class, method_named

UNFINISHED = "training"


def fit_model(
    method: str,
    settings: DetectorSettings,
    cohort: Cohort,
    folder: str | Path,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    start: Path | None = None,
    baselines: bool = True,
    progress: Progress = silent,
) -> Detector:
    """Fit a method and all baselines on the same scans and write one model folder.

    A run that was killed goes on from its last checkpoint when it is started again in the same
    way; a run that is complete is given back as it is.

    Parameters
    ----------
    method
        Name or alias from the registry.
    settings
        Of that method.
    folder
        The model folder.
    cache
        Folder of prepared scans; by default one inside the model folder, removed at the end.
    overwrite
        Replace a finished model of other settings or scans.
    start
        A snapshot or checkpoint of another run with the same network, from which to go on.
    baselines
        Fit the baselines, too; a comparison has them already.

    Raises
    ------
    OutputError
        `folder` holds another model, or something that is no model.
    ModelError
        `start` cannot be read or is of another network.
    """
    folder = Path(folder)
    if start is not None and start.resolve().is_relative_to(folder.resolve()):
        raise OutputError(start, "lies in the output folder", "Choose another output")
    detector = detector_class(method)(settings)
    if not overwrite and (finished := _finished(detector, cohort, folder, start)):
        return finished
    require_usable(folder, overwrite)
    unfinished = folder / UNFINISHED
    detector.fit(
        cohort,
        folder=unfinished,
        cache=cache or unfinished / "prepared",
        workers=workers,
        start=start,
        progress=progress,
    )
    if not is_first_process():
        return detector  # the first process of a distributed run writes
    for name in baselines_of(method) if baselines else ():
        kind = detector_class(name)
        shared = {k: getattr(settings, k) for k in DetectorSettings.model_fields}
        # A method's own score is unknown to a baseline; it ranks scans by its default.
        del shared["subject_score"]
        baseline = kind(kind.settings_class.make(shared))
        baseline.fit(cohort, cache=cache or unfinished / "prepared", progress=progress)
        save_detector(baseline, folder / "baselines" / name)
    save_detector(detector, folder)
    close(unfinished, folder)
    return detector


def _finished(
    detector: Detector, cohort: Cohort, folder: Path, start: Path | None
) -> Detector | None:
    """Give the model in a folder if it is the finished one of this very run, else None."""
    if not (folder / "detector.json").exists():
        return None
    try:
        there = load_detector(folder)
    except ModelError:
        return None
    return there if there.trained_on["identity"] == detector.identity_of(cohort, start) else None


def calibrate_model(
    folder: str | Path,
    healthy: Cohort,
    *,
    voxel_fpr: float,
    smallest_mm3: float,
    scan_fpr: float | None = None,
    extrapolate: bool = False,
    stratify: Sequence[str] = (),
    stratum_least: int = LEAST,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Detector:
    """Calibrate a model and its baselines on the same healthy scans, and store the result.

    The parameters are those of `Detector.calibrate`.
    """
    folder = Path(folder)
    detector = load_detector(folder)
    everyone = {folder: detector} | {
        folder / "baselines" / name: baseline for name, baseline in load_baselines(folder).items()
    }
    # All are calibrated before the first is stored: an error leaves the old calibrations.
    for one in everyone.values():
        one.calibrate(
            healthy,
            voxel_fpr=voxel_fpr,
            smallest_mm3=smallest_mm3,
            scan_fpr=scan_fpr,
            extrapolate=extrapolate,
            stratify=stratify,
            stratum_least=stratum_least,
            cache=cache,
            progress=progress,
        )
    for place, one in everyone.items():
        save_calibration(one, place)
    return detector


def baselines_of(method: str) -> list[str]:
    """Name the baselines that stand beside a method."""
    return [n for n, line in METHODS.items() if line.baseline and n != method_named(method)]


def require_usable(
    folder: Path, overwrite: bool, finished: str = "detector.json", what: str = "model"
) -> None:
    """Refuse a folder that a fit must not write into.

    Parameters
    ----------
    finished
        The file that tells a finished fit.
    what
        What such a folder is called.

    Raises
    ------
    OutputError
        It is a file, or holds the finished fit of another run, or something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(folder, "is a file", f"Name a folder for the {what}")
    there = {p.name for p in folder.iterdir()}
    if finished in there and not overwrite:
        raise OutputError(
            folder,
            f"holds a finished {what} of another run",
            "Choose another folder, or add --overwrite",
        )
    if there and not there & {finished, UNFINISHED}:
        raise OutputError(folder, f"holds files that are no {what}", "Choose another folder")


def close(unfinished: Path, folder: Path) -> None:
    """Keep the logs and snapshots of an unfinished fit in its final folder, and remove the rest."""
    log = unfinished / "training.jsonl"
    if log.exists():
        files.write_text(folder / "training.jsonl", log.read_text(encoding="utf-8"))
    for kept in ("tensorboard", "snapshots"):
        # Those of a model that was overwritten tell of other people.
        shutil.rmtree(folder / kept, ignore_errors=True)
        if (unfinished / kept).is_dir():
            shutil.copytree(unfinished / kept, folder / kept, dirs_exist_ok=True)
    if (folder / "snapshots").is_dir() and (unfinished / PEOPLE).exists():
        shutil.copy(unfinished / PEOPLE, folder / "snapshots" / PEOPLE)
    shutil.rmtree(unfinished, ignore_errors=True)


def is_first_process() -> bool:
    """Tell whether this is the process of a distributed run that writes and speaks."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    rank = next((os.environ[name] for name in names if name in os.environ), "0")
    return rank == "0"
