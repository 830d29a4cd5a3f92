"""Run a benchmark: `python -m benchmarks [NAME] [--quick]`.

Without a name the benchmarks are listed. The last line of a run is one JSON object.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from benchmarks.tables import table

BENCHMARKS = {
    "artefacts": "benchmarks.artefacts",
    "coreset": "benchmarks.coreset",
    "diffusion": "benchmarks.diffusion",
    "implicit_field": "benchmarks.implicit_field",
    "implicit_field_lesions": "benchmarks.implicit_field_lesions",
    "imports": "benchmarks.imports",
    "lesions": "benchmarks.lesions",
    "mahalanobis": "benchmarks.mahalanobis",
    "mask_refinement": "benchmarks.mask_refinement",
    "members": "benchmarks.members",
    "metrics": "benchmarks.metrics",
    "patch_features": "benchmarks.patch_features",
    "patch_score_map": "benchmarks.patch_score_map",
    "predict": "benchmarks.predict",
    "preprocessing": "benchmarks.preprocessing",
    "real_t1": "benchmarks.real_t1",
    "reasons": "benchmarks.reasons",
    "restorations": "benchmarks.restorations",
    "screenshots": "benchmarks.screenshots",
    "shipped": "benchmarks.shipped",
    "simplex": "benchmarks.simplex",
    "simulation": "benchmarks.simulation",
    "spark": "benchmarks.spark",
    "weights": "benchmarks.weights",
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
            print(f"{name:<22} {_description(name)}")
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


def _description(name: str) -> str:
    # Read, not imported: a list should not pay for every benchmark's libraries.
    path = Path(__file__).parent.parent.joinpath(*BENCHMARKS[name].split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or name
    return text.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
