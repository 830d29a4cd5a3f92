"""Tables of an evaluation, as the page shows them: best values marked, oracles set apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atypia.evaluation.result_tables import (
    FROC_COLUMNS,
    HEALTHY_COLUMNS,
    LESION_COLUMNS,
    LESION_WISE_COLUMNS,
    MASK_COLUMNS,
    SUBJECT_COLUMNS,
    froc_table_rows,
    strata_parts,
)
from atypia.evaluation.table import Column, Row, cell, filled
from atypia.report.charts import Interval

HIGHER_IS_BETTER = frozenset(("ap", "auroc", "dice", "own_dice", "pooled_ap", "pooled_dice"))
"""Columns in which the best value of each condition is marked; oracles never are."""
WORDS = frozenset(("method", "stratum", "provenance", "other", "figure"))


@dataclass(frozen=True)
class Heading:
    """One column's title, its meaning, and whether it needs labels that no user has."""

    title: str
    meaning: str
    oracle: bool
    words: bool


@dataclass(frozen=True)
class Cell:
    """One value as text, its confidence interval apart."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the page, its rows by condition (one nameless group without conditions)."""

    title: str
    headings: tuple[Heading, ...]
    groups: Mapping[str, tuple[tuple[Cell, ...], ...]]


def evaluation_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """Give the tables of an evaluation that have rows."""
    parts: list[tuple[str, Sequence[Row], Sequence[Column]]] = [
        ("Lesions, voxel by voxel", evaluation["lesions"], LESION_COLUMNS),
        ("Masks against the true lesion", evaluation.get("masks", ()), MASK_COLUMNS),
        ("Lesions one by one", evaluation.get("lesion_wise", ()), LESION_WISE_COLUMNS),
        ("Lesions found by false components", froc_table_rows(evaluation), FROC_COLUMNS),
        ("Scans, abnormal against healthy", evaluation["subjects"], SUBJECT_COLUMNS),
        ("Healthy test scans, and the threshold of every method", evaluation["healthy"],
         HEALTHY_COLUMNS),
    ]  # fmt: skip
    parts += strata_parts(evaluation)
    return [table_of(title, rows, columns) for title, rows, columns in parts if rows]


def precision_intervals(evaluation: Mapping[str, Any], method: str) -> list[Interval]:
    """Give the average precision of every method by condition, for the chart."""
    return [
        Interval(
            row["condition"],
            row["method"],
            row["ap"]["mean"],
            None if row["ap"]["interval"] is None else tuple(row["ap"]["interval"]),
            row["method"] == method,
        )
        for row in evaluation["lesions"]
        if row["ap"]["mean"] is not None
    ]


def table_of(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    """Lay out rows by condition; the best value of each column is marked."""
    # The condition stands above its rows; a column without any value only takes room.
    kept = [column for column in filled(rows, columns) if column.key != "condition"]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("condition", ""), []).append(row)
    return Table(
        title,
        tuple(Heading(c.title, c.meaning, "oracle" in c.key, c.key in WORDS) for c in kept),
        {name: _cells(members, kept) for name, members in groups.items()},
    )


def _cells(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[tuple[Cell, ...], ...]:
    """Give the rows of one condition, the best value of each column marked."""
    marked = {c.key: _best(rows, c.key) for c in columns}
    return tuple(
        tuple(
            Cell(
                *_split(cell(row.get(c.key))),
                marked[c.key] is not None and _judged(row, c.key) == marked[c.key],
            )
            for c in columns
        )
        for row in rows
    )


def _best(rows: Sequence[Row], key: str) -> float | None:
    """Give the highest value, None where there is nothing to choose from."""
    values = [_judged(row, key) for row in rows] if key in HIGHER_IS_BETTER else []
    there = [value for value in values if value is not None]
    return max(there) if len(there) > 1 else None


def _judged(row: Row, key: str) -> float | None:
    """Give the number that takes part in the comparison: none that an oracle's threshold made."""
    value = row.get(key)
    if isinstance(value, Mapping):
        value = value.get("mean")
    oracle = "dice" in key and str(row.get("provenance")).startswith("oracle")
    return None if oracle or value is None or isinstance(value, str) else float(value)


def _split(text: str) -> tuple[str, str]:
    value, bracket, rest = text.partition(" [")
    return (value, f"[{rest}") if bracket and rest.endswith("]") else (text, "")
