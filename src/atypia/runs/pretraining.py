"""Pre-training an encoder on a cohort into a folder, resumable as a fit is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from atypia import __version__, files
from atypia.cohort.scan import Cohort
from atypia.detectors.encoder_file import DESCRIPTION, describe_encoder, save_encoder
from atypia.detectors.spark_pretraining import LearntEncoder, PretrainingSettings, learn_encoder
from atypia.detectors.training_scans import all_prepared, identified_plan
from atypia.errors import ModelError
from atypia.preprocessing import prepare_all
from atypia.progress import Progress, silent
from atypia.runs.fitting import UNFINISHED, close, is_first_process, require_usable


def pretrain(
    cohort: Cohort,
    settings: PretrainingSettings,
    folder: str | Path,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Pre-train the diffusion method's encoder by SparK, and write it.

    A run that was killed goes on from its last checkpoint when it is started again in the same
    way; a run that is complete is given back as it is.

    Parameters
    ----------
    cohort
        Healthy scans.
    settings
        Network, masks and training.
    folder
        Gets `encoder.safetensors`, `encoder.json`, `settings.toml` and `training.jsonl`.
    cache
        Folder of prepared scans that a fit can share; by default one inside `folder`, removed at
        the end.
    workers
        Processes that prepare scans; None for one a core.
    overwrite
        Replace a finished encoder of other settings or scans.
    progress
        Listener.

    Returns
    -------
    dict
        What `encoder.json` says; empty in a process of a distributed run that does not write.

    Raises
    ------
    CohortError
        Empty cohort, a scan labelled abnormal, or scans that cannot be read.
    OutputError
        `folder` holds another encoder, or something that is no encoder.
    """
    folder = Path(folder)
    cohort.require_healthy("training")
    plan, modality, identity = identified_plan(cohort, settings, "spark")
    if not overwrite and (finished := _finished(folder, identity)):
        return finished
    require_usable(folder, overwrite, DESCRIPTION, "encoder")
    unfinished = folder / UNFINISHED
    results = prepare_all(
        cohort,
        plan,
        modality,
        cache=cache or unfinished / "prepared",
        workers=workers,
        progress=progress,
    )
    scans = all_prepared(list(results), cohort)
    learnt = learn_encoder(scans, settings, folder=unfinished, identity=identity, progress=progress)
    if not is_first_process():
        return {}  # the first process of a distributed run writes
    files.write_text(folder / "settings.toml", settings.to_toml())
    save_encoder(learnt.encoder, folder, _description(learnt, settings, cohort, modality, identity))
    close(unfinished, folder)
    return describe_encoder(folder) or {}


def _finished(folder: Path, identity: str) -> dict[str, Any] | None:
    """Describe the encoder in a folder if it is the finished one of this very run, else None."""
    try:
        there = describe_encoder(folder) if folder.is_dir() else None
    except ModelError:
        return None
    return there if there and there.get("identity") == identity else None


def _description(
    learnt: LearntEncoder,
    settings: PretrainingSettings,
    cohort: Cohort,
    modality: str,
    identity: str,
) -> dict[str, Any]:
    return {
        "atypia": __version__,
        "torch": torch.__version__,
        "settings": settings.to_json(),
        "cohort": cohort.name,
        "scans": len(cohort),
        "modality": modality,
        "identity": identity,
        "people": sorted({scan.person for scan in cohort}),
        "intensity_range": list(learnt.bounds),
        "steps": learnt.report.steps,
        "best_step": learnt.report.best_step,
        "validation_loss": learnt.report.best_loss,
    }
