"""Autoencoders of feature vectors: standard, variational, denoising and contractive.

All say their loss as a mean over vectors and over the vector's length, so that neither a batch's
size nor a vector's length changes what a learning rate or a weight means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from atypia.errors import unknown_name

Kind = Literal["standard", "variational", "denoising", "contractive"]
Activation = Literal["relu", "leaky_relu", "tanh", "elu", "gelu"]
Reduction = Literal["mean", "sum", "none"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


class VectorAutoencoder(nn.Module):
    """Standard: a vector through a narrow layer and back; loss and score are the squared error.

    Parameters
    ----------
    inputs
        Length of a vector.
    hidden
        Widths of the layers between vector and code; the decoder has them in reverse.
    latent
        Length of the code.
    activation
        relu, leaky_relu (0.2), tanh, elu or gelu.
    dropout
        Share of hidden values dropped in training.
    batch_norm
        Normalise hidden values over the batch, which then needs two vectors in training.

    Raises
    ------
    SettingsError
        If the activation is unknown.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int] = (128, 64),
        latent: int = 32,
        activation: str = "relu",
        dropout: float = 0.1,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        self.inputs, self.latent = inputs, latent

        def stack(widths: Sequence[int]) -> nn.Sequential:
            layers: list[nn.Module] = []
            for before, width in pairwise(widths[:-1]):
                layers.append(nn.Linear(before, width))
                if batch_norm:
                    layers.append(nn.BatchNorm1d(width))
                layers += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
            return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

        self.encoder = stack([inputs, *hidden, self._codes() * latent])
        self.decoder = stack([latent, *reversed(hidden), inputs])

    def _codes(self) -> int:
        """Give how many numbers the encoder says of each place of the code."""
        return 1

    def encode(self, x: Tensor) -> Tensor:
        """Map `(N, inputs)` to the code `(N, latent)`."""
        out: Tensor = self.encoder(x)
        return out

    def decode(self, code: Tensor) -> Tensor:
        """Map `(N, latent)` to `(N, inputs)`."""
        out: Tensor = self.decoder(code)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, inputs)` to its reconstruction."""
        return self.decode(self.encode(x))

    def loss(self, x: Tensor) -> Tensor:
        """Give the training loss of `(N, inputs)`, a scalar."""
        return self._squared(x, x).mean()

    def error(self, x: Tensor) -> Tensor:
        """Give the anomaly score of each vector, `(N,)`: the mean squared error."""
        return self._squared(x, x)

    def _squared(self, given: Tensor, wanted: Tensor) -> Tensor:
        """Give the mean squared error of each vector's reconstruction, `(N,)`."""
        out: Tensor = (self(given) - wanted).square().mean(dim=1)
        return out


class VariationalAutoencoder(VectorAutoencoder):
    """Variational (Kingma and Welling 2014, arXiv 1312.6114): codes near a standard normal one.

    Parameters
    ----------
    beta
        Weight of the divergence (Higgins et al. 2017); the loss is the negative evidence bound for
        unit variance, doubled and divided by the vector's length, if it is 1.

    Notes
    -----
    The score is the squared error of the mean code's reconstruction plus the divergence.
    """

    def __init__(self, *arguments: Any, beta: float = 1.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.beta = beta

    def _codes(self) -> int:
        return 2

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give mean and logarithm of the variance of the codes, each `(N, latent)`."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        # Beyond these bounds the exponential leaves float32 before anything is learnt.
        return mean, log_variance.clamp(-20, 20)

    def encode(self, x: Tensor) -> Tensor:
        """Give the mean code `(N, latent)`."""
        return self.posterior(x)[0]

    def loss(self, x: Tensor) -> Tensor:
        """Give the loss of one drawn code for each vector."""
        mean, log_variance = self.posterior(x)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        error = (self.decode(drawn) - x).square().mean()
        return error + self.beta * self._divergence(mean, log_variance).mean()

    def error(self, x: Tensor) -> Tensor:
        """Give the squared error by the mean code plus the weighted divergence, `(N,)`."""
        mean, log_variance = self.posterior(x)
        error = (self.decode(mean) - x).square().mean(dim=1)
        return error + self.beta * self._divergence(mean, log_variance)

    def _divergence(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Give the Kullback-Leibler divergence from a standard normal code, by vector length."""
        each = mean.square() + log_variance.exp() - 1 - log_variance
        # The half of the divergence cancels with that of the squared error.
        return each.sum(dim=1) / self.inputs


class DenoisingAutoencoder(VectorAutoencoder):
    """Denoising (Vincent et al. 2008): in training the input is noisy and the target clean.

    Parameters
    ----------
    noise
        Standard deviation of the Gaussian noise.
    """

    def __init__(self, *arguments: Any, noise: float = 0.1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.noise = noise

    def loss(self, x: Tensor) -> Tensor:
        """Give the error of the reconstruction from a noisy copy."""
        return self._squared(x + self.noise * torch.randn_like(x), x).mean()


class ContractiveAutoencoder(VectorAutoencoder):
    """Contractive (Rifai et al. 2011): codes that change little with their vector.

    Parameters
    ----------
    contraction
        Weight of the squared Frobenius norm of the encoder's Jacobian.

    Notes
    -----
    The norm is estimated without bias by one random projection (Hutchinson 1990): for standard
    normal `v` the mean of `|J^T v|^2` is `|J|^2`. With batch normalisation in training the
    Jacobian is that of the whole batch.
    """

    def __init__(self, *arguments: Any, contraction: float = 1e-4, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.contraction = contraction

    def loss(self, x: Tensor) -> Tensor:
        """Give the squared error plus the weighted norm."""
        return self._squared(x, x).mean() + self.contraction * self.jacobian_norm(x)

    def jacobian_norm(self, x: Tensor) -> Tensor:
        """Estimate the mean over vectors of the squared norm of the encoder's Jacobian."""
        with torch.enable_grad():
            given = x.detach().requires_grad_()
            code = self.encode(given)
            (pulled,) = torch.autograd.grad(
                code, given, torch.randn_like(code), create_graph=self.training
            )
        norm: Tensor = pulled.square().sum(dim=1).mean()
        return norm


AUTOENCODERS: dict[str, type[VectorAutoencoder]] = {
    "standard": VectorAutoencoder,
    "variational": VariationalAutoencoder,
    "denoising": DenoisingAutoencoder,
    "contractive": ContractiveAutoencoder,
}


def autoencoder_of(kind: str, *arguments: Any, **options: Any) -> VectorAutoencoder:
    """Make an autoencoder of a kind.

    Parameters
    ----------
    kind
        standard, variational, denoising or contractive.
    arguments, options
        As its class takes them.

    Raises
    ------
    SettingsError
        The kind or the activation is unknown.
    """
    if kind not in AUTOENCODERS:
        raise unknown_name("autoencoder", kind, AUTOENCODERS)
    return AUTOENCODERS[kind](*arguments, **options)
