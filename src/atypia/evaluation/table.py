"""Rows of results as text, Markdown and JSON: the same table everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: its key in the rows, its title, and what it means."""

    key: str
    title: str
    meaning: str


def cell(value: Any) -> str:
    """Show one value: three decimals, a dash for nothing, `mean [low, high]` for an interval."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping) and "mean" in value:
        interval = value.get("interval")
        spread = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        return "-" if value["mean"] is None else f"{value['mean']:.3f}{spread}"
    return str(value)


def filled(rows: Sequence[Row], columns: Sequence[Column]) -> list[Column]:
    """Leave out the columns in which no row has a value."""
    nothing = (None, {"mean": None, "interval": None})
    return [c for c in columns if any(row.get(c.key) not in nothing for row in rows)]


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Give a Markdown table, its columns padded so that it reads well as plain text too."""
    lines = [[c.title for c in columns], *([cell(row.get(c.key)) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]

    def text(line: Sequence[str]) -> str:
        return "| " + " | ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([text(lines[0]), rule, *map(text, lines[1:])])
