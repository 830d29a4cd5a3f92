"""Pictures of every page for the docs, and how large pages are and how fast they open.

Makes small results itself: simulated T2w brains (2 mm, one of 1 mm) with tumours, strokes, white
matter lesions and an artefact, found by `prior_residual` at 3 mm; lesions planted for a power
report; a short training; the comparison `quick`; and a page of 2,000 scans that are made up. The
scans of ds002748 (CC0, needs `ATYPIA_DATA`) are the only ones of people that are shown. Pictures
lie in `benchmark-output/screenshots/full/pictures`; those in docs/images are copies of them. Needs
playwright and Chromium (`ATYPIA_CHROMIUM` names another one).
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from atypia import files
from atypia.cohort import Cohort, open_cohort
from atypia.cohort.simulated import write_simulated
from atypia.detectors.base import Detector
from atypia.registry import detector_class
from atypia.report import write_comparison, write_quality_page, write_report, write_training_page
from atypia.report.pages import write_pages
from atypia.report.power import write_power
from atypia.report.samples import samples_of
from atypia.runs.comparing import compare_methods
from atypia.runs.evaluating import evaluate_output
from atypia.runs.fitting import calibrate_model, fit_model
from atypia.runs.power import examples, power_of
from atypia.runs.predicting import predict_cohort
from atypia.runs.preparing import CACHE, PreparationSettings, prepare_cohort
from atypia.runs.protocol import Protocol
from atypia.simulation import SimulationSettings
from tests.browser.cohorts import write_synthetic
from tests.browser.conftest import OFFLINE, SOFTWARE_WEBGL

SEED = 0
OUTPUT = Path("benchmark-output/screenshots")
METHOD = "prior_residual"
LESIONS = ("tumour", "stroke", "white_matter_lesions")
OPENINGS = 3
"""Times that a page is opened; the medians are told."""
WIDTH, HEIGHT = 1000, 760
"""Of the window, in CSS pixels: a page's text stays readable where docs are 800 pixels wide."""
SHARPNESS = 1.5
"""Pixels of a picture for one of the window."""
READY = {"state": "attached", "timeout": 120_000}


