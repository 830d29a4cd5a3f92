"""Raw 1 mm head to prepared scan, by every preset: seconds, CPU-seconds and memory.

Each preset runs in a process of its own on a whole T1w head with its skull, so that what it pays
for libraries, the network of the brain extraction and the template is counted.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks import timing

SEED = 0
WALL_ASKED_S, MEMORY_ASKED_MB = 60.0, 3000.0
"""What a head may take on two cores, brain extraction included."""

_CHILD = """
import json, sys, time
from atypia import io
from atypia.cohort import Cohort
from atypia.preprocessing import make_plan
from atypia.preprocessing.step import State
image = io.read(sys.argv[1])
steps, state = {}, State(image)
for step in make_plan(Cohort(()), preset=sys.argv[2]).steps:
    begun = time.process_time()
    state = step.apply(state, step.measure(state))
    steps[step.step] = time.process_time() - begun
print(json.dumps(steps))
"""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Prepare one head by every preset; `--quick` by the recommended one only."""
    from atypia.preprocessing import PRESETS

    head = _head()
    if not head.exists():
        print(f"LEFT OUT: no head to prepare, because there is no {head}\n")
        return [], {"error": "no real scans"}
    rows = []
    for preset in ["atypia"] if quick else PRESETS:
        child = timing.python("-c", _CHILD, str(head.resolve()), preset)
        steps = json.loads(child.stdout.strip().splitlines()[-1]) if not child.error else {}
        slowest = sorted(steps.items(), key=lambda item: -item[1])[:3]
        rows.append(
            {
                "preset": preset,
                "wall_s": child.wall_s,
                "cpu_s": child.cpu_s,
                "peak_mb": child.peak_mb,
                "within": child.wall_s < WALL_ASKED_S and child.peak_mb < MEMORY_ASKED_MB,
                "slowest (cpu_s)": ", ".join(f"{name} {spent:.1f}" for name, spent in slowest),
                "error": child.error,
            }
        )
    asked = {"wall_s": WALL_ASKED_S, "peak_mb": MEMORY_ASKED_MB}
    return rows, {"rows": rows, "asked": asked, "head": head.name}


def _head() -> Path:
    data = Path(os.environ.get("ATYPIA_DATA", "../shared/data"))
    return data / "raw" / "ds011" / "sub-01_T1w.nii.gz"
