"""Subject page: one scan's results in one file that needs no network, with a viewer in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps

from atypia import files
from atypia.errors import InputError, unknown_name
from atypia.report import charts
from atypia.report.niivue import viewer_bundle
from atypia.report.pictures import FOUND, OWN, SCORE_COLOURS, TRUE, ScoreScale, draw_scan
from atypia.report.places import place_in_words
from atypia.report.privacy import file_name, setting_without_folders, without_folders
from atypia.report.rendering import Fact, flat, number, p_value, template
from atypia.report.results import Entry, Results, read_results
from atypia.report.slices import ScanVolumes, focus_of, read_volumes
from atypia.report.viewer_volumes import RankedScores, ViewerVolumes, viewer_volumes
from atypia.runs.predicting import PAGE
from atypia.volume import MNI152_SPACE

MOST_LESIONS = 50
"""Lesions that are listed; the smallest of very many are left out."""
UNCALIBRATED_SHARE = 0.005
"""Share of the brain above the threshold at which the slider starts without a calibration."""

Described = Mapping[str, Any]


def write_subject_page(
    results: Path | Results, scan: str, output: Path | None = None, *, static: bool = False
) -> Path:
    """Write the page of one scan.

    Parameters
    ----------
    results, scan, static
        As for `subject_page`.
    output
        The page; ``scans/SCAN/index.html`` in the results folder if unset.

    Returns
    -------
    Path
        Where the page is.
    """
    found = results if isinstance(results, Results) else read_results(Path(results))
    text = subject_page(found, scan, static=static)
    output = found.folder / "scans" / scan / PAGE if output is None else Path(output)
    files.write_text(output, text)
    return output


def subject_page(results: Path | Results, scan: str, *, static: bool = False) -> str:
    """Show one scan of a results folder in one HTML text.

    The page holds no path of the machine that made it, and makes no request.

    Parameters
    ----------
    results
        What `atypia predict` wrote; read already, when the pages of many scans are wanted.
    scan
        Its id.
    static
        Pictures only: no script, no viewer, a tenth of the size.

    Raises
    ------
    InputError
        The folder holds no results, the scan failed, or its volumes cannot be read.
    SettingsError
        The folder knows no such scan.
    MissingDependencyError
        The viewer is not installed.
    """
    found = results if isinstance(results, Results) else read_results(Path(results))
    entry = _entry(found, scan)
    calibration: Described | None = found.run["calibration"]
    threshold = None if calibration is None else float(calibration["voxel_threshold"])
    scale = ScoreScale.of(threshold, [other.score for other in found.done])
    described, truth_is_gone = _with_truth_that_is_there(entry.description)
    volumes = read_volumes(entry.place, described)
    details = described["details"]
    settings = {
        "settings": found.run.get("settings", {}),
        "trained on": found.run.get("trained_on", {}),
    }
    contents = {
        "entry": entry,
        "description": described,
        "run": {**found.run, "model": file_name(found.run.get("model") or "")},
        "calibration": calibration,
        "facts": _facts(entry),
        "truth_is_gone": truth_is_gone,
        "reasons": _reasons(described, calibration),
        "lesions": _lesions(described["lesions"][:MOST_LESIONS], volumes),
        "pictures": draw_scan(entry.id, entry.place, described, scale),
        "scale": scale,
        "strip": _strip(entry, calibration),
        "curve": charts.threshold_curve(details["threshold_curve"])
        if "threshold_curve" in details
        else None,
        "details": _plain_details(details),
        "settings": [(name, setting_without_folders(value)) for name, value in flat(settings)],
        "colours": {"found": FOUND, "true": TRUE, "own": OWN},
        "viewer": None if static else _viewer(volumes, described["lesions"], calibration, scale),
        "bundle": None if static else viewer_bundle(),
    }
    return template("subject.html.j2").render(**contents)


def _entry(found: Results, scan: str) -> Entry:
    entries = {entry.id: entry for entry in (*found.done, *found.failed)}
    if scan not in entries:
        raise unknown_name("scan", scan, entries)
    entry = entries[scan]
    if entry.problem is not None:
        raise InputError(entry.place, f"has no results: {entry.problem}", "Run `atypia predict`")
    return entry


def _with_truth_that_is_there(description: Described) -> tuple[Described, bool]:
    """Leave out the true lesion when its file has gone, and tell that it has."""
    truth = description["lesion_mask"]
    gone = bool(truth) and not Path(truth).exists()
    return ({**description, "lesion_mask": None} if gone else description), gone


def _facts(entry: Entry) -> list[Fact]:
    description, evaluated = entry.description, entry.evaluated
    facts = [Fact("score", number(entry.score), "Subject-level: mean of the brain's top scores.")]
    if description["p_value"] is not None:
        among = description.get("p_value_among") or "the healthy calibration scans"
        shown = p_value(description["p_value"], description.get("p_value_extrapolated", False))
        hint = f"Share of healthy scans that score at least as high, by {among}."
        facts.append(Fact("p-value", f"{shown} by {among}", hint))
    if description["mask_ml"] is not None:
        share = description["mask_ml"] / max(description["brain_ml"], 1e-9)
        facts.append(Fact("flagged", f"{description['mask_ml']:.1f} ml ({share:.1%} of the brain)"))
        facts.append(Fact("lesions found", str(len(description["lesions"]))))
    if description["threshold"] is not None:
        threshold = description["threshold"]
        facts.append(Fact("threshold", f"{number(threshold['value'])} ({threshold['provenance']})"))
    judged = (("ap", "AP"), ("dice", "Dice"), ("own_dice", "own Dice"))
    facts += [
        Fact(title, f"{evaluated[key]:.3f}", "By the true lesion.")
        for key, title in judged
        if evaluated.get(key) is not None
    ]
    return facts


def _plain_details(details: Described) -> list[tuple[str, str]]:
    kept = {
        name.replace("_", " "): without_folders(number(value))
        for name, value in details.items()
        if isinstance(value, str | int | float)
    }
    return list(kept.items())


def _lesions(lesions: Sequence[Described], volumes: ScanVolumes) -> list[dict[str, Any]]:
    """Give the lesions with their place in the template, where that is known."""
    in_template = volumes.score.space == MNI152_SPACE
    shown = []
    for lesion in lesions:
        place = lesion.get("template_mm") or (lesion["centre_mm"] if in_template else None)
        words = lesion.get("region") or (place_in_words(place) if place else None)
        shown.append({**lesion, "template_mm": place, "region": words})
    return shown


def _reasons(description: Described, calibration: Described | None) -> list[tuple[str, str]]:
    """Give each reason's sentence, and its p-value with the number of healthy scans."""
    if calibration is None:
        return []
    among = f"among {len(calibration['subject_scores'])} healthy scans"
    return [
        (reason["text"], f"p = {p_value(reason['p_value'])} {among}; {reason['code']}")
        for reason in description.get("reasons", ())
    ]


