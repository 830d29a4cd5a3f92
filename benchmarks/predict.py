"""From a scan to its results with the weights that come with atypia, by stage: seconds and memory.

Each run is `atypia predict SCAN` as a user types it, in a process of its own, on two threads: a
prepared scan (stripped, 1 mm) and a raw head with its skull. Stages are measured in a second
process that calls the same functions one after the other.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.weights import data_folder

SEED = 0
OUTPUT = Path("benchmark-output/predict")
ASKED = {"prepared": {"wall_s": 30.0, "peak_mb": 3000.0}, "raw head": {"wall_s": 60.0}}

_STAGES = """
import json, sys, time
begun = time.perf_counter()
stages = {}
def lap(name):
    global begun
    now = time.perf_counter()
    stages[name] = now - begun
    begun = now
from pathlib import Path
from atypia import io
from atypia.cohort.scan import Scan
from atypia.detectors.prediction import apply_calibration
from atypia.detectors.shipped import contrast_shown, load_weights
from atypia.preprocessing.step import State
from atypia.preprocessing.plan import Prepared
lap("import")
detector = load_weights()
lap("weights")
scan = Scan.of(Path(sys.argv[1]))
image = scan.image()
lap("read")
state = State(image)
parameters = []
native = None
for step in detector.plan.steps:
    measured = step.measure(state)
    state = step.apply(state, measured)
    parameters.append(measured)
    native = native or state.brain
    lap("prepare: " + step.step)
prepared = Prepared(state.image, state.require_brain(), native, tuple(parameters))
shown = contrast_shown(prepared)
lap("contrast")
finding = detector._score(prepared)
lap("ensemble: " + ", ".join(detector.members_))
detector._finish(scan, prepared, finding)
lap("native space")
print(json.dumps(stages))
"""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Predict a prepared scan and, without `--quick`, a raw head."""
    scans = {"prepared": _prepared()}
    head = data_folder() / "raw" / "ds011" / "sub-01_T1w.nii.gz"
    if not quick:
        if head.exists():
            scans["raw head"] = head
        else:
            print(f"LEFT OUT: no raw head, because there is no {head}\n")
    rows = []
    for name, scan in scans.items():
        out = OUTPUT / name.replace(" ", "-")
        shutil.rmtree(out, ignore_errors=True)
        whole = timing.python("-m", "atypia", "predict", str(scan.resolve()), "-o", str(out))
        stages = timing.python("-c", _STAGES, str(scan.resolve()))
        told = json.loads(stages.stdout.strip().splitlines()[-1]) if not stages.error else {}
        asked = ASKED[name]
        rows.append(
            {
                "scan": name,
                "wall_s": whole.wall_s,
                "cpu_s": whole.cpu_s,
                "peak_mb": whole.peak_mb,
                "within": whole.wall_s < asked["wall_s"]
                and whole.peak_mb < asked.get("peak_mb", float("inf")),
                "error": whole.error or stages.error,
                **{stage: round(seconds, 2) for stage, seconds in told.items()},
                "rest of the command: results, pages": round(whole.wall_s - sum(told.values()), 2),
            }
        )
    for row in rows:
        for stage in [key for key in row if key not in _HEAD]:
            print(f"{row['scan']:<10} {stage:<56} {row[stage]:>8.2f} s")
    print()
    return [{key: row[key] for key in _HEAD} for row in rows], {"rows": rows, "asked": ASKED}


_HEAD = ("scan", "wall_s", "cpu_s", "peak_mb", "within", "error")


def _prepared() -> Path:
    """Simulate a stripped 1 mm T2w brain with a tumour."""
    from atypia import io
    from atypia.simulation import SimulationSettings, simulate_subject

    path = OUTPUT / "simulated_T2w.nii.gz"
    if not path.exists():
        settings = SimulationSettings(modality="T2w", spacing_mm=1.0, lesion="tumour")
        io.write(simulate_subject(settings, 350_000).image, path)
    return path
