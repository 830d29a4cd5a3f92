"""Evaluating detectors, or the results of an earlier run, on a labelled cohort."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atypia import files
from atypia.calibration import RATES, Threshold
from atypia.cohort.scan import Cohort, Scan
from atypia.cohort.splits import require_disjoint
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_baselines, load_detector
from atypia.detectors.prediction import Prediction
from atypia.errors import AtypiaError, CohortError, ModelError, SettingsError
from atypia.evaluation.evaluation import Evaluation, ScanResult
from atypia.evaluation.masks import peak_signal_to_noise, structural_similarity
from atypia.preprocessing import Failure
from atypia.progress import Progress, silent, track
from atypia.registry import METHODS
from atypia.runs.predicting import finished_scans, read_prediction


@dataclass(frozen=True)
class Contestant:
    """One method of an evaluation.

    Parameters
    ----------
    predict
        Gives what it finds in a scan.
    voxel_fpr
        What its threshold was calibrated to, None without a calibration.
    modality
        Of the images that it looks at.
    """

    predict: Callable[[Scan], Prediction]
    voxel_fpr: float | None
    modality: str


@dataclass(frozen=True, eq=False)
class EvaluationRun:
    """An evaluation, and the scans that could not be evaluated."""

    evaluation: Evaluation
    failures: tuple[Failure, ...]


def evaluate_detectors(
    detectors: Mapping[str, Detector],
    cohort: Cohort,
    *,
    labelled: Mapping[tuple[str, str], Threshold] | None = None,
    froc: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> EvaluationRun:
    """Predict every scan with every detector and compare with the labels.

    Parameters
    ----------
    detectors
        Name in the tables -> fitted detector.
    cohort
        Lesion masks where known; scans with `condition` healthy are the controls.
    labelled
        Condition and method -> a threshold that the labels of other scans have chosen.
    froc
        Count lesions and false components over the thresholds of each calibration's ladder; it
        costs a labelling of components a step.
    cache
        Folder of prepared scans; a temporary one by default, so that detectors share the work.

    Raises
    ------
    LeakageError
        A subject was used for training or calibration.
    """
    _refuse_leakage(detectors, cohort)
    with tempfile.TemporaryDirectory(prefix="atypia-") as temporary:
        contestants = _contestants(detectors, cache or Path(temporary))
        ladders = _ladders(detectors) if froc else {}
        if froc and not ladders:
            told = "needs a calibration, whose healthy scans give the thresholds"
            raise SettingsError("FROC curves", told, "Run `atypia calibrate` (again)")
        return _evaluate(contestants, cohort, progress, labelled, ladders)


def evaluate_output(
    output: str | Path,
    cohort: Cohort,
    *,
    cache: Path | None = None,
    progress: Progress = silent,
) -> EvaluationRun:
    """Compare the results of `predict_cohort` with the labels of the same cohort.

    The baselines that were fitted beside the model are predicted anew, if the model's folder is
    still where it was. Whom the model has learnt from only its folder tells: without it nobody can
    be refused.

    Raises
    ------
    CohortError
        `output` holds no results, or none of this cohort's scans.
    LeakageError
        A subject was used for training or calibration.
    """
    output = Path(output)
    run = files.read_json(output / "run.json")
    there = {description["id"]: place for place, description in finished_scans(output)}
    common = [i for i, scan in enumerate(cohort) if scan.id in there]
    if not common:
        raise CohortError(output, f"holds none of the scans of {cohort.name}", "Check both paths")
    chosen = cohort.take(common)
    baselines = load_baselines(run["model"]) if run["model"] else {}
    _refuse_leakage(baselines | _model_of(run), chosen)
    rate = None if run["calibration"] is None else run["calibration"]["voxel_fpr"]
    with tempfile.TemporaryDirectory(prefix="atypia-") as temporary:
        stored = Contestant(
            lambda scan: read_prediction(there[scan.id], scan), rate, run["trained_on"]["modality"]
        )
        contestants = _contestants(baselines, cache or Path(temporary))
        return _evaluate({run["method"]: stored} | contestants, chosen, progress)


def _model_of(run: Mapping[str, Any]) -> dict[str, Detector]:
    """Load the model that gave the results of a run, if it is still there and the same."""
    try:
        there = load_detector(run["model"]) if run["model"] else None
    except ModelError:
        return {}
    same = there is not None and there.digest() == run.get("detector")
    return {run["method"]: there} if there is not None and same else {}


def condition_of(scan: Scan, has_lesion: bool) -> str:
    """Name the condition by which a scan is grouped."""
    return scan.condition or ("lesion" if has_lesion else "unknown")


def _refuse_leakage(detectors: Mapping[str, Detector], cohort: Cohort) -> None:
    for name, detector in detectors.items():
        require_disjoint(cohort, detector.trained_on["people"], "test", f"training {name}")
        if detector.calibration is not None:
            people = detector.calibration.people
            require_disjoint(cohort, people, "test", f"calibrating {name}")


def _ladders(detectors: Mapping[str, Detector]) -> dict[str, Sequence[float]]:
    """Give the ladders of the calibrations that have one."""
    calibrations = {name: detector.calibration for name, detector in detectors.items()}
    return {name: c.ladder for name, c in calibrations.items() if c is not None and c.ladder}


def _contestants(detectors: Mapping[str, Detector], cache: Path) -> dict[str, Contestant]:
    return {
        name: Contestant(
            partial(detector.predict, cache=cache),
            None if detector.calibration is None else detector.calibration.voxel_fpr,
            detector.trained_on["modality"],
        )
        for name, detector in detectors.items()
    }


def _evaluate(
    contestants: Mapping[str, Contestant],
    cohort: Cohort,
    progress: Progress,
    labelled: Mapping[tuple[str, str], Threshold] | None = None,
    ladders: Mapping[str, Sequence[float]] | None = None,
) -> EvaluationRun:
    baselines = (name for name in contestants if name in METHODS and METHODS[name].baseline)
    evaluation = Evaluation(baselines, labelled, ladders=ladders, rates=RATES)
    failures = []
    for scan in track(cohort.scans, "evaluate", progress):
        try:
            results = [_result(name, scan, one) for name, one in contestants.items()]
        except AtypiaError as error:
            failures.append(Failure(scan, error))
            continue
        # Only now: a scan that failed under one method counts under none.
        for result in results:
            evaluation.add(result)
    return EvaluationRun(evaluation, tuple(failures))


def _result(name: str, scan: Scan, contestant: Contestant) -> ScanResult:
    found = contestant.predict(scan)
    lesion = scan.lesion()
    if lesion is not None:
        found.score_map.require_same_grid(lesion)
    psnr = ssim = None
    if found.restoration is not None:
        healthy = found.brain.data if lesion is None else found.brain.data & ~lesion.data
        image = scan.image(scan.modality(contestant.modality)).data
        psnr = peak_signal_to_noise(image, found.restoration.data, healthy)
        ssim = structural_similarity(image, found.restoration.data, healthy)
    return ScanResult(
        scan=scan.id,
        condition=condition_of(scan, lesion is not None and bool(lesion.data.any())),
        method=name,
        score=found.score,
        score_map=found.score_map.data,
        brain=found.brain.data,
        lesion=None if lesion is None else lesion.data,
        mask=None if found.mask is None else found.mask.data,
        own_mask=None if found.own_mask is None else found.own_mask.data,
        threshold=found.threshold,
        voxel_fpr=contestant.voxel_fpr,
        p_value=found.p_value,
        site=scan.site or scan.dataset,
        spacing_mm=found.score_map.spacing_mm,
        scores=found.scores,
        psnr=psnr,
        ssim=ssim,
        person=scan.person,
        sex=scan.sex,
        age=scan.age,
    )
