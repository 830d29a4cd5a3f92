"""Comparing methods by a protocol: fit, calibrate, score and evaluate all of them, resumably."""

from __future__ import annotations

import csv
import io
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atypia import __version__, files
from atypia.calibration import RATES, Threshold
from atypia.cohort import Cohort, Scan, require_disjoint
from atypia.cohort.splits import split
from atypia.detectors.base import Detector, DetectorSettings
from atypia.detectors.ensemble import Ensemble
from atypia.detectors.model_folder import load_detector, save_detector
from atypia.detectors.training_scans import PreparationSettings
from atypia.errors import AtypiaError, InputError, ModelError, SettingsError
from atypia.evaluation.comparisons import comparison_rows
from atypia.evaluation.evaluation import Evaluation
from atypia.evaluation.ranking import RANK_COLUMNS, rank_rows
from atypia.evaluation.result_tables import strata_parts, tables
from atypia.evaluation.storing import load_evaluation, save_evaluation
from atypia.evaluation.table import markdown
from atypia.preprocessing import Failure
from atypia.progress import Progress, silent
from atypia.registry import METHODS, detector_class
from atypia.runs.comparison_examples import chosen_examples, write_examples
from atypia.runs.evaluating import evaluate_detectors
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.runs.protocol import Combination, Parts, Protocol

SCORING = frozenset(DetectorSettings.model_fields) - frozenset(PreparationSettings.model_fields)
"""Settings of every detector that change how scans are scored, not how they are prepared."""
EXAMPLES = "examples"
"""In the folder of a comparison: what the method of the best mean rank finds in a few scans."""
CALIBRATED = "calibrated.json"
"""In a model folder of a comparison: what its calibration was made of."""


@dataclass(frozen=True, eq=False)
class ComparisonRun:
    """What a comparison found.

    Parameters
    ----------
    results
        As `benchmark.json` holds it.
    failures
        Test scans that could not be evaluated, each once; they count for no method.
    """

    results: dict[str, Any]
    failures: tuple[Failure, ...]


def compare_methods(
    protocol: Protocol,
    folder: str | Path,
    *,
    data: Path = Path(),
    workers: int | None = None,
    progress: Progress = silent,
) -> ComparisonRun:
    """Run a protocol; a run that was interrupted goes on when it is started again.

    What has changed since (scans, labels, settings) is fitted, calibrated or evaluated again.

    Parameters
    ----------
    folder
        Gets `models`, `results` of each fold, `benchmark.json`, `benchmark.md` and
        `benchmark.csv`.
    data
        Folder to which the protocol's paths are relative.
    workers
        Processes that simulate and prepare; None for one a core.

    Raises
    ------
    LeakageError
        Somebody stands on two sides: training, calibration, test.
    CohortError, InputError, SettingsError
        A source or a setting of the protocol cannot be used.
    """
    folder, started = Path(folder), time.monotonic()
    contestants = protocol.contestants()
    folds = protocol.parts(folder / "scans", Path(data), workers, progress)
    _refuse_leakage(folds)
    _require_halves(protocol, folds)
    whole: Evaluation | None = None
    failures: dict[str, Failure] = {}
    tested: dict[str, tuple[Scan, dict[str, Path]]] = {}
    for number, parts in enumerate(folds):
        place = folder / f"fold-{number}"
        detectors: dict[str, Detector] = {}
        models: dict[str, Path] = {}
        for name, (method, settings) in contestants.items():
            detectors[name], models[name] = _ready(
                protocol, name, method, settings, parts, place, workers, progress
            )
        for team in protocol.ensembles:
            detectors[team.name], models[team.name] = _combined(
                protocol, team, detectors, parts, place, progress
            )
        cache = folder / "prepared"
        labelled = {}
        if "validation" in parts:
            chosen, failed = _evaluated(detectors, parts["validation"], place, cache, progress)
            failures |= {failure.scan.id: failure for failure in failed}
            seen = len(parts["validation"]) - len(failed)
            told = f"labelled validation n={seen}, best pooled Dice"
            labelled = chosen.best_thresholds(told)
        found, failed = _evaluated(
            detectors, parts["test"], place, cache, progress, labelled, protocol.froc
        )
        failures |= {failure.scan.id: failure for failure in failed}
        # The first fold that tests a scan gives its example, as it gives the figures beside it.
        tested = {scan.id: (scan, models) for scan in parts["test"]} | tested
        if whole is None:
            whole = found
        else:
            whole.merge(found)
    assert whole is not None
    evaluation = whole.to_json()
    ranks = rank_rows(evaluation["lesions"])
    best = str(ranks[0]["method"]).removesuffix(" *") if ranks else ""
    examples = write_examples(
        chosen_examples(whole.scans, best),
        {name: scan for name, (scan, _) in tested.items()},
        lambda name: load_detector(tested[name][1][best]),
        folder / EXAMPLES,
        folder / "prepared",
    )
    results = {
        "protocol": protocol.to_json(),
        "atypia": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.monotonic() - started, 1),
        "scans": [{name: len(cohort) for name, cohort in parts.items()} for parts in folds],
        "failed": list(failures),
        "evaluation": evaluation,
        "ranks": ranks,
        "comparisons": comparison_rows(whole.scans, best, whole.marked) if best else [],
        "examples": examples,
        "curves": whole.precision_recall_rows(),
    }
    files.write_json(folder / "benchmark.json", results)
    files.write_text(folder / "benchmark.csv", _csv(evaluation["lesions"]))
    files.write_text(folder / "benchmark.md", _page(protocol, results))
    return ComparisonRun(results, tuple(failures.values()))


