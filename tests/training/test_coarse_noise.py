"""Coarse noise: explicit interpolation of the lattice, its spacing in mm, its moments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from atypia.training.coarse_noise import coarse_noise
from atypia.training.loop import seeded


def literal_noise(shape, spacing_mm, cell_mm, rng) -> np.ndarray:
    """Interpolate the lattice voxel by voxel, at a shift of whole voxels drawn as told."""
    cells = [max(1.0, cell_mm / step) for step in spacing_mm]
    counts = [math.ceil(size / cell) + 2 for size, cell in zip(shape, cells, strict=True)]
    lattice = torch.randn((1, 1, *counts), generator=rng)[0, 0].double().numpy()
    draws = torch.rand(3, generator=rng).tolist()
    spans = [round((count - 1) * cell) for count, cell in zip(counts, cells, strict=True)]
    starts = [int(d * (w - s + 2)) for d, w, s in zip(draws, spans, shape, strict=True)]
    result = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        places = [
            (start + index) * (count - 1) / span
            for start, index, count, span in zip(starts, voxel, counts, spans, strict=True)
        ]
        for corner in itertools.product((0, 1), repeat=3):
            weight, at = 1.0, []
            for place, side in zip(places, corner, strict=True):
                low = math.floor(place)
                weight *= place - low if side else 1 - (place - low)
                at.append(low + side)
            if weight:
                result[voxel] += weight * lattice[tuple(at)]
    return result


@pytest.mark.parametrize(
    ("spacing", "cell"),
    [((2.0, 2.0, 2.0), 15.0), ((1.0, 2.5, 6.0), 15.0), ((3.0, 3.0, 3.0), 7.3), ((4.0, 8, 5), 6.0)],
)
@pytest.mark.parametrize("seed", range(2))
def test_is_the_lattice_interpolated_at_a_shift(spacing, cell: float, seed: int) -> None:
    shape = (17, 11, 9)
    found = coarse_noise(shape, spacing, cell, seeded(seed))
    np.testing.assert_allclose(found, literal_noise(shape, spacing, cell, seeded(seed)), atol=2e-5)


def correlation(steps: list[float], spacing: float, cell: float) -> list[float]:
    """Correlation along the first axis, at distances in mm, over many draws."""
    size, draws = round(180 / spacing), 400
    line = torch.stack(
        [
            coarse_noise((size, 1, 1), (spacing,) * 3, cell, seeded(7, k))[:, 0, 0]
            for k in range(draws)
        ]
    )
    return [
        float((line[:, round(s / spacing) :] * line[:, : size - round(s / spacing)]).mean())
        / float((line**2).mean())
        for s in steps
    ]


def test_bumps_have_their_size_in_mm_on_any_grid() -> None:
    steps = [6.0, 12.0, 18.0, 24.0, 36.0]
    fine, coarse = (correlation(steps, spacing, 18.0) for spacing in (2.0, 3.0))
    np.testing.assert_allclose(fine, coarse, atol=0.08)
    # Hat functions on a lattice of 18 mm, averaged over the shift: the cubic B-spline's values,
    # 2/3, 1/6 and 0 at 0, 18 and 36 mm.
    np.testing.assert_allclose([fine[2], fine[4]], [0.25, 0.0], atol=0.06)


def test_mean_and_spread() -> None:
    shape, mm = (24, 24, 24), (3.0, 3.0, 3.0)
    drawn = torch.stack([coarse_noise(shape, mm, 15.0, seeded(8, k)) for k in range(60)])
    assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    # Per axis, the variance of two neighbours' mixture at a random place between them is 2/3.
    # Places are whole voxels, five a cell: (1 + 2 (0.68 + 0.52)) / 5 = 0.68 of the variance.
    assert float(drawn.square().mean()) == pytest.approx(0.68**3, rel=0.08)


def test_cells_smaller_than_voxels_are_white_noise() -> None:
    found = coarse_noise((30, 30, 30), (6.0, 6.0, 6.0), 2.0, seeded(9))
    assert float(found.std()) == pytest.approx(1, abs=0.03)
    assert abs(float((found[1:] * found[:-1]).mean())) < 0.03


def test_same_generator_same_noise() -> None:
    shape, mm = (9, 8, 7), (3.0, 3.0, 3.0)
    assert torch.equal(
        coarse_noise(shape, mm, 15, seeded(1)), coarse_noise(shape, mm, 15, seeded(1))
    )
    assert not torch.equal(
        coarse_noise(shape, mm, 15, seeded(1)), coarse_noise(shape, mm, 15, seeded(2))
    )
