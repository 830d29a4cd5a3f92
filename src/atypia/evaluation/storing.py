"""Storing an evaluation between two runs: scans and curves as JSON, pooled counts as arrays."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from atypia import files
from atypia.calibration import Threshold
from atypia.errors import InputError, SettingsError
from atypia.evaluation.evaluation import Evaluation
from atypia.evaluation.froc import Froc
from atypia.evaluation.histogram import ScoreHistogram

DAMAGE = (
    OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, zipfile.BadZipFile,
    zlib.error, SettingsError,
)  # fmt: skip
"""What reading a damaged file of results may raise."""
NEEDED = {
    "scan", "condition", "site", "person", "sex", "age", "method", "score", "scores", "psnr",
    "ssim", "p_value", "threshold", "provenance", "voxel_fpr", "flagged",
}  # fmt: skip
"""Figures that every scan has."""


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write an evaluation as `path` (JSON) and, beside it, `.npz` (the pooled counts)."""
    keys = list(evaluation.pooled)
    counts = {str(i): evaluation.pooled[key].to_array() for i, key in enumerate(keys)}
    with files.replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **counts)
    kept = {
        "baselines": sorted(evaluation.baselines),
        "labelled": [[*key, *vars(one).values()] for key, one in evaluation.labelled.items()],
        "froc": [[*key, froc.to_counts()] for key, froc in evaluation.froc.items()],
        "pooled": keys,
        "scans": evaluation.scans,
    }
    files.write_json(path, kept)


def load_evaluation(path: Path) -> Evaluation:
    """Read what `save_evaluation` wrote.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    kept = files.read_json(path)
    try:
        labelled = {(c, m): Threshold(value, told) for c, m, value, told in kept["labelled"]}
        evaluation = Evaluation(kept["baselines"], labelled)
        evaluation.scans = [_checked(row) for row in kept["scans"]]
        evaluation.froc = {(c, m): Froc.from_counts(counts) for c, m, counts in kept["froc"]}
        # Opened here, because numpy leaves a file open that is no archive.
        with path.with_suffix(".npz").open("rb") as file:
            counts = np.load(file, allow_pickle=False)
            for i, (condition, method) in enumerate(kept["pooled"]):
                evaluation.pooled[condition, method] = ScoreHistogram.from_array(counts[str(i)])
        _require_whole(evaluation)
    except DAMAGE as error:
        problem = f"is damaged, or its .npz is ({error!r})"
        raise InputError(path, problem, "Delete both") from error
    return evaluation


def _require_whole(evaluation: Evaluation) -> None:
    """Raise ValueError unless counts and scans are of the same conditions and methods."""
    ranked = {(r["condition"], r["method"]) for r in evaluation.scans if "ap" in r}
    if ranked != set(evaluation.pooled):
        raise ValueError("scans without counts, or counts without scans")


def _checked(row: Any) -> dict[str, Any]:
    """Give a row of a stored scan; ValueError unless it is one."""
    if not isinstance(row, dict) or not row.keys() >= NEEDED:
        raise ValueError("a scan lacks figures")
    return row
