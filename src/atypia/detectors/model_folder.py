"""Model folders: settings and plan as JSON, weights as safetensors; `detector.json` comes last.

::

    MODEL/
      detector.json          method, versions, settings, numbers, digest of the weights
      plan.json              preprocessing
      weights.safetensors    arrays and network weights, those of an ensemble's members too
      settings.toml          the settings, to feed back with --config
      calibration.json       once calibrated
      baselines/NAME/        the baselines that were fitted on the same scans
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atypia import __version__, files
from atypia.calibration import Calibration
from atypia.detectors.base import Detector
from atypia.errors import AtypiaError, InputError, ModelError
from atypia.preprocessing import Plan
from atypia.registry import detector_class
from atypia.training.checkpoint import cpu_copy

Value = TypeVar("Value")

HELD = "members_"
"""The attribute in which an ensemble holds its members."""

FORMAT = 1
"""Grows when a model folder of an older atypia cannot be read any more."""


HALVED_FROM = 5000
"""Values of an array from which on it may be kept in half precision."""


def save_detector(
    detector: Detector,
    folder: str | Path,
    *,
    half: bool = False,
    members: Mapping[str, Path] | None = None,
) -> None:
    """Write a fitted detector; an interrupted write leaves no folder that loads.

    Parameters
    ----------
    detector
        Fitted.
    folder
        The model folder.
    half
        Keep large arrays as bfloat16: half the size, about three digits. What is loaded then
        differs from what was fitted, so calibrate it after loading.
    members
        Of an ensemble: the model folders in which its members stand already, beside `folder`. They
        are named there instead of being written again.
    """
    folder = Path(folder)
    tensors, numbers = _learnt(detector)
    named = _named_members(members or {}, folder)
    for name in named:
        tensors = {k: v for k, v in tensors.items() if not k.startswith(_prefix(HELD, name))}
        numbers = {k: v for k, v in numbers.items() if not k.startswith(_prefix(HELD, name))}
    if half:
        tensors = {name: _halved(tensor) for name, tensor in tensors.items()}
    description = folder / "detector.json"
    with files.replacing(folder / "weights.safetensors") as temporary:
        save_file(tensors, temporary)
        # safetensors makes its files private; whoever may enter the folder may read the weights.
        temporary.chmod(folder.stat().st_mode & 0o666)
        digest = files.sha256(temporary)
    files.write_json(folder / "plan.json", detector._fitted_plan().to_json())
    files.write_text(folder / "settings.toml", detector.settings.to_toml())
    save_calibration(detector, folder)
    files.write_json(
        description,
        {
            "format": FORMAT,
            "atypia": __version__,
            "torch": torch.__version__,
            "method": detector.method,
            "settings": detector.settings.to_json(),
            "trained_on": detector.trained_on,
            "numbers": numbers,
            "weights_sha256": digest,
            **({"members": named} if named else {}),
        },
    )


def save_calibration(detector: Detector, folder: Path) -> None:
    """Write the detector's calibration into its model folder; remove it if there is none."""
    path = folder / "calibration.json"
    if detector.calibration is not None:
        detector.calibration.save(path)
    else:
        path.unlink(missing_ok=True)


def load_detector(folder: str | Path) -> Detector:
    """Load a fitted detector from its model folder.

    Raises
    ------
    ModelError
        Not a model folder, unfinished, damaged, or of another version.
    """
    folder = Path(folder)
    description = _description(folder)
    try:
        kind = detector_class(description["method"])
        detector = kind(kind.settings_class.make(description["settings"]))
        detector.plan = Plan.make(files.read_json(folder / "plan.json"))
    except (AtypiaError, KeyError) as error:
        raise ModelError(
            folder, f"does not fit this version of atypia ({error})", "Fit the model again"
        ) from error
    detector.trained_on = description["trained_on"]
    detector._build()
    tensors, numbers = _weights(folder, description), dict(description["numbers"])
    for name, told in description.get("members", {}).items():
        its_tensors, its_numbers = _member(folder, told)
        prefix = _prefix(HELD, name)
        tensors |= {f"{prefix}{key}": tensor for key, tensor in its_tensors.items()}
        numbers |= {f"{prefix}{key}": number for key, number in its_numbers.items()}
    _fill(detector, tensors, numbers, folder)
    if (folder / "calibration.json").exists():
        calibration = Calibration.load(folder / "calibration.json")
        if calibration.detector != detector.digest():
            raise ModelError(
                folder / "calibration.json",
                "belongs to another fit",
                "Run `atypia calibrate` again",
            )
        detector.calibration = calibration
    return detector


def weights_digest(folder: str | Path) -> str | None:
    """Give the digest of a model's weights, by which it can be known again; None if it is gone."""
    try:
        return str(_description(Path(folder))["weights_sha256"])
    except (AtypiaError, KeyError):
        return None


