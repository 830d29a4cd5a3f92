"""Commands that use a model: `atypia calibrate`, `drift`, `predict`, `evaluate` and `report`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Any

from cyclopts import Parameter

from atypia import files
from atypia.calibration.change import change_told
from atypia.calibration.drift import RATE
from atypia.calibration.strata import LEAST
from atypia.cli.reporting import PAGES
from atypia.cli.shared import (
    Cache,
    CohortOptions,
    Output,
    Workers,
    list_failures,
    progress_bar,
)
from atypia.cli.weights import summary_of
from atypia.cohort import Cohort, joined, modality_named
from atypia.cohort.corrupted import falsified
from atypia.detectors.model_folder import load_baselines, load_detector
from atypia.detectors.shipped import DEFAULT
from atypia.errors import InputError, SettingsError
from atypia.evaluation.result_tables import tables
from atypia.preprocessing import Failure
from atypia.runs.drifting import drift_of_detector
from atypia.runs.evaluating import evaluate_detectors, evaluate_output
from atypia.runs.fitting import calibrate_model
from atypia.runs.predicting import predict_cohort
from atypia.runs.shipped import calibrate_site, predict_with_weights

DRIFT_FOUND = 3
"""Exit code of `atypia drift`."""


def calibrate(
    model: Path | None = None,
    healthy: Path | None = None,
    *,
    weights: str | None = None,
    output: Output | None = None,
    modality: str | None = None,
    contrast: str | None = None,
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
        Folder that `atypia fit` wrote; the calibration is stored in it. Left out (with --healthy):
        the weights that come with atypia are adapted to your scanner.
    healthy
        Healthy scans of subjects that were not used for training; for a scanner about 50.
    weights
        Which weights to adapt: a name that `atypia weights` lists.
    output
        Model folder for the adapted weights, to be named in `atypia predict`.
    modality
        Which images of the scans, where they have several.
    contrast
        T1w, T2w, FLAIR or other: the shipped calibration that the new one is compared with; as the
        first scan shows it if unset.
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
    if healthy is None:
        problem = "needs healthy scans"
        raise SettingsError("atypia calibrate", problem, "Give --healthy COHORT")
    if (model is None) != (output is not None):
        raise SettingsError(
            "atypia calibrate",
            "takes a model, which keeps its calibration, or --output for weights that come with it",
            "Give `calibrate MODEL HEALTHY`, or `calibrate --healthy HEALTHY --output SITE`",
        )
    if model is not None and (weights is not None or contrast is not None):
        problem = "belong to weights that come with atypia"
        raise SettingsError("--weights and --contrast", problem, "Leave them out, or the model")
    scans = _opened(healthy, modality, options)
    rules: dict[str, Any] = {
        "voxel_fpr": voxel_fpr,
        "smallest_mm3": smallest_mm3,
        "scan_fpr": scan_fpr,
        "extrapolate": extrapolate,
        "stratify": stratify,
        "stratum_least": stratum_least,
    }
    with progress_bar() as progress:
        if model is not None:
            before = load_detector(model).calibration
            detector = calibrate_model(model, scans, **rules, cache=cache, progress=progress)
        else:
            assert output is not None
            before, detector = calibrate_site(
                weights or DEFAULT, scans, output, contrast, rules, cache=cache, progress=progress
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
    if before is not None:
        print("\n" + change_told(before, calibration))
    if output is not None:
        print(f"\n{output}")
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
    scans: Path | None = None,
    *,
    output: Output | None = None,
    weights: str | None = None,
    modality: str | None = None,
    contrast: str | None = None,
    pages: int = PAGES,
    options: CohortOptions | None = None,
    cache: Cache = None,
    workers: Workers = None,
    derivatives: bool = True,
) -> int:
    """Find anomalies; score map, mask and restoration come back on each scan's own grid.

    `atypia predict SCANS` needs no model and no training: weights that come with atypia answer.

    Parameters
    ----------
    model
        Folder that `atypia fit` or `atypia calibrate --output` wrote; it may be left out.
    scans
        One image, a folder or a manifest.
    output
        A folder. Scans that are done already are kept. Without a model: NAME_atypia if unset.
    weights
        Without a model: a name that `atypia weights` lists, or a model folder.
    modality
        Which images of the scans, where they have several.
    contrast
        Without a model: T1w, T2w, FLAIR or other, whose calibration is used; if unset as the cohort
        names the images, or as each image shows it.
    pages
        Without a model: how many scans get a page of their own, the most abnormal first.
    derivatives
        Give the results of scans with BIDS names under such names too, in OUT/derivatives/atypia.
    """
    from atypia.report import write_curves

    if scans is None:
        place = output or Path(f"{model.name.split('.')[0] or 'scans'}_atypia")
        cohort = _opened(model, modality, options)
        return _predict_untrained(
            cohort, place, weights or DEFAULT, contrast, pages, cache, workers, derivatives
        )
    if weights is not None or contrast is not None:
        problem = "belong to predictions without a model"
        raise SettingsError("--weights and --contrast", problem, "Name only the scans")
    if output is None:
        raise SettingsError("--output", "is missing", "Name a folder for the results")
    detector = load_detector(model)
    cohort = _opened(scans, modality, options)
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


def _opened(path: Path, modality: str | None, options: CohortOptions | None) -> Cohort:
    """Open a cohort; of scans with several images keep those of a modality, if one is named."""
    cohort = (options or CohortOptions()).open(path, modality)
    return cohort if modality is None else cohort.of_modality(modality_named(modality))


def _predict_untrained(
    cohort: Cohort,
    output: Path,
    weights: str,
    contrast: str | None,
    pages: int,
    cache: Path | None,
    workers: int | None,
    derivatives: bool,
) -> int:
    """Predict by weights that come with the package, tell what was found, and write its pages."""
    from atypia.report import write_curves
    from atypia.report.pages import write_pages

    failures: list[Failure] = []
    with progress_bar() as progress:
        found = predict_with_weights(
            cohort,
            output,
            weights=weights,
            contrast=contrast,
            cache=cache,
            workers=workers,
            derivatives=derivatives,
            progress=progress,
        )
        for part in found:
            failures += part.report.failures
            if part.report.done + part.report.kept == 0:
                continue
            write_curves(part.folder)
            written = write_pages(part.folder, most=pages, workers=workers, progress=progress)
            print(summary_of(part.folder))
            print(written.scans[0] if len(written.scans) == 1 else written.page)
    return list_failures(failures, len(cohort))


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
