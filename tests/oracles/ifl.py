"""Implicit field learning written out as published: slow, literal, for comparison only.

Source: IFL (arXiv 2106.05214) and its public evaluation: every weight asks for a gradient, the code
goes through the network with every voxel, voxels come from the whole cube, and the decoder goes
through the cube slab by slab. The published coordinates differ between fit and decoding.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

STAGES = ((501, 10_000), (101, 50_000))
"""Steps and voxels of both stages."""


def literal_encoding(point: Tensor, octaves: int) -> Tensor:
    """Encode one position `(3,)`: the sines of each coordinate, then the cosines of each."""
    numbers = []
    for wave in (torch.sin, torch.cos):
        for coordinate in point:
            numbers += [wave(2**k * torch.pi * coordinate) for k in range(octaves)]
    return torch.stack(numbers)


def literal_forward(decoder: nn.Module, point: Tensor, code: Tensor) -> Tensor:
    """Give the logits of one position, layer by layer, without dropout."""
    given = torch.cat([code, literal_encoding(point, decoder.octaves)])
    features = given
    for place, layer in enumerate(decoder.hidden):
        if place == decoder.skip:
            features = torch.cat([features, given])
        magnitude = layer.parametrizations.weight.original0
        direction = layer.parametrizations.weight.original1
        weight = magnitude * direction / direction.norm(dim=1, keepdim=True)
        features = torch.relu(weight @ features + layer.bias)
    return decoder.head.weight @ features + decoder.head.bias


def literal_fit(
    decoder: nn.Module,
    classes: np.ndarray,
    seed: int = 0,
    stages: tuple[tuple[int, int], ...] = STAGES,
    frozen: bool = False,
    told: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Fit a code to a map of classes `(N, N, N)`.

    Parameters
    ----------
    decoder
        Position and code -> logits, in evaluation mode.
    frozen
        Spare the gradients of the weights, which are never used: the same code for less.
    told
        Hears the number of steps done after each.
    """
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(1, decoder.code_length, generator=generator) / decoder.code_length**0.5
    code.requires_grad_()
    for weight in decoder.parameters():
        weight.requires_grad_(not frozen)
    size, done = classes.shape[0], 0
    truth = torch.from_numpy(classes.astype(np.int64))
    for steps, count in stages:
        optimizer = torch.optim.Adam([code], lr=1e-3)
        for _ in range(steps):
            i, j, k = (torch.tensor(draw.choices(range(size), k=count)) for _ in range(3))
            points = torch.stack([i, j, k], dim=1).float() * 2 / size - 1
            optimizer.zero_grad()
            logits = decoder(points[None], code)[0]
            nn.functional.cross_entropy(logits, truth[i, j, k]).backward()
            optimizer.step()
            done += 1
            told(done)
    for weight in decoder.parameters():
        weight.requires_grad_(True)
        weight.grad = None
    return code.detach()[0]


def literal_decode(
    decoder: nn.Module, code: Tensor, size: int, slabs: range | None = None
) -> Tensor:
    """Give logits `(slabs, N, N, K)` of the cube, slab by slab along the first axis."""
    axis = torch.linspace(-1, 1, size)
    found = []
    with torch.no_grad():
        for slab in slabs or range(size):
            y, z = torch.meshgrid(axis, axis, indexing="ij")
            points = torch.stack([axis[slab].expand(size, size), y, z], dim=-1).reshape(1, -1, 3)
            found.append(decoder(points, code[None]).reshape(size, size, -1))
    return torch.stack(found)


def literal_score(logits: Tensor, classes: np.ndarray) -> np.ndarray:
    """Give minus the logarithm of the observed class's probability, minimum 3, mean 15."""
    truth = torch.from_numpy(classes.astype(np.int64))
    surprise = nn.functional.cross_entropy(logits.flatten(0, 2), truth.flatten(), reduction="none")
    score = surprise.reshape(1, 1, *classes.shape)
    lowest = -nn.functional.max_pool3d(-score, 3, 1, 1)
    return nn.functional.avg_pool3d(lowest, 15, 1, 7)[0, 0].numpy()
