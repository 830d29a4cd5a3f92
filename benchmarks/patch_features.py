"""Patch features compared: random and self-supervised autoencoders, memory bank, PaDiM, baselines.

All learn on the same healthy scans and are calibrated on others. Two parts: simulated T2w brains at
3 mm with planted tumours and strokes; and real T1w brains at 3 mm (ds002748 to learn from; MS with
expert masks and gliomas with automatic ones to be found; needs `ATYPIA_DATA`). Intervals are over
scans; with two or three scans they say little.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atypia.cohort import Cohort, open_cohort, split
from atypia.cohort.simulated import write_simulated
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_baselines
from atypia.detectors.spark_pretraining import PretrainingSettings
from atypia.evaluation.result_tables import tables
from atypia.networks.vector_autoencoder import AUTOENCODERS
from atypia.registry import detector_class
from atypia.runs.evaluating import evaluate_detectors
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.runs.pretraining import pretrain
from atypia.simulation import SimulationSettings
from benchmarks import real_t1

SEED = 0
OUTPUT = Path("benchmark-output/patch_features")
LESIONS = ("tumour", "stroke")
SHOWN = (
    "autoencoder random",
    "autoencoder standard",
    "memory_bank descriptors",
    "padim descriptors",
    "zscore",
)
"""Methods in the picture."""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare on both parts; the quick run is 6 mm, a few scans and steps, simulated only."""
    folder = OUTPUT / ("quick" if quick else "full")
    parts = {"simulated": _simulated(folder / "simulated", quick)}
    data = Path(os.environ.get("ATYPIA_DATA", "../shared/data"))
    if quick or not (data / "ds002748").is_dir():
        print(f"LEFT OUT: real scans ({'quick run' if quick else f'none in {data.resolve()}'})\n")
    else:
        parts["real T1w"] = _real(folder / "real", data)
    rows = []
    for part, figures in parts.items():
        for row in figures["evaluation"]["lesions"]:
            low, high = row["ap"]["interval"] or (None, None)
            rows.append(
                {
                    "part": part,
                    "lesion": row["condition"],
                    "method": row["method"],
                    "scans": row["scans"],
                    "ap": row["ap"]["mean"],
                    "ap_low": low,
                    "ap_high": high,
                    "dice_calibrated": row["dice"]["mean"],
                    "dice_oracle": row["oracle_dice"]["mean"],
                }
            )
    return rows, json.loads(json.dumps(parts))


def _simulated(folder: Path, quick: bool) -> dict[str, Any]:
    spacing, each = (6.0, 2) if quick else (3.0, 12)
    healthy = SimulationSettings(modality="T2w", spacing_mm=spacing)
    plans = {
        "train": [(healthy, range(5 if quick else 32))],
        "calibration": [(healthy, range(5000, 5000 + each))],
        "test": [
            (healthy.but(lesion=lesion), range(10_000 + 1000 * i, 10_000 + 1000 * i + each))
            for i, lesion in enumerate(LESIONS)
        ],
    }
    cohorts = {
        name: write_simulated(plan, folder / "scans" / name, workers=1)
        for name, plan in plans.items()
    }
    return _compared(cohorts, folder, {"spacing_mm": spacing, "align": "none"}, quick)


def _real(folder: Path, data: Path) -> dict[str, Any]:
    parts = split(open_cohort(data / "ds002748"), {"train": 0.75, "calibration": 0.25}, SEED)
    tested = real_t1.lesion_scans(data)
    return _compared(parts | {"test": tested}, folder, {"spacing_mm": 3.0, "modality": "T1w"})


