"""Resampling: nothing moves in the world, volumes of masks hold, fine detail does not alias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atypia.resampling import box_of, grid_around, resample
from atypia.volume import Array, Geometry, Volume
from tests.grids import (
    affine_of,
    affines,
    angles,
    ball,
    centre_of_mass,
    centred,
    shapes,
    small_angles,
    world_of,
)

CENTRE = np.array([5.0, -20.0, 30.0])


def smooth_image(geometry: Geometry) -> Volume:
    """Make waves of 60 mm and longer, in world coordinates."""
    x, y, z = np.moveaxis(world_of(Volume(np.zeros(geometry.shape), geometry.affine)), -1, 0)
    data = 2 + np.sin(2 * np.pi * x / 60) + np.cos(2 * np.pi * (y + z) / 90)
    return Volume(data.astype(np.float32), geometry.affine)


@given(affines, shapes, st.data())
def test_the_same_grid_gives_the_same_voxels(
    affine: Array, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    volume = Volume(data.draw(arrays(np.int16, shape)), affine, source="here", space=4)
    same = resample(volume, volume.geometry)
    np.testing.assert_array_equal(same.data, volume.data)
    assert (same.data.dtype, same.source, same.space) == (np.float32, "here", 4)


@given(affines, st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=25)
def test_permuted_and_flipped_axes_give_the_same_voxels(
    affine: Array, order: list[int], flips: tuple[bool, ...]
) -> None:
    values = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    volume = Volume(values, affine)
    # Same voxels under other axes: their affine permutes and flips its columns.
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, old in enumerate(order):
        last = values.shape[old] - 1
        turn[old, new], turn[old, 3] = (-1, last) if flips[new] else (1, 0)
    expected = values.transpose(order)
    expected = expected[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    x, y, z = expected.shape
    found = resample(volume, Geometry((x, y, z), affine @ turn))
    np.testing.assert_allclose(found.data, expected, atol=1e-3)


@given(small_angles, st.tuples(*[st.floats(2, 3)] * 3))
@settings(max_examples=15)
def test_a_smooth_image_survives_there_and_back(
    turn: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    near = Geometry((20, 20, 20), centred(np.diag([2.5, 2.5, 2.5, 1]), (20, 20, 20), CENTRE))
    far = Geometry((45, 45, 45), centred(affine_of(turn, spacing, (0, 0, 0)), (45,) * 3, CENTRE))
    image = smooth_image(near)
    back = resample(resample(image, far), near)
    inner = (slice(4, -4),) * 3
    assert np.abs(back.data - image.data)[inner].max() < 0.12  # of a range of 4
    # And half way there the values lie where the world says.
    there = resample(image, far)
    inside = resample(Volume(np.ones(near.shape), near.affine), far, outside=0).data
    core = np.linalg.norm(world_of(there) - CENTRE, axis=-1) < 15
    assert inside[core].min() == 1
    assert np.abs(there.data - smooth_image(far).data)[core].max() < 0.08


@given(angles, st.tuples(*[st.floats(1, 4)] * 3), st.tuples(*[st.floats(-3, 3)] * 3))
@settings(max_examples=25)
def test_a_mask_keeps_its_place_and_volume(
    turn: tuple[float, float, float], spacing: tuple[float, float, float], off: Array
) -> None:
    shape = (26, 26, 26)
    mask = ball(shape, centred(np.diag([2.0, 2, 2, 1]), shape, CENTRE), CENTRE + off, 14)
    target = Geometry((60,) * 3, centred(affine_of(turn, spacing, (0, 0, 0)), (60,) * 3, CENTRE))
    moved = resample(mask, target)
    assert moved.data.dtype == bool
    assert np.linalg.norm(centre_of_mass(moved) - CENTRE - off) < max(spacing) / 2
    volumes = [m.data.sum() * m.geometry.voxel_volume_mm3 for m in (mask, moved)]
    # A ball of 14 mm on voxels of up to 4 mm; where both grids agree, shares of exactly one half
    # are common, and all of them count as inside.
    assert volumes[1] == pytest.approx(volumes[0], rel=0.1)


@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.0])
def test_a_mask_at_the_rim_of_the_field_of_view_keeps_its_volume(spacing: float) -> None:
    # Three slices of 5 mm, all inside the mask: a slab 15 mm thick.
    slab = Volume(np.ones((20, 20, 3)), np.diag([2.0, 2, 5, 1]), kind="mask")
    around = np.diag([spacing, spacing, spacing, 1.0])
    around[:3, 3] = -20
    moved = resample(slab, Geometry((100, 100, 60), around))
    volumes = [m.data.sum() * m.geometry.voxel_volume_mm3 for m in (slab, moved)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.2)


def test_a_single_slice_does_not_vanish_between_two_planes() -> None:
    slab = Volume(np.ones((20, 20, 1)), np.diag([2.0, 2, 5, 1]), kind="mask")
    around = np.diag([2.0, 2, 5, 1])
    around[2, 3] = -12.4
    moved = resample(slab, Geometry((20, 20, 6), around))
    assert moved.data[4:-4, 4:-4].any(axis=2).all()


def test_outside_fills_images_but_never_masks() -> None:
    volume = Volume(np.ones((4, 4, 4), np.float32))
    far = Geometry((2, 2, 2), centred(np.eye(4), (2, 2, 2), np.array([99.0, 0, 0])))
    assert (resample(volume, far, outside=-7).data == -7).all()
    assert not resample(volume.with_data(volume.data, "mask"), far, outside=1).data.any()


def test_detail_that_the_target_cannot_carry_is_removed() -> None:
    board = (np.indices((32, 32, 32)).sum(axis=0) % 2).astype(np.float32)
    coarse = resample(
        Volume(board), Geometry((7, 7, 7), centred(4 * np.eye(4), (7,) * 3, np.full(3, 15.0)))
    )
    # Sampling alone would give zeros and ones, whichever voxels the target happens to hit.
    assert np.abs(coarse.data - 0.5).max() < 0.02


@given(
    st.tuples(*[st.floats(-100, 0)] * 3),
    st.tuples(*[st.floats(0.1, 100)] * 3),
    st.floats(0.5, 8),
    st.integers(1, 16),
)
def test_a_grid_covers_its_box_evenly(
    low: tuple[float, ...], extent: tuple[float, ...], spacing: float, multiple: int
) -> None:
    corner = np.array(low)
    opposite = corner + extent
    grid = grid_around(corner, opposite, spacing, multiple)
    assert all(size % multiple == 0 for size in grid.shape)
    assert grid.spacing_mm == pytest.approx((spacing,) * 3)
    first, last = grid.world([0, 0, 0]), grid.world(np.array(grid.shape) - 1)
    assert (first <= corner + 1e-6).all()
    assert (last >= opposite - 1e-6).all()
    np.testing.assert_allclose(corner - first, last - opposite, atol=1e-6)
    # No more voxels than rounding up asks for.
    assert (np.array(grid.shape) < np.array(extent) / spacing + 2 + multiple).all()


@given(affines, shapes, st.data())
def test_the_box_of_a_mask_holds_its_voxels_tightly(
    affine: Array, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    inside = data.draw(arrays(bool, shape))
    assume(inside.any())
    mask = Volume(inside, affine, kind="mask")
    low, high = box_of(mask)
    places = world_of(mask)[inside]
    assert (places >= low - 1e-6).all()
    assert (places <= high + 1e-6).all()


def test_the_box_of_a_straight_mask_is_exact() -> None:
    inside = np.zeros((9, 9, 9), bool)
    inside[2:5, 3, 4:8] = True
    affine = np.diag([-2.0, 1, 3, 1])
    affine[:3, 3] = 10, 20, 30
    low, high = box_of(Volume(inside, affine, kind="mask"))
    np.testing.assert_allclose(low, [2, 23, 42])
    np.testing.assert_allclose(high, [6, 23, 51])
