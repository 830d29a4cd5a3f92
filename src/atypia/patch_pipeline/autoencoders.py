"""Autoencoders of vectors by the described names, over `atypia.networks.vector_autoencoder`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from atypia.errors import InputError, SettingsError, unknown_name
from atypia.networks import vector_autoencoder as real
from atypia.patch_pipeline.tensors import as_rows

AT_ONCE = 65_536
"""Vectors that are scored at once."""


class Autoencoder(real.VectorAutoencoder):
    """A vector through a narrow layer and back.

    Parameters
    ----------
    input_dim
        Length of a vector. Until the model is trained it takes vectors of another length too, with
        a warning, and new weights.
    hidden_dims, latent_dim
        Widths between vector and code, and of the code.
    activation
        "relu", "leaky_relu" (0.2), "tanh", "elu" or "gelu".
    dropout_rate, batch_norm
        Of the hidden layers.
    special
        What a kind has of its own.

    Raises
    ------
    SettingsError
        An unknown activation or option.
    """

    kind: ClassVar[str] = "standard"
    options: ClassVar[dict[str, str]] = {}
    """Described name of an option of this kind -> the real one."""

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (128, 64),
        latent_dim: int = 32,
        activation: str = "relu",
        dropout_rate: float = 0.1,
        batch_norm: bool = True,
        **special: float,
    ) -> None:
        for name in special:
            if name not in self.options:
                raise unknown_name(f"option of a {self.kind} autoencoder", name, self.options)
        named: dict[str, Any] = {self.options[name]: value for name, value in special.items()}
        super().__init__(
            input_dim, hidden_dims, latent_dim, activation, dropout_rate, batch_norm, **named
        )
        self.trained = False
        self.arguments: dict[str, Any] = {
            "hidden_dims": list(hidden_dims),
            "latent_dim": latent_dim,
            "activation": activation,
            "dropout_rate": dropout_rate,
            "batch_norm": batch_norm,
            **special,
        }

    @property
    def input_dim(self) -> int:
        """Length of a vector."""
        return self.inputs

    @property
    def hidden_dims(self) -> list[int]:
        """Widths between vector and code."""
        return list(self.arguments["hidden_dims"])

    @property
    def latent_dim(self) -> int:
        """Length of the code."""
        return self.latent

    def get_reconstruction_error(
        self, x: Tensor, reduction: Literal["mean", "sum", "none"] = "mean"
    ) -> Tensor:
        """Give the errors of vectors `(N, input_dim)`; the variational kind adds its divergence.

        Parameters
        ----------
        x
            The vectors.
        reduction
            "none": the sum of squares of each vector, `(N,)`; "sum": of all of them; "mean": the
            mean square.
        """
        if reduction not in ("mean", "sum", "none"):
            raise unknown_name("reduction", reduction, ("mean", "sum", "none"))
        each = self.error(x)
        if reduction == "mean":
            return each.mean()
        return each * self.inputs if reduction == "none" else each.sum() * self.inputs

    def accept(self, length: int) -> None:
        """Take vectors of another length than the declared one, if nothing was learnt yet.

        Raises
        ------
        InputError
            The model is trained.
        """
        if length == self.inputs:
            return
        problem = f"have {length} values, the autoencoder takes {self.inputs}"
        if self.trained:
            raise InputError("features", problem, "Use the embedding that it was trained with")
        warnings.warn(f"features {problem}: it is made anew for {length}", stacklevel=3)
        fresh = type(self)(length, **self.arguments)
        device = next(self.parameters()).device
        self.inputs = length
        self.encoder, self.decoder = fresh.encoder.to(device), fresh.decoder.to(device)


class VariationalAutoencoder(Autoencoder, real.VariationalAutoencoder):
    """Codes near a standard normal one; `beta` (1.0) weighs the divergence."""

    kind, options = "variational", {"beta": "beta"}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Give reconstruction, mean and logarithm of the variance; codes are drawn in training."""
        mean, log_variance = self.posterior(x)
        drawn = mean
        if self.training:
            drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decode(drawn), mean, log_variance


class DenoisingAutoencoder(Autoencoder, real.DenoisingAutoencoder):
    """The input is noisy in training, the target clean; `noise_factor` (0.1) is the deviation."""

    kind, options = "denoising", {"noise_factor": "noise"}


class ContractiveAutoencoder(Autoencoder, real.ContractiveAutoencoder):
    """`lambda_reg` (1e-4) weighs the squared norm of the encoder's Jacobian."""

    kind, options = "contractive", {"lambda_reg": "contraction"}


KINDS: dict[str, type[Autoencoder]] = {
    kind.kind: kind
    for kind in (Autoencoder, VariationalAutoencoder, DenoisingAutoencoder, ContractiveAutoencoder)
}


def autoencoder_named(kind: str, input_dim: int, **arguments: Any) -> Autoencoder:
    """Make an autoencoder of a kind.

    Raises
    ------
    SettingsError
        The kind or an argument is unknown.
    """
    if kind not in KINDS:
        raise unknown_name("autoencoder", kind, KINDS)
    if not input_dim > 0:
        raise SettingsError("input_dim", f"{input_dim} is not positive", "Give a length")
    return KINDS[kind](input_dim, **arguments)


@torch.no_grad()
def compute_reconstruction_errors(
    features: Any, model: Autoencoder, reduction: Literal["mean", "sum", "none"] = "none"
) -> Tensor:
    """Score vectors, in evaluation mode and piece by piece.

    Parameters
    ----------
    features
        `(N, E)`.
    model
        Any of the four kinds.
    reduction
        As of `Autoencoder.get_reconstruction_error`.

    Returns
    -------
    torch.Tensor
        `(N,)`, or a scalar, on the CPU.
    """
    if reduction not in ("mean", "sum", "none"):
        raise unknown_name("reduction", reduction, ("mean", "sum", "none"))
    rows = as_rows(features)
    model.accept(rows.shape[1])
    model.eval()
    device = next(model.parameters()).device
    pieces = [piece.to(device) for piece in rows.split(AT_ONCE)]
    each = torch.cat([model.get_reconstruction_error(p, "none") for p in pieces]).cpu()
    if reduction == "none":
        return each
    return each.sum() if reduction == "sum" else each.mean() / model.inputs