def load_baselines(folder: str | Path) -> dict[str, Detector]:
    """Load the baselines that were fitted beside a model: name -> detector."""
    places = sorted((Path(folder) / "baselines").glob("*/detector.json"))
    return {place.parent.name: load_detector(place.parent) for place in places}


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "detector.json"
    if not folder.is_dir():
        raise ModelError(folder, "is no model folder", "Name the folder that `atypia fit` wrote")
    if not path.exists():
        unfinished = (folder / "training").exists()
        raise ModelError(
            folder,
            "holds an unfinished training" if unfinished else "holds no detector.json",
            "Run the same `atypia fit` again to finish it" if unfinished else "Check the path",
        )
    try:
        description: dict[str, Any] = files.read_json(path)
    except InputError as error:
        raise ModelError(path, "is damaged", "Fit the model again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelError(
            folder,
            f"was written by another version of atypia (format {description.get('format')!r}"
            f", this version reads {FORMAT})"
            if isinstance(description, dict)
            else "is damaged",
            "Fit the model again, or install that version",
        )
    return description


def _weights(folder: Path, description: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / "weights.safetensors"
    try:
        if files.sha256(path) != description["weights_sha256"]:
            raise ModelError(path, "is damaged or not the one of this model", "Fit it again")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(path, f"cannot be read ({error})", "Fit the model again") from error


def _named_members(members: Mapping[str, Path], folder: Path) -> dict[str, dict[str, str]]:
    return {
        name: {
            "folder": os.path.relpath(place, folder),
            "weights_sha256": _description(place)["weights_sha256"],
        }
        for name, place in members.items()
    }


def _member(folder: Path, told: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what a member of an ensemble has learnt from the folder in which it stands."""
    place = folder / told["folder"]
    description = _description(place)
    if description["weights_sha256"] != told["weights_sha256"]:
        raise ModelError(
            place, f"is not the member that {folder} was made of", "Combine the models again"
        )
    return _weights(place, description), description["numbers"]


def _halved(tensor: Tensor) -> Tensor:
    large = tensor.dtype == torch.float32 and tensor.numel() >= HALVED_FROM
    return tensor.bfloat16() if large else tensor


def _learnt(detector: Detector) -> tuple[dict[str, Tensor], dict[str, float | None]]:
    """Collect what was learnt: the attributes whose names end with an underscore.

    What detectors within this one have learnt has names such as `members_.NAME.mean_`.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float | None] = {}
    for name, value in vars(detector).items():
        if not name.endswith("_") or name.startswith("_"):
            continue
        if isinstance(value, nn.Module):
            tensors |= {f"{name}.{key}": part for key, part in cpu_copy(value).items()}
        elif isinstance(value, np.ndarray):
            # A copy: detectors within one may share what they have learnt, which files may not.
            tensors[name] = torch.from_numpy(np.array(value, order="C", ndmin=1))
        elif value is None or isinstance(value, int | float):
            numbers[name] = value
        elif _holds_detectors(value):
            for key, member in value.items():
                its_tensors, its_numbers = _learnt(member)
                prefix = _prefix(name, key)
                tensors |= {f"{prefix}{part}": one for part, one in its_tensors.items()}
                numbers |= {f"{prefix}{part}": one for part, one in its_numbers.items()}
        else:
            raise TypeError(f"{detector.method}.{name} is a {type(value).__name__}")
    return tensors, numbers


def _fill(
    detector: Detector, tensors: dict[str, Tensor], numbers: dict[str, Any], folder: Path
) -> None:
    held = {n: v for n, v in vars(detector).items() if n.endswith("_") and _holds_detectors(v)}
    for name, members in held.items():
        for key, member in members.items():
            prefix = _prefix(name, key)
            _fill(member, _below(prefix, tensors), _below(prefix, numbers), folder)
    for name, value in numbers.items():
        if "." not in name:
            setattr(detector, name, value)
    networks = {n: v for n, v in vars(detector).items() if isinstance(v, nn.Module)}
    for name, network in networks.items():
        try:
            network.load_state_dict(_below(f"{name}.", tensors))
        except RuntimeError as error:
            raise ModelError(folder, f"weights do not fit {name}", "Fit it again") from error
        network.eval()
    for key, tensor in tensors.items():
        if "." not in key:
            # NumPy knows no bfloat16; networks take it as it is.
            whole = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            setattr(detector, key, whole.numpy())


def _holds_detectors(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, Detector) for one in value.values())


def _prefix(name: str, key: str) -> str:
    # Detectors may be called as one likes, but a dot ends a part of the name.
    return f"{name}.{key.replace('%', '%25').replace('.', '%2E')}."


def _below(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
