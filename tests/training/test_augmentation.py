"""Augmentation: images, masks and prior move together; corruption has its size and its variety."""

from __future__ import annotations

import numpy as np
import torch

from atypia.training.augmentation import Augmentation, augment
from atypia.training.corruption import random_corruption
from atypia.training.loop import seeded
from atypia.training.masks import error_mask

SHAPE = (12, 10, 8)


def test_everything_turns_together() -> None:
    image = torch.rand(2, 1, *SHAPE)
    brain = image > 0.5
    settings = Augmentation(flip_share=1, quarter_turn_share=1)
    for k in range(6):
        changed, mask, prior, corruption = augment(
            settings, image, brain, image[:1].clone(), seeded(0, k)
        )
        assert changed.shape == image.shape
        assert torch.equal(changed[:1], prior)
        # What a turn brings in from outside the grid is zero, hence not brain.
        assert torch.equal(changed > 0.5, mask)
        assert not corruption.any()


def test_a_quarter_turn_on_a_cube_is_one() -> None:
    image = torch.rand(1, 1, 6, 6, 6)
    settings = Augmentation(flip_share=0, quarter_turn_share=1)
    turned = {
        next(t for t in (1, 2, 3) if torch.equal(torch.rot90(image, t, (2, 4)), found))
        for found in (augment(settings, image, image > 0, image, seeded(1, k))[0] for k in range(9))
    }
    assert turned == {1, 2, 3}


def test_no_augmentation_changes_nothing() -> None:
    image = torch.rand(1, 1, *SHAPE)
    settings = Augmentation(flip_share=0)
    changed, _, _, corruption = augment(settings, image, image > 0, image, seeded(2))
    assert torch.equal(changed, image)
    assert not corruption.any()


def test_corruption_runs_from_one_wave_to_white_noise() -> None:
    shape = (24, 20, 16)
    widths, sizes = [], []
    for k in range(80):
        found = random_corruption(shape, 2.0, seeded(3, k))
        assert torch.isfinite(found).all()
        power = torch.fft.fftn(found).abs().square()
        # The number of waves that share the power: 2 for a single stripe pattern.
        widths.append(float(power.sum() ** 2 / power.square().sum()))
        sizes.append(float(found.std()))
    assert min(widths) < 10
    assert max(widths) > 500
    assert max(sizes) <= 2.0 * 1.01
    assert min(sizes) < 0.2
    # Uniform up to 2, but for the third of them that fills a thin slab only.
    assert 0.3 < np.median(sizes) < 1.1


def test_error_masks_hide_the_largest_errors() -> None:
    brain = torch.zeros(SHAPE, dtype=torch.bool)
    brain[2:10, 2:8, 2:7] = True
    error = torch.rand(SHAPE)
    shares = []
    for k in range(40):
        hidden = error_mask(error, brain, seeded(4, k))
        assert not (hidden & ~brain).any()
        assert hidden.any()
        assert error[hidden].min() > error[brain & ~hidden].max()
        shares.append(float(hidden.sum() / brain.sum()))
    assert min(shares) < 0.03
    assert max(shares) > 0.5
