"""Examples of a comparison: the best, the median and the worst scan of each condition, by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from atypia import files
from atypia.cohort import Scan
from atypia.detectors.base import Detector
from atypia.errors import AtypiaError
from atypia.runs.predicting import write_prediction


def chosen_examples(rows: Iterable[Mapping[str, Any]], method: str) -> list[dict[str, Any]]:
    """Choose the scans of the best, the median and the worst average precision of one method.

    Parameters
    ----------
    rows
        Scans of an evaluation.
    method
        Its name in the tables, without a star.

    Returns
    -------
    list of dict
        `condition`, `which`, `scan`, `ap`, `dice` by condition; fewer than three where there are
        fewer scans. Of equal ones the first by name is taken.
    """
    conditions: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["method"] == method and row.get("ap") is not None:
            # A scan that several folds test is taken once.
            conditions.setdefault(row["condition"], {}).setdefault(row["scan"], row)
    chosen = []
    for condition, scans in conditions.items():
        ranked = sorted(scans.values(), key=lambda row: (-row["ap"], row["scan"]))
        # Of two scans one is the best and one the worst; a single one is the best.
        places = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best"}
        for place, which in sorted(places.items()):
            row = ranked[place]
            told = {name: row.get(name) for name in ("scan", "ap", "dice")}
            chosen.append({"condition": condition, "which": which, **told})
    return chosen


def write_examples(
    chosen: Iterable[Mapping[str, Any]],
    scans: Mapping[str, Scan],
    detector_of: Callable[[str], Detector],
    folder: Path,
    cache: Path,
) -> list[dict[str, Any]]:
    """Predict the chosen scans once more, and keep their volumes for the page.

    Parameters
    ----------
    chosen
        Of `chosen_examples`.
    scans
        All tested scans by name.
    detector_of
        Gives the fitted detector that tested a scan.
    folder
        Gets one folder an example.
    cache
        Prepared scans.

    Returns
    -------
    list of dict
        The examples with their `place`, relative to `folder`.
    """
    written = []
    for number, one in enumerate(chosen):
        scan = scans[one["scan"]]
        detector = detector_of(scan.id)
        modality = scan.modality(detector.trained_on["modality"])
        key = files.digest(
            detector.digest(), str(detector.calibration), scan.id, scan.fingerprint(modality)
        )
        place = folder / f"{number:02d}"
        if _key_in(place) != key:
            write_prediction(detector.predict(scan, cache=cache), place, key, 0.0)
        written.append({**one, "place": place.name})
    return written


def _key_in(place: Path) -> str | None:
    try:
        return str(files.read_json(place / "scan.json")["key"])
    except (AtypiaError, KeyError, TypeError):
        return None
