"""Train, pack and calibrate the weights that come with atypia; hours, and it resumes.

Everything is learnt from simulated healthy brains of random contrast, whose anatomy is the MNI152
template (2009a, as nilearn ships it), warped, aged and scaled: no scan of a person, and no licence
but the template's. Calibrations: T1w by 36 healthy scans of OpenNeuro ds002748 (CC0) where they are
found (ATYPIA_DATA), else by simulated ones; T2w, FLAIR and other contrast by simulated ones. The 12
scans of ds002748 that `holdouts` names take no part. `--quick` does all of it at 6 mm with a few
steps, in a folder of its own, and packs nothing into the package.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atypia import files
from atypia.calibration import Calibration
from atypia.cohort import Cohort, open_cohort
from atypia.cohort.simulated import write_simulated
from atypia.detectors.ensemble import Ensemble
from atypia.detectors.model_folder import load_detector, save_detector
from atypia.detectors.shipped import CALIBRATIONS, CARD, FOLDER
from atypia.errors import ModelError
from atypia.parallel import map_in_processes
from atypia.progress import silent
from atypia.registry import detector_class
from atypia.runs.fitting import fit_model
from atypia.simulation import SimulationSettings
from benchmarks import timing

SEED = 0
OUTPUT = Path("benchmark-output/weights")
HOLDOUTS = 12
RAW = ("sub-01", "sub-52", "sub-53")
"""People of ds002748 who are there at full resolution, too: held out."""


@dataclass(frozen=True)
class Recipe:
    """One weight set: method, what its settings are besides the shared ones, what it is."""

    method: str
    summary: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 2000
    version: str = "1"


RECIPES = (
    Recipe(
        "synthetic_restoration",
        "one-pass restoration, learnt on synthetic anomalies (after DISYRE)",
        # More anomalies a scan than by default: a step of one scan then teaches more.
        {"contrast_share": 0.5, "anomalies": {"most": 12}},
        1300,
        version="2",
    ),
    Recipe(
        "denoising_autoencoder",
        "denoising autoencoder with coarse noise (Kascenas et al. 2022), in 3D",
        {"contrast_share": 0.5},
        1500,
    ),
    Recipe(
        "mask_refinement",
        "iterative mask refinement with high-frequency guidance (IterMask3D), tissue prior",
        {"channels": (24, 48, 96, 96), "prior_from": "tissues", "validation_share": 0.1},
        1000,
    ),
)
TRAINING = {
    "batch_size": 1,
    "validate_every": 250,
    "checkpoint_every": 50,
    "snapshot_epochs": 1,
    "learning_rate": 1e-3,
}
SIMULATED: dict[str, tuple[Any, int, int]] = {
    "learning": ("any", 300_000, 360),
    "healthy-any": ("any", 310_000, 40),
    "scale-any": ("any", 330_000, 40),
    "healthy-T1w": ("T1w", 320_000, 40),
    "healthy-T2w": ("T2w", 320_000, 40),
    "healthy-FLAIR": ("FLAIR", 320_000, 40),
}
"""Cohort -> contrast, first seed and number of simulated healthy brains."""

SIMULATION = "simulated"
"""Name of the cohorts that calibrate contrasts of which there are no real healthy scans."""

MEMBERS = ("synthetic_restoration", "denoising_autoencoder")
HOW = "geometric"
"""Chosen by hand, like the members, on the development scans of `python -m benchmarks members`."""
ENSEMBLE_VERSION = "2"
UNJUDGED = "not judged on lesions yet: see docs/weights.md"
"""Stands in the cards until `python -m benchmarks shipped` has judged them."""

RULES: dict[str, Any] = {"voxel_fpr": 0.005, "smallest_mm3": 50.0}


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Do all that is not done yet; give a row a weight set."""
    folder = OUTPUT.with_name("weights-quick") if quick else OUTPUT
    target = folder / "packed" if quick else FOLDER
    spacing = 6.0 if quick else 2.0
    cohorts = {name: simulated(folder, name, 4 if quick else None, spacing) for name in SIMULATED}
    cache = folder / "prepared"
    for recipe in RECIPES:
        started = time.monotonic()
        fitted = fit_model(
            recipe.method,
            settings_of(recipe, spacing, quick),
            cohorts["learning"],
            folder / recipe.method,
            cache=cache,
            baselines=False,
        )
        _note_hours(folder, recipe.method, (time.monotonic() - started) / 3600)
        if _identity(target / recipe.method) != fitted.trained_on["identity"]:
            _start(target / recipe.method)
            save_detector(fitted, target / recipe.method, half=True)
    members = {name: load_detector(target / name) for name in MEMBERS}
    scale = cohorts["scale-any"]
    if _identity(target / "ensemble") != Ensemble.identity_of_members(members, scale, HOW):
        _start(target / "ensemble")
        ensemble = Ensemble.of(members, scale, how=HOW, cache=cache)
        save_detector(ensemble, target / "ensemble", members={n: target / n for n in MEMBERS})
    healthy = _healthy(cohorts, quick)
    names = (*(recipe.method for recipe in RECIPES), "ensemble")
    jobs = [(target / n, c, scans, cache) for n in names for c, scans in healthy.items()]
    list(map_in_processes(_calibrated, jobs, 1 if quick else 2, "calibrate", silent))
    told = {f"calibrated on {c}": f"{len(s)}, {s.name}" for c, s in healthy.items()}
    rows = []
    for name in names:
        path = target / name / CARD
        before = files.read_json(path) if path.exists() else {}
        # Figures that stand there are of these weights: `_start` removes those of others.
        card = before | _card(name, folder, told)
        if "figures" not in card:
            card["known_failures"] = [UNJUDGED, *card["known_failures"]]
        files.write_json(target / name / CARD, card)
        size = sum(p.stat().st_size for p in (target / name).rglob("*") if p.is_file()) / 1e6
        rows.append({"weights": name, "MB": size, **told})
    return rows, {"folder": str(target), "spacing_mm": spacing}


