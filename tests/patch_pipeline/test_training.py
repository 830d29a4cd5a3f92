"""Autoencoders and their training by the described names."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import atypia.training.loop as loop
from atypia.errors import InputError, ModelError, SettingsError
from atypia.patch_pipeline import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    FeatureVectorDataset,
    VariationalAutoencoder,
    compute_reconstruction_errors,
    load_trained_autoencoder,
    plot_training_curves,
    train_autoencoder,
)

ROWS = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
KEPT = torch.randn(9, 6, generator=torch.Generator().manual_seed(2))
KINDS = [
    (Autoencoder, {}),
    (VariationalAutoencoder, {"beta": 0.5}),
    (DenoisingAutoencoder, {"noise_factor": 0.2}),
    (ContractiveAutoencoder, {"lambda_reg": 1e-3}),
]


def model(kind=Autoencoder, **options) -> Autoencoder:
    torch.manual_seed(0)
    return kind(input_dim=6, hidden_dims=[5], latent_dim=2, **options)


def trained(net: Autoencoder, *features, **options):
    usual = {"num_epochs": 3, "batch_size": 8, "device": "cpu"}
    return train_autoencoder(net, *features, **{**usual, **options})


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("use_amp", [False, True])
@pytest.mark.parametrize("count", [40, 33, 1])
def test_every_kind_trains_and_scores(kind, options, use_amp: bool, count: int) -> None:
    """Also where a batch of one would be left over, which normalisation could not take."""
    net = model(kind, **options)
    history = trained(net, ROWS[:count], KEPT, use_amp=use_amp, batch_size=32)
    assert {len(values) for values in history.values()} == {3}
    each = compute_reconstruction_errors(KEPT, net)
    assert each.shape == (9,)
    assert torch.isfinite(each).all()
    whole, mean = (compute_reconstruction_errors(KEPT, net, r) for r in ("sum", "mean"))
    torch.testing.assert_close(each.sum(), whole)
    torch.testing.assert_close(mean, net.get_reconstruction_error(KEPT, "mean").detach())
    if kind is not VariationalAutoencoder:
        torch.testing.assert_close(each, (net(KEPT) - KEPT).square().sum(1).detach())
    else:
        recon, mean_code, log_variance = net(KEPT)
        divergence = mean_code**2 + log_variance.exp() - 1 - log_variance
        wanted = (recon - KEPT).square().sum(1) + net.beta * divergence.sum(1)
        torch.testing.assert_close(each, wanted.detach())


def test_training_learns_and_is_repeated_by_its_seed() -> None:
    one, two, other = model(), model(), model()
    history = trained(one, ROWS, KEPT, num_epochs=40, learning_rate=1e-2, scheduler_type=None)
    trained(two, ROWS, KEPT, num_epochs=40, learning_rate=1e-2, scheduler_type=None)
    trained(other, ROWS, KEPT, num_epochs=40, learning_rate=1e-2, scheduler_type=None, seed=1)
    assert history["val_loss"][-1] < 0.9 * history["val_loss"][0]
    assert history["learning_rate"] == [1e-2] * len(history["val_loss"])
    errors = [compute_reconstruction_errors(KEPT, net) for net in (one, two, other)]
    assert torch.equal(errors[0], errors[1])
    assert not torch.equal(errors[0], errors[2])


def test_the_best_weights_come_back_when_training_diverges(monkeypatch) -> None:
    def exploding(settings, share, step, halvings=0) -> float:
        return 1e-2 if step < 25 else 3.0

    monkeypatch.setattr(loop, "_learning_rate", exploding)
    net = model(dropout_rate=0.0)
    history = trained(net, ROWS, KEPT, num_epochs=100, early_stopping_patience=4)
    losses = history["val_loss"]
    assert losses.index(min(losses)) == len(losses) - 5
    assert losses[-1] > 3 * min(losses)
    kept = float(compute_reconstruction_errors(KEPT, net, "mean"))
    assert kept == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"step_size": 2}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        ({"step_size": 4, "gamma": 0.25}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        ({"step_size": 2, "gamma": 1}, [1] * 8),
        ({}, [1] * 8),
    ],
)
def test_the_rate_falls_by_steps(params, wanted) -> None:
    history = trained(model(), ROWS, num_epochs=8, scheduler_params=params)
    assert history["learning_rate"] == pytest.approx([1e-3 * share for share in wanted])
    assert history["val_loss"] == []


def test_the_other_schedules() -> None:
    cosine = trained(model(), ROWS, num_epochs=8, scheduler_type="cosine")["learning_rate"]
    assert all(after < before for before, after in pairwise(cosine))
    options = {"learning_rate": 1e-9, "scheduler_type": "plateau", "early_stopping_patience": 8}
    plateau = trained(
        model(dropout_rate=0.0, batch_norm=False), ROWS, KEPT, num_epochs=40, **options
    )
    for number, rate in enumerate(plateau["learning_rate"]):
        losses, worse, halvings = plateau["val_loss"][:number], 0, 0
        for at in range(1, number):
            worse = worse + 1 if losses[at] >= min(losses[:at]) else 0
            halvings += worse > 0 and worse % 3 == 0
        assert rate == pytest.approx(1e-9 * 0.5**halvings)
    assert min(plateau["learning_rate"]) < 1e-9
    with pytest.raises(SettingsError, match="val_features"):
        trained(model(), ROWS, scheduler_type="plateau")
    with pytest.raises(SettingsError, match="plateau"):
        trained(model(), ROWS, KEPT, scheduler_type="plato")
    with pytest.warns(UserWarning, match="T_max"):
        trained(model(), ROWS, scheduler_type="cosine", scheduler_params={"T_max": 5})


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_saved_model_scores_the_same(kind, options, tmp_path: Path) -> None:
    net, path = model(kind, activation="elu", **options), tmp_path / "model.pth"
    history = trained(net, FeatureVectorDataset(ROWS), FeatureVectorDataset(KEPT), save_path=path)
    again = load_trained_autoencoder(path)
    assert again.arguments == net.arguments
    errors = [compute_reconstruction_errors(KEPT, one) for one in (net, again)]
    assert torch.equal(*errors)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.png", "model.pth"]
    assert b"pickle" not in path.read_bytes()[:2000]
    told = json.loads(_metadata(path)["autoencoder"])
    assert told["history"] == history
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="model.pth"):
        load_trained_autoencoder(path)


def _metadata(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    whole = model()
    wanted = trained(whole, ROWS, KEPT, num_epochs=6)
    seen = []
    true_error = Autoencoder.error

    def killed(self, x):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return true_error(self, x)

    path, options = tmp_path / "model.safetensors", {"num_epochs": 6, "plot_losses": False}
    with monkeypatch.context() as patch:
        patch.setattr(Autoencoder, "error", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(model(), ROWS, KEPT, save_path=path, **options)
    again = model()
    history = trained(again, ROWS, KEPT, save_path=path, **options)
    assert history == wanted
    assert torch.equal(*(compute_reconstruction_errors(KEPT, net) for net in (again, whole)))


def test_a_length_that_was_declared_wrongly_is_found_before_training_only() -> None:
    net = Autoencoder(input_dim=128, hidden_dims=[5], latent_dim=2)
    with pytest.warns(UserWarning, match="6 values.*128"):
        trained(net, ROWS)
    assert net.input_dim == 6
    with pytest.raises(InputError, match="6"):
        compute_reconstruction_errors(torch.rand(3, 7), net)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(SettingsError, match="beta"):
        VariationalAutoencoder(6, [5], 2, betta=1.0)
    with pytest.raises(SettingsError, match="leaky_relu"):
        Autoencoder(6, [5], 2, activation="leakyrelu")
    with pytest.raises(SettingsError, match="none"):
        compute_reconstruction_errors(ROWS, model(), "nothing")
    with pytest.raises(InputError, match="features"):
        trained(model(), ROWS[:0])
    assert (model().hidden_dims, model().latent_dim) == ([5], 2)


def test_a_data_set_and_the_curves(tmp_path: Path) -> None:
    data = FeatureVectorDataset(ROWS.numpy())
    assert len(data) == 40
    assert torch.equal(data[3], ROWS[3])
    path = tmp_path / "curves.png"
    plot_training_curves({"train_loss": [2, 1], "val_loss": [], "learning_rate": [1, 1]}, path)
    assert path.stat().st_size > 1000
