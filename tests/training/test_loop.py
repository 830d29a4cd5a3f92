"""The loop: exact resume, early stopping with the best weights, refusals, and what it logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from atypia.errors import (
    AtypiaError,
    MissingDependencyError,
    ModelError,
    OutputError,
    SettingsError,
)
from atypia.training import TrainingSettings, train
from atypia.training.log import read_log
from atypia.training.loop import batch_of

DATA = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 6))


def loss(net: nn.Module, batch, rng: torch.Generator) -> torch.Tensor:
    x = DATA[list(batch)]
    noise = torch.randn(x.shape, generator=rng)
    return (net(x + 0.1 * noise) - x).square().mean()


def settings(**values) -> TrainingSettings:
    base = {
        "steps": 24,
        "batch_size": 3,
        "validate_every": 6,
        "checkpoint_every": 4,
        "device": "cpu",
    }
    return TrainingSettings.make({**base, **values})


def validation(net: nn.Module) -> float:
    return float((net(DATA) - DATA).square().mean().detach())


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("stop_at", [1, 7, 12, 23])
def test_interrupted_and_resumed_equals_unbroken(tmp_path: Path, stop_at: int) -> None:
    unbroken = network()
    train(unbroken, loss, 10, settings(), seed=3, validation=validation, folder=tmp_path / "a")

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    options = {"seed": 3, "validation": validation, "folder": tmp_path / "b"}
    with pytest.raises(KeyboardInterrupt):
        train(network(), loss, 10, settings(), progress=interrupt, **options)
    resumed = network()
    train(resumed, loss, 10, settings(), **options)
    assert torch.equal(weights(resumed), weights(unbroken))
    logs = [read_log(tmp_path / name / "training.jsonl") for name in "ab"]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == list(range(1, 25))


def test_early_stopping_restores_the_best_weights() -> None:
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.0])
    seen: list[torch.Tensor] = []

    def scripted(net: nn.Module) -> float:
        seen.append(weights(net).clone())
        return next(losses)

    net = network()
    report = train(net, loss, 10, settings(steps=36, patience=2), seed=0, validation=scripted)
    assert report.stopped_early
    assert (report.steps, report.best_step, report.best_loss) == (24, 12, 1.0)
    assert torch.equal(weights(net), seen[1])
    assert not torch.equal(weights(net), seen[-1])


def test_without_validation_the_last_weights_stay_and_loss_falls() -> None:
    net = network()
    before = validation(net.eval())
    report = train(net, loss, 10, settings(steps=150, learning_rate=1e-2), seed=0)
    assert report.best_loss is None
    assert validation(net) < 0.8 * before
    assert not net.training


def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    train(network(), loss, 10, settings(), seed=0, folder=tmp_path, identity="one")
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(OutputError, match="another|other settings"):
        train(network(), loss, 10, settings(), seed=0, folder=tmp_path, identity="two")
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(network(), loss, 10, settings(), seed=0, folder=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors"):
        train(network(), loss, 10, settings(), seed=0, folder=tmp_path)


def test_a_loss_that_explodes_stops_with_a_remedy() -> None:
    def exploding(net: nn.Module, batch, rng) -> torch.Tensor:
        return loss(net, batch, rng) * float("inf")

    with pytest.raises(AtypiaError, match="learning-rate"):
        train(network(), exploding, 10, settings(), seed=0)


def test_betas_are_those_of_the_optimiser_and_below_one() -> None:
    plain, usual, quick = (network() for _ in range(3))
    train(plain, loss, 10, settings(), seed=0)
    train(usual, loss, 10, settings(betas=(0.9, 0.999)), seed=0)
    train(quick, loss, 10, settings(betas=(0.5, 0.6)), seed=0)
    assert torch.equal(weights(plain), weights(usual))
    assert not torch.equal(weights(plain), weights(quick))
    with pytest.raises(SettingsError, match="betas"):
        settings(betas=(0.9, 1.0))


def test_every_scan_once_an_epoch_in_fresh_order() -> None:
    steps = [batch_of(7, 1, step, seed=5) for step in range(21)]
    epochs = [[b[0] for b in steps[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]


def test_ranks_see_different_scans() -> None:
    both = [batch_of(8, 2, 0, seed=0, rank=rank, ranks=2) for rank in (0, 1)]
    assert len(set(both[0]) | set(both[1])) == 4


def test_bf16_trains(tmp_path: Path) -> None:
    net = network()
    before = validation(net.eval())
    train(net, loss, 10, settings(precision="bf16-mixed", steps=100, learning_rate=1e-2), seed=0)
    assert validation(net) < before
    assert weights(net).dtype == torch.float32


def test_tensorboard_absent_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"atypia\[tensorboard\]"):
        train(network(), loss, 10, settings(tensorboard=True), seed=0, folder=tmp_path)


def test_epochs_replace_steps_and_snapshots_are_kept(tmp_path: Path) -> None:
    # Ten scans in batches of three: three steps an epoch.
    chosen = settings(epochs=4, snapshot_epochs=2, steps=999)
    net = network()
    report = train(net, loss, 10, chosen, seed=3, folder=tmp_path)
    assert report.steps == 12
    kept = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert kept == ["epoch-0002.safetensors", "epoch-0004.safetensors"]
    last, middle = (load_file(tmp_path / "snapshots" / name) for name in reversed(kept))
    for name, weight in net.state_dict().items():
        assert torch.equal(last[f"network.{name}"], weight)
        assert not torch.equal(middle[f"network.{name}"], weight)


def test_learning_rate_drops_to_a_tenth(tmp_path: Path) -> None:
    chosen = settings(epochs=10, schedule="drop", drop_at=0.6, warmup_steps=0, learning_rate=0.01)
    train(network(), loss, 9, chosen, seed=3, folder=tmp_path)
    rates = [entry["learning_rate"] for entry in read_log(tmp_path / "training.jsonl")]
    assert rates[17] == pytest.approx(0.01)
    assert rates[18] == pytest.approx(0.001)


def test_learning_rate_halves_again_and_again(tmp_path: Path) -> None:
    chosen = settings(schedule="halve", halve_every=0.25, warmup_steps=0, learning_rate=0.08)
    train(network(), loss, 10, chosen, seed=1, folder=tmp_path)
    rates = [entry["learning_rate"] for entry in read_log(tmp_path / "training.jsonl")]
    assert rates == pytest.approx([0.08] * 6 + [0.04] * 6 + [0.02] * 6 + [0.01] * 6)


def test_some_parameters_learn_faster(tmp_path: Path) -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    net, before = network(), network().state_dict()
    chosen = settings(steps=1, warmup_steps=0, schedule="constant", learning_rate=1e-3)
    train(net, loss, 10, chosen, seed=1, rates={"0.": 3.0})
    moved = {k: float((v - before[k]).abs().max()) for k, v in net.state_dict().items()}
    assert moved["0.weight"] == pytest.approx(3e-3, rel=1e-2)
    assert moved["2.weight"] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("stop_at", [7, 12])
def test_faster_parameters_resume_as_well(tmp_path: Path, stop_at: int) -> None:
    class StoppedError(Exception):
        pass

    def stop(what: str, done: int, total: int, note: str) -> None:
        if done == stop_at:
            raise StoppedError

    unbroken, broken = network(), network()
    rates = {"2.": 2.0}
    train(unbroken, loss, 10, settings(), seed=1, rates=rates)
    with pytest.raises(StoppedError):
        train(broken, loss, 10, settings(), seed=1, rates=rates, folder=tmp_path, progress=stop)
    again = network()
    train(again, loss, 10, settings(), seed=1, rates=rates, folder=tmp_path)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("stop_at", [None, 15, 24])
def test_learning_rate_halves_where_three_validations_bring_nothing(
    tmp_path: Path, stop_at: int | None
) -> None:
    """Also by a run that was killed and goes on, after the first halving or just at it."""
    told = [5.0, 4.0, 4.5, 4.0, 6.0, 3.0, 3.0, 3.5, 4.0, 4.0, 4.0, 9.0]
    chosen = settings(
        steps=36, validate_every=3, schedule="plateau", warmup_steps=0, learning_rate=0.08
    )

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    losses = iter(told)
    options = {"seed": 1, "validation": lambda net: next(losses), "folder": tmp_path}
    if stop_at:
        with pytest.raises(KeyboardInterrupt):
            train(network(), loss, 10, chosen, progress=interrupt, **options)
    train(network(), loss, 10, chosen, **options)
    rates = [entry["learning_rate"] for entry in read_log(tmp_path / "training.jsonl")]
    assert rates == pytest.approx([0.08] * 15 + [0.04] * 12 + [0.02] * 9)


def test_a_batch_over_several_epochs_is_that_of_single_scans() -> None:
    alone = [batch_of(3, 1, step, seed=5)[0] for step in range(20)]
    assert [batch_of(3, 10, step, seed=5) for step in (0, 1)] == [alone[:10], alone[10:]]


def test_a_plateau_needs_a_validation() -> None:
    with pytest.raises(SettingsError, match="validation"):
        train(network(), loss, 10, settings(schedule="plateau"), seed=0)
