"""The shipped weights on real and on simulated scans of T1w, T2w and FLAIR, beside both baselines.

Nothing here was learnt from or chosen on: healthy hold-outs (12 scans of ds002748), raw heads
(ds000011), scans with multiple sclerosis, glioma and stroke, and simulated lesions, whose shapes
and contrasts no detector has learnt from. Thresholds are those of the calibration that the weights
would use. The baselines get what the weights do without, healthy scans of the contrast (two thirds
to learn from, one third calibrates): 36 of ds002748 for real T1w scans, 40 simulated brains for all
others, of the simulator that draws the simulated lesions. Writes `docs/comparisons/shipped.md` and
the figures of the model cards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from atypia import files
from atypia.cohort import Cohort, Scan
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_detector, save_detector
from atypia.detectors.shipped import CARD, load_weights, shipped
from atypia.errors import AtypiaError
from atypia.evaluation.histogram import ScoreHistogram
from atypia.evaluation.lesion_figures import lesion_figures
from atypia.parallel import map_in_processes
from atypia.progress import silent
from atypia.registry import detector_class
from benchmarks.shipped_page import write_page
from benchmarks.shipped_scans import CONTRASTS, real_scans, simulated_scans
from benchmarks.weights import OUTPUT as WEIGHTS
from benchmarks.weights import UNJUDGED, data_folder, real_healthy, simulated

Row = Mapping[str, Any]

SEED = 0
OUTPUT = Path("benchmark-output/shipped")
PAGE = Path("docs/comparisons/shipped.md")
BASELINES = ("zscore", "intensity")
LEVEL = 0.05
EACH = 5
"""Simulated scans of each lesion; twice as many healthy ones."""


Job = tuple[str, str, int, int]
"""Contrast, "real" or "simulated", how many simulated scans of each lesion, number of the scan."""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Judge all weights; `--quick` takes T2w, two simulated scans of each kind, and no page.

    What is judged is kept in `OUTPUT`, a file for each scan and method: a run that was killed goes
    on, and new weights are judged alone.
    """
    if not shipped():
        raise SystemExit("there are no weights: run `python -m benchmarks weights`")
    contrasts, each = (CONTRASTS[1:2], 2) if quick else (CONTRASTS, EACH)
    kinds = ("real", "simulated") if data_folder().is_dir() and not quick else ("simulated",)
    for contrast in contrasts:
        for kind in kinds:
            _fit_baselines(contrast, kind)
    jobs: list[Job] = [
        (contrast, kind, each, number)
        for kind in kinds
        for contrast in contrasts
        for number in range(len(_scans(contrast, kind, each)))
    ]
    told = list(map_in_processes(_judged, jobs, 2, "judge", silent))
    figures: dict[str, Any] = {"rows": [], "healthy": [], "sizes": []}
    for contrast in contrasts:
        for kind in kinds:
            own = [
                row
                for job, rows in zip(jobs, told, strict=True)
                for row in rows
                if job[:2] == (contrast, kind) and "error" not in row
            ]
            name = f"{contrast}, {kind}"
            figures["rows"] += _rows(own, name)
            figures["healthy"] += _healthy_rows(own, name)
            figures["sizes"] += _size_rows(own, name)
    figures["failed"] = [row["error"] for rows in told for row in rows if "error" in row]
    if not quick:
        intro = (__doc__ or "").split("\n\n", 1)[1].strip()
        write_page(PAGE, f"Made by `python -m benchmarks shipped` (seed {SEED}). {intro}", figures)
        _fill_cards(figures)
    return figures["rows"], figures


@cache
def _scans(contrast: str, kind: str, each: int) -> Cohort:
    if kind == "real":
        return real_scans(data_folder(), contrast)
    return simulated_scans(OUTPUT / "simulated", contrast, each, 2.0)


@cache
def _detectors(contrast: str, kind: str) -> dict[str, Detector]:
    """Load all weights with the calibration of a contrast, and the baselines."""
    detectors = {name: load_weights(name, contrast) for name in shipped()}
    return detectors | {n: load_detector(_baseline(contrast, kind, n)) for n in BASELINES}


def _baseline(contrast: str, kind: str, name: str) -> Path:
    return OUTPUT / "baselines" / f"{contrast}-{kind}" / name


def _judged(job: Job) -> list[dict[str, Any]]:
    """Judge one scan by all weights and baselines: a row a method, or one that names an error."""
    contrast, kind, each, number = job
    scan = _scans(contrast, kind, each)[number]
    rows = []
    try:
        for name, detector in _detectors(contrast, kind).items():
            assert detector.calibration is not None
            parts = (scan.fingerprint(contrast), detector.digest(), detector.calibration.digest())
            what = f"{contrast}-{kind}-{scan.id}-{name}-{files.digest(*parts)}"
            path = OUTPUT / "judged" / f"{what}.json"
            if not path.exists():
                files.write_json(path, _row(name, detector, scan))
            rows.append(files.read_json(path))
    except AtypiaError as error:
        return [{"error": f"{contrast}, {scan.id}: {error}"}]
    return rows


def _row(name: str, detector: Detector, scan: Scan) -> dict[str, Any]:
    """Compare a prediction with the labels, but for surfaces, which would take most of the time."""
    found = detector.predict(scan, cache=OUTPUT / "prepared")
    assert found.mask is not None
    brain, lesion = found.brain.data, scan.lesion()
    row: dict[str, Any] = {
        "scan": scan.id,
        "condition": scan.condition,
        "site": scan.site,
        "method": name,
        "p_value": found.p_value,
        "flagged": float(found.mask.data[brain].mean()),
    }
    if lesion is None or not lesion.data.any():
        return row
    # A lesion outside the brain mask is missed, and counts as missed.
    truth, region = lesion.data, brain | lesion.data
    scores = np.where(brain, found.score_map.data, 0).astype(np.float32)
    histogram = ScoreHistogram()
    histogram.update(scores[region], truth[region])
    ranking = histogram.result()
    overlap = 2 * (found.mask.data & truth).sum() / (found.mask.data.sum() + truth.sum())
    sizes = lesion_figures(found.mask.data, truth, found.mask.spacing_mm)
    return row | {
        "ap": ranking.average_precision,
        "auroc": ranking.auroc,
        "oracle_dice": ranking.best_dice,
        "dice": float(overlap),
        "sizes": sizes.to_json()["by_size"],
    }