def settings_of(recipe: Recipe, spacing: float, quick: bool) -> Any:
    """Give the settings of a recipe."""
    training: dict[str, Any] = TRAINING | {"steps": recipe.steps}
    if quick:
        training |= {"steps": 4, "validate_every": 4}
    narrow = {"channels": (8, 8)} if quick else {}
    values = {"modality": "any", "spacing_mm": spacing, "seed": SEED, "training": training}
    kind = detector_class(recipe.method).settings_class
    return kind.make(values | recipe.settings | narrow)


def real_healthy(data: Path | None = None) -> tuple[Cohort, Cohort] | None:
    """Divide ds002748 into 36 scans that calibrate and 12 that are held out; None without it.

    People who are there at full resolution are held out; the others are drawn by `SEED`.
    """
    place = (data or data_folder()) / "ds002748"
    if not place.is_dir():
        return None
    cohort = open_cohort(place)
    numbers = [i for i, scan in enumerate(cohort) if scan.subject not in RAW]
    drawn = np.random.default_rng(SEED).permutation(numbers)
    kept = set(drawn[: HOLDOUTS - len(RAW)].tolist())
    kept |= {i for i in range(len(cohort)) if i not in numbers}
    calibrating = [i for i in range(len(cohort)) if i not in kept]
    return cohort.take(calibrating), cohort.take(sorted(kept))


def data_folder() -> Path:
    """Give the folder of real scans."""
    return Path(os.environ.get("ATYPIA_DATA", "../shared/data"))


def simulated(
    folder: Path, name: str, number: int | None = None, spacing_mm: float = 2.0
) -> Cohort:
    """Simulate a cohort of `SIMULATED` into a folder, or take what is there."""
    modality, first, usual = SIMULATED[name]
    settings = SimulationSettings(modality=modality, spacing_mm=spacing_mm)
    seeds = range(first, first + (number or usual))
    return write_simulated([(settings, seeds)], folder / name, workers=1 if number else 2)


def _identity(folder: Path) -> str | None:
    """Tell which fit was packed into a folder; None if there is none."""
    try:
        return str(load_detector(folder).trained_on["identity"])
    except ModelError:
        return None


