"""CPU-seconds of one simulated T2w subject with a tumour at 1, 2 and 3 mm, in a fresh process.

The first subject of a process also pays for imports and for reading the templates; the second
figure is that of a further subject.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks import timing

SEED = 0
SPACINGS_MM = (1.0, 2.0, 3.0)

_CHILD = """
import json, sys, time
spacing, seed = float(sys.argv[1]), int(sys.argv[2])
from atypia.simulation import SimulationSettings, simulate_subject
imported = time.process_time()
settings = SimulationSettings(modality="T2w", spacing_mm=spacing, lesion="tumour")
simulate_subject(settings, seed=seed)
first = time.process_time()
simulate_subject(settings, seed=seed + 1)
again = time.process_time()
print(json.dumps({"import": imported, "first": first - imported, "next": again - first}))
"""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Simulate two subjects for each spacing; an error becomes a row of its own."""
    rows = [_row(spacing, 1 if quick else 3) for spacing in SPACINGS_MM]
    figures: dict[str, Any] = {}
    for row in rows:
        name = f"{row['spacing_mm']:g}mm"
        figures |= {f"{name}_{key}": value for key, value in row.items() if key != "spacing_mm"}
    return rows, figures


def _row(spacing: float, n: int) -> dict[str, Any]:
    runs = [timing.python("-c", _CHILD, str(spacing), str(SEED)) for _ in range(n)]
    error = next((run.error for run in runs if run.error), None)
    names = ("import", "first", "next")
    if error:
        return (
            {"spacing_mm": spacing}
            | dict.fromkeys([*(f"{name}_cpu_s" for name in names), "peak_mb"])
            | {"error": error}
        )
    said = [json.loads(run.stdout.strip().splitlines()[-1]) for run in runs]
    medians = {f"{name}_cpu_s": statistics.median(one[name] for one in said) for name in names}
    return {
        "spacing_mm": spacing,
        **medians,
        "peak_mb": max(run.peak_mb for run in runs),
        "error": None,
    }
