"""Cleaning a mask, against steps written with shifted copies of the mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from atypia.errors import InputError, SettingsError
from atypia.scoring.morphology import REFERENCE_STEPS, cleaned


def random_mask(seed: int, share: float = 0.35) -> np.ndarray:
    return np.random.default_rng(seed).random((9, 8, 10)) < share


def grown(mask: np.ndarray, times: int) -> np.ndarray:
    """Add the face neighbours of every voxel, literally."""
    for _ in range(times):
        wide = np.pad(mask, 1)
        out = wide.copy()
        for axis in range(3):
            for step in (-1, 1):
                out |= np.roll(wide, step, axis)
        mask = out[1:-1, 1:-1, 1:-1]
    return mask


def shrunk(mask: np.ndarray, times: int) -> np.ndarray:
    """Keep the voxels all of whose face neighbours are inside; outside of the array is empty."""
    for _ in range(times):
        wide = np.pad(mask, 1)
        out = wide.copy()
        for axis in range(3):
            for step in (-1, 1):
                out &= np.roll(wide, step, axis)
        mask = out[1:-1, 1:-1, 1:-1]
    return mask


def without_small(mask: np.ndarray, smallest: int) -> np.ndarray:
    labels, count = ndimage.label(mask)
    keep = [n for n in range(1, count + 1) if (labels == n).sum() >= smallest]
    return np.isin(labels, keep)


def closed(mask: np.ndarray, times: int) -> np.ndarray:
    room = ((times, times),) * 3
    inner = tuple(slice(times, times + n) for n in mask.shape)
    return np.asarray(shrunk(grown(np.pad(mask, room), times), times)[inner])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("times", [1, 2])
def test_single_steps(seed: int, times: int) -> None:
    mask = random_mask(seed, 0.6)
    np.testing.assert_array_equal(cleaned(mask, erosion=times), shrunk(mask, times))
    np.testing.assert_array_equal(cleaned(mask, dilation=times), grown(mask, times))
    opened = grown(shrunk(mask, times), times)
    np.testing.assert_array_equal(cleaned(mask, opening=times), opened)
    np.testing.assert_array_equal(cleaned(mask, closing=times), closed(mask, times))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smallest", [0, 1, 2, 5, 1000])
def test_small_components_by_faces(seed: int, smallest: int) -> None:
    mask = random_mask(seed, 0.2)
    np.testing.assert_array_equal(cleaned(mask, smallest), without_small(mask, smallest))


def test_a_corner_does_not_join_components() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = mask[2, 2, 1] = True
    assert not cleaned(mask, smallest=2).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_steps(seed: int) -> None:
    mask, brain = random_mask(seed, 0.7), random_mask(seed + 100, 0.9)
    expected = without_small(mask & brain, 4)
    expected = grown(shrunk(expected, 1), 2)
    expected = closed(grown(shrunk(expected, 1), 1), 1) & brain
    found = cleaned(mask, 4, opening=1, closing=1, erosion=1, dilation=2, brain=brain)
    np.testing.assert_array_equal(found, expected)


def test_components_are_counted_within_the_brain() -> None:
    mask = np.ones((5, 5, 5), bool)
    brain = np.zeros((5, 5, 5), np.uint8)
    brain[0, 0, :2] = 1
    assert not cleaned(mask, smallest=3, brain=brain).any()
    assert cleaned(mask, smallest=2, brain=brain).sum() == 2


def test_every_step_is_off_by_default() -> None:
    mask = random_mask(0).astype(np.float32)
    before = mask.copy()
    found = cleaned(mask)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, mask != 0)
    own = random_mask(1)
    cleaned(own)[:] = True
    np.testing.assert_array_equal(own, random_mask(1))
    np.testing.assert_array_equal(mask, before)


def test_the_reference_deletes_thin_lesions_and_inflates_thick_ones() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[2:4, 2:10, 2:10] = True  # two voxels thick
    mask[10:15, 10:15, 10:15] = True
    found = cleaned(mask, **REFERENCE_STEPS)
    assert not found[:6].any()
    np.testing.assert_array_equal(found, grown(shrunk(mask, 1), 2))
    assert found[10:15, 10:15, 10:15].sum() < found.sum()


def test_an_empty_mask_stays_empty() -> None:
    assert not cleaned(np.zeros((3, 3, 3)), 5, 1, 1, 1, 1).any()


def test_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="dimensions"):
        cleaned(np.zeros((3, 3)))
    with pytest.raises(InputError, match="shape"):
        cleaned(np.zeros((3, 3, 3)), brain=np.zeros((3, 3, 4)))
    with pytest.raises(SettingsError, match="closing: -1 is negative"):
        cleaned(np.zeros((3, 3, 3)), closing=-1)
