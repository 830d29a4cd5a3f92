"""Run a benchmark: `python -m benchmarks [NAME] [--quick]`.

Without a name the benchmarks are listed. The last line of a run is one JSON object.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

BENCHMARKS = {
    "imports": "benchmarks.imports",
    "metrics": "benchmarks.metrics",
    "real_t1": "benchmarks.real_t1",
    "simulation": "benchmarks.simulation",
}
"""Name -> module with `run(quick) -> (rows, figures)`; its docstring's first line describes it."""

SEED = 0
"""The seed of every benchmark, unless its module has a `SEED` of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """List the benchmarks or run one; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", help="which one to run; none: list them")
    parser.add_argument("--quick", action="store_true", help="a smaller run, under 50 seconds")
    options = parser.parse_args(arguments)
    if options.name is None:
        for name in BENCHMARKS:
            print(f"{name:<12} {_description(name)}")
        return 0
    if options.name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        print(f"unknown benchmark {options.name!r}; known: {known}", file=sys.stderr)
        return 2
    module = importlib.import_module(BENCHMARKS[options.name])
    print(f"{options.name}: {_description(options.name)}\n")
    rows, figures = module.run(options.quick)
    print(table(rows) + "\n")
    head = {"benchmark": options.name, "quick": options.quick}
    tail = {"hardware": timing.hardware(), "seed": getattr(module, "SEED", SEED)}
    print(json.dumps(head | dict(figures) | tail, allow_nan=False))
    return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay rows out as a Markdown table with aligned columns; the first row names the columns."""
    if not rows:
        return "(no rows)"
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _description(name: str) -> str:
    # Read, not imported: a list should not pay for every benchmark's libraries.
    path = Path(__file__).parent.parent.joinpath(*BENCHMARKS[name].split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name
    return text.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
