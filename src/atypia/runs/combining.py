"""Combining fitted models into the model folder of one ensemble."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from atypia.cohort.scan import Cohort
from atypia.detectors.base import Detector
from atypia.detectors.ensemble import Ensemble
from atypia.detectors.model_folder import load_baselines, load_detector, save_detector
from atypia.errors import OutputError
from atypia.progress import Progress, silent
from atypia.runs.fitting import UNFINISHED, require_usable


def combine_models(
    models: Sequence[str | Path],
    healthy: Cohort,
    folder: str | Path,
    *,
    how: str = "mean",
    rate: float = 0.05,
    cache: Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Ensemble:
    """Make one model folder of several; they stay as they are.

    The first model's baselines stand beside the ensemble, too, if they prepare scans as it does:
    `calibrate_model` calibrates them with it.

    Parameters
    ----------
    models
        Model folders.
    healthy, how, rate, cache
        As in `Ensemble.of`.
    folder
        The ensemble's model folder.
    overwrite
        Replace a finished model in it.

    Raises
    ------
    OutputError
        `folder` holds another model, something that is no model, or is one of `models`.
    ModelError
        A model cannot be read.
    SettingsError, LeakageError, CohortError
        As in `Ensemble.of`.
    """
    folder = Path(folder)
    for model in models:
        one, other = Path(model).resolve(), folder.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise OutputError(folder, f"overlaps the model {model}", "Choose another output")
    require_usable(folder, overwrite)
    members = named([load_detector(model) for model in models])
    ensemble = Ensemble.of(members, healthy, how=how, rate=rate, cache=cache, progress=progress)
    # As in a fit, this folder tells that the model is unfinished and may be written again.
    unfinished = folder / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    for name in ("detector.json", "training.jsonl"):
        (folder / name).unlink(missing_ok=True)
    for name in ("baselines", "snapshots", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name, baseline in load_baselines(models[0]).items():
        if baseline._fitted_plan().digest() == ensemble._fitted_plan().digest():
            # Theirs may come from people who count as learnt from here.
            baseline.calibration = None
            save_detector(baseline, folder / "baselines" / name)
    save_detector(ensemble, folder)
    shutil.rmtree(unfinished)
    return ensemble


def named(members: Sequence[Detector]) -> dict[str, Detector]:
    """Name detectors by their methods; those of one method are numbered: padim-1, padim-2."""
    times = Counter(member.method for member in members)
    seen: Counter[str] = Counter()
    found: dict[str, Detector] = {}
    for member in members:
        seen[member.method] += 1
        number = f"-{seen[member.method]}" if times[member.method] > 1 else ""
        found[member.method + number] = member
    return found
