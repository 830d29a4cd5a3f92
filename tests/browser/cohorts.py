"""Results folders of synthetic cohorts: JSON files and thumbnails, no volumes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from atypia import files
from atypia.report.thumbnails import DRAWN, NAME, QUALITIES

CONDITIONS = ("healthy", "tumour", "stroke")


def write_synthetic(folder: Path, scans: int, failed: int = 0) -> Path:
    """Write `run.json`, and `scan.json` with a thumbnail a scan; every tenth has its own page."""
    rng = np.random.default_rng(5)
    healthy = rng.gamma(4, 0.5, 200).round(4)
    items = []
    for number in range(scans):
        name, condition = f"sub-{number:05d}", CONDITIONS[number % 3]
        place = folder / "scans" / name
        score = float(rng.gamma(4, 0.5) + (condition != "healthy") * rng.gamma(2, 1.0))
        found = int(max(0, round(score - 3)))
        told = _description(name, condition, score, found, healthy, number)
        files.write_json(place / "scan.json", told)
        (place / NAME).write_bytes(_thumbnail(rng, told["key"]))
        if number % 10 == 0:
            (place / "index.html").write_text("<!doctype html><title>scan</title><h1>scan</h1>")
        items.append({"id": name, "status": "done", "seconds": 1.0})
    for number in range(failed):
        why = f"/data/Jane Doe/bad-{number}.nii.gz: is truncated. Copy it again."
        items.append({"id": f"bad-{number}", "status": "failed", "error": why})
    files.write_json(folder / "run.json", _run(items, healthy))
    return folder


def _description(name, condition, score, found, healthy, number):
    lesion = {"size_mm3": 100.0, "peak_score": score, "centre_mm": [1.0, 2.0, 3.0]}
    return {
        "id": name,
        "key": f"key-{name}",
        "subject": name,
        "dataset": "synthetic",
        "condition": condition,
        "site": f"site {'ABCD'[number % 4]}",
        "sex": "FM"[number % 2],
        "age": 20.0 + number % 60,
        "image": f"/data/Jane Doe/{name}.nii.gz",
        "lesion_mask": None,
        "brain_ml": 1400.0,
        "score": score,
        "p_value": float((1 + (healthy >= score).sum()) / (1 + healthy.size)),
        "threshold": {"value": 3.0, "provenance": "healthy n=200"},
        "mask_ml": 0.1 * found,
        "lesions": [lesion | {"p_value": 0.1, "extrapolated": False}] * found,
        "details": {"outcome": "mask refined"},
    }


def _run(items, healthy):
    return {
        "atypia": "0.1",
        "python": "3.11",
        "method": "zscore",
        "model": "/models/of Jane Doe/zscore",
        "settings": {"spacing_mm": 3.0, "folder": "/data/Jane Doe/x"},
        "trained_on": {},
        "calibration": {
            "provenance": "healthy n=200",
            "cohort": "healthy ones",
            "voxel_threshold": 3.0,
            "subject_scores": healthy.tolist(),
        },
        "cohort": "synthetic",
        "items": items,
    }


def _thumbnail(rng, key):
    """Draw a blurred blob, of about as many bytes as a brain."""
    y, x = np.mgrid[-1:1:96j, -1:1:80j]
    noise = np.asarray(Image.fromarray(rng.random((24, 20)).astype(np.float32)).resize((80, 96)))
    grey = np.clip(200 * noise * (x**2 + y**2 < 0.8), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).convert("RGB").save(
        stream, "WEBP", quality=QUALITIES[0], xmp=f"{DRAWN} {key}".encode()
    )
    return stream.getvalue()
