"""The shipped weights on real and on simulated scans of T1w, T2w and FLAIR, beside both baselines.

Nothing here was learnt from or chosen on: healthy hold-outs (12 scans of ds002748), raw heads
(ds000011), scans with multiple sclerosis, glioma and stroke, and simulated lesions, whose shapes
and contrasts no detector has learnt from. Thresholds are those of the calibration that the weights
would use. The baselines get what the weights do without, healthy scans of the contrast (two thirds
to learn from, one third calibrates): 36 of ds002748 for T1w, 40 simulated ones for T2w and FLAIR.
Writes `docs/comparisons/shipped.md` and the figures of the model cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from atypia import files
from atypia.detectors.base import Detector
from atypia.detectors.shipped import CARD, load_weights, shipped
from atypia.evaluation.evaluation import Evaluation
from atypia.parallel import map_in_processes
from atypia.progress import silent
from atypia.registry import detector_class
from atypia.runs.evaluating import evaluate_detectors
from benchmarks import timing
from benchmarks.shipped_scans import CONTRASTS, real_scans, simulated_scans
from benchmarks.tables import table
from benchmarks.weights import OUTPUT as WEIGHTS
from benchmarks.weights import data_folder, real_healthy, simulated

SEED = 0
OUTPUT = Path("benchmark-output/shipped")
PAGE = Path("docs/comparisons/shipped.md")
BASELINES = ("zscore", "intensity")
LEVEL = 0.05
EACH = 5
"""Simulated scans of each lesion; twice as many healthy ones."""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Judge all weights; `--quick` takes T2w, two simulated scans of each kind, and no page."""
    if not shipped():
        raise SystemExit("there are no weights: run `python -m benchmarks weights`")
    if quick:
        parts = [_judged(("T2w", True))]
    else:
        jobs = [(contrast, False) for contrast in CONTRASTS]
        parts = list(map_in_processes(_judged, jobs, 2, "judge", silent))
    figures = {key: [row for part in parts for row in part[key]] for key in parts[0]}
    if not quick:
        files.write_text(PAGE, _page(figures))
        _fill_cards(figures)
    return figures["rows"], figures


def _judged(job: tuple[str, bool]) -> dict[str, list[Any]]:
    """Judge all weights and baselines on the scans of one contrast."""
    contrast, quick = job
    data, cache = data_folder(), OUTPUT / "prepared"
    detectors = {name: load_weights(name, contrast) for name in shipped()}
    detectors |= _baselines(contrast, cache)
    cohorts = [simulated_scans(OUTPUT / "simulated", contrast, 2 if quick else EACH, 2.0)]
    if data.is_dir() and not quick:
        cohorts.append(real_scans(data, contrast))
    told: dict[str, list[Any]] = {"rows": [], "healthy": [], "sizes": [], "failed": []}
    for cohort in cohorts:
        found = evaluate_detectors(detectors, cohort, cache=cache)
        kind = "real" if cohort.name.startswith("real") else "simulated"
        name = f"{contrast}, {kind}"
        told["rows"] += _rows(found.evaluation, name)
        told["healthy"] += _healthy_rows(found.evaluation, name)
        told["sizes"] += _size_rows(found.evaluation, name)
        told["failed"] += [f"{failure.scan.id}: {failure.error}" for failure in found.failures]
    return told


def _baselines(contrast: str, cache: Path) -> dict[str, Detector]:
    """Fit the baselines on healthy scans of a contrast, and calibrate them on others."""
    real = real_healthy() if contrast == "T1w" else None
    healthy = simulated(WEIGHTS, f"healthy-{contrast}") if real is None else real[0]
    third = len(healthy) * 2 // 3
    order = np.random.default_rng(SEED).permutation(len(healthy)).tolist()
    learning, calibrating = healthy.take(order[:third]), healthy.take(order[third:])
    found: dict[str, Detector] = {}
    for name in BASELINES:
        kind = detector_class(name)
        detector = kind(kind.settings_class.make({"spacing_mm": 2.0, "modality": contrast}))
        detector.fit(learning, cache=cache)
        detector.calibrate(calibrating, voxel_fpr=0.005, smallest_mm3=50.0, cache=cache)
        found[name] = detector
    return found