@dataclass(frozen=True)
class Shot:
    """One picture: which part of which page, in which window."""

    name: str
    page: Path
    at: str = ""
    dark: bool = False
    width: int = WIDTH
    height: int = HEIGHT


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make results and pages, take pictures; the quick run is 6 mm, and has three of the pages."""
    started = time.monotonic()
    folder = OUTPUT / ("quick" if quick else "full")
    left_out = []
    _tell("simulated scans: results and power")
    results, model = _simulated(folder, quick)
    subject = results / "scans" / _most_abnormal(results) / "index.html"
    shots = [
        Shot("page-subject", subject, height=748),
        Shot("page-subject-dark", subject, dark=True, height=748),
        Shot("page-subject-phone", subject, width=390, height=844),
        Shot("page-cohort", results / "report.html", height=876),
        Shot("page-cohort-table", results / "report.html", at="#table"),
        Shot("page-cohort-scans", results / "report.html", at="#scans", height=725),
        Shot("page-power", _power(folder, model, quick), height=815),
    ]
    if quick:
        left_out.append("training, comparison, quality and real scans: not in a quick run")
    else:
        _tell("training")
        shots.append(Shot("page-training", _training(folder), height=880))
        shots.append(Shot("page-training-samples", shots[-1].page, at="#samples", height=620))
        _tell("comparison")
        compare_methods(Protocol.read("quick"), folder / "comparison")
        shots.append(Shot("page-comparison", write_comparison(folder / "comparison"), height=792))
        shots.append(Shot("page-comparison-examples", shots[-1].page, at="#examples", height=692))
        data = Path(os.environ.get("ATYPIA_DATA", "../shared/data")) / "ds002748"
        if data.is_dir():
            _tell("real scans")
            quality, scan = _real(folder, data)
            shots.append(Shot("page-quality", quality, at="#scans", height=684))
            shots.append(Shot("page-subject-real", scan, height=748))
        else:
            left_out.append(f"quality page, a real scan: NO REAL SCANS in {data.resolve().parent}")
    _tell("pictures")
    many = _made_up(folder / "made-up", 100 if quick else 2000)
    pages = {shot.page: shot.name for shot in reversed(shots)} | {many: f"cohort of {many.stem}"}
    with _browser() as browser:
        pictures = {shot.name: _picture(browser, shot, folder / "pictures") for shot in shots}
        rows = [_opening(browser, pages[page], page) for page in reversed(pages)]
    for told in left_out:
        _tell(f"LEFT OUT: {told}")
    seconds = round(time.monotonic() - started, 1)
    figures = {"pages": rows, "pictures_kb": pictures, "left_out": left_out, "seconds": seconds}
    return rows, figures


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _simulated(folder: Path, quick: bool) -> tuple[Path, Path]:
    """Fit, calibrate, predict and evaluate; give the folders of results and model."""
    spacing = 6.0 if quick else 2.0
    healthy = SimulationSettings(modality="T2w", spacing_mm=spacing)
    fine = healthy.but(spacing_mm=spacing if quick else 1.0, lesion="tumour")
    each = 1 if quick else 4
    # A subject with an artefact is another person than those with lesions.
    test = [
        (fine, range(10_000, 10_001)),
        (healthy, range(9000, 9000 + each)),
        *(
            (healthy.but(lesion=lesion), range(11_000 + 1000 * i, 11_000 + 1000 * i + each))
            for i, lesion in enumerate(LESIONS)
        ),
        (healthy.but(artefact="ghosting"), range(20_000, 20_001)),
    ]
    plans = {
        "train": [(healthy, range(4 if quick else 20))],
        "calibration": [(healthy, range(5000, 5003 if quick else 5019))],
        "test": test,
    }
    cohorts = {
        name: write_simulated(plan, folder / "scans" / name, workers=None)
        for name, plan in plans.items()
    }
    model = folder / "model"
    detector = _fitted(model, cohorts["train"], cohorts["calibration"], spacing, "none")
    results = folder / "results"
    predict_cohort(detector, cohorts["test"], results, model=str(model))
    run = evaluate_output(results, cohorts["test"])
    found = {"cohort": cohorts["test"].name, **run.evaluation.to_json()}
    files.write_json(results / "evaluation.json", found)
    write_pages(results, scans=[_most_abnormal(results)])
    return results, model


def _fitted(
    model: Path, train: Cohort, calibration: Cohort, spacing: float, align: str, cache: Any = None
) -> Detector:
    values = {"spacing_mm": max(spacing, 3.0), "align": align, "seed": SEED}
    settings = detector_class(METHOD).settings_class.make(values)
    fit_model(METHOD, settings, train, model, cache=cache, overwrite=True)
    return calibrate_model(model, calibration, voxel_fpr=0.005, smallest_mm3=100.0, cache=cache)


def _most_abnormal(results: Path) -> str:
    """Give the scan of the finest voxels: the first that was asked for."""
    return str(files.read_json(results / "run.json")["items"][0]["id"])


def _power(folder: Path, model: Path, quick: bool) -> Path:
    from atypia.detectors.model_folder import load_detector

    detector = load_detector(model)
    healthy = _simulated_cohort(folder, "test").where(condition="healthy")
    few = {"diameters_mm": (10.0,), "contrasts": (0.3,)} if quick else {}
    found = power_of(detector, healthy, seed=SEED, work=folder / "power", **few)
    return write_power(found, folder / "power", examples(detector, healthy, found))


def _training(folder: Path) -> Path:
    """Train a small network for some hundred steps; its page shows how it restores a tumour."""
    train = _simulated_cohort(folder, "train")
    values = {
        "spacing_mm": 4.0,
        "channels": (8, 16),
        "most_rounds": 4,
        "seed": SEED,
        "training": {
            "steps": 240,
            "batch_size": 1,
            "validate_every": 20,
            "learning_rate": 3e-3,
            "snapshot_epochs": 3,
        },
    }
    settings = detector_class("mask_refinement").settings_class.make(values, "tiny")
    model = folder / f"training-{settings.digest()[:6]}" / "small-network"
    fit_model("mask_refinement", settings, train, model, cache=folder / "prepared", baselines=False)
    tumour = _simulated_cohort(folder, "test")[0]
    return write_training_page(model, samples=samples_of(model, tumour))


def _simulated_cohort(folder: Path, name: str) -> Cohort:
    return replace(open_cohort(folder / "scans" / name), name=f"simulated, {name}")


def _real(folder: Path, data: Path) -> tuple[Path, Path]:
    """Prepare scans of ds002748 and find what is unusual in one; give two pages."""
    cohort = open_cohort(data)
    train, calibration, test = (cohort.take(range(*ends)) for ends in ((12,), (12, 21), (21, 22)))
    output = folder / "prepared-real"
    settings = PreparationSettings(spacing_mm=3.0)
    prepare_cohort(cohort.take(range(22)), output, settings, workers=None)
    quality = write_quality_page(output, workers=None)
    model = folder / "model-real"
    detector = _fitted(model, train, calibration, 3.0, settings.align, output / CACHE)
    results = folder / "results-real"
    predict_cohort(detector, test, results, model=str(model), cache=output / CACHE)
    scan = test[0].id
    write_pages(results, scans=[scan])
    return quality, results / "scans" / scan / "index.html"


def _made_up(folder: Path, scans: int) -> Path:
    """Write the page of a cohort of which there is no image."""
    if not (folder / "run.json").exists():
        write_synthetic(folder, scans)
    return write_report(folder, folder / f"{scans}.html")


@contextmanager
def _browser() -> Iterator[Any]:
    path = os.environ.get("ATYPIA_CHROMIUM") or shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("no playwright: pip install playwright") from None
    if path is None:
        raise SystemExit("no browser: install chromium, or set ATYPIA_CHROMIUM")
    flags = ["--headless=new", "--no-sandbox", *OFFLINE, *SOFTWARE_WEBGL]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


def _opened(browser: Any, page: Path, **window: Any) -> Any:
    tab = browser.new_page(**window)
    tab.goto(page.resolve().as_uri())
    if tab.locator("#canvas").count():
        tab.wait_for_selector("html[data-ready]", **READY)
    if tab.locator("#filters").count():
        tab.wait_for_selector("#filters:visible", timeout=READY["timeout"])
    return tab


def _picture(browser: Any, shot: Shot, folder: Path) -> float:
    """Take one picture as WebP; give its size in kB."""
    tab = _opened(
        browser,
        shot.page,
        viewport={"width": shot.width, "height": shot.height},
        device_scale_factor=SHARPNESS,
        color_scheme="dark" if shot.dark else "light",
    )
    if shot.at:
        tab.evaluate("at => document.querySelector(at).scrollIntoView()", shot.at)
    tab.wait_for_timeout(500)
    content = tab.screenshot()
    tab.close()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{shot.name}.webp"
    with Image.open(io.BytesIO(content)) as picture:
        picture.convert("RGB").save(path, "WEBP", quality=82, method=6)
    return round(path.stat().st_size / 1000, 1)


def _opening(browser: Any, name: str, page: Path) -> dict[str, Any]:
    """Open a page some times; give its size, and medians of seconds since it was asked for."""
    found: list[dict[str, float]] = []
    for _ in range(OPENINGS):
        tab = _opened(browser, page, viewport={"width": WIDTH, "height": HEIGHT})
        found.append(
            tab.evaluate(
                """() => {
                    const [loaded] = performance.getEntriesByType("navigation");
                    return {
                        first_paint: performance.getEntriesByName("first-paint")[0]?.startTime,
                        dom_ready: loaded.domContentLoadedEventEnd,
                        viewer_ready: performance.getEntriesByName("ready")[0]?.startTime,
                    };
                }"""
            )
        )
        tab.close()
    row: dict[str, Any] = {"page": name, "mb": round(page.stat().st_size / 1e6, 2)}
    for moment in ("first_paint", "dom_ready", "viewer_ready"):
        row[f"{moment}_s"] = _median([one.get(moment) for one in found])
    return row


def _median(milliseconds: Sequence[float | None]) -> float | None:
    there = [one / 1000 for one in milliseconds if one is not None]
    return round(statistics.median(there), 2) if there else None
