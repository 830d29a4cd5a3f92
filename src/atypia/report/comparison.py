"""Comparison page: what `atypia benchmark` found, in one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from atypia import files
from atypia.errors import AtypiaError
from atypia.evaluation.ranking import RANK_COLUMNS
from atypia.evaluation.table import Column, Row, cell
from atypia.report import charts
from atypia.report.pictures import FOUND, OWN, TRUE, Pictures, ScoreScale, draw_scan
from atypia.report.privacy import setting_without_folders, without_folders
from atypia.report.rendering import flat, template
from atypia.report.tables import Table, evaluation_tables, precision_intervals, table_of
from atypia.runs.comparing import EXAMPLES

MOST_FALSE = 10.0
"""False components a scan up to which FROC curves are drawn."""

PAIRED_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled."),
    Column("figure", "figure", "Which figure of a scan is compared."),
    Column("method", "method", "The one of the best mean rank."),
    Column("other", "other", "Compared with it on the same scans."),
    Column("difference", "difference", "Mean over scans of the first minus the other [95 % CI]."),
    Column("pairs", "people", "Number of people who have both."),
    Column("wilcoxon_p", "Wilcoxon p", "Signed-rank test, two-sided."),
    Column("permutation_p", "sign-flip p", "Permutation test of the mean difference."),
    Column("permutation_p_holm", "corrected p", "Of that test, after Holm's correction."),
)


def write_comparison(folder: Path) -> Path:
    """Write `index.html` into the folder of a comparison.

    Parameters
    ----------
    folder
        That `atypia benchmark` wrote.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    InputError
        `folder` holds no `benchmark.json`.
    """
    page = Path(folder) / "index.html"
    files.write_text(page, comparison_page(folder))
    return page


def comparison_page(folder: Path) -> str:
    """Give the page of a comparison as text; see `write_comparison`."""
    found = files.read_json(Path(folder) / "benchmark.json")
    evaluation, ranks = found["evaluation"], found["ranks"]
    best = str(ranks[0]["method"]) if ranks else ""
    rows = precision_intervals(evaluation, best)
    return template("comparison.html.j2").render(
        found=found,
        best=best,
        precision=charts.intervals(rows, "average precision") if rows else None,
        curves=_curves(found["curves"]),
        examples=_examples(Path(folder) / EXAMPLES, found.get("examples", ())),
        colours={"found": FOUND, "true": TRUE, "own": OWN},
        froc=_froc(evaluation.get("froc", ())),
        tables=[*_tables(ranks, found["comparisons"]), *evaluation_tables(evaluation)],
        summary=without_folders(found["protocol"]["summary"]),
        settings=_settings(found["protocol"]),
    )


def _settings(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the protocol, of every path its last part."""
    # Of the summary, which is a sentence, all but the last part would be lost.
    return [
        (name, without_folders(text) if name == "summary" else setting_without_folders(text))
        for name, text in flat(protocol)
    ]


@dataclass(frozen=True)
class Example:
    """One scan with pictures, or the reason why there are none."""

    title: str
    told: str
    pictures: Pictures | None
    problem: str = ""


def _examples(folder: Path, chosen: Sequence[Mapping[str, Any]]) -> dict[str, list[Example]]:
    """Draw what the method of the best mean rank found, by condition."""
    described = []
    for one in chosen:
        try:
            described.append((one, files.read_json(folder / one["place"] / "scan.json"), ""))
        except AtypiaError as error:
            described.append((one, {}, without_folders(str(error))))
    there = [description for _, description, _ in described if description]
    levels = [d["threshold"]["value"] for d in there if d["threshold"] is not None]
    scale = ScoreScale.of(levels[0] if levels else None, [d["score"] for d in there])
    shown: dict[str, list[Example]] = {}
    for one, description, problem in described:
        pictures = None
        try:
            if description:
                place = folder / one["place"]
                pictures = draw_scan(one["scan"], place, description, scale)
        except AtypiaError as error:
            problem = without_folders(str(error))
        told = ", ".join(f"{k} {cell(one[k])}" for k in ("ap", "dice") if one[k] is not None)
        title = f"{one['which']}: {one['scan']}"
        shown.setdefault(one["condition"], []).append(Example(title, told, pictures, problem))
    return shown


def _tables(ranks: Sequence[Row], comparisons: Sequence[Row]) -> list[Table]:
    found = []
    if ranks:
        found.append(table_of("Ranks", ranks, RANK_COLUMNS))
    if comparisons:
        rows = [
            {**row, "difference": {"mean": row["difference"], "interval": row["interval"]}}
            for row in comparisons
        ]
        found.append(table_of("Paired comparisons", rows, PAIRED_COLUMNS))
    return found


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """Draw precision over recall, one chart a condition."""
    lines: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {}
    for row in rows:
        if row["recall"]:
            of = lines.setdefault(row["condition"], {})
            of[row["method"]] = row["recall"], row["precision"]
    return {name: charts.curves(of, "recall", "precision") for name, of in lines.items()}


def _froc(rows: Sequence[Mapping[str, Any]]) -> dict[str, Markup]:
    """Draw lesions found over false components, one chart a condition that has lesions."""
    lines: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]] = {}
    for row in rows:
        if row["recall"]:
            kept = [p for p in zip(row["false_positives"], row["recall"], strict=True)
                    if p[0] <= MOST_FALSE]  # fmt: skip
            # By falling threshold, up to where the false components grow into one.
            false, recall = zip(*_until_they_merge(kept[::-1]), strict=True) if kept else ((), ())
            lines.setdefault(row["condition"], {})[row["method"]] = false, recall
    return {
        name: charts.curves(of, "false components a scan", "lesions found", MOST_FALSE)
        for name, of in lines.items()
    }


def _until_they_merge(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Cut a curve where the number of false components has its peak."""
    peak = max(range(len(points)), key=lambda place: points[place][0])
    return points[: peak + 1]
