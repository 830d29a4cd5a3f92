"""Training an autoencoder of vectors by the described names, over `atypia.training`."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from atypia import files
from atypia.errors import ModelError, SettingsError, unknown_name
from atypia.patch_pipeline.autoencoders import Autoencoder, autoencoder_named
from atypia.patch_pipeline.tensors import as_rows, device_of
from atypia.report.score_figures import draw_training_curves
from atypia.training import TrainingSettings, train
from atypia.training.checkpoint import cpu_copy
from atypia.training.log import read_log

History = dict[str, list[float]]

SCHEDULERS = ("step", "cosine", "plateau", None)
STEP, GAMMA = 30, 0.5
"""Epochs of a step, and what the learning rate is multiplied with, unless given."""


class FeatureVectorDataset(Dataset[Tensor]):
    """Vectors `(N, E)` as a data set."""

    def __init__(self, features: Any) -> None:
        self.features = as_rows(features)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Tensor:
        return self.features[index]


def train_autoencoder(
    model: Autoencoder,
    train_features: Any,
    val_features: Any = None,
    batch_size: int = 32,
    num_epochs: int = 100,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-5,
    scheduler_type: str | None = "step",
    scheduler_params: Mapping[str, float] | None = None,
    early_stopping_patience: int | None = 10,
    device: str | torch.device | None = None,
    save_path: str | Path | None = None,
    plot_losses: bool = True,
    use_amp: bool = False,
    seed: int = 0,
) -> History:
    """Train in place by `atypia.training.train`: AdamW, gradients of norm 1 at most.

    Parameters
    ----------
    model
        Ends with the weights of the best validation, or with the last ones without validation; on
        the CPU, in evaluation mode.
    train_features, val_features
        `(N, E)`, or a `FeatureVectorDataset`.
    batch_size
        Vectors of a step. Batches are full: what an epoch leaves over comes in the next one.
    num_epochs, learning_rate, weight_decay
        Of the training.
    scheduler_type
        - "step": every `step_size` epochs (30) the rate falls to `gamma` (0.5). Another gamma is
          made of halvings that fall as fast.
        - "cosine": to a hundredth at the end.
        - "plateau": halved after three epochs in a row without gain; needs validation.
        - None: constant.
    scheduler_params
        `step_size` and `gamma`; the others have none, and a warning says what is ignored.
    early_stopping_patience
        Epochs without a better validation after which training stops; None or 0 for never.
    device
        None for the first GPU, if there is one.
    save_path
        Where the trained model is written, as safetensors whatever the suffix. A run that was
        killed goes on when it is called again with the same data.
    plot_losses
        With a `save_path`, draw the curves beside it as PNG; nothing is shown.
    use_amp
        Mixed precision, in bfloat16.
    seed
        Of batches, noise and dropout.

    Returns
    -------
    dict
        "train_loss", "val_loss" (empty without validation) and "learning_rate", one value an epoch.

    Raises
    ------
    InputError
        No vectors, or not of the length that a trained model takes.
    SettingsError
        An unknown schedule, or "plateau" without validation.
    AtypiaError
        The loss is not finite any more.
    """
    known = as_rows(getattr(train_features, "features", train_features))
    kept = None
    if val_features is not None:
        kept = as_rows(getattr(val_features, "features", val_features))
    model.accept(known.shape[1])
    # Batch normalisation needs two vectors; where there is one it comes twice.
    size = max(2, min(batch_size, len(known)))
    settings = TrainingSettings.make(
        {
            "epochs": num_epochs,
            "batch_size": size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup_steps": 0,
            "validate_every": max(1, len(known) // size),
            "checkpoint_every": max(1, len(known) // size),
            "patience": early_stopping_patience or 0,
            "device": device_of(device).type,
            "precision": "bf16-mixed" if use_amp else "32-true",
            **_schedule(scheduler_type, dict(scheduler_params or {}), num_epochs, kept),
        }
    )

    def loss(network: nn.Module, batch: Sequence[int], rng: torch.Generator) -> Tensor:
        value: Tensor = network(known[list(batch)].to(rng.device))
        return value

    def validation(network: nn.Module) -> float:
        assert kept is not None
        return float(model.error(kept.to(next(network.parameters()).device)).mean())

    with ExitStack() as stack:
        if save_path is None:
            folder, identity = Path(stack.enter_context(tempfile.TemporaryDirectory())), ""
        else:
            folder = Path(f"{save_path}.training")
            identity = _identity(model, settings, seed, known, kept)
        train(
            _Loss(model),
            loss,
            len(known),
            settings,
            seed=seed,
            validation=None if kept is None else validation,
            folder=folder,
            identity=identity,
        )
        history = _history(folder, settings.validate_every, kept is not None)
    model.trained = True
    if save_path is not None:
        _save(model, history, Path(save_path))
        shutil.rmtree(folder)
        if plot_losses:
            draw_training_curves(history, Path(save_path).with_suffix(".png"))
    return history


def load_trained_autoencoder(
    path: str | Path, device: str | torch.device | None = "cpu"
) -> Autoencoder:
    """Load what `train_autoencoder` wrote; nothing in it is run as code.

    Raises
    ------
    ModelError
        It cannot be read, or is of something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["autoencoder"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = autoencoder_named(told["kind"], told["input_dim"], **told["arguments"])
        model.load_state_dict(weights)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(path, f"holds no autoencoder ({error})", "Train it again") from error
    model.trained = True
    return model.to(device_of(device)).eval()


def plot_training_curves(
    history: Mapping[str, Sequence[float]], save_path: str | Path | None = None
) -> Figure:
    """Draw the losses and the learning rate, see `atypia.report.score_figures`."""
    return draw_training_curves(history, save_path)


class _Loss(nn.Module):
    """What is trained: vectors `(N, E)` -> the loss, so that mixed precision reaches it."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.loss(x)


def _schedule(
    kind: str | None, params: dict[str, float], epochs: int, kept: Tensor | None
) -> dict[str, Any]:
    if kind not in SCHEDULERS:
        raise unknown_name("scheduler_type", str(kind), [s for s in SCHEDULERS if s])
    ignored = {} if kind == "step" and params.keys() <= {"step_size", "gamma"} else params
    if ignored:
        warnings.warn(f"scheduler {kind}: {sorted(ignored)} has no effect", stacklevel=3)
    if kind == "plateau" and kept is None:
        raise SettingsError("plateau", "needs validation", "Give val_features")
    if kind != "step":
        return {"schedule": kind or "constant"}
    length, gamma = params.get("step_size", STEP), params.get("gamma", GAMMA)
    if not (length > 0 and 0 < gamma <= 1):
        problem = f"step_size {length} and gamma {gamma} are no schedule"
        raise SettingsError("scheduler_params", problem, "Give e.g. 30 and 0.5")
    # As many halvings as fall to `gamma` in one step.
    every = length * math.log(0.5) / math.log(gamma) / epochs if gamma < 1 else 1.0
    if every >= 1:
        return {"schedule": "constant"}
    # An epoch's end must not fall a rounding error short of its halving.
    return {"schedule": "halve", "halve_every": every * (1 - 1e-9)}


def _identity(
    model: Autoencoder, settings: TrainingSettings, seed: int, known: Tensor, kept: Tensor | None
) -> str:
    weights = (value for value in cpu_copy(model).values())
    data = (known, *(() if kept is None else (kept,)), *weights)
    told = json.dumps([model.kind, model.arguments, seed])
    return files.digest(settings.digest(), told, *(part.numpy().tobytes() for part in data))


def _history(folder: Path, epoch: int, validated: bool) -> History:
    """Give means of the log's steps by epoch."""
    lines = read_log(folder / "training.jsonl")
    epochs = [lines[start : start + epoch] for start in range(0, len(lines), epoch)]
    return {
        "train_loss": [sum(line["loss"] for line in part) / len(part) for part in epochs],
        "val_loss": [part[-1]["validation"] for part in epochs] if validated else [],
        "learning_rate": [part[-1]["learning_rate"] for part in epochs],
    }


def _save(model: Autoencoder, history: History, path: Path) -> None:
    told = {
        "kind": model.kind,
        "input_dim": model.input_dim,
        "arguments": model.arguments,
        "history": history,
    }
    with files.replacing(path) as temporary:
        save_file(cpu_copy(model), temporary, metadata={"autoencoder": json.dumps(told)})
        # safetensors makes its files private.
        temporary.chmod(path.parent.stat().st_mode & 0o666)