def _refuse_leakage(folds: Sequence[Parts]) -> None:
    """Refuse people on two sides of a fold, before the first hour of fitting."""
    for parts in folds:
        trained, calibrated = ({s.person for s in parts[n]} for n in ("train", "calibration"))
        require_disjoint(parts["calibration"], trained, "calibration", "training")
        require_disjoint(parts["test"], trained, "test", "training")
        require_disjoint(parts["test"], calibrated, "test", "calibration")
        if (validation := parts.get("validation")) is not None:
            require_disjoint(validation, trained, "validation", "training")
            require_disjoint(validation, calibrated, "validation", "calibration")
            validated = {scan.person for scan in validation}
            require_disjoint(parts["test"], validated, "test", "validation")


def _require_halves(protocol: Protocol, folds: Sequence[Parts]) -> None:
    """Refuse ensembles, before the first hour of fitting, where nobody is left to calibrate them.

    Raises
    ------
    SettingsError
        A fold has fewer than two calibrating people.
    """
    people = min(len({scan.person for scan in parts["calibration"]}) for parts in folds)
    if protocol.ensembles and people < 2:
        raise SettingsError(
            f"ensemble {protocol.ensembles[0].name}",
            f"needs two calibrating people, one for its scale and one to calibrate; {people} there",
            "Add calibration scans of other people, or leave ensembles out",
        )


def _ready(
    protocol: Protocol,
    name: str,
    method: str,
    settings: DetectorSettings,
    parts: Parts,
    place: Path,
    workers: int | None,
    progress: Progress,
) -> tuple[Detector, Path]:
    """Fit and calibrate one method in one fold, or load what an earlier run has made."""
    cache = place.parent / "prepared"
    # Other scans or settings are another identity, and so another folder: none is ever in the way.
    identity = detector_class(method)(settings).identity_of(parts["train"])
    model = _model_folder(place, name, identity)
    fitted = _finished(model, identity) or fit_model(
        method,
        settings,
        parts["train"],
        model,
        cache=cache,
        workers=workers,
        overwrite=True,  # what is there and not finished is damaged
        baselines=False,
        progress=progress,
    )
    return _calibrated(protocol, fitted, model, parts["calibration"], cache, progress), model


def _calibrated(
    protocol: Protocol,
    fitted: Detector,
    model: Path,
    healthy: Cohort,
    cache: Path,
    progress: Progress,
) -> Detector:
    """Calibrate a fitted method, unless an earlier run has done so with the same scans."""
    rules = f"{protocol.voxel_fpr} {protocol.smallest_mm3} {RATES}"
    made_of = files.digest(fitted.digest(), rules, *_told(healthy, [fitted]))
    if fitted.calibration is not None and _note(model) == [made_of, _calibration_in(model)]:
        return fitted
    calibrate_model(
        model,
        healthy,
        voxel_fpr=protocol.voxel_fpr,
        smallest_mm3=protocol.smallest_mm3,
        cache=cache,
        progress=progress,
    )
    files.write_json(model / CALIBRATED, [made_of, _calibration_in(model)])
    return load_detector(model)


def _combined(
    protocol: Protocol,
    team: Combination,
    detectors: Mapping[str, Detector],
    parts: Parts,
    place: Path,
    progress: Progress,
) -> tuple[Detector, Path]:
    """Combine fitted methods: half of the calibration people set the scale, the others calibrate.

    Both by the same people would let the ensemble know the scores that calibrate it.
    """
    cache = place.parent / "prepared"
    halves = split(parts["calibration"], {"scale": 0.5, "calibration": 0.5}, protocol.seed)
    members = {name: detectors[name] for name in team.members}
    # What the protocol tells every method about scoring it tells the ensemble, too.
    told = {k: v for k, v in protocol.settings.items() if k in SCORING} | {"seed": protocol.seed}
    identity = Ensemble.identity_of_members(members, halves["scale"], team.how)
    model = _model_folder(place, team.name, files.digest(identity, str(sorted(told.items()))))
    fitted = _finished(model, identity)
    if fitted is None:
        scale = halves["scale"]
        fitted = Ensemble.of(members, scale, how=team.how, cache=cache, progress=progress, **told)
        save_detector(fitted, model)
    return _calibrated(protocol, fitted, model, halves["calibration"], cache, progress), model


