import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.errors import SettingsError
from atypia.networks.vector_autoencoder import (
    ACTIVATIONS,
    AUTOENCODERS,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    VariationalAutoencoder,
    autoencoder_of,
)


def made(kind: str, **options):
    torch.manual_seed(0)
    return autoencoder_of(kind, 6, (5, 4), 3, dropout=0.0, **options)


@pytest.mark.parametrize("kind", AUTOENCODERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_kind_learns_and_scores(kind: str, activation: str) -> None:
    torch.manual_seed(1)
    model = made(kind, activation=activation).train()
    x = torch.randn(64, 2) @ torch.randn(2, 6)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with torch.no_grad():
        before = float(model.eval().error(x).mean())
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert model.encode(x).shape == (64, 3)
        assert model(x).shape == x.shape
        assert model.error(x).shape == (64,)
        assert float(model.error(x).mean()) < 0.7 * before


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_a_batch_of_one_can_be_scored(kind: str) -> None:
    model = made(kind).eval()
    with torch.no_grad():
        one, many = torch.randn(1, 6), torch.randn(5, 6)
        many[2] = one[0]
        torch.testing.assert_close(model.error(one)[0], model.error(many)[2])


def test_unknown_names_are_errors() -> None:
    with pytest.raises(SettingsError, match="standard"):
        autoencoder_of("standrad", 6)
    with pytest.raises(SettingsError, match="relu"):
        made("standard", activation="rely")


def test_loss_and_error_of_the_standard_kind() -> None:
    model = made("standard").double().eval()
    x = torch.randn(7, 6).double()
    y = model(x)
    expected = torch.stack([((y[i] - x[i]) ** 2).sum() / 6 for i in range(7)])
    torch.testing.assert_close(model.error(x), expected)
    torch.testing.assert_close(model.loss(x), expected.mean())


def test_the_variational_loss_is_the_negative_evidence_bound() -> None:
    """Twice -log p(x | z) for unit variance, up to its constant, plus twice the divergence."""
    model = made("variational", beta=1.0).double().eval()
    assert isinstance(model, VariationalAutoencoder)
    x = torch.randn(5, 6).double()
    mean, log_variance = model.posterior(x)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.manual_seed(3)
    drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    likelihood = torch.distributions.Normal(model.decode(drawn), 1).log_prob(x).sum(1)
    constant = 6 * torch.log(torch.tensor(2 * torch.pi)).double()
    bound = (2 * (-likelihood) - constant + 2 * divergence).mean() / 6
    torch.manual_seed(3)
    torch.testing.assert_close(model.loss(x), bound)
    by_mean = ((model.decode(mean) - x) ** 2).sum(1) / 6 + 2 * divergence / 6
    torch.testing.assert_close(model.error(x), by_mean)


def test_loss_does_not_depend_on_the_size_of_the_batch() -> None:
    for kind in AUTOENCODERS:
        model = made(kind).eval()
        x = torch.randn(1, 6).expand(4096, 6)
        torch.manual_seed(0)
        few = torch.stack([model.loss(x[:64]) for _ in range(64)]).mean()
        torch.testing.assert_close(model.loss(x), few, rtol=0.1, atol=1e-3)


def test_noise_is_only_for_training() -> None:
    model = made("denoising", noise=2.0).eval()
    assert isinstance(model, DenoisingAutoencoder)
    x = torch.randn(9, 6)
    assert torch.equal(model.error(x), model.error(x))
    assert not torch.equal(model.loss(x), model.loss(x))
    torch.manual_seed(5)
    noisy = x + 2.0 * torch.randn_like(x)
    torch.manual_seed(5)
    torch.testing.assert_close(model.loss(x), ((model(noisy) - x) ** 2).mean())


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_the_penalty_is_the_norm_of_the_jacobian(seed: int) -> None:
    """Its mean over draws; exactly it for a code of length one."""
    torch.manual_seed(seed)
    one = ContractiveAutoencoder(5, (4,), 1, "tanh", 0.0).double().eval()
    x = torch.randn(3, 5).double()

    def literal(model) -> torch.Tensor:
        jacobians = [torch.func.jacrev(lambda v: model.encoder(v[None])[0])(v) for v in x]
        return torch.stack([(j**2).sum() for j in jacobians]).mean()

    draws = torch.stack([one.jacobian_norm(x) for _ in range(2000)])
    # For one code value the estimate is v^2 |J|^2, whose mean is |J|^2.
    torch.testing.assert_close(draws.mean(), literal(one), rtol=0.15, atol=0)
    wide = ContractiveAutoencoder(5, (4,), 3, "tanh", 0.0).double().eval()
    draws = torch.stack([wide.jacobian_norm(x) for _ in range(2000)])
    torch.testing.assert_close(draws.mean(), literal(wide), rtol=0.15, atol=0)


def test_the_penalty_reaches_the_weights() -> None:
    model = made("contractive", contraction=1.0).train()
    model.jacobian_norm(torch.randn(8, 6)).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