def _start(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _healthy(cohorts: dict[str, Cohort], quick: bool) -> dict[str, Cohort]:
    """Choose the healthy scans that calibrate each contrast, named by what they are."""
    real = None if quick else real_healthy()
    chosen = {
        "T1w": cohorts["healthy-T1w"] if real is None else real[0],
        "T2w": cohorts["healthy-T2w"],
        "FLAIR": cohorts["healthy-FLAIR"],
        "other": cohorts["healthy-any"],
    }
    return {
        contrast: Cohort(
            scans.scans, SIMULATION if "simulation" in scans[0].dataset else "ds002748 (CC0)"
        )
        for contrast, scans in chosen.items()
    }


def _calibrated(job: tuple[Path, str, Cohort, Path]) -> None:
    """Write the calibration of one weight set for one contrast."""
    folder, contrast, healthy, cache = job
    detector, path = load_detector(folder), folder / CALIBRATIONS / f"{contrast}.json"
    if path.exists():
        there = Calibration.load(path)
        people = tuple(sorted({scan.person for scan in healthy}))
        if (there.detector, there.people) == (detector.digest(), people):
            return
    calibration = detector.calibrate(healthy, **RULES, cache=cache)
    if healthy.name == SIMULATION:
        # Beside simulated images every real one is unusual: verdicts would say artefact to all.
        calibration = calibration.model_copy(update={"figures": {}})
    calibration.save(path)


def _card(name: str, folder: Path, told: dict[str, str]) -> dict[str, Any]:
    """Write the model card; figures come from `python -m benchmarks shipped`."""
    recipe = next((r for r in RECIPES if r.method == name), None)
    combined = f"{HOW} mean of the ranks of the scores of {' and '.join(MEMBERS)}"
    summary = combined if recipe is None else recipe.summary
    steps = {r.method: r.steps for r in RECIPES}
    hours = _hours(folder).get(name)
    return {
        "summary": summary,
        "version": ENSEMBLE_VERSION if recipe is None else recipe.version,
        "data": f"{SIMULATED['learning'][2]} simulated healthy brains of random contrast, 2 mm; "
        "anatomy: the MNI152 template of 2009, warped, aged and scaled; no scan of a person",
        "calibration": told,
        "command": "python -m benchmarks weights",
        "seed": SEED,
        "training": "none of its own: the members' scores are ranked among those of "
        f"{SIMULATED['scale-any'][2]} simulated healthy brains"
        if recipe is None
        else f"{steps[name]} steps, batch 1" + (f", {hours:.1f} h" if hours else ""),
        "hardware": timing.hardware(),
        "intended_use": "Research: a first result on a raw or stripped T1w, T2w, FLAIR or PD head "
        "of an adult, and a fixed baseline to compare with. Not a medical device.",
        "known_failures": [
            "lesions under 1 ml are hardly ever found, multiple sclerosis in T1w not at all",
            "white matter lesions and acute strokes in FLAIR: simple baselines find more",
            "p-values of real T2w and FLAIR scans rest on simulated healthy brains, and call "
            "healthy heads abnormal: calibrate on your own",
            "another scanner, remains of the skull or a bad brain mask can look abnormal",
            "adults only: the anatomy is that of one adult template",
            "never used on PD: there was no scan",
        ],
        "licence": "MIT, as the package; simulated from the MNI152 template, copyright 1993-2009 "
        "Louis Collins, McConnell Brain Imaging Centre, McGill University",
        "packed": time.strftime("%Y-%m-%d"),
    }


def _hours(folder: Path) -> dict[str, float]:
    path = folder / "hours.json"
    return dict(files.read_json(path)) if path.exists() else {}


def _note_hours(folder: Path, method: str, hours: float) -> None:
    """Add up what a training took, over all sittings; opening a finished one takes seconds."""
    before = _hours(folder)
    if hours > 0.05 or method not in before:
        files.write_json(folder / "hours.json", before | {method: before.get(method, 0.0) + hours})
