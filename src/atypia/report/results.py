"""Results: what a results folder holds, read so that one damaged file costs one scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atypia import files
from atypia.errors import AtypiaError, InputError
from atypia.progress import Progress, silent, track

REQUIRED = frozenset(
    {"id", "condition", "image", "lesion_mask", "brain_ml", "score", "p_value", "threshold"}
    | {"mask_ml", "lesions", "details"}
)
"""What `scan.json` must tell to be shown."""

LAST = ("healthy", "unknown")
"""Conditions that are listed after all others: what was looked for comes first."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One scan of a run.

    Parameters
    ----------
    id, condition
        Which scan; condition is ``"unknown"`` when nobody told.
    place
        Folder of its volumes.
    description
        Its `scan.json`, or what was kept of it; empty when the scan failed.
    evaluated
        The run's own row of the evaluation; empty without one.
    problem
        Why there is nothing to show.
    """

    id: str
    condition: str
    place: Path
    description: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    problem: str | None = None

    @property
    def score(self) -> float:
        """Subject-level score."""
        return float(self.description["score"])


@dataclass(frozen=True, eq=False)
class Results:
    """A results folder.

    Parameters
    ----------
    folder
        Where it is.
    run
        Its `run.json`.
    evaluation
        Its `evaluation.json`, None when there is none that can be read.
    done
        Scans with results, grouped by condition, the highest score of each first.
    failed
        Scans without results.
    notes
        Other files that could not be read, and why.
    """

    folder: Path
    run: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    done: tuple[Entry, ...]
    failed: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    @property
    def conditions(self) -> dict[str, tuple[Entry, ...]]:
        """The scans with results by condition, in the order of the page."""
        names = dict.fromkeys(entry.condition for entry in self.done)
        return {name: tuple(e for e in self.done if e.condition == name) for name in names}


def read_results(
    folder: Path,
    *,
    keep: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    progress: Progress = silent,
) -> Results:
    """Read a results folder.

    Parameters
    ----------
    folder
        That `atypia predict` wrote.
    keep
        Gives what of a `scan.json` is needed, `score` and `threshold` at least; thousands of them
        fill the memory.

    Raises
    ------
    InputError
        It has no `run.json`.
    """
    if not (folder / "run.json").is_file():
        raise InputError(folder, "holds no run.json", "Run `atypia predict` into it first")
    run = files.read_json(folder / "run.json")
    if not isinstance(run, dict) or not {"method", "items", "calibration"} <= run.keys():
        raise InputError(
            folder / "run.json", "was not written by this version", "Run `atypia predict` again"
        )
    evaluation, notes = _evaluation(folder / "evaluation.json")
    rows = {
        row["scan"]: row
        for row in (evaluation or {"scans": ()})["scans"]
        if row["method"] == run["method"]
    }
    entries = [
        _entry(folder, item, rows.get(item["id"], {}), keep)
        for item in track(run["items"], "results", progress)
    ]
    done = [entry for entry in entries if entry.problem is None]
    if any(_is_of_other_results(entry) for entry in done):
        done = [_without_evaluation(entry) for entry in done]
        evaluation = None
        told = "evaluation.json: belongs to other results. Run `atypia evaluate` again."
        notes = (*notes, told)
    order = {name: i for i, name in enumerate(dict.fromkeys(e.condition for e in done))}
    order |= {name: len(order) + i for i, name in enumerate(LAST) if name in order}
    done.sort(key=lambda entry: (order[entry.condition], -entry.score, entry.id))
    failed = tuple(entry for entry in entries if entry.problem is not None)
    return Results(folder, run, evaluation, tuple(done), failed, notes)


def _is_of_other_results(entry: Entry) -> bool:
    """Tell whether a scan was predicted anew, by another model or calibration, since."""
    if not entry.evaluated:
        return False
    threshold = entry.description["threshold"] or {"value": None}
    there = (entry.description["score"], threshold["value"])
    return there != (entry.evaluated["score"], entry.evaluated["threshold"])


def _without_evaluation(entry: Entry) -> Entry:
    condition = str(entry.description.get("condition") or "unknown")
    return replace(entry, evaluated={}, condition=condition)


def _evaluation(path: Path) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    if not path.exists():
        return None, ()
    try:
        evaluation = files.read_json(path)
    except InputError as error:
        return None, (str(error),)
    if not isinstance(evaluation, dict) or not {"lesions", "subjects", "healthy", "scans"} <= (
        evaluation.keys()
    ):
        return None, (f"{path}: was not written by this version. Run `atypia evaluate` again.",)
    return evaluation, ()


def _entry(
    folder: Path,
    item: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    keep: Callable[[dict[str, Any]], dict[str, Any]],
) -> Entry:
    # Read one by one and not through `finished_scans`: a damaged scan.json must not hide the
    # scans after it, and a folder may hold scans of an earlier run that run.json does not list.
    name = str(item["id"])
    place = folder / "scans" / name
    problem = str(item.get("error", "failed")) if item["status"] != "done" else None
    description: dict[str, Any] = {}
    if problem is None:
        try:
            description = files.read_json(place / "scan.json")
            missing = REQUIRED - description.keys()
            if missing:
                problem = f"scan.json lacks {', '.join(sorted(missing))}"
            else:
                description = keep(description)
        except (AtypiaError, AttributeError, TypeError) as error:
            problem = str(error)
    condition = evaluated.get("condition") or description.get("condition") or "unknown"
    return Entry(name, str(condition), place, description, evaluated, problem)
