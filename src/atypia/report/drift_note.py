"""Drift note: whether the scans of a run that look healthy score like those of the calibration."""

from __future__ import annotations

from dataclasses import dataclass

from atypia.calibration.drift import drift_of
from atypia.errors import InputError
from atypia.report.results import Entry, Results

ONLY_HEALTHY = "The check is only meaningful for scans that look healthy"


@dataclass(frozen=True)
class DriftNote:
    """What the page says; `among` tells which scans were compared, empty for none."""

    among: str
    sentence: str
    found: bool = False


def drift_note(found: Results) -> DriftNote | None:
    """Compare subject-level scores with those of the calibration; None without a calibration.

    The scans are those labelled healthy; all of them where nothing is known of any. Of several
    scans of one person the first counts, because the test takes them as independent.
    """
    calibration = found.run["calibration"]
    if calibration is None or not found.done:
        return None
    healthy = [entry for entry in found.done if entry.condition == "healthy"]
    unknown = all(entry.condition == "unknown" for entry in found.done)
    if not healthy and not unknown:
        return DriftNote("", f"{ONLY_HEALTHY}, and no scan of this run is labelled healthy.")
    chosen = _one_a_person(healthy or found.done)
    among = f"{_scans(len(chosen))} labelled healthy" if healthy else f"all {_scans(len(chosen))}"
    if len(chosen) < len(healthy or found.done):
        among += " (one a person)"
    if not healthy:
        among += f"; none is labelled healthy. {ONLY_HEALTHY}: lesions raise the scores as well"
    try:
        drift = drift_of(calibration["subject_scores"], [entry.score for entry in chosen])
    except InputError as error:
        return DriftNote(among, f"Not tested: {error}")
    return DriftNote(among, drift.sentence, drift.found)


def _scans(count: int) -> str:
    return f"{count} scan" if count == 1 else f"{count} scans"


def _one_a_person(entries: list[Entry] | tuple[Entry, ...]) -> list[Entry]:
    """Keep one scan a person, chosen by name and not by score."""
    people: dict[tuple[str, str], Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.id):
        told = entry.description
        person = (str(told.get("dataset", "")), str(told.get("subject") or entry.id))
        people.setdefault(person, entry)
    return list(people.values())
