"""Predicting a cohort into a folder: goes on past bad scans, resumes, and lists what happened.

::

    OUT/
      run.json               what was run, and the status of every scan
      settings.toml          the detector's settings
      scans/ID/
        score_map.nii.gz     anomaly score on the scan's own grid
        mask.nii.gz          calibrated mask (when the model is calibrated)
        own_mask.nii.gz      the method's own label-free mask (when it makes one)
        restoration.nii.gz   the scan as it would look healthy (when the method makes one)
        brain_mask.nii.gz    the brain mask that was used
        scan.json            scores, verdict, lesions, details; written last
      derivatives/atypia/    the same under BIDS names, for scans that have such names
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atypia import __version__, files, io
from atypia.calibration import Reason, Threshold
from atypia.cohort.scan import METADATA, Cohort, Labels, Scan
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import weights_digest
from atypia.detectors.prediction import Prediction
from atypia.errors import AtypiaError, OutputError
from atypia.preprocessing import Failure, prepare_all
from atypia.progress import Progress, silent
from atypia.runs.derivatives import Derivatives
from atypia.runs.outcome import RunReport
from atypia.scoring.components import Lesion

VOLUMES = ("score_map", "mask", "own_mask", "restoration", "brain")
PAGE = "index.html"
"""Of a scan, in its folder, if one was written."""
FILES = {name: f"{name}.nii.gz" for name in VOLUMES} | {"brain": "brain_mask.nii.gz"}


def predict_cohort(
    detector: Detector,
    cohort: Cohort,
    output: str | Path,
    *,
    model: str = "",
    cache: Path | None = None,
    workers: int | None = 1,
    derivatives: bool = True,
    progress: Progress = silent,
) -> RunReport:
    """Predict every scan of a cohort and write the results.

    Parameters
    ----------
    detector
        Fitted, calibrated or not.
    output
        The folder; scans that are there from the same detector and input are kept.
    model
        Path of the model folder, noted in `run.json`.
    workers
        Processes that prepare scans ahead (with a cache).
    derivatives
        Give the results of scans with BIDS names under such names too.

    Returns
    -------
    RunReport
        Failures are in it, not raised.
    """
    output = Path(output)
    _require_usable(output)
    files.write_text(output / "settings.toml", detector.settings.to_toml())
    items: list[dict[str, Any]] = []
    failures: list[Failure] = []
    kept = 0
    if cache is not None and workers != 1 and len(cohort) > 1:
        plan, modality = detector._fitted_plan(), detector.trained_on["modality"]
        ready = prepare_all(cohort, plan, modality, cache=cache, workers=workers, progress=progress)
        for _ in ready:  # failures come again, and are noted, when the scan is predicted
            pass
    named = Derivatives(output, cohort, detector.trained_on["modality"]) if derivatives else None
    progress("predict", 0, len(cohort))
    for number, scan in enumerate(cohort, start=1):
        place = output / "scans" / scan.id
        try:
            item, was_there = _predict_one(detector, scan, place, cache)
            if named is not None:
                named.write(scan, place, FILES, detector.method, detector.digest())
            kept += was_there
        except AtypiaError as error:
            failures.append(Failure(scan, error))
            item = {"id": scan.id, "status": "failed", "error": str(error)}
        items.append(item)
        # Written after every scan: a killed run tells how far it came.
        files.write_json(output / "run.json", _run(detector, cohort, model, items))
        progress("predict", number, len(cohort), scan.id)
    if named is not None:
        named.describe()
    return RunReport(len(items) - len(failures) - kept, kept, tuple(failures))


def write_prediction(prediction: Prediction, place: Path, key: str, seconds: float) -> None:
    """Write one scan's volumes and, last of all, `scan.json`."""
    (place / PAGE).unlink(missing_ok=True)  # it tells of what stood here before
    for name in VOLUMES:
        volume = getattr(prediction, name)
        if volume is not None:
            io.write(volume, place / FILES[name])
        else:
            (place / FILES[name]).unlink(missing_ok=True)
    files.write_json(place / "scan.json", _description(prediction, key, seconds))


