"""Real T1w brains: train on healthy ones, score MS and glioma, healthy scores per source beside.

Healthy pool: OpenNeuro ds002748 (48 brains; 36 train, 12 calibrate, split by subject with seed 0;
"healthy" means no known focal lesion). Test: MSLesSeg (expert masks, drawn on FLAIR), TCGA gliomas
(automatic masks, no expert's), one chronic stroke without a mask; healthy controls from another
scanner: ds000011, whole heads, stripped here by deepbet if it is installed, left out otherwise
(`pip install --no-deps deepbet==1.0.2 fill-voids connected-components-3d tqdm`).

Training and test scans come from different scanners: a detector of scanners would look good here.
Read every abnormal score beside the healthy ones of its own and of other sources.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from atypia.cohort import Cohort, Scan, open_cohort, split
from atypia.detectors.model_folder import load_baselines
from atypia.evaluation.evaluation import Evaluation
from atypia.evaluation.subject import auroc
from atypia.registry import detector_class
from atypia.runs.evaluating import evaluate_detectors
from atypia.runs.fitting import calibrate_model, fit_model
from benchmarks.tables import table

SEED = 0
METHOD = "mask_refinement"
OUTPUT = Path("benchmark-output/real_t1")
NO_EXPERT = "glioma (automatic mask)"


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, calibrate and score; the quick run is the same at 6 mm with a few scans and steps."""
    data = Path(os.environ.get("ATYPIA_DATA", "../shared/data"))
    if not (data / "ds002748").is_dir():
        raise SystemExit(f"no real scans in {data.resolve()}: set ATYPIA_DATA to run real_t1")
    started = time.monotonic()
    folder = OUTPUT / ("quick" if quick else "full")
    parts = split(open_cohort(data / "ds002748"), {"train": 0.75, "calibration": 0.25}, SEED)
    train, calibration = parts["train"], parts["calibration"]
    if quick:
        train, calibration = train.take(range(4)), calibration.take(range(2))
    values: dict[str, Any] = {
        "modality": "T1w",
        "seed": SEED,
        "percent_step": 5.0 if quick else 2.0,
    }
    values |= {"spacing_mm": 6.0 if quick else 3.0}
    steps = {"steps": 10 if quick else 800, "validate_every": 5 if quick else 200}
    values["training"] = {**steps, "batch_size": 2, "learning_rate": 2e-3}
    settings = detector_class(METHOD).settings_class.make(values)
    cache = folder / "prepared"
    model = folder / "model"
    fit_model(METHOD, settings, train, model, cache=cache)
    detector = calibrate_model(model, calibration, voxel_fpr=0.005, smallest_mm3=0, cache=cache)
    everyone = {METHOD: detector} | load_baselines(model)
    tested = _test_scans(data, folder, quick)
    found = evaluate_detectors(everyone, tested, cache=cache)
    for failure in found.failures:
        print(f"FAILED {failure.scan.id}: {failure.error}")
    healthy = {
        name: d.calibration.subject_scores
        for name, d in everyone.items()
        if d.calibration is not None
    }
    rows = _rows(found.evaluation)
    figures = {
        "train": len(train),
        "calibration": len(calibration),
        "settings": settings.to_json(),
        "seconds": round(time.monotonic() - started, 1),
        "sources": _by_source(found.evaluation, healthy),
        "scans": found.evaluation.scans,
        "failed": [failure.scan.id for failure in found.failures],
    }
    print(table(figures["sources"]) + "\n")
    return rows, json.loads(json.dumps(figures))


def _test_scans(data: Path, folder: Path, quick: bool) -> Cohort:
    scans = list(lesion_scans(data))[: 1 if quick else None]
    if not quick:
        stroke = {"T1w": data / "stroke" / "cstar_T1.nii.gz"}
        scans.append(_scan("cstar", stroke, None, "chronic stroke (no mask)", "C-STAR"))
        scans += _heads(data, folder)
    return Cohort(tuple(scans), "real T1w test scans")


