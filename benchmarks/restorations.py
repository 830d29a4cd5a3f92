"""Scores over several diffusion restorations of simulated T2w brains, side by side.

A small conditioned diffusion model learns on healthy simulated brains at 3 mm. Tumours and strokes
in further ones are restored from two times with several noise fields; the same restorations are
scored in every way that `atypia.scoring.restorations` knows, beside the baselines. The first scan
of each lesion is drawn to `restorations.png`. The default rules were chosen on other scans (seeds
20000 to 20007 and 21000 to 21007) than those that are tested here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atypia.cohort.simulated import simulated_cohort, write_simulated
from atypia.detectors.diffusion import Diffusion, DiffusionSettings
from atypia.detectors.model_folder import load_baselines
from atypia.detectors.prediction import Finding
from atypia.evaluation.histogram import ScoreHistogram
from atypia.evaluation.subject import bootstrap_interval
from atypia.progress import Progress, silent
from atypia.runs.fitting import fit_model
from atypia.scoring.restorations import RestorationRules, score_of_restorations
from atypia.scoring.ssim import ssim_map
from atypia.simulation import SimulationSettings
from atypia.volume import Array

SEED = 0
LESIONS = ("tumour", "stroke")
OUTPUT = Path("benchmark-output/restorations")

MAHALANOBIS: dict[str, dict[str, Any]] = {
    "Mahalanobis, as published, no post-processing": {
        "covariance": "low_rank",
        "decomposition": "product",
        "ridge": 0.01,
    },
    "Mahalanobis, mhd_repo": dict(RestorationRules.presets["mhd_repo"]),
    "Mahalanobis, low rank, whitened": {"covariance": "low_rank", "ridge": 0.01},
    "Mahalanobis, low rank, whole volume": {
        "covariance": "low_rank",
        "ridge": 0.01,
        "scope": "volume",
    },
    "Mahalanobis, Ledoit-Wolf": {"covariance": "ledoit_wolf", "ridge": 0.0},
    "Mahalanobis, oracle approximating shrinkage": {"covariance": "oas", "ridge": 0.0},
    "Mahalanobis, patch 3x3": {"covariance": "patch", "ridge": 0.01},
    "Mahalanobis, diagonal": {"covariance": "diagonal", "ridge": 0.0025},
    "Mahalanobis, diagonal + healthy residuals (atypia)": dict(RestorationRules.presets["atypia"]),
    "Mahalanobis, low rank + diagonal, healthy residuals": {
        "covariance": "low_rank_diagonal",
        "ridge": 0.0025,
    },
}
PLAIN: dict[str, dict[str, Any]] = {
    "absolute residual of the mean": {"deviation": "absolute"},
    "absolute residual, cddpm_repo": dict(RestorationRules.presets["cddpm_repo"]),
    "variance of the restorations": {"deviation": "variance"},
}


def run(quick: bool, progress: Progress = silent) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, restore, score in every way; the quick run is 6 mm with a few scans and steps."""
    started = time.monotonic()
    folder = OUTPUT / ("quick" if quick else "full")
    spacing = 6.0 if quick else 3.0
    healthy = SimulationSettings(modality="T2w", spacing_mm=spacing)
    each = 2 if quick else 8
    plans = {
        "train": [(healthy, range(4 if quick else 40))],
        "test": [
            (healthy.but(lesion=lesion), range(30_000 + 1000 * i, 30_000 + 1000 * i + each))
            for i, lesion in enumerate(LESIONS)
        ],
    }
    cohorts = {
        name: write_simulated(plan, folder / "scans" / name, workers=None)
        for name, plan in plans.items()
    }
    settings = DiffusionSettings.make(
        {
            "spacing_mm": spacing,
            "align": "none",
            "seed": SEED,
            "healthy_residuals": 1 if quick else 6,
            "training": {
                "steps": 10 if quick else 900,
                "batch_size": 4 if quick else 16,
                "learning_rate": 1e-3,
                "validate_every": 5 if quick else 150,
            },
        },
        "tiny" if quick else "small",
    )
    model = folder / f"model-{settings.digest()[:6]}"
    detector = fit_model(
        "diffusion", settings, cohorts["train"], model, cache=folder / "prepared", progress=progress
    )
    assert isinstance(detector, Diffusion)
    trained = time.monotonic() - started
    found: dict[tuple[str, str], list[float]] = {}
    pictures = []
    for scan in cohorts["test"]:
        _, prepared = detector._prepared(scan, None)
        lesion = scan.lesion()
        assert lesion is not None
        for name, finding in _findings(detector, prepared):
            score_map = detector._finish(scan, prepared, finding)[0].data
            brain = prepared.native_brain.data
            found.setdefault((scan.condition, name), []).append(
                _precision(score_map[brain], lesion.data[brain])
            )
            if len(found[scan.condition, name]) == 1 and finding.details:
                shown = [_native(detector, prepared, data) for data in finding.details.values()]
                twin = simulated_cohort(healthy, [int(scan.subject.removeprefix("sim-"))])[0]
                _, prepared_twin = detector._prepared(twin, None)
                normal = _native(detector, prepared_twin, detector._unit(prepared_twin))
                volumes = [shown[0], normal, *shown[1:], score_map]
                pictures.append((scan.condition, volumes, lesion.data))
        for name, baseline in load_baselines(model).items():
            score_map = baseline.score_map(scan).data
            found.setdefault((scan.condition, f"{name} *"), []).append(
                _precision(score_map[brain], lesion.data[brain])
            )
    _draw(pictures, folder / "restorations.png")
    rows = [_row(name, found) for name in dict.fromkeys(name for _, name in found)]
    figures = {
        "settings": settings.to_json(),
        "scans_each": each,
        "seconds_to_train": round(trained, 1),
        "seconds": round(time.monotonic() - started, 1),
        "average_precision": [
            {"lesion": lesion, "score": name, "values": values}
            for (lesion, name), values in found.items()
        ],
    }
    return rows, json.loads(json.dumps(figures))


