"""Random contrast: a curve that rises or falls everywhere, and a normalised scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atypia.training.contrast import KNOTS, REACH, random_contrast
from atypia.training.loop import seeded

SHAPE = (14, 12, 10)


def scan() -> tuple[torch.Tensor, torch.Tensor]:
    brain = torch.zeros(SHAPE, dtype=torch.bool)
    brain[2:12, 2:10, 1:9] = True
    return 1.4 * torch.randn(SHAPE, generator=seeded(0)) * brain, brain


def literal_curve(heights: np.ndarray, value: float) -> float:
    """Join the knots by straight lines, flat beyond the ends."""
    return float(np.interp(value, np.linspace(-REACH, REACH, KNOTS), heights))


@pytest.mark.parametrize("seed", range(6))
def test_is_the_curve_of_its_knots(seed: int) -> None:
    image, brain = scan()
    rng = seeded(1, seed)
    steps = torch.rand(KNOTS - 1, generator=rng) + 0.15
    down = float(torch.rand(1, generator=rng)) < 0.5
    heights = np.concatenate([[0.0], np.cumsum(steps.double().numpy())])
    bent = np.array([literal_curve(heights, v) for v in image[brain].double().tolist()])
    bent = -bent if down else bent
    expected = (bent - bent.mean()) / bent.std(ddof=1)
    found = random_contrast(image, brain, seeded(1, seed))
    np.testing.assert_allclose(found[brain], expected, atol=2e-4)


def test_rises_or_falls_everywhere_and_is_normalised() -> None:
    image, brain = scan()
    within = brain & (image.abs() < REACH)
    order = image[within].argsort()
    falling = 0
    for k in range(60):
        found = random_contrast(image, brain, seeded(2, k))
        steps = found[within][order].diff()
        # In single precision two close values may come out as one.
        assert bool((steps >= -1e-6).all()) or bool((steps <= 1e-6).all())
        falling += int(steps.sum() < 0)
        assert float(found[brain].mean()) == pytest.approx(0, abs=1e-5)
        assert float(found[brain].std()) == pytest.approx(1, abs=1e-4)
        assert not found[~brain].any()
    assert 15 <= falling <= 45


def test_same_generator_same_curve_and_the_scan_stays() -> None:
    image, brain = scan()
    before = image.clone()
    one, other, third = (random_contrast(image, brain, seeded(3, k)) for k in (0, 0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(image, before)


def test_flat_and_empty_brains_are_no_error() -> None:
    image, brain = scan()
    assert torch.isfinite(random_contrast(torch.ones(SHAPE), brain, seeded(4))).all()
    nothing = torch.zeros_like(brain)
    assert torch.equal(random_contrast(image, nothing, seeded(4)), image)
