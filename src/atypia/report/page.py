"""Page: gather what a results folder tells into one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from atypia import files
from atypia.errors import AtypiaError
from atypia.progress import Progress, silent, track
from atypia.report import charts
from atypia.report.cohort_table import CohortTable, cohort_table, page_link, ranked
from atypia.report.distributions import by_condition, distributions
from atypia.report.drift_note import drift_note
from atypia.report.pictures import FOUND, OWN, TRUE, Pictures, ScoreScale, draw_scan
from atypia.report.privacy import file_name, setting_without_folders, without_folders
from atypia.report.rendering import Fact, flat, number, p_value, template
from atypia.report.results import Entry, Results, read_results
from atypia.report.tables import evaluation_tables, precision_intervals
from atypia.report.thumbnails import MOST_BYTES, MOST_THUMBNAILS, Thumbnail, thumbnails_of

MOST_PICTURES = 60
"""Scans that are all shown with pictures; more would make the page too heavy for a browser."""
PICTURES_OF_MANY = 12
"""Scans that are shown with pictures in a larger run."""
MOST_LESIONS = 5


@dataclass(frozen=True, eq=False)
class Card:
    """What the page shows of one scan with pictures."""

    entry: Entry
    anchor: str
    link: str
    facts: tuple[Fact, ...]
    lesions: tuple[Mapping[str, Any], ...]
    pictures: Pictures | None = None
    curve: Markup | None = None
    problem: str | None = None


def write_report(
    results: Path,
    output: Path | None = None,
    *,
    workers: int | None = 1,
    progress: Progress = silent,
) -> Path:
    """Write one HTML page that shows the results of `atypia predict`, offline and in one file.

    No request leaves the page, and no folder is told, only the last part of a path.

    Parameters
    ----------
    results
        The results folder; an `evaluation.json` in it is shown too. Thumbnails are kept in it,
        beside the scans, for the next page.
    output
        The page; ``report.html`` in the results folder if unset. Only a page in the results folder
        leads to the pages of the scans, ``scans/ID/index.html``.
    workers
        Processes that draw thumbnails; None for one a core.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    InputError
        `results` holds no `run.json`.
    """
    results = Path(results)
    output = results / "report.html" if output is None else Path(output)
    inside = output.parent.resolve() == results.resolve()
    link = page_link if inside else _no_link
    files.write_text(output, report_page(results, link, workers=workers, progress=progress))
    return output


def report_page(
    results: Path,
    link: Callable[[Path], str] = page_link,
    *,
    workers: int | None = 1,
    progress: Progress = silent,
    most_drawn: int | None = None,
) -> str:
    """Give the page as text; see `write_report`.

    Parameters
    ----------
    link
        Gives the address of a scan's page by its folder, empty if there is none.
    most_drawn
        How many thumbnails that are not there yet are drawn; None for all.
    """
    found = read_results(results, keep=_needed, progress=progress)
    pages = {entry.id: link(entry.place) for entry in found.done}
    return template("page.html.j2").render(**_contents(found, pages, workers, progress, most_drawn))


def _no_link(_: Path) -> str:
    return ""


def _needed(description: dict[str, Any]) -> dict[str, Any]:
    """Leave out of `scan.json` what can be long, most lesions and curves, and folders."""
    details = {
        name: without_folders(value) if isinstance(value, str) else value
        for name, value in description["details"].items()
        if isinstance(value, str | int | float) or name.startswith("artefact")
    }
    lesions = description["lesions"]
    return description | {
        "details": details,
        "lesions": lesions[:MOST_LESIONS],
        "lesion_count": len(lesions),
    }


def _contents(
    found: Results,
    pages: Mapping[str, str],
    workers: int | None,
    progress: Progress,
    most_drawn: int | None,
) -> dict[str, Any]:
    """Give everything that the template shows."""
    run, calibration = found.run, found.run["calibration"]
    threshold = None if calibration is None else float(calibration["voxel_threshold"])
    healthy = None if calibration is None else len(calibration["subject_scores"])
    scale = ScoreScale.of(threshold, [entry.score for entry in found.done])
    pictured = _pictured(found)
    anchors = {entry.id: f"scan-{i}" for i, entry in enumerate(pictured, 1)}
    cards = [
        _card(entry, anchors[entry.id], pages.get(entry.id, ""), scale, healthy)
        for entry in track(pictured, "pictures", progress)
    ]
    groups = {
        name: [card for card in cards if card.entry.condition == name] for name in found.conditions
    }
    shown = ranked(found)[:MOST_THUMBNAILS]
    drawn = thumbnails_of(shown, workers=workers, progress=progress, most_drawn=most_drawn)
    small = {entry.id: thumbnail for entry, thumbnail in zip(shown, drawn, strict=True)}
    links = {name: f"#{anchor}" for name, anchor in anchors.items()}
    table = cohort_table(found, links | {k: v for k, v in pages.items() if v}, small)
    settings = {"settings": run.get("settings", {}), "trained on": run.get("trained_on", {})}
    large = len(found.done) > MOST_PICTURES
    script = _script()
    return {
        "run": run,
        "model": file_name(str(run.get("model") or "")),
        "results": found,
        "evaluation": found.evaluation,
        "groups": groups,
        "scale": scale,
        "strip": by_condition(found) if large else _strip(found, anchors),
        "large": large,
        "distributions": distributions(found),
        "drift": drift_note(found),
        "precision": _precision(found),
        "tables": [] if found.evaluation is None else evaluation_tables(found.evaluation),
        "table": table,
        "others": _data(table),
        "thumbnail_note": _thumbnail_note(small, len(found.done)),
        "unreadable": [card for card in cards if card.problem],
        "failed": [(entry.id, without_folders(str(entry.problem))) for entry in found.failed],
        "notes": [without_folders(note) for note in found.notes],
        "settings": [(key, setting_without_folders(value)) for key, value in flat(settings)],
        "colours": {"found": FOUND, "true": TRUE, "own": OWN},
        "most": len(pictured) if len(found.done) > len(pictured) else None,
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _script() -> str:
    return (resources.files("atypia.report") / "templates" / "cohort.js").read_text("utf-8")


def _data(table: CohortTable) -> Markup:
    """Give the rows that the script adds, as JSON that cannot end the element it stands in."""
    text = json.dumps(table.others, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _thumbnail_note(small: Mapping[str, Thumbnail], scans: int) -> str:
    """Tell which scans have no thumbnail, and why."""
    notes = []
    if scans > len(small):
        notes.append(
            f"Thumbnails are shown of the first {len(small)} of {scans} scans, so that the page "
            f"stays below {len(small) * MOST_BYTES * 4 / 3 / 1e6:.1f} MB of them."
        )
    missing = {name: one.problem for name, one in small.items() if one.problem}
    if missing:
        name, why = next(iter(missing.items()))
        told = "1 scan has" if len(missing) == 1 else f"{len(missing)} scans have"
        notes.append(f"{told} no thumbnail; the first, {name}: {without_folders(why)}")
    return " ".join(notes)


def _pictured(found: Results) -> list[Entry]:
    """Choose the scans that get pictures: the highest scores, every condition in its turn."""
    order = [
        (rank, entry) for group in found.conditions.values() for rank, entry in enumerate(group)
    ]
    order.sort(key=lambda pair: pair[0])
    most = MOST_PICTURES if len(found.done) <= MOST_PICTURES else PICTURES_OF_MANY
    chosen = {entry.id for _, entry in order[:most]}
    return [entry for entry in found.done if entry.id in chosen]


def _card(entry: Entry, anchor: str, link: str, scale: ScoreScale, healthy: int | None) -> Card:
    pictures = curve = problem = None
    try:
        pictures = draw_scan(entry.id, entry.place, entry.description, scale)
    except AtypiaError as error:
        problem = without_folders(str(error))
    # Not kept of every scan: see `_needed`.
    details = files.read_json(entry.place / "scan.json")["details"]
    if "threshold_curve" in details:
        curve = charts.threshold_curve(details["threshold_curve"])
    return Card(
        entry,
        anchor,
        link,
        tuple(_facts(entry, healthy)),
        tuple(entry.description["lesions"]),
        pictures,
        curve,
        problem,
    )


def _facts(entry: Entry, healthy: int | None) -> list[Fact]:
    description, evaluated = entry.description, entry.evaluated
    facts = [Fact("score", number(entry.score), "Subject-level: mean of the brain's top scores.")]
    if description["p_value"] is not None:
        value, extrapolated = description["p_value"], description.get("p_value_extrapolated", False)
        among = description.get("p_value_among") or "the healthy calibration scans"
        how = "estimated by a fitted tail: none scores so high" if extrapolated else "conformal"
        least = healthy is not None and value <= 1 / (1 + healthy) + 1e-9 and not extrapolated
        told = " (the lowest there can be)" if least else ""
        hint = f"Share that scores at least as high, by {among} ({how})."
        facts.append(Fact("p-value", p_value(value, extrapolated) + told, hint))
    if description.get("verdict"):
        hint = " ".join(reason["text"] for reason in description["reasons"])
        facts.append(Fact("artefact or lesion", description["verdict"], hint))
    if description["mask_ml"] is not None:
        share = description["mask_ml"] / max(description["brain_ml"], 1e-9)
        facts.append(Fact("flagged", f"{description['mask_ml']:.1f} ml ({share:.1%} of the brain)"))
        facts.append(Fact("lesions found", str(description["lesion_count"])))
    if description["threshold"] is not None:
        threshold = description["threshold"]
        text = f"{number(threshold['value'])} ({threshold['provenance']})"
        facts.append(Fact("threshold", text, "A voxel above it is flagged."))
    facts += [
        Fact(name.replace("_", " "), number(value))
        for name, value in description["details"].items()
        if isinstance(value, str | int | float) and name != "outcome"  # has a place of its own
    ]
    if evaluated.get("ap") is not None:
        facts.append(Fact("AP", f"{evaluated['ap']:.3f}", "Average precision, by the true lesion."))
    if evaluated.get("dice") is not None:
        facts.append(Fact("Dice", f"{evaluated['dice']:.3f}", "Flagged voxels and true lesion."))
    if evaluated.get("own_dice") is not None:
        facts.append(Fact("own Dice", f"{evaluated['own_dice']:.3f}", "Of the method's own mask."))
    return facts


def _strip(found: Results, anchors: Mapping[str, str]) -> Markup | None:
    if not found.done:
        return None
    rows = {
        name: [charts.Dot(entry.score, entry.id, anchors.get(entry.id, "")) for entry in entries]
        for name, entries in found.conditions.items()
    }
    calibration = found.run["calibration"] or {"subject_scores": ()}
    return charts.strip(rows, calibration["subject_scores"], "subject-level anomaly score")


def _precision(found: Results) -> Markup | None:
    if found.evaluation is None:
        return None
    rows = precision_intervals(found.evaluation, found.run["method"])
    return charts.intervals(rows, "average precision (95 % CI)") if rows else None
