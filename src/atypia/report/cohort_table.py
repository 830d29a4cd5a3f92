"""Cohort table: one row a scan, the least healthy first, scans that failed last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atypia.report.privacy import without_folders
from atypia.report.rendering import number, p_value
from atypia.report.results import Entry, Results
from atypia.report.thumbnails import Thumbnail
from atypia.runs.predicting import PAGE

NOTHING = "-"
ALWAYS = ("scan", "score")
"""Columns that are there without any value too."""
FILTERS = ("condition", "site", "verdict")
"""Columns whose values can be chosen one by one."""
FIRST_ROWS = 200
"""Rows that stand in the page itself, and are all there is without scripts; the script adds the
others."""


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    key, title, hint
        Its name, what stands above it, and what that means.
    words
        It holds words, not numbers.
    """

    key: str
    title: str
    words: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """One scan: its texts by column, where its name leads to, and what it can be filtered by.

    One that failed has two texts, its name and why.
    """

    id: str
    cells: tuple[str, ...]
    link: str = ""
    flagged: bool = False
    failed: bool = False
    picture: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Give what is there by name, so that thousands of rows stay small."""
        told = {
            "cells": self.cells,
            "link": self.link,
            "flagged": self.flagged,
            "failed": self.failed,
            "picture": self.picture,
        }
        return {name: value for name, value in told.items() if value}


@dataclass(frozen=True)
class CohortTable:
    """The table, its rows in the order of the page; `ranked_by` tells by what."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    ranked_by: str
    choices: Mapping[str, tuple[str, ...]]

    @property
    def order(self) -> str:
        """By what the rows are sorted, in words."""
        return RANKED_BY[self.ranked_by]

    @property
    def first(self) -> tuple[Row, ...]:
        """The rows that stand in the page itself."""
        return self.rows[:FIRST_ROWS]

    @property
    def others(self) -> list[dict[str, Any]]:
        """The rows that the script adds."""
        return [row.to_json() for row in self.rows[FIRST_ROWS:]]


COLUMNS: tuple[tuple[Column, Callable[[Entry], str]], ...] = (
    (Column("scan", "scan", words=True), lambda e: e.id),
    (Column("condition", "condition", words=True), lambda e: e.condition.replace("_", " ")),
    (Column("site", "site", words=True), lambda e: _text(e.description.get("site"))),
    (Column("sex", "sex", words=True), lambda e: _text(e.description.get("sex"))),
    (Column("age", "age", hint="Years."), lambda e: _number(e.description.get("age"))),
    (
        Column("score", "score", hint="Subject-level: mean of the brain's top scores."),
        lambda e: number(e.score),
    ),
    (
        Column("p_value", "p-value", hint="Share of healthy scans that score at least as high."),
        lambda e: _p_value(e.description),
    ),
    (
        Column("flagged", "flagged ml", hint="Volume above the calibrated threshold."),
        lambda e: _one_decimal(e.description["mask_ml"]),
    ),
    (Column("lesions", "lesions", hint="Clusters found."), lambda e: _lesions(e.description)),
    (
        Column("verdict", "verdict", words=True, hint="Artefact or lesion, by the whole scan."),
        lambda e: _text(e.description.get("verdict")),
    ),
    (
        Column("artefacts", "artefacts", words=True, hint="What speaks for an artefact."),
        lambda e: artefacts_of(e.description["details"], e.description.get("reasons", ())),
    ),
    (
        Column("ap", "AP", hint="Average precision, by the true lesion."),
        lambda e: _three_decimals(e.evaluated.get("ap")),
    ),
    (
        Column("dice", "Dice", hint="Flagged voxels and true lesion."),
        lambda e: _three_decimals(e.evaluated.get("dice")),
    ),
    (
        Column("own_dice", "own Dice", hint="Of the method's own mask."),
        lambda e: _three_decimals(e.evaluated.get("own_dice")),
    ),
    (
        Column("outcome", "outcome", words=True),
        lambda e: _text(e.description["details"].get("outcome")),
    ),
)
"""Columns and what they show of a scan with results; one without any value is left out."""


