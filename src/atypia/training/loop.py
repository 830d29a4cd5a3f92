"""The training loop: devices and precision by Fabric, exact resume, early stopping, logs.

Every random number of step *k* comes from a generator seeded with (seed, k, rank), and the order
of the scans in epoch *e* from (seed, e). A run that was killed and started again therefore sees
exactly what an unbroken run would have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from atypia.errors import AtypiaError, SettingsError
from atypia.progress import Progress, silent
from atypia.settings import Settings
from atypia.training.checkpoint import Checkpoint
from atypia.training.log import TrainingLog

Loss = Callable[[nn.Module, Sequence[int], torch.Generator], Tensor]
"""Network, positions of the scans in this batch, generator on the network's device -> scalar."""

Share = Annotated[float, Field(ge=0, lt=1)]

Validation = Callable[[nn.Module], float]
"""Network in evaluation mode -> a loss, lower is better."""


class TrainingSettings(Settings):
    """How a network is trained, whatever the method."""

    steps: int = Field(2000, ge=1)
    """Optimiser steps."""
    epochs: int | None = Field(None, ge=1)
    """Passes over the scans; replaces `steps` where it is given."""
    batch_size: int = Field(2, ge=1)
    """Scans a step, on each device."""
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine", "drop", "halve", "plateau"] = "cosine"
    """Cosine to a hundredth; a drop to a tenth after `drop_at` of the steps; half as much each time
    that `halve_every` of the steps has passed; or half as much each time that three validations in
    a row brought nothing."""
    drop_at: float = Field(0.6, gt=0, le=1)
    """Share of the steps after which the learning rate drops (schedule "drop")."""
    halve_every: float = Field(0.25, gt=0, le=1)
    """Share of the steps between two halvings of the learning rate (schedule "halve")."""
    warmup_steps: int = Field(20, ge=0)
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Of AdamW: how slowly its running means of the gradient and of its square forget."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 for no limit."""
    validate_every: int = Field(200, ge=1)
    """Steps between two validations; the weights with the best one are kept."""
    patience: int = Field(0, ge=0)
    """Validations without improvement after which training stops; 0 for never."""
    checkpoint_every: int = Field(100, ge=1)
    """Steps between two checkpoints, from which a killed run resumes."""
    snapshot_epochs: int | None = Field(None, ge=1)
    """Passes over the scans between two sets of weights that are kept for good, in `snapshots/`."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    devices: int = Field(1, ge=1)
    """How many devices train together (distributed data parallel)."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    tensorboard: bool = False
    """Also write TensorBoard event files beside the log."""


@dataclass(frozen=True)
class TrainingReport:
    """What happened: steps done, the best validation loss and its step, wall seconds."""

    steps: int
    best_step: int
    best_loss: float | None
    seconds: float
    stopped_early: bool


