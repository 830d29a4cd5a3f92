"""`atypia demo`: the main job once, end to end, on simulated brains."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from atypia import files
from atypia.cli.shared import Workers, list_failures, progress_bar
from atypia.cohort import Cohort
from atypia.cohort.simulated import write_simulated
from atypia.detectors.model_folder import load_baselines
from atypia.evaluation.result_tables import tables
from atypia.progress import Progress
from atypia.registry import detector_class
from atypia.runs.evaluating import evaluate_output
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.runs.predicting import predict_cohort
from atypia.simulation import SimulationSettings

METHOD = "mask_refinement"
LESIONS = ("tumour", "stroke", "white_matter_lesions", "cavity")
ARTEFACTS = ("ghosting", "motion", "spike", "zipper")


@dataclass(frozen=True)
class Scale:
    """How much of everything: scans of each kind, voxel sizes of scans and work, steps."""

    train: int
    calibration: int
    healthy: int
    each_lesion: int
    each_artefact: int
    scan_mm: float
    work_mm: float
    steps: int


FULL = Scale(30, 10, 4, 3, 2, scan_mm=3.0, work_mm=3.0, steps=200)
TINY = Scale(4, 2, 1, 1, 1, scan_mm=6.0, work_mm=6.0, steps=6)
"""Shows that everything runs, and nothing more."""


def demo(
    output: Path = Path("demo-output"),
    *,
    seed: int = 0,
    workers: Workers = None,
    tiny: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Simulate a cohort, train for some minutes, calibrate, find anomalies, and write the page.

    Parameters
    ----------
    output
        A folder. The same command goes on after an interruption.
    seed
        Numbers the simulated subjects and seeds the training.
    tiny
        A few scans and training steps, to see that everything runs; its figures mean nothing.
    """
    started = time.monotonic()
    scale = TINY if tiny else FULL
    with progress_bar() as progress:
        train, calibration, test = _cohorts(output, seed, scale, workers, progress)
        cache = output / "prepared"
        kind = detector_class(METHOD)
        values: dict[str, Any] = {
            "spacing_mm": scale.work_mm,
            "most_rounds": 8,
            "seed": seed,
        }
        values["training"] = {
            "steps": scale.steps,
            "batch_size": 2,
            "learning_rate": 3e-3,
            "validate_every": max(scale.steps // 3, 1),
        }
        model = output / "model"
        fit_model(
            METHOD,
            kind.settings_class.make(values),
            train,
            model,
            cache=cache,
            workers=workers,
            progress=progress,
        )
        detector = calibrate_model(
            model, calibration, voxel_fpr=0.005, smallest_mm3=0.0, cache=cache, progress=progress
        )
        results = output / "results"
        report = predict_cohort(
            detector,
            test,
            results,
            model=str(model),
            cache=cache,
            workers=workers,
            progress=progress,
        )
        run = evaluate_output(results, test, cache=cache, progress=progress)
    found = {"cohort": test.name, **run.evaluation.to_json()}
    files.write_json(results / "evaluation.json", found)
    from atypia.report import write_curves, write_montage
    from atypia.report.pages import write_pages

    write_curves(results)
    with progress_bar() as progress:
        page = write_pages(results, workers=workers, progress=progress).page
    write_montage(results, results / "montage.png", count=len(LESIONS))
    print(tables(found))
    print(f"\nBaselines beside {METHOD}: {', '.join(load_baselines(model))}.")
    print("Simulated T2w brains warped from one template are an easy healthy cohort: these figures")
    print("show that the method works, not how well it would do on patients.")
    print(f"\n{time.monotonic() - started:.0f} s. Open {page.resolve()}")
    return list_failures(report.failures, len(test))


def _cohorts(
    output: Path, seed: int, scale: Scale, workers: int | None, progress: Progress
) -> tuple[Cohort, Cohort, Cohort]:
    """Write training, calibration and test scans, all of different subjects."""
    healthy = SimulationSettings(modality="T2w", spacing_mm=scale.scan_mm)
    first = 100_000 * seed
    jobs = [(healthy, range(first + 9000, first + 9000 + scale.healthy))]
    for number, lesion in enumerate(LESIONS):
        start = first + 10_000 + 1000 * number
        jobs.append((healthy.but(lesion=lesion), range(start, start + scale.each_lesion)))
    for number, artefact in enumerate(ARTEFACTS):
        start = first + 20_000 + 1000 * number
        jobs.append((healthy.but(artefact=artefact), range(start, start + scale.each_artefact)))
    plans = {
        "train": [(healthy, range(first, first + scale.train))],
        "calibration": [(healthy, range(first + 5000, first + 5000 + scale.calibration))],
        "test": jobs,
    }
    train, calibration, test = (
        write_simulated(plan, output / "scans" / name, workers=workers, progress=progress)
        for name, plan in plans.items()
    )
    return train, calibration, test