def _compared(
    cohorts: Mapping[str, Cohort], folder: Path, common: dict[str, Any], quick: bool = False
) -> dict[str, Any]:
    """Fit, calibrate and evaluate every method on the same scans."""
    started, cache = time.process_time(), folder / "prepared"
    common = common | {"seed": SEED}
    steps = 4 if quick else 300
    rules = PretrainingSettings.make(
        common
        | {"axes": 3, "stem_stride": 2, "cell": 4 if quick else 8, "crop": 16 if quick else 48}
        | {"validation_share": 0.2}
        | {
            "training": {
                "steps": steps,
                "batch_size": 4,
                "learning_rate": 1e-3,
                "weight_decay": 0.05,
                "validate_every": max(steps // 3, 1),
            }
        }
    )
    encoder = folder / f"encoder-{rules.digest()[:6]}"
    told = pretrain(cohorts["train"], rules, encoder, cache=cache, workers=1)
    seconds = {"encoder": time.process_time() - started}
    everyone: dict[str, Detector] = {}
    for name, (method, values) in _methods(encoder).items():
        begun = time.process_time()
        chosen = common | values
        if quick and method == "patch_autoencoder":
            chosen |= {"training": {"steps": 20, "batch_size": 1, "validate_every": 10}}
        settings = detector_class(method).settings_class.make(chosen)
        model = folder / f"{name.replace(' ', '-')}-{settings.digest()[:6]}"
        fit_model(method, settings, cohorts["train"], model, cache=cache, workers=1)
        everyone[name] = calibrate_model(
            model, cohorts["calibration"], voxel_fpr=0.005, smallest_mm3=0.0, cache=cache
        )
        seconds[name] = time.process_time() - begun
    everyone |= load_baselines(model)
    if "modality" not in common:
        _draw(everyone, cohorts["test"], folder.parent / "patch-features.png")
    found = evaluate_detectors(everyone, cohorts["test"], cache=cache)
    evaluation = found.evaluation.to_json()
    print(tables(evaluation) + "\n")
    return {
        "evaluation": {key: evaluation[key] for key in ("lesions", "masks")},
        "encoder_loss": told["validation_loss"],
        "cpu_s": {name: round(value, 1) for name, value in seconds.items()},
        "scans": {name: len(cohort) for name, cohort in cohorts.items()},
        "failed": [failure.scan.id for failure in found.failures],
    }


def _methods(encoder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name the contestants: method and settings."""
    learnt = {"features": "file", "weights": encoder}
    random = {"features": "random", "network": "simple", "network_width": 32}
    return {
        "autoencoder random": ("patch_autoencoder", random),
        **{
            f"autoencoder {kind}": ("patch_autoencoder", {**learnt, "autoencoder": kind})
            for kind in AUTOENCODERS
        },
        "memory_bank learnt": ("memory_bank", learnt),
        "memory_bank descriptors": ("memory_bank", {"features": "descriptors"}),
        "padim learnt": ("padim", learnt),
        "padim descriptors": ("padim", {"features": "descriptors"}),
    }


def _draw(everyone: Mapping[str, Detector], tested: Cohort, path: Path) -> None:
    """Draw the first scan of each lesion with the scores of some methods, not hand-picked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in SHOWN if name in everyone]
    firsts = [next(s for s in tested if s.condition == lesion) for lesion in LESIONS]
    figure, axes = pyplot.subplots(2, len(shown) + 1, figsize=(2 * (len(shown) + 1), 4.6))
    for row, scan in zip(axes, firsts, strict=True):
        lesion = scan.lesion().data
        place = int(lesion.sum(axis=(0, 1)).argmax())
        image = scan.image("T2w").data[..., place].T
        outline = lesion[..., place].T
        row[0].imshow(image, cmap="gray", origin="lower")
        row[0].set_ylabel(scan.condition, fontsize=9)
        for axis, name in zip(row[1:], shown, strict=True):
            score = everyone[name].score_map(scan).data
            high = float(score.max())
            axis.imshow(score[..., place].T, cmap="magma", origin="lower", vmin=0, vmax=high)
        for axis in row:
            axis.contour(outline, levels=[0.5], colors="#4aa3ff", linewidths=0.9)
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[0], ("scan", *shown), strict=True):
        axis.set_title(name.removesuffix(" *"), fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
