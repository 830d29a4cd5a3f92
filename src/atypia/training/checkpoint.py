"""Checkpoints of training: one safetensors file with weights, optimiser and counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from atypia import files
from atypia.errors import ModelError, OutputError

PLATEAU = 3
"""Validations in a row without gain after which schedule "plateau" halves the learning rate."""


class Checkpoint:
    """The state of a training run, in memory and (with a folder) on disk.

    Parameters
    ----------
    folder
        Where `checkpoint.safetensors` lives; None keeps the state in memory only.
    identity
        Digest of what defines the run.
    network, optimizer
        What is saved and restored.
    """

    def __init__(self, folder: Path | None, identity: str, network: nn.Module, optimizer: Any):
        self.folder = folder
        self.identity = identity
        self.network = network
        self.optimizer = optimizer
        self.step = 0
        self.best_step = 0
        self.best_loss: float | None = None
        self.latest: float | None = None
        self.rounds_without_gain = 0
        self.halvings = 0
        self.began = 0
        """The step of another run from which this one went on."""
        self.best: dict[str, Tensor] | None = None

    @property
    def path(self) -> Path | None:
        """The file, None in memory."""
        return None if self.folder is None else Path(self.folder) / "checkpoint.safetensors"

    def judge(self, loss: float) -> None:
        """Note a validation loss; keep the weights if they are the best so far."""
        self.latest = loss
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_step, self.rounds_without_gain = loss, self.step, 0
            self.best = {k: v.detach().cpu().clone() for k, v in self._weights().items()}
        else:
            self.rounds_without_gain += 1
            self.halvings += self.rounds_without_gain % PLATEAU == 0

    def exhausted(self, patience: int) -> bool:
        """Tell whether the last `patience` validations brought nothing."""
        return patience > 0 and self.rounds_without_gain >= patience

    def restore_best(self) -> None:
        """Put the best weights back into the network."""
        if self.best is not None:
            self.network.load_state_dict(self.best)

    def save(self) -> None:
        """Write the file atomically."""
        if self.path is not None:
            self._write(self.path)

    def snapshot(self, epoch: int) -> None:
        """Keep the state of this moment in `snapshots/epoch-NNNN.safetensors`."""
        if self.folder is not None:
            self._write(Path(self.folder) / "snapshots" / f"epoch-{epoch:04d}.safetensors")

    def _write(self, path: Path) -> None:
        tensors = {f"network.{k}": v for k, v in self._weights().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors |= {f"best.{k}": v for k, v in (self.best or {}).items()}
        counts = {
            "identity": self.identity,
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "latest": self.latest,
            "rounds_without_gain": self.rounds_without_gain,
            "halvings": self.halvings,
            "began": self.began,
        }
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        with files.replacing(path) as temporary:
            save_file(copies, temporary, metadata={"training": json.dumps(counts)})

    def load(self) -> None:
        """Go on from the file, if there is one.

        Raises
        ------
        OutputError
            It belongs to another run.
        ModelError
            It is damaged.
        """
        if self.path is None or not self.path.exists():
            return
        counts, tensors = _read(self.path, "Delete it to train from the start")
        _require(counts, self.identity, self.path)
        self.step, self.best_step = counts["step"], counts["best_step"]
        self.best_loss, self.latest = counts["best_loss"], counts["latest"]
        self.rounds_without_gain = counts["rounds_without_gain"]
        self.began = counts.get("began", 0)
        self.halvings = counts.get("halvings", 0)  # older files have none
        try:
            self.network.load_state_dict(_part(tensors, "network."))
        except RuntimeError as error:
            told = " ".join(str(error).split())
            raise ModelError(
                self.path, f"is of another network ({told})", "Keep the settings of its run"
            ) from error
        self.best = _part(tensors, "best.") or None
        self._load_optimizer(_part(tensors, "optimizer."))

    def _weights(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # A parameter that never had a gradient has no moments.
        moments = {i: s["exp_avg"].shape for i, s in state.items() if "exp_avg" in s}
        if any(parameters[i].shape != shape for i, shape in moments.items()):
            problem = "has moments of the optimiser that do not fit"
            raise ModelError(self.path, problem, "Keep the settings of its run")
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def start_from(source: Path, folder: Path, identity: str) -> None:
    """Let a new run begin where a checkpoint or snapshot of another one stands.

    Parameters
    ----------
    source
        `checkpoint.safetensors` of an unfinished run, or one of its snapshots.
    folder
        Of the new run. If it has a checkpoint already, it goes on from that one; see
        `require_same_run`.
    identity
        Of the new run.

    Raises
    ------
    ModelError
        The source cannot be read.
    """
    place = folder / "checkpoint.safetensors"
    if place.exists():
        return
    counts, tensors = _read(source, "Name a file of `snapshots`, or a checkpoint")
    # What was best under other settings or scans says nothing about this run.
    fresh = {"best_step": 0, "best_loss": None, "latest": None, "rounds_without_gain": 0}
    fresh |= {"halvings": 0, "began": counts["step"]}
    kept = {key: value for key, value in tensors.items() if not key.startswith("best.")}
    told = json.dumps(counts | fresh | {"identity": identity})
    with files.replacing(place) as temporary:
        save_file(kept, temporary, metadata={"training": told})


def require_same_run(folder: Path, identity: str) -> None:
    """Refuse a training folder that holds the checkpoint of another run.

    Raises
    ------
    OutputError
        It does.
    ModelError
        Its checkpoint is damaged.
    """
    place = folder / "checkpoint.safetensors"
    if place.exists():
        _require(_read(place, "Delete it to train from the start")[0], identity, place)


def _require(counts: dict[str, Any], identity: str, path: Path) -> None:
    if counts["identity"] != identity:
        raise OutputError(
            path,
            "belongs to an unfinished run with other settings, scans or version",
            "Choose another output, or delete this folder to start anew",
        )


def _read(path: Path, remedy: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give counts and tensors of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            counts: dict[str, Any] = json.loads(file.metadata()["training"])
            return counts, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise ModelError(path, f"is no whole checkpoint ({error})", remedy) from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def cpu_copy(network: nn.Module) -> dict[str, Tensor]:
    """Copy all weights of a network to the CPU, contiguous."""
    with torch.no_grad():
        return {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
