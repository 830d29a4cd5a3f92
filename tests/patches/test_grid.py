"""Grids: which patches there are, where they lie, and feature maps told in voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import SettingsError
from atypia.patches import PatchGrid, Triple, patch_grid, scaled
from tests.oracles.patches import literal_boxes, literal_starts

triples = st.tuples(*(st.integers(1, 6) for _ in range(3)))


@given(triples, triples, triples, st.booleans())
def test_starts_and_boxes_equal_a_walk_along_each_axis(
    size: Triple, more: Triple, stride: Triple, complete: bool
) -> None:
    shape = (size[0] + more[0] - 1, size[1] + more[1] - 1, size[2] + more[2] - 1)
    grid = patch_grid(shape, size, stride, "complete" if complete else "drop")
    walked = tuple(
        tuple(literal_starts(*axis, complete)) for axis in zip(shape, size, stride, strict=True)
    )
    assert grid.starts == walked
    assert grid.counts == tuple(len(starts) for starts in walked)
    boxes = literal_boxes(walked, size)
    assert grid.boxes() == boxes
    assert grid.count == len(boxes)
    corners, centres = grid.corners(), grid.centres()
    assert corners.dtype == np.int64
    for box, corner, centre in zip(boxes, corners, centres, strict=True):
        assert [part.start for part in box] == corner.tolist()
        # The centre lies between the first and the last voxel.
        assert [(part.start + part.stop - 1) / 2 for part in box] == centre.tolist()
    if not complete:
        formula = [(a - p) // s + 1 for a, p, s in zip(shape, size, stride, strict=True)]
        assert list(grid.counts) == formula


def test_a_complete_grid_ends_with_the_volume_and_covers_every_voxel() -> None:
    grid = patch_grid((13, 8, 5), 4, 3)
    assert grid.starts == ((0, 3, 6, 9), (0, 3, 4), (0, 1))
    covered = np.zeros(grid.shape, bool)
    for box in grid.boxes():
        covered[box] = True
    assert covered.all()


def test_half_a_patch_is_the_usual_stride() -> None:
    assert patch_grid((8, 8, 3), (4, 5, 1)).starts == ((0, 2, 4), (0, 2, 3), (0, 1, 2))


@pytest.mark.parametrize(
    ("shape", "size", "stride", "border", "message"),
    [
        ((8, 8, 8), 9, None, "complete", "larger than the volume, which has 8 voxels along X"),
        ((8, 8, 4), (8, 8, 5), None, "complete", "4 voxels along Z"),
        ((8, 8, 8), 0, None, "complete", "patch size 0"),
        ((8, 8, 8), (4, 4), None, "complete", "patch size"),
        ((8, 8, 8), 4, 0, "complete", "stride 0"),
        ((8, 8, 8), 4, (2, 2, -1), "complete", "stride"),
        ((8, 8, 8), 2.5, None, "complete", "whole numbers"),
        ((8, 8), 4, None, "complete", "shape"),
        ((8, 8, 8), 4, None, "keep", "border 'keep'"),
    ],
)
def test_refused(shape: Triple, size: int, stride: int | None, border: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        patch_grid(shape, size, stride, border)  # type: ignore[arg-type]


def test_patches_of_a_feature_map_are_boxes_of_voxels() -> None:
    cells = patch_grid((8, 8, 8), 2, 1)
    voxels = scaled(cells, (4, 4, 2), (32, 32, 16))
    assert voxels.size == (8, 8, 4)
    assert np.array_equal(voxels.corners(), cells.corners() * (4, 4, 2))
    # The centre of the patch is where its cells' voxels have theirs.
    assert np.array_equal(voxels.centres(), (cells.centres() + 0.5) * (4, 4, 2) - 0.5)


def test_patches_of_a_feature_map_stay_inside_and_keep_their_numbers() -> None:
    # Thirty voxels at a stride of eight have four cells, which would reach to the 32nd.
    cells = patch_grid((4, 4, 2), (1, 1, 2), 1)
    voxels = scaled(cells, (8, 7.5, 8), (30, 30, 15))
    assert voxels.starts == ((0, 8, 16, 22), (0, 8, 15, 22), (0,))
    assert voxels.size == (8, 8, 15)
    assert voxels.counts == cells.counts
    for box in voxels.boxes():
        assert np.zeros((30, 30, 15))[box].shape == voxels.size


def test_factors_are_positive() -> None:
    with pytest.raises(SettingsError, match="positive"):
        scaled(PatchGrid((2, 2, 2), (1, 1, 1), ((0,), (0,), (0,))), (1, 0, 1), (2, 2, 2))