def train(
    network: nn.Module,
    loss: Loss,
    count: int,
    settings: TrainingSettings,
    *,
    seed: int,
    validation: Validation | None = None,
    rates: Mapping[str, float] | None = None,
    folder: Path | None = None,
    identity: str = "",
    progress: Progress = silent,
) -> TrainingReport:
    """Train a network in place; it ends with the weights of the best validation.

    Parameters
    ----------
    network
        Trained in place, left in evaluation mode on the CPU.
    loss
        Computes the loss of one batch.
    count
        Number of training scans.
    validation
        Computes the validation loss; without it the last weights are kept.
    rates
        Beginnings of parameters' names, and the multiple of the learning rate that those have.
    folder
        For checkpoint and logs; without it nothing is written and nothing resumes.
    identity
        Digest of whatever defines the run: a checkpoint of another run is refused.

    Raises
    ------
    OutputError
        `folder` holds the checkpoint of another run.
    SettingsError
        The schedule needs a validation, or the run starts from a snapshot that has all of the steps
        already.
    AtypiaError
        The loss is not finite any more.
    """
    if settings.schedule == "plateau" and validation is None:
        raise SettingsError(
            "schedule plateau", "needs a validation loss", "Keep scans for it, or choose another"
        )
    fabric = _fabric(settings)
    started = time.monotonic()
    optimizer = torch.optim.AdamW(
        _groups(network, rates or {}),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    trained, optimizer = fabric.setup(network, optimizer)
    state = Checkpoint(folder if fabric.is_global_zero else None, identity, network, optimizer)
    state = _agreed_start(fabric, state, folder, identity, network, optimizer)
    steps, epoch = _steps(settings, count), _steps_of_an_epoch(settings, count)
    if state.began >= steps:
        raise SettingsError(
            f"{steps} training steps",
            f"were done where this run starts, which is at step {state.began}",
            "Ask for more --training.steps or --training.epochs",
        )
    snapshot_every = None if settings.snapshot_epochs is None else settings.snapshot_epochs * epoch
    log = TrainingLog(folder if fabric.is_global_zero else None, state.step, settings.tensorboard)
    asked = {"steps": steps, "scans": count, "settings": settings.to_json()}
    log.describe(began_at_step=state.step, began_at=time.time(), **asked)
    with log:
        for step in range(state.step, steps):
            if state.exhausted(settings.patience):
                break
            rate = _learning_rate(settings, step / steps, step, state.halvings)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            value = _step(fabric, trained, optimizer, loss, count, settings, seed, step)
            state.step = step + 1
            last = state.step == steps
            due = last or state.step % settings.validate_every == 0
            if validation and due:
                trained.eval()
                with torch.no_grad():
                    # Running statistics differ between processes: all follow the first one.
                    state.judge(fabric.broadcast(validation(network), 0))
            log.record(state.step, loss=value, learning_rate=rate, validation=state.latest)
            if last or state.step % settings.checkpoint_every == 0 or (validation and due):
                state.save()
            if snapshot_every and state.step % snapshot_every == 0:
                state.snapshot(state.step // epoch)
            progress("train", state.step, steps, f"loss {value:.4f}")
    early = state.exhausted(settings.patience) and state.step < steps
    progress("train", steps, steps, "stopped early" if early else "")
    state.restore_best()
    network.cpu().eval()
    return TrainingReport(
        state.step, state.best_step, state.best_loss, time.monotonic() - started, early
    )


def seeded(*parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose stream depends on all the parts."""
    seed = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(seed)


def batch_of(
    count: int, size: int, step: int, seed: int, rank: int = 0, ranks: int = 1
) -> list[int]:
    """Give the scans of one step: every scan once an epoch, in a fresh order each epoch."""
    first = (step * ranks + rank) * size
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, place = divmod(first + len(chosen), count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        chosen += order[place : place + size - len(chosen)].tolist()
    return chosen


def _groups(network: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Divide the parameters by the multiple of the learning rate that they have."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        factor = next((f for start, f in rates.items() if name.startswith(start)), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return [{"params": group, "factor": factor} for factor, group in groups.items()]


def _fabric(settings: TrainingSettings) -> Any:
    from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=settings.device,
        devices=settings.devices,
        strategy="ddp" if settings.devices > 1 else "auto",
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


def _agreed_start(
    fabric: Any,
    state: Checkpoint,
    folder: Path | None,
    identity: str,
    network: nn.Module,
    optimizer: Any,
) -> Checkpoint:
    """Load the checkpoint on every rank; only the first one writes."""
    if fabric.world_size > 1 and folder is not None and not fabric.is_global_zero:
        state = Checkpoint(folder, identity, network, optimizer)
        state.load()
        state.folder = None
    else:
        state.load()
    fabric.barrier()
    return state


def _step(
    fabric: Any,
    network: nn.Module,
    optimizer: Any,
    loss: Loss,
    count: int,
    settings: TrainingSettings,
    seed: int,
    step: int,
) -> float:
    rank, ranks = fabric.global_rank, fabric.world_size
    generator = seeded(seed, step, rank, device=fabric.device)
    torch.manual_seed(generator.initial_seed())  # for layers that draw by themselves
    network.train()
    value = loss(network, batch_of(count, settings.batch_size, step, seed, rank, ranks), generator)
    if not torch.isfinite(value):
        raise AtypiaError(
            f"training step {step + 1}",
            "the loss is not finite",
            "Lower --training.learning-rate or use --training.precision 32-true",
        )
    optimizer.zero_grad()
    fabric.backward(value)
    if settings.clip_norm:
        fabric.clip_gradients(network, optimizer, max_norm=settings.clip_norm)
    optimizer.step()
    return float(value.detach())


def _steps_of_an_epoch(settings: TrainingSettings, count: int) -> int:
    return max(1, count // (settings.batch_size * settings.devices))


def _steps(settings: TrainingSettings, count: int) -> int:
    if settings.epochs is None:
        return settings.steps
    return settings.epochs * _steps_of_an_epoch(settings, count)


def _learning_rate(settings: TrainingSettings, share: float, step: int, halvings: int = 0) -> float:
    rate = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "cosine":
        return float(rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share))))
    if settings.schedule == "halve":
        return float(rate * 0.5 ** int(share / settings.halve_every))
    if settings.schedule == "plateau":
        return float(rate * 0.5**halvings)
    if settings.schedule == "drop" and share >= settings.drop_at:
        return rate * 0.1
    return rate