def read_prediction(place: Path, scan: Scan) -> Prediction:
    """Read one scan's results back.

    Raises
    ------
    InputError
        They are missing or damaged.
    """
    description = files.read_json(place / "scan.json")
    volumes: dict[str, Any] = {}
    for name in VOLUMES:
        if (place / FILES[name]).exists():
            kind = {"score_map": "score", "restoration": "image"}.get(name, "mask")
            volumes[name] = io.read(place / FILES[name], kind)  # type: ignore[arg-type]
    threshold = description["threshold"]
    return Prediction(
        scan=scan,
        score=description["score"],
        scores=description.get("scores", {}),
        details=description["details"],
        threshold=None if threshold is None else Threshold(**threshold),
        p_value=description["p_value"],
        p_value_among=description.get("p_value_among"),
        p_value_extrapolated=description.get("p_value_extrapolated", False),
        verdict=description.get("verdict"),
        reasons=tuple(Reason.from_json(reason) for reason in description.get("reasons", ())),
        lesions=tuple(Lesion.from_json(lesion) for lesion in description["lesions"]),
        **volumes,
    )


def finished_scans(output: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give folder and description of every scan that a run has finished."""
    for path in sorted((Path(output) / "scans").glob("*/scan.json")):
        yield path.parent, files.read_json(path)


def _predict_one(
    detector: Detector, scan: Scan, place: Path, cache: Path | None
) -> tuple[dict[str, Any], bool]:
    calibration = detector.calibration
    modality = scan.modality(detector.trained_on["modality"])
    key = files.digest(
        __version__,
        detector.digest(),
        "" if calibration is None else calibration.digest(),
        scan.fingerprint(modality),
    )
    if (place / "scan.json").exists():
        before = files.read_json(place / "scan.json")
        if before.get("key") == key:
            told = _told_of(scan)
            if any(before.get(name) != value for name, value in told.items()):
                # Nothing that was predicted depends on it, but pages and evaluations show it.
                files.write_json(place / "scan.json", before | told)
            return {"id": scan.id, "status": "done", "seconds": before["seconds"]}, True
    started = time.monotonic()
    prediction = detector.predict(scan, cache=cache)
    seconds = round(time.monotonic() - started, 2)
    write_prediction(prediction, place, key, seconds)
    return {"id": scan.id, "status": "done", "seconds": seconds}, False


def _description(prediction: Prediction, key: str, seconds: float) -> dict[str, Any]:
    scan = prediction.scan
    voxel_ml = prediction.brain.geometry.voxel_volume_mm3 / 1000
    threshold, mask = prediction.threshold, prediction.mask
    return {
        "id": scan.id,
        "key": key,
        **_told_of(scan),
        "image": prediction.score_map.source,
        "brain_ml": float(prediction.brain.data.sum()) * voxel_ml,
        "score": prediction.score,
        "scores": prediction.scores,
        "p_value": prediction.p_value,
        "p_value_among": prediction.p_value_among,
        "p_value_extrapolated": prediction.p_value_extrapolated,
        "threshold": None if threshold is None else vars(threshold),
        "mask_ml": None if mask is None else float(mask.data.sum()) * voxel_ml,
        "verdict": prediction.verdict,
        "reasons": [reason.to_json() for reason in prediction.reasons],
        "lesions": [lesion.to_json() for lesion in prediction.lesions],
        "details": prediction.details,
        "seconds": seconds,
    }


def _told_of(scan: Scan) -> dict[str, Any]:
    """Give what a cohort tells of a scan besides its images."""
    labels = scan.lesion_mask if isinstance(scan.lesion_mask, Labels) else None
    lesion = scan.lesion_mask if labels is None else labels.path
    return {
        **{name: getattr(scan, name) for name in METADATA},
        "lesion_mask": str(lesion) if isinstance(lesion, Path) else None,
        "lesion_labels": [] if labels is None else list(labels.values),
    }


def _run(
    detector: Detector, cohort: Cohort, model: str, items: list[dict[str, Any]]
) -> dict[str, Any]:
    calibration = detector.calibration
    return {
        "atypia": __version__,
        "python": platform.python_version(),
        "method": detector.method,
        "model": model,
        "detector": detector.digest(),
        "weights_sha256": weights_digest(model) if model else None,
        "settings": detector.settings.to_json(),
        "trained_on": {k: v for k, v in detector.trained_on.items() if k != "people"},
        "calibration": None
        if calibration is None
        else {"provenance": calibration.provenance, "cohort": calibration.cohort}
        | calibration.model_dump(mode="json", exclude={"people": True, "strata": {"labels"}}),
        "cohort": cohort.name,
        "scans": len(cohort),
        "items": items,
    }


def _require_usable(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(output, "is a file", "Name a folder for the results")
    if (output / "detector.json").exists():
        raise OutputError(output, "is a model folder", "Choose another folder for the results")