def _fit_baselines(contrast: str, kind: str) -> None:
    """Fit the baselines on healthy scans of a contrast, and calibrate them on others."""
    real = real_healthy() if (contrast, kind) == ("T1w", "real") else None
    healthy = simulated(WEIGHTS, f"healthy-{contrast}") if real is None else real[0]
    third = len(healthy) * 2 // 3
    order = np.random.default_rng(SEED).permutation(len(healthy)).tolist()
    learning, calibrating = healthy.take(order[:third]), healthy.take(order[third:])
    for name in BASELINES:
        place = _baseline(contrast, kind, name)
        if (place / "detector.json").exists():
            continue
        method = detector_class(name)
        detector = method(method.settings_class.make({"spacing_mm": 2.0, "modality": contrast}))
        detector.fit(learning, cache=OUTPUT / "prepared")
        detector.calibrate(
            calibrating, voxel_fpr=0.005, smallest_mm3=50.0, cache=OUTPUT / "prepared"
        )
        place.mkdir(parents=True, exist_ok=True)
        save_detector(detector, place)


def _rows(scans: Sequence[Row], name: str) -> list[dict[str, Any]]:
    """Give one row a condition and method, means over scans."""
    rows = []
    told = [scan for scan in scans if scan.get("ap") is not None]
    for condition in dict.fromkeys(scan["condition"] for scan in told):
        for method in dict.fromkeys(scan["method"] for scan in told):
            own = [s for s in told if (s["condition"], s["method"]) == (condition, method)]
            rows.append(
                {
                    "scans": name,
                    "condition": condition,
                    "n": len(own),
                    "method": _shown(method),
                    "AP": _mean(own, "ap"),
                    "AUROC": _mean(own, "auroc"),
                    "Dice": _mean(own, "dice"),
                    "oracle Dice": _mean(own, "oracle_dice"),
                    "p <= 0.05": _low(own),
                }
            )
    return rows


def _healthy_rows(scans: Sequence[Row], name: str) -> list[dict[str, Any]]:
    """Give the share of healthy scans at the nominal level, by source and method."""
    healthy = [scan for scan in scans if scan["condition"] == "healthy"]
    rows = []
    for site in dict.fromkeys(scan["site"] for scan in healthy):
        for method in dict.fromkeys(scan["method"] for scan in healthy):
            own = [s for s in healthy if (s["site"], s["method"]) == (site, method)]
            low = _low(own)
            share = "-"
            if low is not None:
                ends = binomtest(low, len(own)).proportion_ci()
                share = f"{low / len(own):.2f} [{ends.low:.2f}, {ends.high:.2f}]"
            rows.append(
                {
                    "scans": name,
                    "source": site,
                    "method": _shown(method),
                    "healthy": len(own),
                    "p <= 0.05": low,
                    "share [95 % CI]": share,
                    "voxels flagged": _mean(own, "flagged"),
                }
            )
    return rows


def _size_rows(scans: Sequence[Row], name: str) -> list[dict[str, Any]]:
    """Give the share of lesions that calibrated masks touch, by size and method."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for scan in scans:
        for size, told in scan.get("sizes", {}).items():
            key = (scan["condition"], size, scan["method"])
            there = counts.setdefault(key, [0, 0])
            there[0] += told["lesions"]
            there[1] += told["detected"]
    return [
        {
            "scans": name,
            "condition": condition,
            "size": size,
            "method": _shown(method),
            "lesions": lesions,
            "found": detected / lesions,
        }
        for (condition, size, method), (lesions, detected) in sorted(counts.items())
        if lesions
    ]


def _shown(method: str) -> str:
    return f"{method} *" if method in BASELINES else method


def _low(scans: Sequence[Row]) -> int | None:
    """Count the scans with a low p-value; the few scans that calibrate a baseline allow none."""
    if scans[0]["method"] in BASELINES:
        return None
    return sum(scan["p_value"] <= LEVEL for scan in scans)


def _mean(scans: Sequence[Row], key: str) -> float | None:
    values = [scan[key] for scan in scans if scan.get(key) is not None]
    return float(np.mean(values)) if values else None


def _fill_cards(figures: dict[str, Any]) -> None:
    """Write the figures of each weight set into its model card."""
    for name, one in shipped().items():
        card = dict(one.card)
        card["known_failures"] = [f for f in card["known_failures"] if f != UNJUDGED]
        card["figures"] = {
            f"{row['scans']}: {row['condition']} (n={row['n']})": f"AP {row['AP']:.2f}, Dice "
            f"{row['Dice']:.2f} (calibrated)"
            for row in figures["rows"]
            if row["method"] == name
        }
        card["healthy_scans_flagged_at_5_percent"] = {
            f"{row['scans']}: {row['source']} (n={row['healthy']})": row["share [95 % CI]"]
            for row in figures["healthy"]
            if row["method"] == name
        }
        card["lesions_found_by_size"] = {
            f"{row['scans']}: {row['condition']}, {row['size']} (n={row['lesions']})": round(
                row["found"], 2
            )
            for row in figures["sizes"]
            if row["method"] == name
        }
        files.write_json(one.folder / CARD, card)
