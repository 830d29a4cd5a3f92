"""From the cells of a patch, layer by layer, to one vector: flatten, pool or map, then fuse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from atypia.errors import SettingsError, unknown_name

Triple = tuple[int, int, int]
Method = Literal["flatten", "pool", "mlp"]
Pooling = Literal["avg", "max", "adaptive"]
Fusion = Literal["concat", "sum", "attention"]

HEADS = 8
"""Of the attention that fuses layers."""


class LayerEmbedding(nn.Module):
    """One layer's cells of a patch as a vector.

    Parameters
    ----------
    channels, cells
        A patch of the layer is `(channels, *cells)`.
    method
        flatten: all values, `channels * cells`. pool: one value a channel. mlp: all values through
        linear layers to `output` values.
    pooling
        avg (adaptive is the same) or max.
    hidden, output
        Of the linear layers; both are needed for mlp.

    Attributes
    ----------
    length
        Of the vector.

    Raises
    ------
    SettingsError
        If method or pooling is unknown, or a width of mlp is missing.
    """

    def __init__(
        self,
        channels: int,
        cells: Triple,
        method: str = "pool",
        pooling: str = "avg",
        hidden: Sequence[int] | None = None,
        output: int | None = None,
    ) -> None:
        super().__init__()
        if method not in ("flatten", "pool", "mlp"):
            raise unknown_name("embedding", method, ("flatten", "pool", "mlp"))
        if pooling not in ("avg", "max", "adaptive"):
            raise unknown_name("pooling", pooling, ("avg", "max", "adaptive"))
        self.method, self.pooling = method, pooling
        self.length = channels if method == "pool" else channels * math.prod(cells)
        self.layers: nn.Module = nn.Identity()
        if method == "mlp":
            if not hidden or not output:
                raise SettingsError("embedding mlp", "has no widths", "Give hidden and output")
            layers: list[nn.Module] = []
            before = self.length
            for width in hidden:
                layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(0.1)]
                before = width
            self.layers = nn.Sequential(*layers, nn.Linear(before, output))
            self.length = output

    def forward(self, cells: Tensor) -> Tensor:
        """Map `(N, C, x, y, z)` to `(N, length)`."""
        if self.method == "pool":
            flat = cells.flatten(2)
            return flat.amax(dim=2) if self.pooling == "max" else flat.mean(dim=2)
        out: Tensor = self.layers(cells.flatten(1))
        return out


class PatchEmbedding(nn.Module):
    """Vectors of several layers, fused to one.

    Parameters
    ----------
    layers
        How each layer's cells become a vector.
    fusion
        concat: side by side. sum: the first values of each, as many as the shortest has. attention:
        linear maps to one length, eight-headed self-attention over layers, mean.

    Attributes
    ----------
    length
        Of the fused vector.

    Notes
    -----
    The linear maps of mlp and attention are random, made once by the seed and stored with the rest:
    nothing trains them, because an embedding that is trained to be reconstructed collapses.
    """

    def __init__(self, layers: Sequence[LayerEmbedding], fusion: str = "concat") -> None:
        super().__init__()
        if fusion not in ("concat", "sum", "attention"):
            raise unknown_name("fusion", fusion, ("concat", "sum", "attention"))
        self.layers, self.fusion = nn.ModuleList(layers), fusion
        lengths = [layer.length for layer in layers]
        self.length = sum(lengths) if fusion == "concat" else min(lengths)
        if fusion == "attention":
            self.length = max(HEADS, self.length // HEADS * HEADS)
            self.tokens = nn.ModuleList(nn.Linear(length, self.length) for length in lengths)
            self.attention = nn.MultiheadAttention(self.length, HEADS, batch_first=True)

    def forward(self, cells: Sequence[Tensor]) -> Tensor:
        """Map each layer's `(N, C_i, x_i, y_i, z_i)` to `(N, length)`."""
        return self.fused([layer(part) for layer, part in zip(self.layers, cells, strict=True)])

    def fused(self, vectors: Sequence[Tensor]) -> Tensor:
        """Fuse each layer's `(N, length_i)` to `(N, length)`."""
        if self.fusion == "concat":
            return torch.cat(list(vectors), dim=1)
        if self.fusion == "sum":
            return torch.stack([v[:, : self.length] for v in vectors]).sum(dim=0)
        tokens = torch.stack([t(v) for t, v in zip(self.tokens, vectors, strict=True)], dim=1)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        out: Tensor = attended.mean(dim=1)
        return out
