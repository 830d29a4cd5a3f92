"""Artefacts in simulated T2w brains: AUROC of every artefact at three severities.

`mask_refinement --preset artefacts` learns on healthy simulated brains. A test scan and its
falsified copy are compared for each artefact and severity, the brain mask staying that of the clean
scan. Three controls stand beside it: the voxel-wise z-score; the energy of the high-frequency
image, which needs no training at all; and the distance of the scan's own spectrum from healthy
ones, which is `deviation` without the network's residual.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atypia.cohort import Cohort
from atypia.cohort.corrupted import with_artefact
from atypia.cohort.simulated import write_simulated
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_baselines
from atypia.evaluation.subject import auroc, bootstrap_interval
from atypia.preprocessing import Prepared
from atypia.registry import detector_class
from atypia.runs.fitting import fit_model
from atypia.scoring.frequency import REFERENCE_WAVELENGTH_MM, high_pass
from atypia.scoring.spectrum import Features, UsualSpectrum, spectrum_of
from atypia.simulation import ARTEFACTS, SimulationSettings

SEED = 0
METHOD = "mask_refinement"
SEVERITIES = (1.0, 3.0, 5.0)
ASKED = ("gaussian_noise", "spike", "ghosting", "zipper", "top_chunk", "middle_chunk")
ASKED_AUROC = 0.95
OUTPUT = Path("benchmark-output/artefacts")
QUICK = ("gaussian_noise", "middle_chunk")


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, then score clean and falsified scans; the quick run is 6 mm and two artefacts."""
    started = time.monotonic()
    folder = OUTPUT / ("quick" if quick else "full")
    spacing = 6.0 if quick else 3.0
    healthy = SimulationSettings(modality="T2w", spacing_mm=spacing)
    people = {"train": range(4 if quick else 40), "test": range(6000, 6003 if quick else 6010)}
    train, test = (
        write_simulated([(healthy, seeds)], folder / "scans" / name, workers=None)
        for name, seeds in people.items()
    )
    values = {
        "spacing_mm": spacing,
        "align": "none",
        "seed": SEED,
        "percent_step": 10.0 if quick else 1.0,
        "training": {
            "steps": 8 if quick else 600,
            "batch_size": 2,
            "learning_rate": 3e-3,
            "validate_every": 4 if quick else 200,
        },
    }
    settings = detector_class(METHOD).settings_class.make(values, "artefacts")
    model = folder / f"model-{settings.digest()[:6]}"
    detector = fit_model(METHOD, settings, train, model, cache=folder / "prepared")
    trained = time.monotonic() - started
    zscore = load_baselines(model)["zscore"]
    spectra = [_own_spectrum(detector._prepared(scan, None)[1]) for scan in train]
    usual = UsualSpectrum.learn(np.array(spectra))
    clean = _scores(detector, zscore, usual, test, search=True)
    names = QUICK if quick else tuple(ARTEFACTS)
    severities = SEVERITIES[-1:] if quick else SEVERITIES
    rows = []
    for name in names:
        for severity in severities:
            falsified = with_artefact(test, name, severity, SEED)
            # The search takes most of the time; its mask is looked at for the gross ones only.
            search = severity == SEVERITIES[-1]
            scores = _scores(detector, zscore, usual, falsified, search)
            rows.append({"artefact": name, "severity": severity} | _row(clean, scores))
    highest = {
        row["artefact"]: row["deviation"] for row in rows if row["severity"] == SEVERITIES[-1]
    }
    figures = {
        "train": len(train),
        "test": len(test),
        "settings": settings.to_json(),
        "seconds_to_train": round(trained, 1),
        "seconds": round(time.monotonic() - started, 1),
        "asked": {"auroc": ASKED_AUROC, "severity": SEVERITIES[-1], "artefacts": ASKED},
        "lowest_asked": min(highest[name] for name in ASKED if name in highest),
        "rows": rows,
    }
    return [_shown(row) for row in rows], json.loads(json.dumps(figures))


def _scores(
    detector: Detector, zscore: Detector, usual: UsualSpectrum, cohort: Cohort, search: bool
) -> dict[str, list[float]]:
    """Every subject-level score of every scan, of the method and of the controls."""
    found: dict[str, list[float]] = {}
    for scan in cohort:
        _, prepared = detector._prepared(scan, None)
        finding = detector._score(prepared) if search else detector._score_alone(prepared)
        scores = detector._finish(scan, prepared, finding)[1]
        control = zscore._finish(scan, prepared, zscore._score_alone(prepared))[1]
        scores["zscore_mean"] = control["mean"]
        image = torch.from_numpy(np.array(prepared.image.data))
        fine = high_pass(image, prepared.image.spacing_mm, REFERENCE_WAVELENGTH_MM).numpy()
        scores["fine_energy"] = float(np.square(fine[prepared.brain.data]).mean())
        scores["spectrum"] = usual.distance(_own_spectrum(prepared))
        for name, value in scores.items():
            found.setdefault(name, []).append(value)
    return found


def _own_spectrum(prepared: Prepared) -> Features:
    image, brain = prepared.image, prepared.brain.data
    return spectrum_of(image.data, brain, image.spacing_mm, None)


def _row(clean: Mapping[str, list[float]], falsified: Mapping[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, healthy in clean.items():
        if name not in falsified:
            continue
        row[name] = auroc(healthy, falsified[name])
        row[f"{name}_interval"] = bootstrap_interval(
            healthy, falsified[name], statistic=auroc, seed=SEED
        )
    return row


CONTROLS = ("spectrum", "zscore_mean", "fine_energy")
SHOWN = ("deviation", "mean_error", "fine_error", "final_mask_share", *CONTROLS)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one row out for the table: AUROC [95 % interval] of each score."""
    cells = {"artefact": row["artefact"], "severity": f"{row['severity']:g}"}
    for name in SHOWN:
        if name not in row:
            cells[name] = "-"
            continue
        low, high = row[f"{name}_interval"]
        star = " *" if name in CONTROLS else ""
        cells[name + star] = f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"
    return cells
