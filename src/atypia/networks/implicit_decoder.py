"""The decoder of implicit fields: a position and a subject's code -> how likely each class is.

Source: IFL (Naval Marimont and Tarroni 2021, arXiv 2106.05214), after DeepSDF (Park et al. 2019,
arXiv 1901.05103). A multilayer perceptron sees sines and cosines of the position and the code, both
once more half way; codes of the training subjects are free parameters, learnt with it.

For a given code everything that depends on the code alone is a constant of two layers.
`FixedDecoder` works it out once, with weight normalisation folded in and nothing to train: the
same answers for less.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


def positional_encoding(points: Tensor, octaves: int) -> Tensor:
    """Encode positions by waves of doubling frequency.

    Parameters
    ----------
    points
        `(..., 3)`, positions in -1..1.
    octaves
        `L`; the waves have frequencies pi, 2 pi, ..., 2^(L-1) pi.

    Returns
    -------
    torch.Tensor
        `(..., 6 L)`: the sines of each coordinate, then the cosines of each.
    """
    frequencies = torch.pi * 2.0 ** torch.arange(octaves, dtype=points.dtype, device=points.device)
    angles = points[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-2).flatten(-2)


class ImplicitDecoder(nn.Module):
    """Position and code -> logits of the classes.

    Parameters
    ----------
    classes
        Number of classes.
    code_length
        Length of a code.
    width
        Features of a hidden layer.
    depth
        Hidden layers.
    skip
        The hidden layer (from 0) that sees position and code again; the one before it gives so
        many features fewer that the sum is `width`.
    octaves
        Of the positional encoding.
    dropout
        Share of the hidden features that training drops.
    normalised
        Weight normalisation of the hidden layers.

    Raises
    ------
    ValueError
        The skip is no hidden layer after the first, or `width` leaves nothing for it.
    """

    def __init__(
        self,
        classes: int,
        code_length: int = 256,
        width: int = 512,
        depth: int = 8,
        skip: int = 4,
        octaves: int = 10,
        dropout: float = 0.2,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        inputs = code_length + 6 * octaves
        if not 0 < skip < depth or width <= inputs:
            raise ValueError(
                f"skip {skip} of {depth} layers, width {width}: needs 0 < skip < depth and a width"
                f" above code length + 6 octaves = {inputs}"
            )
        self.code_length, self.octaves, self.skip, self.dropout = (
            code_length,
            octaves,
            skip,
            dropout,
        )
        self.hidden = nn.ModuleList()
        for place in range(depth):
            layer = nn.Linear(
                inputs if place == 0 else width, width - inputs if place == skip - 1 else width
            )
            self.hidden.append(weight_norm(layer) if normalised else layer)
        self.head = nn.Linear(width, classes)

    def forward(self, points: Tensor, codes: Tensor) -> Tensor:
        """Give logits.

        Parameters
        ----------
        points
            `(B, P, 3)`, positions in -1..1.
        codes
            `(B, code_length)`, one for each row of points.

        Returns
        -------
        torch.Tensor
            `(B, P, classes)`.
        """
        waves = positional_encoding(points, self.octaves)
        given = torch.cat([codes[:, None].expand(-1, points.shape[1], -1), waves], dim=-1)
        features = given
        for place, layer in enumerate(self.hidden):
            if place == self.skip:
                features = torch.cat([features, given], dim=-1)
            features = functional.dropout(layer(features).relu(), self.dropout, self.training)
        logits: Tensor = self.head(features)
        return logits


class FixedDecoder:
    """An `ImplicitDecoder` whose weights stay as they are: quicker, for fitting codes and decoding.

    Parameters
    ----------
    decoder
        Its weights are copied; it is taken as in evaluation, without dropout.
    """

    def __init__(self, decoder: ImplicitDecoder) -> None:
        self.octaves, self.code_length, self.skip = (
            decoder.octaves,
            decoder.code_length,
            decoder.skip,
        )
        # Transposed, `(in, out)`, so that features times weights is one product.
        self.layers = [
            (layer.weight.detach().T.clone(), layer.bias.detach().clone())
            for layer in [*decoder.hidden, decoder.head]
        ]

    def constants(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Give what codes `(B, code_length)` add to the first layer and to the one of the skip."""
        first, first_bias = self.layers[0]
        again, again_bias = self.layers[self.skip]
        before = self.layers[self.skip - 1][0].shape[1]
        length = self.code_length
        return (
            codes @ first[:length] + first_bias,
            codes @ again[before : before + length] + again_bias,
        )

    def __call__(self, points: Tensor, codes: Tensor) -> Tensor:
        """Give logits `(B, P, classes)` for points `(B, P, 3)` and codes `(B, code_length)`.

        Gradients flow to the codes only.
        """
        return self.from_waves(positional_encoding(points, self.octaves), codes)

    def from_waves(self, waves: Tensor, codes: Tensor) -> Tensor:
        """Give logits `(B, P, classes)` for encoded points `(B, P, 6 octaves)`."""
        first_constant, again_constant = self.constants(codes)
        length = self.code_length
        features = torch.baddbmm(
            first_constant[:, None], waves, self._all(self.layers[0][0][length:], waves)
        ).relu_()
        for place, (weight, bias) in enumerate(self.layers[1:], start=1):
            last = place == len(self.layers) - 1
            if place == self.skip:
                before = features.shape[-1]
                features = (
                    torch.baddbmm(
                        again_constant[:, None], features, self._all(weight[:before], waves)
                    )
                    + waves @ weight[before + length :]
                )
            else:
                features = functional.linear(features, weight.T, bias)
            if not last:
                features = features.relu_()
        return features

    def decode(self, points: Tensor, code: Tensor, at_once: int = 4096) -> Iterator[Tensor]:
        """Give logits `(p, classes)` of one code for points `(P, 3)`, a part at a time."""
        with torch.inference_mode():
            for part in points.split(at_once):
                yield self(part[None], code[None])[0]

    @staticmethod
    def _all(weight: Tensor, like: Tensor) -> Tensor:
        return weight.expand(len(like), *weight.shape)
