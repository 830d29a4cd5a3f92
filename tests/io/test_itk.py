"""NRRD and MetaImage: round trips in any orientation, agreement with ITK's world, bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atypia import io
from atypia.errors import InputError, OutputError
from atypia.volume import Array, Volume
from tests.grids import affine_of, affines, shapes

SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]
AFFINE = affine_of((10, 20, 30), (1, 2, 3), (4, 5, 6), mirrored=True)


def noise(shape: tuple[int, int, int] = (6, 7, 8), dtype: str = "float32") -> Array:
    return np.asarray(np.random.default_rng(0).normal(size=shape) * 50 + 100).astype(dtype)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(affine=affines, shape=shapes, dtype=st.sampled_from(["uint8", "int16", "float32", "f8"]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_voxels_type_and_geometry_survive(
    affine: Array, shape: tuple[int, int, int], dtype: str, suffix: str, tmp_path: Path
) -> None:
    volume = Volume(noise(shape, dtype), affine)
    io.write(volume, tmp_path / f"x{suffix}")
    again = io.read(tmp_path / f"x{suffix}")
    assert again.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(again.data, volume.data)
    np.testing.assert_allclose(again.affine, affine, atol=1e-9)
    assert (again.source, again.kind) == (str(tmp_path / f"x{suffix}"), "image")
    assert [p.name for p in tmp_path.iterdir()] == [f"x{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sheared_grid_survives(tmp_path: Path, suffix: str) -> None:
    sheared = AFFINE.copy()
    sheared[:3, 2] += 0.3 * sheared[:3, 1]
    io.write(Volume(noise(), sheared), tmp_path / f"x{suffix}")
    np.testing.assert_allclose(io.read(tmp_path / f"x{suffix}").affine, sheared, atol=1e-9)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_masks_and_types_that_itk_lacks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    inside = noise() > 100
    io.write(Volume(inside, kind="mask"), path)
    assert io.read(path).data.dtype == np.uint8
    np.testing.assert_array_equal(io.read(path, "mask").data, inside)
    io.write(Volume(noise(dtype="float16")), path)
    np.testing.assert_array_equal(io.read(path).data, noise(dtype="float16"))


@pytest.mark.parametrize("suffix", [".nii.gz", *SUFFIXES])
def test_a_voxel_lies_where_itk_says(tmp_path: Path, suffix: str) -> None:
    """ITK's world is LPS; through NIfTI and through its own formats it must be the same place."""
    path = tmp_path / f"x{suffix}"
    io.write(Volume(noise(), AFFINE), path)
    image = sitk.ReadImage(str(path))
    left, back, up = image.TransformIndexToPhysicalPoint((1, 2, 3))
    world = Volume(noise(), AFFINE).geometry.world((1, 2, 3))
    np.testing.assert_allclose((-left, -back, up), world, atol=1e-4)
    assert image[1, 2, 3] == noise()[1, 2, 3]


@pytest.mark.parametrize(("suffix", "data"), [(".mhd", ".zraw"), (".nhdr", ".raw.gz")])
def test_a_header_with_its_data_file(tmp_path: Path, suffix: str, data: str) -> None:
    path = tmp_path / f"x{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(noise().T), str(path), useCompression=True)
    np.testing.assert_array_equal(io.read(path).data, noise())
    assert io.files_of(path) == sorted([path, tmp_path / f"x{data}"])
    (tmp_path / f"x{data}").write_bytes((tmp_path / f"x{data}").read_bytes()[:-40])
    refused(path, "truncated")
    (tmp_path / f"x{data}").unlink()
    refused(path, "lacks its data file")


def test_a_world_that_is_stored_as_ras(tmp_path: Path) -> None:
    header = (
        "NRRD0005\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\n"
        "space directions: (0,2,0) (3,0,0) (0,0,4)\nspace origin: (5,6,7)\n"
        "endian: little\nencoding: raw\n\n"
    )
    voxels = np.arange(24, dtype="<i2")
    (tmp_path / "x.nrrd").write_bytes(header.encode() + voxels.tobytes())
    again = io.read(tmp_path / "x.nrrd")
    np.testing.assert_array_equal(again.data.ravel(order="F"), voxels)
    affine = [[0, 3, 0, 5], [2, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]]
    np.testing.assert_allclose(again.affine, affine, atol=1e-12)


def refused(path: Path, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        io.read(path)
    assert type(caught.value) is InputError
    assert caught.value.where == str(path)
    assert len(caught.value.remedy) > 10


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.95, 0.5, 0.05, 0.0])
def test_a_truncated_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"x{suffix}"
    io.write(Volume(noise((12, 12, 12))), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refused(path, "damaged, truncated")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.999])
def test_one_wrong_bit(tmp_path: Path, suffix: str, place: float) -> None:
    path = tmp_path / f"x{suffix}"
    io.write(Volume(noise((12, 12, 12))), path)
    whole = bytearray(path.read_bytes())
    whole[int(place * len(whole))] ^= 4
    path.write_bytes(whole)
    refused(path, "damaged, truncated")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"text\n", b"NRRD0004\n", b"ObjectType = Image\n", bytes(99)])
def test_what_is_no_image(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    refused(tmp_path / f"x{suffix}", "damaged, truncated")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_than_one_volume(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    four = sitk.GetImageFromArray(np.stack([noise()] * 3).transpose(0, 3, 2, 1), isVector=False)
    sitk.WriteImage(four, str(path))
    refused(path, r"is 4D of size \(6, 7, 8, 3\)|has 6 values a voxel")
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(path))
    refused(path, "has 3 values a voxel. Extract")
    sitk.WriteImage(sitk.GetImageFromArray(noise()[0]), str(path))
    refused(path, "is 2D of size")


def test_a_fourth_axis_of_one(tmp_path: Path) -> None:
    one = sitk.GetImageFromArray(noise().T[None], isVector=False)
    one.SetSpacing((1, 2, 3, 9))
    sitk.WriteImage(one, str(tmp_path / "x.mha"))
    again = io.read(tmp_path / "x.mha")
    np.testing.assert_array_equal(again.data, noise())
    assert again.spacing_mm == (1, 2, 3)


def test_an_affine_of_ones_own_is_refused(tmp_path: Path) -> None:
    io.write(Volume(noise()), tmp_path / "x.nrrd")
    with pytest.raises(InputError, match=r"x\.nrrd: has its own affine"):
        io.read(tmp_path / "x.nrrd", affine=np.eye(4))


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"x\.nrrd: cannot be written"):
        io.write(Volume(noise()), tmp_path / "file" / "x.nrrd")
