"""Snapshots: which weights a training has kept for good, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from atypia.errors import ModelError

MOST = 7
"""Snapshots that are shown, evenly spread, the first and the last among them."""


@dataclass(frozen=True)
class Counts:
    """What a snapshot tells of itself: the step of the optimiser, and the fit that it is of."""

    step: int
    identity: str


def whole(folder: Path) -> list[Path]:
    """List the snapshots in a folder; while one is written, its name begins with a dot."""
    return sorted(folder.glob("epoch-*.safetensors"))


def of_fit(folder: Path, identity: str) -> list[Path]:
    """List the snapshots of one fit; another one may have been here and left its own.

    Raises
    ------
    ModelError
        One is damaged.
    """
    return [place for place in whole(folder) if read_counts(place).identity == identity]


def spread(places: Sequence[Path]) -> list[Path]:
    """Choose `MOST` of them."""
    if len(places) <= MOST:
        return list(places)
    return [places[round(i)] for i in np.linspace(0, len(places) - 1, MOST)]


def read_counts(place: Path) -> Counts:
    """Read what a snapshot tells of itself.

    Raises
    ------
    ModelError
        It is damaged.
    """
    try:
        with safe_open(place, framework="pt") as file:
            told = json.loads(file.metadata()["training"])
            return Counts(int(told["step"]), str(told["identity"]))
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise ModelError(place, f"is no whole snapshot ({error})", "Remove it") from error


def read_weights(place: Path) -> dict[str, Tensor]:
    """Read the weights in a snapshot, without the optimiser's state.

    Raises
    ------
    ModelError
        It is damaged.
    """
    try:
        with safe_open(place, framework="pt") as file:
            names = [key for key in file.keys() if key.startswith("network.")]  # noqa: SIM118
            return {key.removeprefix("network."): file.get_tensor(key) for key in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(place, f"is no whole snapshot ({error})", "Remove it") from error


def fitting(weights: Mapping[str, Tensor], network: nn.Module, place: Path) -> dict[str, Tensor]:
    """Choose a network's weights; what was trained may hold more than the network that restores.

    Raises
    ------
    ModelError
        They are of another network.
    """
    wanted = list(network.state_dict())
    starts = [key.removesuffix(wanted[0]) for key in weights if key.endswith(wanted[0])]
    for start in starts:
        if all(start + key in weights for key in wanted):
            return {key: weights[start + key] for key in wanted}
    raise ModelError(place, "is of another network", "Remove it")