def _model_folder(place: Path, name: str, identity: str) -> Path:
    return place / "models" / f"{name.replace(' ', '-')}-{identity[:8]}"


def _finished(model: Path, identity: str) -> Detector | None:
    """Load the model of this very fit, None if it is not there or cannot be read."""
    try:
        there = load_detector(model)
    except ModelError:
        return None
    return there if there.trained_on["identity"] == identity else None


def _note(model: Path) -> Any:
    """Read what the calibration of a model was made of, and its digest; None if unknown."""
    try:
        return files.read_json(model / CALIBRATED)
    except InputError:
        return None


def _calibration_in(model: Path) -> str:
    """Give the digest of a model's calibration: somebody may have calibrated it since."""
    return files.sha256(model / "calibration.json")


def _told(scans: Cohort, detectors: Sequence[Detector]) -> list[str]:
    """Give a digest of every scan that changes with its images, its labels and who it is."""
    modalities = dict.fromkeys(str(d.trained_on["modality"]) for d in detectors)
    return [_scan_told(scan, list(modalities)) for scan in scans]


def _scan_told(scan: Scan, modalities: Sequence[str]) -> str:
    who = (scan.id, scan.person, scan.condition, scan.site, scan.sex, scan.age)
    try:
        images = [scan.fingerprint(modality) for modality in modalities]
        if scan.lesion_mask is not None:
            lesion = replace(scan, images={"lesion": scan.lesion_mask}, brain_mask=None)
            images.append(f"lesion {lesion.fingerprint('lesion')}")
    except AtypiaError as error:
        images = [str(error)]  # it fails when it is evaluated, and is named then
    return files.digest(*map(str, who), *images)


def _evaluated(
    detectors: dict[str, Detector],
    cohort: Cohort,
    place: Path,
    cache: Path,
    progress: Progress,
    labelled: Mapping[tuple[str, str], Threshold] | None = None,
    froc: bool = False,
) -> tuple[Evaluation, tuple[Failure, ...]]:
    """Evaluate all methods of a fold, or read what an earlier run has found."""
    labelled = labelled or {}
    scans = _told(cohort, list(detectors.values()))
    digests = [f"{name} {d.digest()} {d.calibration}" for name, d in detectors.items()]
    rules = [f"{key} {threshold}" for key, threshold in labelled.items()] + [f"froc {froc}"]
    stored = place / f"results-{files.digest(*digests, *rules, *scans)[:12]}.json"
    if stored.exists():
        try:
            return load_evaluation(stored), ()
        except InputError:
            pass  # a damaged file is made again
    run = evaluate_detectors(
        detectors, cohort, labelled=labelled, froc=froc, cache=cache, progress=progress
    )
    # Contestants have names of their own; baselines are known by their method.
    baselines = {name for name, d in detectors.items() if METHODS[d.method].baseline}
    run.evaluation.baselines = frozenset(baselines)
    if not run.failures:
        save_evaluation(run.evaluation, stored)
    return run.evaluation, run.failures


def _csv(rows: list[dict[str, Any]]) -> str:
    """Give the table of lesions; a mean has its interval in columns of their own."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for key, value in row.items():
            if isinstance(value, dict):
                low, high = value.get("interval") or (None, None)
                line |= {key: value["mean"], f"{key}_low": low, f"{key}_high": high}
            else:
                line[key] = value
        flat.append(line)
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in flat for name in line))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _page(protocol: Protocol, results: dict[str, Any]) -> str:
    parts = [f"# {protocol.summary}", tables(results["evaluation"])]
    for title, rows, columns in strata_parts(results["evaluation"]):
        parts.append(f"## {title}\n\n" + markdown(rows, columns))
    if results["ranks"]:
        parts.append("## Ranks\n\n" + markdown(results["ranks"], RANK_COLUMNS))
    if results["failed"]:
        parts.append(f"Left out, because they could not be read: {', '.join(results['failed'])}.")
    scans = " and ".join(
        ", ".join(f"{count} {name}" for name, count in fold.items()) for fold in results["scans"]
    )
    parts.append(
        f"Scans: {scans}. Seed {protocol.seed}. atypia {results['atypia']}, {results['machine']}."
    )
    return "\n\n".join(parts) + "\n"
