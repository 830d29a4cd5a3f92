"""Unfinished fits: what a training folder tells, so that its snapshots can restore a scan already.

::

    TRAINING/
      fit.json               method, settings, plan, modality, people; written when a fit begins
      known.safetensors      arrays and numbers that are known when a network's training begins
      snapshots/             see `atypia.training.checkpoint`
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from atypia import __version__, files
from atypia.errors import AtypiaError, InputError, ModelError
from atypia.preprocessing import Plan
from atypia.registry import detector_class

if TYPE_CHECKING:
    from atypia.detectors.base import Detector

FIT = "fit.json"
"""In a training folder: what is needed to build the detector that learns there."""
KNOWN = "known.safetensors"
"""Beside it: what the method knew when the training of its network began."""


def write_fit(
    detector: Detector,
    folder: Path,
    plan: Plan,
    modality: str,
    identity: str,
    people: Iterable[str],
) -> None:
    """Note in a training folder which detector learns there, and from whom."""
    told = {
        "atypia": __version__,
        "method": detector.method,
        "settings": detector.settings.to_json(),
        "plan": plan.to_json(),
        "modality": modality,
        "identity": identity,
        "people": sorted(people),
    }
    files.write_json(folder / FIT, told)


def write_known(detector: Detector, folder: Path, identity: str) -> None:
    """Keep the arrays and numbers that a method has learnt so far; networks have snapshots."""
    learnt = {name: value for name, value in vars(detector).items() if name.endswith("_")}
    arrays = {
        name: np.ascontiguousarray(value)
        for name, value in learnt.items()
        if isinstance(value, np.ndarray)
    }
    numbers = {name: value for name, value in learnt.items() if isinstance(value, int | float)}
    told = {"identity": identity, "numbers": json.dumps(numbers)}
    with files.replacing(folder / KNOWN) as temporary:
        save_file(arrays, temporary, metadata=told)


def read_fit(folder: Path) -> dict[str, Any]:
    """Read what a training folder tells of its fit.

    Raises
    ------
    ModelError
        It tells nothing, because an older version began the fit, or is damaged.
    """
    path = folder / FIT
    if not path.exists():
        problem = f"holds no {FIT}: an older version began this fit, or it is no detector's"
        raise ModelError(folder, problem, "Wait until it is finished")
    try:
        told = files.read_json(path)
    except InputError as error:
        raise ModelError(path, "is damaged", "Run the same `atypia fit` again") from error
    if not isinstance(told, dict):
        raise ModelError(path, "is damaged", "Run the same `atypia fit` again")
    return told


def load_unfinished(folder: Path) -> Detector:
    """Build the detector that learns in a training folder: its networks know nothing yet.

    With the weights of a snapshot it can restore (`Detector._restore_alone`), but not score.

    Raises
    ------
    ModelError
        As in `read_fit`, or it was begun by a version that does not fit this one.
    """
    from torch import nn  # here, because whoever begins a fit imports this module

    told = read_fit(folder)
    try:
        kind = detector_class(told["method"])
        detector = kind(kind.settings_class.make(told["settings"]))
        detector.plan = Plan.make(told["plan"])
        detector._build()
        detector.trained_on = {key: told[key] for key in ("modality", "identity", "people")}
    except (AtypiaError, KeyError, TypeError) as error:
        problem = f"does not fit this version of atypia ({error})"
        raise ModelError(folder / FIT, problem, "Wait until it is finished") from error
    for value in vars(detector).values():
        if isinstance(value, nn.Module):
            value.eval()
    for name, value in _known(folder, told["identity"]).items():
        setattr(detector, name, value)
    return detector


def _known(folder: Path, identity: str) -> dict[str, Any]:
    path = folder / KNOWN
    try:
        with safe_open(path, framework="np") as file:
            told = file.metadata()
            if told["identity"] != identity:  # left by a run that another one has replaced
                return {}
            known: dict[str, Any] = json.loads(told["numbers"])
            return known | {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        return {}  # its scans are still being prepared
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        problem = f"cannot be read ({error})"
        raise ModelError(path, problem, "Run the same `atypia fit` again") from error
