"""Artefact or lesion: the verdicts on simulated brains with either, both or neither.

Two quick methods learn from 24 healthy simulated brains at 3 mm and are calibrated on 40 others, in
T2w and in T1w. Every verdict stands at 5 %. What the figures are and how they are combined was
chosen on brains with seeds from 50,000 on; the table is of seeds from 60,000 on, by which nothing
was chosen. An artefact is put on five of the healthy test brains. The rates of the JSON line count
an "artefact and lesion" for both kinds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atypia.calibration.conformal import scans_needed
from atypia.calibration.reasons import KINDS, LEVEL, NOTHING
from atypia.cohort import Cohort
from atypia.cohort.corrupted import with_artefact
from atypia.cohort.simulated import write_simulated
from atypia.detectors.base import Detector
from atypia.detectors.prediction import Prediction
from atypia.registry import detector_class
from atypia.simulation import LESIONS, SimulationSettings

SEED = 60_000
METHODS = ("zscore", "padim")
VERDICTS = (NOTHING, "lesion", "artefact", "artefact and lesion")
ARTEFACTS_SHOWN = (
    "gaussian_noise",
    "spike",
    "zipper",
    "ghosting",
    "motion",
    "bias_field",
    "middle_chunk",
    "line_shift",
    "susceptibility",
)
SEVERITIES = (3.0, 5.0)
BOTH = ("gaussian_noise", "spike", "ghosting")
OUTPUT = Path("benchmark-output/reasons")


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Judge every scan by both methods; the quick run is T2w at 6 mm with two artefacts."""
    started = time.process_time()
    rows: list[dict[str, Any]] = []
    rates: dict[str, Any] = {}
    for modality in ("T2w",) if quick else ("T2w", "T1w"):
        simulated = SimulationSettings(modality=modality, spacing_mm=6.0 if quick else 3.0)
        detectors, groups = _fitted(simulated, quick), _groups(simulated, quick)
        verdicts: dict[tuple[str, str], list[Prediction]] = {}
        for truth, cohort in groups.items():
            for scan in cohort:
                for method, detector in detectors.items():
                    verdicts.setdefault((method, truth), []).append(detector.predict(scan))
        rows += [_row(modality, truth, verdicts) for truth in groups]
        rates[modality] = {m: _rates(m, groups, verdicts) for m in METHODS}
    figures = {
        "level": LEVEL,
        "cells": " / ".join(VERDICTS),
        "rates": rates,
        "cpu_s": round(time.process_time() - started, 1),
        "rows": rows,
    }
    return rows, json.loads(json.dumps(figures))


def _fitted(simulated: SimulationSettings, quick: bool) -> dict[str, Detector]:
    training = _cohort(simulated, 0, 6 if quick else 24)
    healthy = _cohort(simulated, 100, scans_needed(LEVEL) if quick else 40)
    found = {}
    for method in METHODS:
        made = detector_class(method)
        settings = made.settings_class.make({"spacing_mm": simulated.spacing_mm, "align": "none"})
        found[method] = made(settings).fit(training)
        found[method].calibrate(healthy)
    return found


def _groups(simulated: SimulationSettings, quick: bool) -> dict[str, Cohort]:
    healthy = _cohort(simulated, 200, 3 if quick else 20)
    groups = {"healthy": healthy}
    for number, lesion in enumerate(LESIONS):
        planted = simulated.but(lesion=lesion)
        groups[lesion] = _cohort(planted, 300 + 20 * number, 2 if quick else 10)
    for number, name in enumerate(("spike", "middle_chunk") if quick else ARTEFACTS_SHOWN):
        first = 0 if quick else 5 * (number % 4)
        brains = Cohort(healthy.scans[first : first + 5], "healthy")
        for severity in SEVERITIES:
            groups[f"{name}, severity {severity:g}"] = with_artefact(brains, name, severity)
    tumours = Cohort(groups["tumour"].scans[:5], "tumours")
    for name in BOTH[:1] if quick else BOTH:
        groups[f"tumour and {name}, severity 5"] = with_artefact(tumours, name, 5.0)
    return groups


def _cohort(simulated: SimulationSettings, first: int, count: int) -> Cohort:
    seeds = range(SEED + first, SEED + first + count)
    return write_simulated([(simulated, seeds)], OUTPUT / f"scans-{simulated.digest()[:6]}-{first}")


def _row(
    modality: str, truth: str, verdicts: Mapping[tuple[str, str], list[Prediction]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"scan": modality, "truth": truth}
    codes: Counter[str] = Counter()
    for method in METHODS:
        found = verdicts[method, truth]
        counts = Counter(prediction.verdict for prediction in found)
        row["scans"] = len(found)
        row[method] = " / ".join(str(counts[verdict]) for verdict in VERDICTS)
        codes.update(reason.code for prediction in found for reason in prediction.reasons)
    row["most frequent reasons"] = ", ".join(code for code, _ in codes.most_common(3)) or "-"
    return row


def _rates(
    method: str, groups: Mapping[str, Cohort], verdicts: Mapping[tuple[str, str], list[Prediction]]
) -> dict[str, Any]:
    """Give the share of scans with a reason of each kind, over what is truly in them."""
    kinds = {
        "healthy": ["healthy"],
        "lesions": list(LESIONS),
        "artefacts, severity 3": [name for name in groups if name.endswith(" 3")],
        "artefacts, severity 5": [
            name for name in groups if name.endswith(" 5") and " and " not in name
        ],
        "both": [name for name in groups if " and " in name],
    }
    rates = {}
    for name, truths in kinds.items():
        found = [prediction for truth in truths for prediction in verdicts[method, truth]]
        rates[name] = {
            kind: round(sum(kind in str(p.verdict) for p in found) / len(found), 3)
            for kind in KINDS
        } | {"scans": len(found)}
    return rates