def _rows(evaluation: Evaluation, name: str) -> list[dict[str, Any]]:
    """Give one row a condition and method, means over scans."""
    rows = []
    told = [scan for scan in evaluation.scans if scan.get("ap") is not None]
    for condition in dict.fromkeys(scan["condition"] for scan in told):
        for method in dict.fromkeys(scan["method"] for scan in told):
            own = [s for s in told if (s["condition"], s["method"]) == (condition, method)]
            rows.append(
                {
                    "scans": name,
                    "condition": condition,
                    "n": len(own),
                    "method": f"{method} *" if method in BASELINES else method,
                    "AP": _mean(own, "ap"),
                    "AUROC": _mean(own, "auroc"),
                    "Dice": _mean(own, "dice"),
                    "oracle Dice": _mean(own, "oracle_dice"),
                    "p <= 0.05": sum(s["p_value"] <= LEVEL for s in own),
                }
            )
    return rows


def _healthy_rows(evaluation: Evaluation, name: str) -> list[dict[str, Any]]:
    """Give the share of healthy scans at the nominal level, by source and method."""
    healthy = [scan for scan in evaluation.scans if scan["condition"] == "healthy"]
    rows = []
    for site in dict.fromkeys(scan["site"] for scan in healthy):
        for method in dict.fromkeys(scan["method"] for scan in healthy):
            own = [s for s in healthy if (s["site"], s["method"]) == (site, method)]
            low = sum(scan["p_value"] <= LEVEL for scan in own)
            interval = binomtest(low, len(own)).proportion_ci()
            rows.append(
                {
                    "scans": name,
                    "source": site,
                    "method": f"{method} *" if method in BASELINES else method,
                    "healthy": len(own),
                    "p <= 0.05": low,
                    "share [95 % CI]": f"{low / len(own):.2f} "
                    f"[{interval.low:.2f}, {interval.high:.2f}]",
                    "voxels flagged": _mean(own, "flagged"),
                }
            )
    return rows


def _size_rows(evaluation: Evaluation, name: str) -> list[dict[str, Any]]:
    """Give the share of lesions that calibrated masks touch, by size and method."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for scan in evaluation.scans:
        sizes = ((scan.get("lesion_wise") or {}).get("calibrated") or {}).get("by_size") or {}
        for size, told in sizes.items():
            key = (scan["condition"], size, scan["method"])
            there = counts.setdefault(key, [0, 0])
            there[0] += told["lesions"]
            there[1] += told["detected"]
    return [
        {
            "scans": name,
            "condition": condition,
            "size": size,
            "method": f"{method} *" if method in BASELINES else method,
            "lesions": lesions,
            "found": detected / lesions,
        }
        for (condition, size, method), (lesions, detected) in sorted(counts.items())
        if lesions
    ]


def _mean(scans: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [scan[key] for scan in scans if scan.get(key) is not None]
    return float(np.mean(values)) if values else None


def _page(figures: dict[str, Any]) -> str:
    intro = (__doc__ or "").split("\n\n", 1)[1].strip()
    parts = [
        "# The shipped weights, judged",
        f"Made by `python -m benchmarks shipped` (seed {SEED}; {_hardware()}). {intro}",
        "Baselines are marked with *. AP, AUROC and oracle Dice look at the score map (the oracle "
        "threshold is chosen on the labels it is judged by); Dice is that of the calibrated mask. "
        "`p <= 0.05` counts scans.",
    ]
    for name in dict.fromkeys(row["scans"] for row in figures["rows"]):
        own = [row for row in figures["rows"] if row["scans"] == name]
        parts += [f"## {name}", table([_without(row, "scans") for row in own])]
    parts += [
        "## Healthy scans",
        "Of healthy scans like those of the calibration 5 % would have p <= 0.05. T1w calibrations "
        "are of ds002748; those of T2w and FLAIR are of simulated brains, and real heads differ.",
        table(figures["healthy"]),
        "## Lesions by size",
        "Share of true lesions that the calibrated mask touches.",
        table(figures["sizes"]),
    ]
    if figures["failed"]:
        parts += ["## Scans that could not be judged", *figures["failed"]]
    return "\n\n".join(parts) + "\n"


def _hardware() -> str:
    told = timing.hardware()
    return f"{told['cpu']}, {told['cores']} cores, torch {told['torch']}"


def _fill_cards(figures: dict[str, Any]) -> None:
    """Write the figures of each weight set into its model card."""
    for name, one in shipped().items():
        card = dict(one.card)
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


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}
