"""Page: gather what a results folder tells into one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from atypia import files
from atypia.errors import AtypiaError
from atypia.report import charts
from atypia.report.pictures import FOUND, OWN, TRUE, Pictures, ScoreScale, draw_scan
from atypia.report.rendering import Fact, flat, number, p_value, template
from atypia.report.results import Entry, Results, read_results
from atypia.report.tables import evaluation_tables, precision_intervals

MOST_PICTURES = 60
"""Scans that are shown with pictures; more would make the page too heavy for a browser."""
MOST_LESIONS = 5


@dataclass(frozen=True, eq=False)
class Card:
    """What the page shows of one scan; `anchor` is empty for one that is only in the table."""

    entry: Entry
    anchor: str
    facts: tuple[Fact, ...]
    lesions: tuple[Mapping[str, Any], ...]
    pictures: Pictures | None = None
    curve: Markup | None = None
    problem: str | None = None


def write_report(results: Path, output: Path | None = None) -> Path:
    """Write one HTML page that shows the results of `atypia predict`, offline and in one file.

    Parameters
    ----------
    results
        The results folder; an `evaluation.json` in it is shown too.
    output
        The page; ``report.html`` in the results folder if unset.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    InputError
        `results` holds no `run.json`.
    """
    output = Path(results) / "report.html" if output is None else Path(output)
    text = template("page.html.j2").render(**_contents(read_results(Path(results))))
    files.write_text(output, text)
    return output


def _contents(found: Results) -> dict[str, Any]:
    """Give everything that the template shows."""
    run, calibration = found.run, found.run["calibration"]
    threshold = None if calibration is None else float(calibration["voxel_threshold"])
    healthy = None if calibration is None else len(calibration["subject_scores"])
    scale = ScoreScale.of(threshold, [entry.score for entry in found.done])
    pictured = _pictured(found)
    anchors = {e.id: f"scan-{i}" for i, e in enumerate(found.done, 1) if e.id in pictured}
    groups = {
        name: [_card(entry, anchors.get(entry.id, ""), scale, healthy) for entry in entries]
        for name, entries in found.conditions.items()
    }
    settings = {"settings": run.get("settings", {}), "trained on": run.get("trained_on", {})}
    return {
        "run": run,
        "results": found,
        "evaluation": found.evaluation,
        "groups": groups,
        "scale": scale,
        "strip": _strip(found, anchors),
        "precision": _precision(found),
        "tables": [] if found.evaluation is None else evaluation_tables(found.evaluation),
        "unreadable": [card for cards in groups.values() for card in cards if card.problem],
        "settings": flat(settings),
        "colours": {"found": FOUND, "true": TRUE, "own": OWN},
        "most": MOST_PICTURES if len(found.done) > MOST_PICTURES else None,
    }


def _pictured(found: Results) -> set[str]:
    """Choose the scans that get pictures: the highest scores, every condition in its turn."""
    ranked = [
        (rank, entry) for group in found.conditions.values() for rank, entry in enumerate(group)
    ]
    ranked.sort(key=lambda pair: pair[0])
    return {entry.id for _, entry in ranked[:MOST_PICTURES]}


def _card(entry: Entry, anchor: str, scale: ScoreScale, healthy: int | None) -> Card:
    description = entry.description
    pictures = curve = problem = None
    try:
        if anchor:
            pictures = draw_scan(entry.id, entry.place, description, scale)
    except AtypiaError as error:
        problem = str(error)
    details = description["details"]
    if "threshold_curve" in details:
        curve = charts.threshold_curve(details["threshold_curve"])
    return Card(
        entry,
        anchor,
        tuple(_facts(entry, healthy)),
        tuple(description["lesions"][:MOST_LESIONS]),
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
    if description["mask_ml"] is not None:
        share = description["mask_ml"] / max(description["brain_ml"], 1e-9)
        facts.append(Fact("flagged", f"{description['mask_ml']:.1f} ml ({share:.1%} of the brain)"))
        facts.append(Fact("lesions found", str(len(description["lesions"]))))
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
