"""Commands that use a model: `atypia calibrate`, `drift`, `predict`, `evaluate` and `report`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated

from cyclopts import Parameter

from atypia import files
from atypia.calibration.drift import RATE
from atypia.calibration.strata import LEAST
from atypia.cli.shared import (
    Cache,
    CohortOptions,
    Output,
    Workers,
    list_failures,
    progress_bar,
)
from atypia.cohort import joined
from atypia.cohort.corrupted import falsified
from atypia.detectors.model_folder import load_baselines, load_detector
from atypia.errors import InputError, SettingsError
from atypia.evaluation.result_tables import tables
from atypia.runs.drifting import drift_of_detector
from atypia.runs.evaluating import evaluate_detectors, evaluate_output
from atypia.runs.fitting import calibrate_model
from atypia.runs.predicting import predict_cohort

DRIFT_FOUND = 3
"""Exit code of `atypia drift`."""


def calibrate(
    model: Path,
    healthy: Path,
    *,
    voxel_fpr: float = 0.005,
    smallest_mm3: float = 0.0,
    scan_fpr: float | None = None,
    extrapolate: Annotated[bool, Parameter(negative="")] = False,
    stratify: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    stratum_least: int = LEAST,
    options: CohortOptions | None = None,
    cache: Cache = None,
) -> int:
    """Learn the threshold of a model, and of its baselines, from held-out healthy scans.

    Parameters
    ----------
    model
        Folder that `atypia fit` wrote; the calibration is stored in it.
    healthy
        Healthy scans of subjects that were not used for training.
    voxel_fpr
        Share of healthy brain voxels that may be flagged.
    smallest_mm3
        Flagged components smaller than this are dropped from masks.
    scan_fpr
        Share of healthy scans in which anything may be found, e.g. 0.05: smaller components than
        that asks for are dropped from masks. It needs 1 / scan-fpr - 1 scans.
    extrapolate
        Tell p-values below 1 / (n + 1), and reach a --scan-fpr for which the n scans are too few,
        by fitted tails: estimates, marked as such. It needs 50 scans.
    stratify
        Compare the scores of scans within strata of these: site, sex, age (in four bins).
    stratum_least
        Healthy scans that a stratum must have; a scan of another is compared with all.
    """
    scans = (options or CohortOptions()).open(healthy)
    with progress_bar() as progress:
        detector = calibrate_model(
            model,
            scans,
            voxel_fpr=voxel_fpr,
            smallest_mm3=smallest_mm3,
            scan_fpr=scan_fpr,
            extrapolate=extrapolate,
            stratify=stratify,
            stratum_least=stratum_least,
            cache=cache,
            progress=progress,
        )
    assert detector.calibration is not None
    calibration = detector.calibration
    threshold = calibration.threshold
    print(f"{detector.method}: threshold {threshold.value:.4g} ({threshold.provenance})")
    sizes = calibration.largest_mm3
    print(
        f"Largest flagged cluster of the healthy scans: median {median(sizes):.4g} mm3, at most "
        f"{max(sizes):.4g} mm3. Lowest p-value, but for extrapolated ones: "
        f"{calibration.lowest_p_value:.2g}."
    )
    return 0


def drift(
    model: Path,
    healthy: Path,
    *,
    rate: float = RATE,
    options: CohortOptions | None = None,
    cache: Cache = None,
) -> int:
    """Check whether new healthy-looking scans score like the calibration's; exit code 3 if not.

    Parameters
    ----------
    model
        Folder of a calibrated model.
    healthy
        New scans that look healthy, one a person, of nobody who trained or calibrated the model.
    rate
        False alarms that are accepted.
    """
    scans = (options or CohortOptions()).open(healthy)
    with progress_bar() as progress:
        found = drift_of_detector(
            load_detector(model), scans, rate=rate, cache=cache, progress=progress
        )
    print(found.sentence)
    return DRIFT_FOUND if found.found else 0


def predict(
    model: Path,
    scans: Path,
    *,
    output: Output,
    options: CohortOptions | None = None,
    cache: Cache = None,
    workers: Workers = None,
    derivatives: bool = True,
) -> int:
    """Find anomalies; score map, mask and restoration come back on each scan's own grid.

    Parameters
    ----------
    model
        Folder that `atypia fit` wrote.
    scans
        One image, a folder or a manifest.
    output
        A folder. Scans that are done already are kept.
    derivatives
        Give the results of scans with BIDS names under such names too, in OUT/derivatives/atypia.
    """
    from atypia.report import write_curves

    detector = load_detector(model)
    cohort = (options or CohortOptions()).open(scans)
    with progress_bar() as progress:
        report = predict_cohort(
            detector,
            cohort,
            output,
            model=str(model),
            cache=cache,
            workers=workers,
            derivatives=derivatives,
            progress=progress,
        )
    write_curves(output)
    print(f"{report.done} scans predicted, {report.kept} kept from before: {output}")
    if detector.calibration is None:
        print("The model is not calibrated: there are score maps, but no masks.")
    return list_failures(report.failures, len(cohort))


def evaluate(
    results: Path,
    cohort: Path,
    *,
    output: Output | None = None,
    positives: Path | None = None,
    artefact: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    severity: float = 3.0,
    froc: bool = False,
    options: CohortOptions | None = None,
    cache: Cache = None,
) -> int:
    """Compare a model (with its baselines), or the results of `predict`, with labels.

    Parameters
    ----------
    results
        A model folder, or a results folder of `atypia predict` (whose model's baselines are
        shown too, if its folder is still there).
    cohort
        Scans with lesion masks or conditions; healthy ones are the controls.
    output
        Where `evaluation.json` is written; the results folder if unset.
    positives
        A second cohort whose scans are all abnormal; unlabelled scans of the first are healthy.
    artefact
        Name of an artefact that a copy of every scan gets, or all; may be repeated. The copies are
        the abnormal scans, the unlabelled scans as they are the healthy ones.
    severity
        Of the artefacts: 1 barely visible, 3 clear, 5 gross.
    froc
        Tell the lesions found by false components a scan, over thresholds of the healthy scans
        that calibrated the model; takes a while on fine grids.
    """
    scans = (options or CohortOptions()).open(cohort)
    is_model = (results / "detector.json").exists()
    if (positives or artefact or froc) and not is_model:
        raise SettingsError(
            "--positives, --artefact and --froc",
            "need a model, because the scans have to be predicted",
            "Name the model folder instead of the results",
        )
    if positives is not None:
        others = (options or CohortOptions()).open(positives)
        scans = joined(scans.named("healthy"), others.named("abnormal"))
    if artefact:
        clean = scans.named("healthy").where(condition="healthy")
        scans = joined(scans.named("healthy"), falsified(clean, artefact, severity))
    if not is_model and not (results / "run.json").exists():
        raise InputError(results, "is neither a model nor results", "Check the path")
    with progress_bar() as progress:
        if is_model:
            detector = load_detector(results)
            everyone = {detector.method: detector} | load_baselines(results)
            run = evaluate_detectors(everyone, scans, froc=froc, cache=cache, progress=progress)
        else:
            run = evaluate_output(results, scans, cache=cache, progress=progress)
    found = run.evaluation.to_json()
    target = output or (None if is_model else results)
    print(tables(found))
    if target is not None:
        files.write_json(target / "evaluation.json", {"cohort": scans.name, **found})
        print(f"\n{target / 'evaluation.json'}")
    return list_failures(run.failures, len(scans))
