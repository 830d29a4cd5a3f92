"""What the shipped weights find alone and together, on the development scans that chose members.

Simulated T1w, T2w and FLAIR brains (`SEEDS`) with planted balls of 10 and 25 mm: neither brains nor
lesions on which `python -m benchmarks shipped` judges. Each ensemble takes its scale from the same
simulated healthy brains as the shipped one. Whoever chooses by this table has used it up: its
figures flatter what was chosen.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from atypia.cohort import Cohort
from atypia.cohort.planted import with_planted
from atypia.cohort.simulated import simulated_cohort
from atypia.detectors.base import Detector
from atypia.detectors.ensemble import Ensemble
from atypia.detectors.shipped import load_weights
from atypia.evaluation.histogram import ScoreHistogram
from atypia.simulation import SimulationSettings
from benchmarks.weights import HOW, MEMBERS, RECIPES, simulated
from benchmarks.weights import OUTPUT as WEIGHTS

SEED = 366_000
SEEDS = range(SEED, SEED + 2)
CONTRASTS = ("T1w", "T2w", "FLAIR")
DIAMETERS_MM = (10.0, 25.0)
CONTRAST = 0.3
EACH = 2
"""Balls in one brain."""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Give the mean average precision of each; `--quick` takes T2w and few scans for the scale."""
    folder = Path("benchmark-output/members-quick") if quick else WEIGHTS
    scale = simulated(folder, "scale-any", 4 if quick else None)
    tests = {
        (contrast, diameter): _planted(contrast, diameter, 1 if quick else len(SEEDS))
        for contrast, diameter in product(CONTRASTS[1:2] if quick else CONTRASTS, DIAMETERS_MM)
    }
    rows: list[dict[str, Any]] = []
    for name, detector in _candidates(scale, folder / "prepared").items():
        row: dict[str, Any] = {"score": name}
        for (contrast, diameter), scans in tests.items():
            found = [_average_precision(detector, scans[i]) for i in range(len(scans))]
            row[f"{contrast}, {diameter:g} mm"] = float(np.mean(found))
        row["mean"] = float(np.mean([row[key] for key in row if key != "score"]))
        rows.append(row)
    return rows, {"rows": rows, "scans": len(SEEDS), "balls": EACH, "contrast": CONTRAST}


def _planted(contrast: str, diameter: float, scans: int) -> Cohort:
    settings = SimulationSettings(modality=contrast, spacing_mm=2.0)
    healthy = simulated_cohort(settings, SEEDS[:scans])
    return with_planted(healthy, diameter, CONTRAST, per_scan=EACH)


def _candidates(scale: Cohort, cache: Path) -> dict[str, Detector]:
    """Give every weight set alone, and the ensembles that were compared."""
    alone: dict[str, Detector] = {r.method: load_weights(r.method, "other") for r in RECIPES}
    two = {name: alone[name] for name in MEMBERS}
    together = {
        "the two members, geometric mean": Ensemble.of(two, scale, how=HOW, cache=cache),
        "the two members, arithmetic mean": Ensemble.of(two, scale, how="mean", cache=cache),
        "all three, geometric mean": Ensemble.of(alone, scale, how=HOW, cache=cache),
    }
    restoration = alone["synthetic_restoration"]
    alone |= {
        f"synthetic_restoration, {name}": restoration.but(score_from=name)
        for name in ("evidence", "both")
    }
    return alone | together


def _average_precision(detector: Detector, scan: Any) -> float:
    """Rank the voxels of the brain by a score map against the planted balls."""
    found, lesion = detector.predict(scan), scan.lesion()
    inside = found.brain.data
    histogram = ScoreHistogram()
    histogram.update(found.score_map.data[inside].astype(np.float32), lesion.data[inside])
    return histogram.result().average_precision
