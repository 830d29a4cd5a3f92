"""Volume and Geometry: what they refuse, and world coordinates that hold still."""

from __future__ import annotations

import dataclasses

import nibabel.orientations as orientations
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atypia.errors import InputError
from atypia.volume import Array, Geometry, Volume
from tests.grids import affines, shapes, world_of


@pytest.mark.parametrize(
    ("data", "problem", "remedy"),
    [
        (np.zeros((2, 2)), "2 dimensions", "one 3D image"),
        (np.zeros((2, 2, 2, 1)), "4 dimensions", "one 3D image"),
        (np.zeros((2, 0, 2)), r"empty \(shape \(2, 0, 2\)\)", "with voxels"),
        (np.full((2, 2, 2), np.nan), "8 NaN or infinite", "Replace them"),
        (np.array([[[np.inf, 1.0]]]), "1 NaN or infinite", "Replace them"),
        (np.array([[[-np.inf, 1.0]]]), "1 NaN or infinite", "Replace them"),
        (np.zeros((2, 2, 2), complex), "complex128", "float32"),
        (np.full((2, 2, 2), "a"), "not real numbers", "float32"),
    ],
)
def test_voxels_that_cannot_be_used_are_refused(data: Array, problem: str, remedy: str) -> None:
    with pytest.raises(InputError, match=rf"^here: .*{problem}.*{remedy}"):
        Volume(data, source="here")


@pytest.mark.parametrize(
    ("affine", "problem"),
    [
        (np.eye(3), "no finite 4x4"),
        (np.full((4, 4), np.nan), "no finite 4x4"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_geometry_that_cannot_be_used_is_refused(affine: Array, problem: str) -> None:
    with pytest.raises(InputError, match=rf"^here: .*{problem}.*Mend the header"):
        Volume(np.zeros((2, 2, 2)), affine, source="here")


def test_the_kind_decides_the_type() -> None:
    data = np.array([[[0, 1, 5]]], np.int16)
    assert Volume(data).data.dtype == np.int16
    mask = Volume(data, kind="mask")
    assert mask.data.dtype == bool
    assert mask.data.tolist() == [[[False, True, True]]]
    assert Volume(data, kind="score").data.dtype == np.float32


def test_a_volume_is_immutable() -> None:
    affine = np.eye(4)
    volume = Volume(np.zeros((2, 2, 2)), affine)
    affine[0, 3] = 7
    assert volume.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 3] = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        volume.space = 4  # type: ignore[misc]


def test_with_data_keeps_the_grid_and_refuses_another() -> None:
    volume = Volume(np.zeros((2, 3, 4)), np.diag([1.0, 2, 3, 1]), source="here", space=4)
    other = volume.with_data(np.ones((2, 3, 4)), "mask")
    assert (other.kind, other.source, other.space) == ("mask", "here", 4)
    np.testing.assert_array_equal(other.affine, volume.affine)
    with pytest.raises(InputError, match=r"here: voxels of shape \(4, 3, 2\)"):
        volume.with_data(np.ones((4, 3, 2)))


@given(affines, st.tuples(*[st.floats(-100, 100)] * 3))
def test_world_and_voxel_undo_each_other(affine: Array, point: tuple[float, ...]) -> None:
    geometry = Geometry((2, 2, 2), affine)
    np.testing.assert_allclose(geometry.world(geometry.voxel(point)), point, atol=1e-7)
    np.testing.assert_allclose(geometry.world([0, 0, 0]), affine[:3, 3])
    np.testing.assert_allclose(
        geometry.world([[1, 2, 3]])[0], (affine @ [1, 2, 3, 1])[:3], atol=1e-9
    )


@given(affines)
def test_spacing_is_the_distance_of_neighbours(affine: Array) -> None:
    geometry = Geometry((2, 2, 2), affine)
    steps = geometry.world(np.eye(3)) - geometry.world([0, 0, 0])
    np.testing.assert_allclose(geometry.spacing_mm, np.linalg.norm(steps, axis=1))
    # The columns are orthogonal here, so that the voxel is a box.
    assert geometry.voxel_volume_mm3 == pytest.approx(np.prod(geometry.spacing_mm))


@given(affines, shapes, st.data())
def test_canonical_moves_voxels_but_leaves_each_where_it_is(
    affine: Array, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    values = data.draw(arrays(np.int16, shape, unique=True))
    volume = Volume(values, affine, source="here", space=2)
    turned = volume.canonical()
    assert orientations.aff2axcodes(turned.affine) == ("R", "A", "S")
    assert (turned.source, turned.space, turned.data.dtype) == ("here", 2, np.int16)
    before = dict(zip(values.ravel().tolist(), world_of(volume).reshape(-1, 3), strict=True))
    after = dict(zip(turned.data.ravel().tolist(), world_of(turned).reshape(-1, 3), strict=True))
    assert before.keys() == after.keys()
    for value, place in before.items():
        np.testing.assert_allclose(after[value], place, atol=1e-6)


@given(affines)
def test_grids_match_up_to_rounding(affine: Array) -> None:
    grid = Geometry((3, 4, 5), affine)
    rounded = affine.astype(np.float32).astype(np.float64)
    assert grid.matches(Geometry((3, 4, 5), rounded))
    assert not grid.matches(Geometry((3, 5, 4), affine))
    for axis in range(4):
        moved = affine.copy()
        moved[0, axis] += 0.02
        assert not grid.matches(Geometry((3, 4, 5), moved))


def test_another_grid_is_refused_by_name() -> None:
    image = Volume(np.zeros((2, 2, 2)), source="image.nii")
    image.require_same_grid(image.with_data(np.ones((2, 2, 2)), "mask"))
    for mask in (
        Volume(np.zeros((2, 2, 3)), source="mask.nii"),
        Volume(np.zeros((2, 2, 2)), np.diag([2.0, 2, 2, 1]), source="mask.nii"),
    ):
        with pytest.raises(InputError, match=r"mask\.nii: .*image\.nii.*Resample"):
            image.require_same_grid(mask)


def test_geometry_as_json() -> None:
    geometry = Geometry((2, 3, 4), np.diag([1.0, 2, 3, 1]))
    assert geometry.to_json() == {"shape": [2, 3, 4], "affine": geometry.affine.tolist()}
