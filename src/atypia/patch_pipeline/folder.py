"""Folders of fitted pipelines: plain files, none of which is run as code.

::

    FOLDER/
      weights.safetensors    all weights, also random ones, and the spread of healthy features
      calibration.npz        quantiles of healthy voxel scores, highest score of each healthy scan
      config.json            configuration, thresholds and where they come from, history; comes last
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from atypia import __version__, files
from atypia.errors import InputError, ModelError
from atypia.scoring.ensemble import HealthyQuantiles
from atypia.training.checkpoint import cpu_copy

if TYPE_CHECKING:
    from atypia.patch_pipeline.pipeline import AnomalyDetectionPipeline

FORMAT = 1
"""Grows when a folder of an older atypia cannot be read any more."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a folder holds.

    Parameters
    ----------
    told
        `config.json`.
    weights
        By name.
    quantiles, healthy_maxima
        `calibration.npz`.
    """

    told: dict[str, Any]
    weights: dict[str, Tensor]
    quantiles: NDArray[np.float64]
    healthy_maxima: NDArray[np.float64]


def save_pipeline(pipeline: AnomalyDetectionPipeline, folder: Path) -> None:
    """Write a fitted pipeline; an interrupted write leaves no folder that loads."""
    assert pipeline.healthy is not None
    description = folder / "config.json"
    description.unlink(missing_ok=True)
    with files.replacing(folder / "weights.safetensors") as temporary:
        save_file(cpu_copy(pipeline.parts()), temporary)
        # safetensors makes its files private; whoever may enter the folder may read the weights.
        temporary.chmod(folder.stat().st_mode & 0o666)
        digest = files.sha256(temporary)
    quantiles, maxima = pipeline.healthy.quantiles, pipeline.healthy_maxima
    with files.replacing(folder / "calibration.npz") as temporary:
        np.savez(temporary, quantiles=quantiles, healthy_maxima=maxima)
    told = {
        "format": FORMAT,
        "atypia": __version__,
        "torch": torch.__version__,
        "config": pipeline.config,
        "own_network": pipeline.own_network is not None,
        "threshold": pipeline.threshold,
        "threshold_provenance": pipeline.provenance,
        "thresholds": pipeline.thresholds,
        "history": pipeline.history,
        "weights_sha256": digest,
    }
    files.write_json(description, told)


def read_folder(folder: Path) -> Found:
    """Read what `save_pipeline` wrote.

    Raises
    ------
    ModelError
        Missing, damaged, or of another version.
    """
    try:
        told = files.read_json(folder / "config.json")
        if told["format"] != FORMAT:
            raise ModelError(folder, f"has format {told['format']!r}", "Fit the pipeline again")
        if files.sha256(folder / "weights.safetensors") != told["weights_sha256"]:
            raise ModelError(folder, "weights are damaged", "Fit the pipeline again")
        weights = load_file(folder / "weights.safetensors")
        with np.load(folder / "calibration.npz", allow_pickle=False) as arrays:
            return Found(told, weights, arrays["quantiles"], arrays["healthy_maxima"])
    except (InputError, OSError, SafetensorError, BadZipFile, KeyError, ValueError) as error:
        raise ModelError(folder, f"cannot be read ({error})", "Fit the pipeline again") from error


def fill(pipeline: AnomalyDetectionPipeline, found: Found, folder: Path) -> None:
    """Put what a folder holds into a pipeline of its configuration.

    Raises
    ------
    ModelError
        The weights are those of other parts.
    """
    try:
        pipeline.parts().load_state_dict(found.weights)
    except RuntimeError as error:
        raise ModelError(folder, "weights do not fit", "Fit the pipeline again") from error
    pipeline.autoencoder.trained = True
    pipeline.healthy = HealthyQuantiles(found.quantiles)
    pipeline.healthy_maxima = found.healthy_maxima
    told = found.told
    pipeline.threshold, pipeline.provenance = told["threshold"], told["threshold_provenance"]
    pipeline.thresholds, pipeline.history = told["thresholds"], told["history"]
