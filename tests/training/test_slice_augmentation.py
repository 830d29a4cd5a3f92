"""Random changes of slices: how often, what they keep, and that they repeat."""

from __future__ import annotations

import pytest
import torch

from atypia.training.loop import seeded
from atypia.training.slice_augmentation import SliceAugmentation, augmented

EFFECTS = list(SliceAugmentation.model_fields)


def slices(count: int = 64) -> torch.Tensor:
    values = 0.2 + 0.6 * torch.rand(count, 1, 20, 24, generator=seeded(1))
    values[..., :4] = 0
    return values


def test_nothing_is_asked_for() -> None:
    clean = slices() - 0.3
    rng = seeded(0)
    assert augmented(clean, SliceAugmentation(), rng) is clean
    assert torch.equal(torch.rand(1, generator=rng), torch.rand(1, generator=seeded(0)))


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_changes_its_share_of_slices(effect: str) -> None:
    clean = slices(200)
    settings = SliceAugmentation.make({effect: 0.5})
    changed = augmented(clean, settings, seeded(2))
    assert changed.shape == clean.shape
    different = (changed != clean).flatten(1).any(1).float().mean()
    assert 0.35 < different < 0.65
    assert (changed[..., :4] == 0).all()
    assert changed.min() >= 0
    assert torch.equal(changed, augmented(clean, settings, seeded(2)))
    always = augmented(clean, SliceAugmentation.make({effect: 1}), seeded(3))
    assert torch.isfinite(always).all()
    # A narrow filter may leave a slice as it is.
    assert (always != clean).flatten(1).any(1).float().mean() > 0.9
    # Slices are drawn for one by one.
    ratio = (always - clean).flatten(1).abs().mean(1)
    assert ratio.std() > 0.05 * ratio.mean()


def test_what_the_effects_do() -> None:
    flat = torch.full((32, 1, 24, 24), 0.5)
    gamma = augmented(flat, SliceAugmentation(gamma=1), seeded(4))
    assert gamma.flatten(1).std(1).max() < 1e-6
    assert 0.5**1.36 < gamma.min() < gamma.max() < 0.5**0.73
    bias = augmented(flat, SliceAugmentation(bias=1), seeded(4))
    assert bias.log().diff(dim=-1).abs().max() < 0.6  # smooth
    assert bias.flatten(1).std(1).min() > 0
    blur = augmented(flat, SliceAugmentation(blur=1), seeded(4))
    assert torch.allclose(blur[..., 7:-7, 7:-7], flat[..., 7:-7, 7:-7], atol=1e-5)
    dot = torch.full((1, 1, 24, 24), 1e-3)
    dot[..., 12, 12] = 1
    ghosts = augmented(dot, SliceAugmentation(ghosting=1), seeded(5))[0, 0]
    assert (ghosts > 0.02).sum() >= 2  # the dot and its copies
