"""Preparing a cohort into a folder: goes on past bad scans, resumes, and lists what happened.

::

    OUT/
      plan.json              the steps of preprocessing
      prepare.json           what was run, and the status of every scan
      manifest.tsv           the scans that were prepared: a cohort, with figures of their quality
      scans/KEY/             one prepared scan; OUT/scans serves as `--cache` of other commands
        image.npy            normalised intensities on the working grid, memory-mapped
        brain.npy, native_brain.npy, prepared.json
        quality.json         figures of its quality; written last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from atypia import __version__, files
from atypia.cohort.manifest import read_manifest, write_manifest
from atypia.cohort.scan import Cohort, Labels, Scan
from atypia.detectors.training_scans import PreparationSettings
from atypia.errors import AtypiaError, CohortError, InputError, OutputError
from atypia.parallel import map_in_processes
from atypia.preprocessing import Failure, Plan, Prepared, prepare
from atypia.preprocessing.prepare import is_prepared, load_prepared, place_in_cache
from atypia.progress import Progress, silent
from atypia.runs.outcome import RunReport
from atypia.runs.quality import MEASURES, Quality, Verdict, compare, measure

CACHE = "scans"
RECORD = "prepare.json"


@dataclass(frozen=True, eq=False)
class PreparedCohort(Sequence[Prepared]):
    """Prepared scans, memory-mapped when they are asked for.

    Parameters
    ----------
    cohort
        The scans themselves, in the same order.
    plan
        How they were prepared.
    folders
        Where each lies.
    """

    cohort: Cohort
    plan: Plan
    folders: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.folders)

    @overload
    def __getitem__(self, index: int) -> Prepared: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prepared]: ...
    def __getitem__(self, index: int | slice) -> Prepared | list[Prepared]:
        if isinstance(index, slice):
            return [load_prepared(folder) for folder in self.folders[index]]
        return load_prepared(self.folders[index])


def prepare_cohort(
    cohort: Cohort,
    output: str | Path,
    settings: PreparationSettings | None = None,
    *,
    plan: Plan | None = None,
    workers: int | None = 1,
    progress: Progress = silent,
) -> RunReport:
    """Prepare every scan of a cohort, measure its quality, and write a manifest.

    Parameters
    ----------
    cohort
        Of files.
    output
        The folder; scans that are there from the same plan and input are kept.
    settings
        Of the plan; the defaults if None.
    plan
        Use this one, e.g. a model's, and of the settings only the modality.
    workers
        Number of processes; None for one a core.

    Returns
    -------
    RunReport
        Failures are in it, not raised.

    Raises
    ------
    CohortError
        No scan at all can be planned for, or a scan lives in memory.
    OutputError
        `output` is a file or a model folder.
    """
    output, settings = Path(output), settings or PreparationSettings()
    _require_usable(output)
    _require_files(cohort)
    modality = cohort[0].modality(settings.modality)
    plan, planned_for = _plan(cohort, output, settings, plan, modality)
    files.write_json(output / "plan.json", plan.to_json())
    record = {
        "atypia": __version__,
        "cohort": cohort.name,
        "modality": modality,
        "settings": settings.to_json(),
        "plan": plan.digest(),
        "planned_for": planned_for,
    }
    files.write_json(output / RECORD, record)

    places = {scan.id: _place(scan, plan, modality, output / CACHE) for scan in cohort}
    open_jobs = [
        (scan, plan, modality, output / CACHE)
        for scan in cohort
        if not _is_finished(places[scan.id])
    ]
    results = map_in_processes(_attempt, open_jobs, workers, "prepare", progress)
    failures = tuple(result for result in results if result is not None)

    failed = {failure.scan.id: failure.error for failure in failures}
    items = [
        {"id": scan.id, "status": "failed", "error": str(failed[scan.id])}
        if scan.id in failed
        else {"id": scan.id, "status": "done", "place": _below(places[scan.id], output)}
        for scan in cohort
    ]
    good = Cohort(tuple(scan for scan in cohort if scan.id not in failed), cohort.name)
    verdicts = compare([q for scan in good if (q := read_quality(places[scan.id])) is not None])
    _write_manifest(good, output, [_below(places[scan.id], output) for scan in good], verdicts)
    files.write_json(output / RECORD, {**record, "items": items})
    return RunReport(len(open_jobs) - len(failures), len(cohort) - len(open_jobs), failures)


def open_prepared(output: str | Path) -> PreparedCohort:
    """Open the folder that `prepare_cohort` wrote; no image is read yet.

    Raises
    ------
    InputError
        The folder was not written by `prepare_cohort`, or not to its end.
    CohortError
        No scan of it could be prepared.
    """
    output = Path(output)
    items = read_record(output)["items"]
    folders = tuple(output / item["place"] for item in items if item["status"] == "done")
    if not folders:
        raise CohortError(output, "holds no prepared scan", "Mend the scans and prepare them again")
    cohort = read_manifest(output / "manifest.tsv")
    return PreparedCohort(cohort, Plan.make(files.read_json(output / "plan.json")), folders)


def read_record(output: Path) -> dict[str, Any]:
    """Read what a finished run noted.

    Raises
    ------
    InputError
        There is no such run, or it was cut off.
    """
    record = files.read_json(output / RECORD)
    if not isinstance(record, dict) or "items" not in record:
        raise CohortError(output, "was not prepared to its end", "Run `atypia prepare` again")
    return record


def read_quality(place: Path | None) -> Quality | None:
    """Read the figures of a prepared scan; None when they are absent, damaged or outdated."""
    if place is None or not (place / "quality.json").exists():
        return None
    try:
        return Quality.from_json(files.read_json(place / "quality.json"))
    except (InputError, TypeError, KeyError):
        return None  # damaged: it is measured again


def _plan(
    cohort: Cohort, output: Path, settings: PreparationSettings, given: Plan | None, modality: str
) -> tuple[Plan, str]:
    """Give the plan, and a digest of what it was made for; one made before is taken again."""
    if given is not None:
        return given, given.digest()
    # A plan may look at every scan; one that looks at none is made again at no cost.
    prints = [_fingerprint(scan, modality) for scan in cohort]
    planned_for = files.digest(__version__, settings.digest(), modality, *prints)
    if (output / RECORD).exists() and (output / "plan.json").exists():
        before = files.read_json(output / RECORD)
        if isinstance(before, dict) and before.get("planned_for") == planned_for:
            return Plan.make(files.read_json(output / "plan.json")), planned_for
    return _plan_past_bad_scans(cohort, settings, modality), planned_for


def _plan_past_bad_scans(cohort: Cohort, settings: PreparationSettings, modality: str) -> Plan:
    """Plan for the scans that can be read; the others are listed when they are prepared."""
    try:
        return settings.plan_for(cohort, modality)
    except AtypiaError as error:
        good = [i for i in range(len(cohort)) if _can_plan(cohort.take([i]), settings, modality)]
        if not good:
            raise CohortError(
                cohort.name, f"has no scan that can be prepared ({error})", "Mend the scans"
            ) from error
        return settings.plan_for(cohort.take(good), modality)


def _can_plan(cohort: Cohort, settings: PreparationSettings, modality: str) -> bool:
    try:
        settings.plan_for(cohort, modality)
    except AtypiaError:
        return False
    return True


def _attempt(job: tuple[Scan, Plan, str, Path]) -> Failure | None:
    """Prepare and measure one scan; its results lie in the cache."""
    try:
        prepared = prepare(*job)
        files.write_json(place_in_cache(*job) / "quality.json", measure(prepared).to_json())
    except AtypiaError as error:
        return Failure(job[0], error)
    return None


def _is_finished(place: Path | None) -> bool:
    return place is not None and is_prepared(place) and read_quality(place) is not None


def _place(scan: Scan, plan: Plan, modality: str, cache: Path) -> Path | None:
    try:
        return place_in_cache(scan, plan, modality, cache)
    except AtypiaError:
        return None  # comes again, and is noted, when the scan is prepared


def _fingerprint(scan: Scan, modality: str) -> str:
    try:
        return scan.fingerprint(modality)
    except AtypiaError:
        return ""


def _below(place: Path | None, output: Path) -> str:
    return "" if place is None else place.relative_to(output).as_posix()


def _write_manifest(
    cohort: Cohort, output: Path, places: Sequence[str], verdicts: Sequence[Verdict]
) -> None:
    more: dict[str, list[str]] = {"id": [scan.id for scan in cohort], "prepared": list(places)}
    for name in MEASURES:
        more[name] = [f"{v.values[name]:.5g}" if name in v.values else "" for v in verdicts]
    more["largest_z"] = [f"{verdict.largest_z:.2f}" for verdict in verdicts]
    more["remarks"] = ["; ".join(verdict.remarks) for verdict in verdicts]
    write_manifest(cohort, output / "manifest.tsv", more)


def _require_files(cohort: Cohort) -> None:
    if not len(cohort):
        raise CohortError(cohort.name, "has no scans", "Give at least one scan")
    for scan in cohort:
        sources = [*scan.images.values(), scan.brain_mask, scan.lesion_mask]
        if not all(source is None or isinstance(source, Path | Labels) for source in sources):
            raise CohortError(f"scan {scan.id}", "is not a file", "Write its images first")


def _require_usable(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(output, "is a file", "Name a folder for the prepared scans")
    for name, what in (("detector.json", "a model"), ("run.json", "a results")):
        if (output / name).exists():
            raise OutputError(output, f"is {what} folder", "Choose another folder")
