"""Boxes: every pixel is in one, none crosses the border, and parts make the whole again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atypia.diffusion.boxes import box_masks, grid_corners, random_corners, reassemble
from atypia.errors import SettingsError

LENGTH = st.integers(1, 40)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_published_grid_is_two_by_two() -> None:
    corners = grid_corners(96, 96, 48)
    assert corners.tolist() == [[0, 0], [0, 48], [48, 0], [48, 48]]
    masks = box_masks(corners, 48, 96, 96)
    assert masks.shape == (4, 1, 96, 96)
    assert masks.dtype == torch.bool
    assert bool((masks.sum(0) == 1).all())
    assert bool(masks[1, 0, :48, 48:].all())


def test_the_last_box_is_moved_inside() -> None:
    assert grid_corners(100, 48, 48).tolist() == [[0, 0], [48, 0], [52, 0]]
    assert grid_corners(96, 30, 48).tolist() == [[0, 0], [48, 0]]
    assert grid_corners(10, 10, 4, stride=3)[:, 1].unique().tolist() == [0, 3, 6]


@given(LENGTH, LENGTH, st.integers(1, 20), st.data())
def test_a_grid_covers_every_pixel_without_crossing_the_border(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    corners = grid_corners(height, width, size, data.draw(st.integers(1, size)))
    masks = box_masks(corners, size, height, width)
    assert bool(masks.any(0).all())
    assert bool((masks.sum((1, 2, 3)) == min(size, height) * min(size, width)).all())
    assert len(corners.unique(dim=0)) == len(corners)


@pytest.mark.parametrize("stride", [0, 5, -1])
def test_strides_that_leave_gaps_are_refused(stride: int) -> None:
    with pytest.raises(SettingsError, match="stride"):
        grid_corners(20, 20, 4, stride)


@given(LENGTH, LENGTH, st.integers(1, 20), st.integers(0, 99))
def test_random_boxes_lie_inside(height: int, width: int, size: int, seed: int) -> None:
    corners = random_corners(5, height, width, size, seeded(seed))
    masks = box_masks(corners, size, height, width)
    assert bool((masks.sum((1, 2, 3)) == min(size, height) * min(size, width)).all())


def test_random_boxes_reach_every_place_and_follow_the_seed() -> None:
    corners = random_corners(2000, 20, 12, 8, seeded(0))
    assert corners[:, 0].unique().tolist() == list(range(13))
    assert corners[:, 1].unique().tolist() == list(range(5))
    assert torch.equal(corners, random_corners(2000, 20, 12, 8, seeded(0)))
    assert not torch.equal(corners, random_corners(2000, 20, 12, 8, seeded(1)))


@given(LENGTH, LENGTH, st.integers(1, 20), st.data())
def test_the_same_restoration_everywhere_comes_back(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    corners = grid_corners(height, width, size, data.draw(st.integers(max(1, size // 2), size)))
    image = torch.rand(2, 1, height, width, generator=seeded(0))
    averaged = reassemble([image] * len(corners), corners, size, "average")
    torch.testing.assert_close(averaged, image)
    assert torch.equal(reassemble([image] * len(corners), corners, size, "cut"), image)


def test_overlaps_are_averaged_or_cut() -> None:
    corners = grid_corners(1, 5, 3, stride=1)
    parts = [torch.full((1, 1, 1, 5), float(value)) for value in (0, 3, 9)]
    averaged = reassemble(iter(parts), corners, 3, "average")
    assert averaged.flatten().tolist() == [0, 1.5, 4, 6, 9]
    assert reassemble(parts, corners, 3, "cut").flatten().tolist() == [0, 3, 9, 9, 9]
    assert all(float(part.std()) == 0 for part in parts)


def test_only_the_box_of_a_restoration_counts() -> None:
    corners = grid_corners(96, 96, 48)
    whole = torch.rand(2, 1, 96, 96, generator=seeded(3))
    masks = box_masks(corners, 48, 96, 96)
    parts = [torch.where(mask, whole, float("nan")) for mask in masks]
    for overlap in ("cut", "average"):
        assert torch.equal(reassemble(parts, corners, 48, overlap), whole)


def test_missing_boxes_are_refused() -> None:
    image = torch.zeros(1, 1, 96, 96)
    corners = grid_corners(96, 96, 48)
    with pytest.raises(ValueError, match="cover"):
        reassemble([image] * 3, corners[:3], 48)
    with pytest.raises(ValueError, match="longer"):
        reassemble([image] * 3, corners, 48)
    with pytest.raises(ValueError, match="cover"):
        reassemble([], corners[:0], 48)
