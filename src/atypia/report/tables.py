"""Tables of an evaluation, as the page shows them: best values marked, oracles set apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atypia.evaluation.evaluation import HEALTHY_COLUMNS, LESION_COLUMNS, SUBJECT_COLUMNS
from atypia.evaluation.table import Column, Row, cell
from atypia.report.charts import Interval

HIGHER_IS_BETTER = frozenset(("ap", "auroc", "dice", "own_dice", "pooled_ap", "pooled_dice"))
"""Columns in which the best value of each condition is marked; oracles never are."""
WORDS = frozenset(("condition", "method", "provenance"))


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
    """One table of the page; `starts` tells the rows that begin a new condition."""

    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    starts: tuple[bool, ...]


def evaluation_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """Give the tables of an evaluation that have rows."""
    parts: list[tuple[str, Sequence[Row], Sequence[Column]]] = [
        ("Lesions, voxel by voxel", evaluation["lesions"], LESION_COLUMNS),
        ("Scans, abnormal against healthy", evaluation["subjects"], SUBJECT_COLUMNS),
        ("Healthy test scans, and the threshold of every method", evaluation["healthy"],
         HEALTHY_COLUMNS),
    ]  # fmt: skip
    return [_table(title, rows, columns) for title, rows, columns in parts if rows]


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


def _table(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    # A column in which no row has a value only takes room.
    kept = [c for c in columns if any(_number(row.get(c.key)) is not None or c.key in WORDS
                                      for row in rows)]  # fmt: skip
    conditions = [row.get("condition") for row in rows]
    best = {(c.key, cond): _best(rows, c.key, cond) for c in kept for cond in set(conditions)}
    return Table(
        title,
        tuple(Heading(c.title, c.meaning, "oracle" in c.key, c.key in WORDS) for c in kept),
        tuple(
            tuple(
                Cell(
                    *_split(cell(row.get(c.key))),
                    best[c.key, row.get("condition")] is not None
                    and _number(row.get(c.key)) == best[c.key, row.get("condition")],
                )
                for c in kept
            )
            for row in rows
        ),
        tuple(i > 0 and conditions[i] != conditions[i - 1] for i in range(len(rows))),
    )


def _split(text: str) -> tuple[str, str]:
    value, bracket, rest = text.partition(" [")
    return (value, f"[{rest}") if bracket and rest.endswith("]") else (text, "")


def _best(rows: Sequence[Row], key: str, condition: Any) -> float | None:
    """Give the highest value of a condition, None where there is nothing to choose from."""
    if key not in HIGHER_IS_BETTER or condition is None:
        return None
    values = [_number(row.get(key)) for row in rows if row.get("condition") == condition]
    there = [value for value in values if value is not None]
    return max(there) if len(there) > 1 else None


def _number(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("mean")
    return None if value is None or isinstance(value, str) else float(value)