def _findings(detector: Diffusion, prepared: Any) -> Iterator[tuple[str, Finding]]:
    """Score one scan's restorations in every way."""
    image, brain = detector._unit(prepared), prepared.brain.data
    restored = detector.restorations(prepared)
    mean = restored.mean(0)
    yield "absolute residual of one restoration", Finding(np.abs(image - restored[0]))
    # The unit scan, its mean restoration and spread go into the picture.
    shown = {"image": image, "mean": mean, "spread": restored.std(0)}
    for name, values in (PLAIN | MAHALANOBIS).items():
        variance = detector.noise_variance_ if "healthy residuals" in name else None
        rules = RestorationRules.make(values)
        score = score_of_restorations(image, restored, brain, rules, variance)
        yield name, Finding(score, details=shown if name.endswith("(atypia)") else {})
    yield "1 - SSIM", Finding(1 - ssim_map(mean, image))
    # What the published factor adds to the best simple score, and to the published one.
    diagonal = score_of_restorations(
        image, restored, brain, RestorationRules.make({"multiply_by": "ssim"})
    )
    yield "Mahalanobis, diagonal, times (1 - SSIM)", Finding(diagonal)
    residual = score_of_restorations(
        image,
        restored,
        brain,
        RestorationRules.make({"deviation": "absolute", "multiply_by": "ssim"}),
    )
    yield "absolute residual, times (1 - SSIM)", Finding(residual)


def _native(detector: Diffusion, prepared: Any, data: Array) -> Array:
    assert detector.plan is not None
    return detector.plan.to_native(prepared.image.with_data(data, "score"), prepared).data


def _precision(scores: Array, truth: Array) -> float:
    histogram = ScoreHistogram()
    histogram.update(scores, truth)
    value = histogram.result().average_precision
    return float("nan") if value is None else value


def _row(name: str, found: dict[tuple[str, str], list[float]]) -> dict[str, Any]:
    """Average precision [95 % interval over scans] of one score for each lesion."""
    row: dict[str, Any] = {"score": name}
    for lesion in LESIONS:
        values = found[lesion, name]
        low, high = bootstrap_interval(values, seed=SEED)
        row[lesion] = f"{np.mean(values):.3f} [{low:.2f}, {high:.2f}]"
    return row


def _draw(pictures: list[Any], path: Path) -> None:
    """Draw scan, its healthy twin, mean restoration, spread and score where most lesion is."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = ("scan", "same brain, healthy", "mean restoration", "spread", "score")
    size = (8.5, 2.2 * len(pictures))
    figure, axes = pyplot.subplots(len(pictures), 5, figsize=size, squeeze=False)
    for row, (condition, volumes, lesion) in zip(axes, pictures, strict=True):
        place = int(lesion.sum((0, 1)).argmax())
        tops = (1.2, 1.2, 1.2, *(float(np.quantile(volume, 0.999)) for volume in volumes[3:]))
        for axis, volume, top in zip(row, volumes, tops, strict=True):
            axis.imshow(volume[..., place].T, cmap="gray", origin="lower", vmin=0, vmax=top)
            axis.contour(lesion[..., place].T, [0.5], colors="tab:blue", linewidths=0.8)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(condition)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