def _strip(entry: Entry, calibration: Described | None) -> Any:
    if calibration is None:
        return None
    return charts.strip(
        {"this scan": [charts.Dot(entry.score, entry.id)]},
        calibration["subject_scores"],
        "subject-level anomaly score",
        f"Score of this scan, {entry.score:.3g}, among the healthy calibration scans",
    )


def _viewer(
    volumes: ScanVolumes,
    lesions: Sequence[Described],
    calibration: Described | None,
    scale: ScoreScale,
) -> dict[str, Any]:
    """Give the volumes, and what the page's script must know of them."""
    highest = [] if calibration is None else calibration.get("highest_scores", ())
    calibrated = [] if calibration is None else [calibration["voxel_threshold"]]
    shown = viewer_volumes(volumes, [*calibrated, *([max(highest)] if highest else [])])
    start = shown.scores.index_of(calibrated[0]) if calibrated else _usual_start(shown.scores)
    focus = focus_of(volumes).centre_mm
    return {
        "packed": shown.packed,
        "layers": _layers(shown, scale),
        "facts": {
            "levels": [float(level) for level in shown.scores.levels],
            "values": [float(value) for value in shown.scores.values],
            "start": start,
            "calibrated": bool(calibrated),
            "voxelMl": shown.geometry.voxel_volume_mm3 / 1000,
            "brainMl": float(volumes.brain.data.sum()) * shown.geometry.voxel_volume_mm3 / 1000,
            "healthyHighest": [float(score) for score in highest],
            "shape": list(shown.geometry.shape),
            "affine": shown.geometry.affine.tolist(),
            "focus": shown.geometry.voxel(focus).tolist(),
            "lesions": [shown.geometry.voxel(lesion["centre_mm"]).tolist() for lesion in lesions],
        },
    }


def _usual_start(scores: RankedScores) -> int:
    """Give the lowest stop that flags at most the usual share of the brain."""
    counts = [int((scores.ranks == rank).sum()) for rank in range(1, len(scores.values) + 1)]
    above, most = sum(counts), UNCALIBRATED_SHARE * sum(counts)
    for stop, count in enumerate(counts[:-1]):
        above -= count
        if above <= most:
            return stop
    return len(scores.levels) - 1


def _layers(shown: ViewerVolumes, scale: ScoreScale) -> list[dict[str, Any]]:
    """List what can be switched on and off, the lowest first."""
    grey = [[level, level, level, 255] for level in range(256)]
    lowest, values = scale(shown.scores.values).clip(0, 1), len(shown.scores.values)
    ramp = [[0, 0, 0, 0], *([*(int(255 * c) for c in rgba[:3]), 255]
            for rgba in colormaps[SCORE_COLOURS](lowest))]  # fmt: skip
    ramp += [ramp[-1]] * (255 - values)
    layers: list[tuple[str, str, str, list[list[int]] | None, tuple[float, float], float, bool]] = [
        ("scan", "Scan", "", None, shown.window, 1.0, True),
        ("restoration", "Restoration", "", grey, shown.window, 1.0, False),
        ("score", "Score map", "ramp", ramp, (0, 255), 0.7, False),
        ("flagged", "Flagged", FOUND, _one_colour(FOUND), (0, 1), 0.5, True),
        ("own", "Own mask (outline)", OWN, _one_colour(OWN), (0, 1), 0.9, True),
        ("truth", "True lesion (outline)", TRUE, _one_colour(TRUE), (0, 1), 0.9, True),
    ]
    names = ("key", "title", "swatch", "colours", "window", "opacity", "shown")
    return [dict(zip(names, layer, strict=True)) for layer in layers if layer[0] in shown.packed]


def _one_colour(colour: str) -> list[list[int]]:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    # What is clear is black: between voxels its colour shows through at the edge of other layers.
    return [[0, 0, 0, 0], [*rgb, 255]]
