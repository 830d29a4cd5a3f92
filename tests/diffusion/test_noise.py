"""Noise: simplex fields against a literal sum over lattice points, and their statistics."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from atypia.diffusion.noise import (
    NoiseKind,
    draw_noise,
    lattice_box,
    simplex,
    simplex_octave,
)
from tests.oracles.simplex import Gradients, everywhere, four_points, literal_field

KINDS: tuple[NoiseKind, ...] = ("gaussian", "simplex", "simplex_shared")
SHAPE = (6, 1, 40, 48)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_point(gradients: Tensor, height: int, width: int, period: float, field: int) -> Gradients:
    """Sort the gradients of one field by lattice point."""
    (first_i, first_j), (rows, columns) = lattice_box(height, width, period)
    table = gradients.reshape(rows, columns, 2, -1)[..., field].tolist()
    places = ((i, j) for i in range(rows) for j in range(columns))
    return {(i + first_i, j + first_j): tuple(table[i][j]) for i, j in places}


@pytest.mark.parametrize(
    ("height", "width", "period", "origin"),
    [
        (17, 30, 8.0, (0.0, 0.0)),
        (30, 17, 2.0, (0.999, 0.999)),
        (12, 12, 64.0, (0.999, 0.001)),
        (25, 25, 5.3, (0.31, 0.77)),
    ],
)
def test_an_octave_is_the_sum_over_all_lattice_points(
    height: int, width: int, period: float, origin: tuple[float, float]
) -> None:
    _, (rows, columns) = lattice_box(height, width, period)
    gradients = torch.randn(2 * rows * columns, 3, generator=seeded(0))
    found = simplex_octave(gradients, torch.tensor(origin), height, width, period)
    assert found.dtype == torch.float32
    for field in range(3):
        points = by_point(gradients, height, width, period, field)
        for value in (everywhere, four_points):
            expected = literal_field([points], [origin], height, width, period, 1.0, value)
            np.testing.assert_allclose(found[:, field].reshape(height, width), expected, atol=2e-5)


def test_octaves_have_half_the_period_and_a_share_of_the_amplitude() -> None:
    # With the gradients drawn in the documented order, the fractal is the literal one.
    generator = seeded(5)
    found = simplex((2, 1, 14, 10), seeded(5), octaves=3, base=16.0, standardise=False)
    origins = torch.rand((3, 2), generator=generator)
    directions = torch.tensor([(5, 2), (2, 5), (-2, 5), (-5, 2)], dtype=torch.float32)
    directions = torch.cat([directions, -directions])
    fields: list[list[Gradients]] = [[], []]
    for period in (16.0, 8.0, 4.0):
        _, (rows, columns) = lattice_box(14, 10, period)
        choice = torch.randint(8, (rows * columns, 2), generator=generator)
        gradients = directions[choice].transpose(1, 2).reshape(-1, 2)
        for item in range(2):
            fields[item].append(by_point(gradients, 14, 10, period, item))
    places = [(i, j) for i, j in origins.tolist()]
    for item in range(2):
        expected = literal_field(fields[item], places, 14, 10, 16.0, 0.8, everywhere)
        np.testing.assert_allclose(found[item, 0], expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_noise(kind: NoiseKind) -> None:
    noise = draw_noise(kind, SHAPE, seeded(1))
    assert noise.shape == SHAPE
    assert noise.dtype == torch.float32
    assert noise.is_contiguous()
    assert torch.equal(noise, draw_noise(kind, SHAPE, seeded(1)))
    assert not torch.equal(noise, draw_noise(kind, SHAPE, seeded(2)))
    generator = seeded(1)
    draw_noise(kind, SHAPE, generator)
    assert not torch.equal(noise, draw_noise(kind, SHAPE, generator))


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generator_is_left_alone(kind: NoiseKind) -> None:
    before = torch.get_rng_state()
    draw_noise(kind, SHAPE, seeded(1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["gaussian", "simplex"])
def test_items_differ_and_are_unrelated(kind: NoiseKind) -> None:
    fields = draw_noise(kind, (64, 1, 96, 96), seeded(3)).flatten(1)
    likeness = torch.corrcoef(fields)[~torch.eye(64, dtype=torch.bool)]
    assert float(likeness.abs().max()) < 0.8
    assert abs(float(likeness.mean())) < 0.02


def test_standardised_fields_have_mean_0_and_variance_1() -> None:
    fields = draw_noise("simplex", (16, 1, 96, 96), seeded(4)).double()
    assert float(fields.mean((1, 2, 3)).abs().max()) < 1e-5
    assert float((fields.square().mean((1, 2, 3)) - 1).abs().max()) < 1e-5
    raw = simplex((16, 1, 96, 96), seeded(4), standardise=False).double()
    scaled = (raw - raw.mean((1, 2, 3), keepdim=True)) / raw.std((1, 2, 3), keepdim=True)
    torch.testing.assert_close(fields, scaled, atol=1e-3, rtol=0)


def test_the_published_noise_has_its_measured_statistics() -> None:
    # 40 fields of the published code: pooled 0.58, per field 0.54, means 0.21, range +-2.3.
    generator = seeded(6)
    drawn = [draw_noise("simplex_shared", (1, 1, 96, 96), generator) for _ in range(80)]
    fields = torch.cat(drawn).double()
    assert float(fields.std()) == pytest.approx(0.58, abs=0.03)
    assert float(fields.std((1, 2, 3)).mean()) == pytest.approx(0.54, abs=0.03)
    assert float(fields.mean((1, 2, 3)).std()) == pytest.approx(0.21, abs=0.04)
    assert 1.9 < float(fields.abs().max()) < 2.9


def test_shared_noise_is_one_field_for_the_batch_with_a_lattice_point_at_the_first_pixel() -> None:
    fields = draw_noise("simplex_shared", SHAPE, seeded(7))
    assert torch.equal(fields, fields[:1].expand(SHAPE))
    assert float(fields[0, 0, 0, 0]) == 0
    assert float(fields.std()) > 0.2


def test_where_the_lattice_lies_changes_from_call_to_call() -> None:
    generator = seeded(8)
    values = [simplex((1, 1, 8, 8), generator, standardise=False)[0, 0, 0, 0] for _ in range(50)]
    assert torch.stack(values).abs().min() > 0
    assert float(torch.stack(values).std()) == pytest.approx(0.58, abs=0.15)


def test_power_falls_with_frequency() -> None:
    fields = draw_noise("simplex", (32, 1, 96, 96), seeded(9))[:, 0]
    power = torch.fft.fft2(fields).abs().square().mean(0)
    waves = torch.fft.fftfreq(96, 1 / 96)
    radius = (waves[:, None].square() + waves.square()).sqrt()
    edges = [0.5, 2.5, 6, 12, 24, 48]
    rings = [
        float(power[(radius >= low) & (radius < high)].mean()) for low, high in pairwise(edges)
    ]
    assert all(near > 2 * far for near, far in pairwise(rings))
    assert rings[0] > 100 * rings[-1]


def test_one_octave_alone_has_its_own_scale() -> None:
    rough, smooth = (
        simplex((8, 1, 64, 64), seeded(10), octaves=1, base=period) for period in (4.0, 32.0)
    )
    steps = [float(field.diff(dim=-1).square().mean().sqrt()) for field in (rough, smooth)]
    assert steps[0] > 5 * steps[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 4, 5])
def test_pairs_are_negatives_of_each_other(kind: NoiseKind, count: int) -> None:
    noise = draw_noise(kind, (count, 1, 24, 24), seeded(11), paired=True)
    assert len(noise) == count
    half = math.ceil(count / 2)
    assert torch.equal(noise[: count - half], -noise[half:])
    assert torch.equal(noise[:half], draw_noise(kind, (half, 1, 24, 24), seeded(11)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_drawn_on_the_device_of_its_generator(kind: NoiseKind) -> None:
    noise = draw_noise(kind, SHAPE, torch.Generator("cuda").manual_seed(0))
    assert noise.device.type == "cuda"
    assert noise.dtype == torch.float32
