"""Random masks: the analytic blob has the law of the reference's 100,000 points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atypia.training.loop import seeded
from atypia.training.masks import POINTS, random_blob, random_mask

MM = (1.0, 1.0, 1.0)


def brain(size: int = 96) -> torch.Tensor:
    axis = (torch.arange(size) - (size - 1) / 2) / (0.42 * size)
    return (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2) < 1


def literal_blob(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The reference's way, corrected at the border: draw the points, round them, upsample."""
    scale = int(rng.choice([4, 2, 8], p=[0.5, 0.25, 0.25]))
    low = inside[::scale, ::scale, ::scale]
    turn, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    turn = turn * np.sign(np.diag(upper))
    covariance = turn @ np.diag(rng.uniform(0.3, 10, 3)) @ turn.T
    centre = rng.choice(np.argwhere(low)) + 0.5
    points = np.floor(rng.multivariate_normal(centre, covariance, size=POINTS)).astype(int)
    points = points[((points >= 0) & (points < low.shape)).all(1)]
    hidden = np.zeros(low.shape, bool)
    hidden[tuple(points.T)] = True
    return hidden.repeat(scale, 0).repeat(scale, 1).repeat(scale, 2) & inside


def test_share_of_the_brain_follows_the_literal_law() -> None:
    inside = brain(72)
    rng = np.random.default_rng(0)
    literal = [literal_blob(inside.numpy(), rng).sum() for _ in range(120)]
    ours = [int(random_blob(inside, MM, seeded(1, k)).sum()) for k in range(300)]
    total = int(inside.sum())
    quantiles = [0.2, 0.4, 0.6, 0.8]
    expected, found = np.quantile(literal, quantiles) / total, np.quantile(ours, quantiles) / total
    # Sampling error of 120 draws is about 15 % of each quantile in its logarithm.
    np.testing.assert_allclose(np.log(found), np.log(expected), atol=0.45)
    assert np.mean(ours) / total == pytest.approx(np.mean(literal) / total, rel=0.25)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (1.5, 1.0, 6.0)])
def test_blob_lies_in_the_brain_and_is_not_empty(spacing: tuple[float, float, float]) -> None:
    inside = brain(40)
    for k in range(60):
        hidden = random_blob(inside, spacing, seeded(2, k))
        assert hidden.any()
        assert not (hidden & ~inside).any()


def test_same_generator_same_mask() -> None:
    inside = brain(40)
    masks = [random_mask(inside, MM, seeded(3, 4), 0.1, 0.2, 3) for _ in range(2)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], random_mask(inside, MM, seeded(3, 5), 0.1, 0.2, 3))


def test_mixture_covers_what_the_search_needs() -> None:
    inside, coarse = brain(40), (4.0, 4.0, 4.0)
    total = int(inside.sum())
    masks = [random_mask(inside, coarse, seeded(6, k), 0.3, 0.2, 3) for k in range(300)]
    shares = np.array([int(mask.sum()) / total for mask in masks])
    assert (shares == 1).mean() == pytest.approx(0.3, abs=0.09)
    assert ((shares > 0.5) & (shares < 1)).any()
    assert (shares < 0.2).any()
    reference = [int(random_mask(inside, coarse, seeded(7, k)).sum()) / total for k in range(50)]
    assert max(reference) < 1