RANKED_BY = {
    "p_value": "lowest p-value first",
    "score": "highest score first",
}
"""Columns by which the table may be sorted at first, in words; the first that is there counts."""


def ranked(found: Results) -> list[Entry]:
    """Sort scans with results: the lowest p-value first, of equal ones the highest score."""
    return sorted(found.done, key=lambda e: (_p(e.description), -e.score, e.id))


def cohort_table(
    found: Results,
    links: Mapping[str, str],
    thumbnails: Mapping[str, Thumbnail],
) -> CohortTable:
    """Lay out every scan of a run.

    Parameters
    ----------
    found
        The results.
    links
        Scan -> where its name leads to: its own page, or its card on this one.
    thumbnails
        Scan -> its small picture.
    """
    entries = ranked(found)
    texts = [[show(entry) for _, show in COLUMNS] for entry in entries]
    used = [
        i
        for i, (column, _) in enumerate(COLUMNS)
        if column.key in ALWAYS or any(row[i] != NOTHING for row in texts)
    ]
    columns = tuple(COLUMNS[i][0] for i in used)
    rows = [
        Row(
            entry.id,
            tuple(cells[i] for i in used),
            link=links.get(entry.id, ""),
            flagged=_count(entry.description) > 0,
            picture=thumbnails[entry.id].text if entry.id in thumbnails else "",
        )
        for entry, cells in zip(entries, texts, strict=True)
    ]
    failed = [
        Row(entry.id, (entry.id, f"failed: {without_folders(str(entry.problem))}"), failed=True)
        for entry in found.failed
    ]
    choices = {}
    for place, column in enumerate(columns):
        values = sorted({row.cells[place] for row in rows} - {NOTHING})
        if column.key in FILTERS and len(values) > 1:
            choices[column.key] = tuple(values)
    first = next(key for key in RANKED_BY if any(column.key == key for column in columns))
    return CohortTable(columns, (*rows, *failed), first, choices)


def page_link(place: Path) -> str:
    """Give where the page of a scan is, seen from the results folder; empty if there is none."""
    if not (place / PAGE).is_file():
        return ""
    return f"scans/{quote(place.name, safe='')}/{PAGE}"


def artefacts_of(details: Mapping[str, Any], reasons: Sequence[Mapping[str, Any]] = ()) -> str:
    """Name what speaks for an artefact: reasons, and what a method flagged.

    Parameters
    ----------
    details
        Of the method; those whose names begin with "artefact" count.
    reasons
        Of the scan, as `scan.json` has them.
    """
    names = [str(reason["code"]) for reason in reasons if reason["kind"] == "artefact"]
    for key, value in details.items():
        if not key.startswith("artefact"):
            continue
        if isinstance(value, Mapping):
            names += [
                f"{name} {number(v)}" if v is not True else name
                for name, v in value.items()
                if v and not isinstance(v, Mapping | list)
            ]
        elif isinstance(value, list | tuple):
            names += [str(item) for item in value]
        elif value is True:
            names.append(key.removeprefix("artefact_"))
        elif value:
            names.append(number(value))
    return without_folders(", ".join(name.replace("_", " ") for name in names)) or NOTHING


def _count(description: Mapping[str, Any]) -> int:
    return int(description.get("lesion_count", len(description["lesions"])))


def _lesions(description: Mapping[str, Any]) -> str:
    return NOTHING if description["mask_ml"] is None else str(_count(description))


def _p(description: Mapping[str, Any]) -> float:
    value = description["p_value"]
    return 2.0 if value is None else float(value)


def _p_value(description: Mapping[str, Any]) -> str:
    value = description["p_value"]
    if value is None:
        return NOTHING
    return p_value(value, description.get("p_value_extrapolated", False))


def _text(value: Any) -> str:
    return without_folders(str(value)) if value else NOTHING


def _number(value: Any) -> str:
    return NOTHING if value is None else number(value)


def _one_decimal(value: Any) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _three_decimals(value: Any) -> str:
    return NOTHING if value is None else f"{value:.3f}"