def lesion_scans(data: Path) -> Cohort:
    """List the scans with masks: multiple sclerosis by experts, gliomas automatic."""
    scans = []
    for visit in ("P14_T1", "P14_T2", "P18_T1"):
        images = {"T1w": data / "mslesseg" / f"{visit}_T1.nii.gz"}
        mask = data / "mslesseg" / f"{visit}_MASK.nii.gz"
        # P14_T2's T1 was stripped badly (2.6 litres are left); its FLAIR on the same grid well.
        brain = data / "mslesseg" / f"{visit}_FLAIR.nii.gz"
        subject, session = visit.split("_")
        scan = _scan(subject, images, mask, "multiple sclerosis", "MSLesSeg")
        scans.append(replace(scan, session=session, brain_mask=brain))
    for case in ("TCGA-DU-7294", "OtherEXampleFromTCIA"):
        place = data / "tcga" / case
        images = {"T1w": place / f"{case}_t1_bet.nii.gz"}
        mask = place / f"{case}_autoseg_SIMPLE.nii.gz"
        scans.append(_scan(case, images, mask, NO_EXPERT, "TCGA"))
    return Cohort(tuple(scans), "real T1w scans with lesions")


def _scan(
    subject: str, images: dict[str, Path], mask: Path | None, condition: str, source: str
) -> Scan:
    return Scan(subject, images, dataset=source, lesion_mask=mask, condition=condition, site=source)


def _heads(data: Path, folder: Path) -> list[Scan]:
    """List the healthy whole heads of ds000011, with brain masks by deepbet."""
    if importlib.util.find_spec("deepbet") is None:
        print("LEFT OUT: healthy ds000011 heads, because deepbet is not installed\n")
        return []
    from deepbet import run_bet

    images = sorted((data / "raw" / "ds011").glob("sub-*_T1w.nii.gz"))
    masks = [folder / "brains" / image.name for image in images]
    (folder / "brains").mkdir(parents=True, exist_ok=True)
    wanted = [(str(i), str(m)) for i, m in zip(images, masks, strict=True) if not m.exists()]
    if wanted:
        run_bet([i for i, _ in wanted], mask_paths=[m for _, m in wanted], no_gpu=True)
    scans = []
    for image, mask in zip(images, masks, strict=True):
        subject = image.name.split("_")[0]
        scans.append(
            Scan(
                subject,
                {"T1w": image},
                dataset="ds000011",
                brain_mask=mask,
                condition="healthy",
                site="ds000011",
            )
        )
    return scans


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Give one row a scan and method, sorted as scanned."""
    rows = []
    for scan in evaluation.scans:
        rows.append(
            {
                "source": scan["site"],
                "scan": scan["scan"],
                "condition": scan["condition"],
                "method": scan["method"],
                "score": scan["score"],
                "p": scan["p_value"],
                "flagged": scan["flagged"],
                "lesion share": scan.get("lesion_share"),
                "AP": scan.get("ap"),
                "AUROC": scan.get("auroc"),
                "Dice (healthy threshold)": scan.get("dice"),
                "own Dice": scan.get("own_dice"),
                "oracle Dice": scan.get("oracle_dice"),
            }
        )
    return rows


def _by_source(
    evaluation: Evaluation, healthy: dict[str, tuple[float, ...]]
) -> list[dict[str, Any]]:
    """Give subject-level scores by source, and how they rank above healthy ones."""
    sources = []
    for method, calibrated in healthy.items():
        sources.append(_source(method, "ds002748", "healthy (calibration)", calibrated, None, None))
        mine = [scan for scan in evaluation.scans if scan["method"] == method]
        others = [scan["score"] for scan in mine if scan["condition"] == "healthy"]
        for key in dict.fromkeys((scan["site"], scan["condition"]) for scan in mine):
            scores = [s["score"] for s in mine if (s["site"], s["condition"]) == key]
            against = None if key[1] == "healthy" or not others else auroc(others, scores)
            sources.append(_source(method, *key, scores, auroc(calibrated, scores), against))
    return sources


def _source(
    method: str, site: str, condition: str, scores: Any, same: float | None, other: float | None
) -> dict[str, Any]:
    return {
        "method": method,
        "source": site,
        "condition": condition,
        "scans": len(scores),
        "mean score": float(np.mean(scores)),
        "lowest": float(np.min(scores)),
        "highest": float(np.max(scores)),
        "AUROC vs ds002748": same,
        "AUROC vs ds000011": other,
    }
