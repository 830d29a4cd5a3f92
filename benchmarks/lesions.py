"""Simulated lesions in T2w brains at 2 mm: average precision and masks beside the baselines.

`mask_refinement` and every baseline learn on the same healthy simulated brains and are calibrated
on others; tumours and strokes are planted in further ones.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from atypia.cohort.simulated import write_simulated
from atypia.detectors.base import Detector, DetectorSettings
from atypia.detectors.model_folder import load_baselines
from atypia.evaluation.result_tables import tables
from atypia.registry import detector_class
from atypia.runs.evaluating import evaluate_detectors
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.simulation import SimulationSettings

SEED = 0
METHOD = "mask_refinement"
LESIONS = ("tumour", "stroke")
OUTPUT = Path("benchmark-output/lesions")


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, calibrate, evaluate; the quick run is 6 mm with a few scans and steps."""
    steps = 4 if quick else 160
    spacing = 6.0 if quick else 2.0
    settings = detector_class(METHOD).settings_class.make(
        {
            "spacing_mm": spacing,
            "align": "none",
            "seed": SEED,
            "percent_step": 10.0 if quick else 1.0,
            "training": {
                "steps": steps,
                "batch_size": 2,
                "learning_rate": 3e-3,
                "validate_every": max(steps // 4, 1),
            },
        }
    )
    folder = OUTPUT / ("quick" if quick else "full")
    return compared(METHOD, settings, folder, spacing, each=1 if quick else 6)[:2]


def compared(
    method: str, settings: DetectorSettings, folder: Path, spacing: float, each: int
) -> tuple[list[dict[str, Any]], dict[str, Any], Detector]:
    """Train a method and the baselines, find lesions with all; give rows, figures, the model."""
    started = time.monotonic()
    healthy = SimulationSettings(modality="T2w", spacing_mm=spacing)
    plans = {
        "train": [(healthy, range(4 if each == 1 else 32))],
        "calibration": [(healthy, range(5000, 5000 + each))],
        "test": [(healthy, range(9000, 9000 + each))]
        + [
            (healthy.but(lesion=lesion), range(10_000 + 1000 * i, 10_000 + 1000 * i + each))
            for i, lesion in enumerate(LESIONS)
        ],
    }
    cohorts = {
        name: write_simulated(plan, folder / "scans" / name, workers=None)
        for name, plan in plans.items()
    }
    model, cache = folder / f"model-{settings.digest()[:6]}", folder / "prepared"
    fit_model(method, settings, cohorts["train"], model, cache=cache)
    trained = time.monotonic() - started
    detector = calibrate_model(
        model, cohorts["calibration"], voxel_fpr=0.005, smallest_mm3=0.0, cache=cache
    )
    everyone = {method: detector} | load_baselines(model)
    found = evaluate_detectors(everyone, cohorts["test"], cache=cache)
    evaluation = found.evaluation.to_json()
    print(tables(evaluation) + "\n")
    rows = [
        {
            "lesion": row["condition"],
            "method": row["method"],
            "scans": row["scans"],
            "ap": row["ap"]["mean"],
            "dice_calibrated": row["dice"]["mean"],
            "dice_own": None if row["own_dice"] is None else row["own_dice"]["mean"],
            "dice_oracle": row["oracle_dice"]["mean"],
        }
        for row in evaluation["lesions"]
    ]
    figures = {
        "settings": settings.to_json(),
        "seconds_to_train": round(trained, 1),
        "seconds": round(time.monotonic() - started, 1),
        "evaluation": {key: evaluation[key] for key in ("lesions", "masks", "healthy")},
        "failed": [failure.scan.id for failure in found.failures],
    }
    return rows, json.loads(json.dumps(figures)), detector
