"""Comparing methods by a protocol: fit, calibrate, score and evaluate all of them, resumably."""

from __future__ import annotations

import csv
import io
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atypia import __version__, files
from atypia.cohort import Cohort, Scan, require_disjoint
from atypia.detectors.base import Detector, DetectorSettings
from atypia.detectors.model_folder import load_detector
from atypia.errors import AtypiaError, InputError, ModelError
from atypia.evaluation.comparisons import comparison_rows
from atypia.evaluation.evaluation import Evaluation, tables
from atypia.evaluation.ranking import RANK_COLUMNS, rank_rows
from atypia.evaluation.table import markdown
from atypia.preprocessing import Failure
from atypia.progress import Progress, silent
from atypia.registry import METHODS, detector_class
from atypia.runs.evaluating import evaluate_detectors
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.runs.protocol import Parts, Protocol

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
    whole: Evaluation | None = None
    failures: dict[str, Failure] = {}
    for number, parts in enumerate(folds):
        place = folder / f"fold-{number}"
        detectors = {
            name: _ready(protocol, name, method, settings, parts, place, workers, progress)
            for name, (method, settings) in contestants.items()
        }
        found, failed = _evaluated(detectors, parts, place, folder / "prepared", progress)
        failures |= {failure.scan.id: failure for failure in failed}
        if whole is None:
            whole = found
        else:
            whole.merge(found)
    assert whole is not None
    evaluation = whole.to_json()
    ranks = rank_rows(evaluation["lesions"])
    results = {
        "protocol": protocol.to_json(),
        "atypia": __version__,
        "machine": platform.processor() or platform.machine(),
        "seconds": round(time.monotonic() - started, 1),
        "scans": [{name: len(cohort) for name, cohort in parts.items()} for parts in folds],
        "failed": list(failures),
        "evaluation": evaluation,
        "ranks": ranks,
        "comparisons": _comparisons(whole, ranks),
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


def _ready(
    protocol: Protocol,
    name: str,
    method: str,
    settings: DetectorSettings,
    parts: Parts,
    place: Path,
    workers: int | None,
    progress: Progress,
) -> Detector:
    """Fit and calibrate one method in one fold, or load what an earlier run has made."""
    cache = place.parent / "prepared"
    # Other scans or settings are another identity, and so another folder: none is ever in the way.
    identity = detector_class(method)(settings).identity_of(parts["train"])
    model = place / "models" / f"{name.replace(' ', '-')}-{identity[:8]}"
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
    rules = f"{protocol.voxel_fpr} {protocol.smallest_mm3}"
    made_of = files.digest(fitted.digest(), rules, *_told(parts["calibration"], [fitted]))
    if fitted.calibration is not None and _note(model) == [made_of, _calibration_in(model)]:
        return fitted
    calibrate_model(
        model,
        parts["calibration"],
        voxel_fpr=protocol.voxel_fpr,
        smallest_mm3=protocol.smallest_mm3,
        cache=cache,
        progress=progress,
    )
    files.write_json(model / CALIBRATED, [made_of, _calibration_in(model)])
    return load_detector(model)


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
    detectors: dict[str, Detector], parts: Parts, place: Path, cache: Path, progress: Progress
) -> tuple[Evaluation, tuple[Failure, ...]]:
    """Evaluate all methods of a fold, or read what an earlier run has found."""
    scans = _told(parts["test"], list(detectors.values()))
    digests = [f"{name} {d.digest()} {d.calibration}" for name, d in detectors.items()]
    stored = place / f"results-{files.digest(*digests, *scans)[:12]}.json"
    if stored.exists():
        try:
            return Evaluation.load(stored), ()
        except InputError:
            pass  # a damaged file is made again
    run = evaluate_detectors(detectors, parts["test"], cache=cache, progress=progress)
    # Contestants have names of their own; baselines are known by their method.
    baselines = {name for name, d in detectors.items() if METHODS[d.method].baseline}
    run.evaluation.baselines = frozenset(baselines)
    if not run.failures:
        run.evaluation.save(stored)
    return run.evaluation, run.failures


def _comparisons(whole: Evaluation, ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the method of the best mean rank with every other one."""
    if not ranks:
        return []
    best = str(ranks[0]["method"]).removesuffix(" *")
    return comparison_rows(whole.scans, best, whole._marked)


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
    if results["ranks"]:
        parts.append("## Ranks\n\n" + markdown(results["ranks"], RANK_COLUMNS))
    if results["failed"]:
        parts.append(f"Left out, because they could not be read: {', '.join(results['failed'])}.")
    return "\n\n".join(parts) + "\n"
