"""NIfTI files: round trips, geometry, and every way in which a file can be bad."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atypia import io
from atypia.errors import InputError, OutputError
from atypia.volume import Array, Volume
from tests.grids import affines, shapes

DTYPES = ["uint8", "int16", "int32", "float32", "float64"]


def values(dtype: str) -> st.SearchStrategy[Array]:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("f") else None
    return shapes.flatmap(lambda shape: arrays(dtype, shape, elements=finite))


def good(path: Path) -> Path:
    """Write noise, which does not compress, so that a cut file lacks voxels."""
    noise = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    io.write(Volume(noise), path)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), affine=affines, suffix=st.sampled_from([".nii", ".nii.gz"]))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_voxels_type_and_geometry_survive(
    dtype: str, data: st.DataObject, affine: Array, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x{suffix}"
    volume = Volume(data.draw(values(dtype)), affine, space=4)
    io.write(volume, path)
    again = io.read(path)
    assert again.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(again.data, volume.data)
    np.testing.assert_allclose(again.affine, affine, rtol=1e-6, atol=1e-4)
    assert (again.source, again.space, again.kind) == (str(path), 4, "image")


@pytest.mark.parametrize(
    ("stored", "read"),
    [("float16", "float32"), ("int64", "float64"), ("uint64", "float64"), ("bool", "uint8")],
)
def test_types_that_nifti_lacks_become_ones_that_hold_the_values(
    tmp_path: Path, stored: str, read: str
) -> None:
    data = np.arange(24).reshape(2, 3, 4).astype(stored)
    io.write(Volume(data), tmp_path / "x.nii")
    again = io.read(tmp_path / "x.nii")
    assert again.data.dtype == np.dtype(read)
    np.testing.assert_array_equal(again.data, data.astype(read))


def test_a_mask_comes_back_as_one_from_any_memory_order(tmp_path: Path) -> None:
    inside = np.zeros((3, 4, 5), bool)
    inside[1, 2:, 3] = True
    for name, data in (("c", inside), ("f", np.asfortranarray(inside)), ("t", inside.T)):
        path = tmp_path / f"{name}.nii.gz"
        io.write(Volume(data, kind="mask"), path)
        np.testing.assert_array_equal(io.read(path, "mask").data, data)
        assert nibabel.load(path).get_data_dtype() == np.uint8


def test_both_headers_of_a_written_file_agree(tmp_path: Path) -> None:
    affine = np.diag([-1.0, 2, 3, 1])
    affine[:3, 3] = 4, 5, 6
    io.write(Volume(np.zeros((2, 2, 2), np.float32), affine), tmp_path / "x.nii")
    header = nibabel.load(tmp_path / "x.nii").header
    np.testing.assert_allclose(header.get_sform(), affine)
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


def test_scaled_files_are_read_in_their_units(tmp_path: Path) -> None:
    data = np.arange(8, dtype=np.int16)
    image = nibabel.Nifti1Image(data.reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "x.nii")
    again = io.read(tmp_path / "x.nii")
    assert again.data.dtype == np.float32
    np.testing.assert_array_equal(again.data.ravel(), np.arange(8) / 2 + 10)


def test_a_file_with_only_a_qform_has_its_geometry(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.float32), None)
    affine = np.array([[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
    image.set_sform(None, 0)
    image.set_qform(affine, 2)
    nibabel.save(image, tmp_path / "x.nii")
    again = io.read(tmp_path / "x.nii")
    np.testing.assert_allclose(again.affine, affine, atol=1e-5)
    assert again.space == 2


def save_raw(data: Array, path: Path, affine: Array | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def refused(path: Path, problem: str) -> None:
    """Reading must fail with our error, naming file, problem and something to do."""
    with pytest.raises(InputError, match=problem) as caught:
        io.read(path)
    assert type(caught.value) is InputError
    assert caught.value.where == str(path)
    assert len(caught.value.remedy) > 10


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.05, 0.01])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_truncated_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = good(tmp_path / f"scan{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refused(path, "damaged, truncated or not NIfTI")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.999])
def test_one_wrong_bit_in_a_compressed_file(tmp_path: Path, place: float) -> None:
    path = good(tmp_path / "scan.nii.gz")
    whole = bytearray(path.read_bytes())
    whole[int(place * len(whole))] ^= 4
    path.write_bytes(whole)
    refused(path, "damaged, truncated or not NIfTI")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_2_and_bytes_in_the_other_order(tmp_path: Path, suffix: str) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([2.0, 3, 4, 1])
    big = nibabel.Nifti1Header(endianness=">")
    big.set_data_dtype(np.int16)
    for image in (
        nibabel.Nifti2Image(data, affine),
        nibabel.Nifti1Image(data, affine, big),
    ):
        nibabel.save(image, tmp_path / f"x{suffix}")
        again = io.read(tmp_path / f"x{suffix}")
        np.testing.assert_array_equal(again.data, data)
        np.testing.assert_allclose(again.affine, affine)


@pytest.mark.parametrize("kind", ["empty", "text", "compressed text", "zeros"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_no_nifti_at_all(tmp_path: Path, suffix: str, kind: str) -> None:
    content = {
        "empty": b"",
        "text": b"subject,age\n1,20\n",
        "compressed text": gzip.compress(b"text\n" * 200),
        "zeros": bytes(400),
    }[kind]
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    refused(path, "damaged, truncated or not NIfTI")


def test_a_missing_file_a_folder_and_an_unknown_suffix(tmp_path: Path) -> None:
    refused(tmp_path / "absent.nii.gz", "no such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "scan.dcm").touch()
    refused(tmp_path / "scan.dcm", r"no known image format.*\.nii\.gz")


def test_four_dimensions(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    refused(save_raw(np.stack([data] * 3, -1), tmp_path / "4d.nii"), "4D with 3 volumes.*one 3D")
    one = io.read(save_raw(data[..., None], tmp_path / "one.nii"))
    np.testing.assert_array_equal(one.data, data)
    one = io.read(save_raw(data[..., None, None], tmp_path / "two.nii"))
    np.testing.assert_array_equal(one.data, data)
    refused(save_raw(np.stack([data] * 3, -1)[:, :, :, None], tmp_path / "5d.nii"), "5 dimensions")
    refused(save_raw(data[0], tmp_path / "2d.nii"), "2 dimensions")


def test_an_empty_dimension(tmp_path: Path) -> None:
    refused(save_raw(np.zeros((3, 0, 3), np.float32), tmp_path / "empty.nii"), "empty|damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    data = np.zeros((3, 3, 3), np.float32)
    data[1, 1, 1] = value
    refused(save_raw(data, tmp_path / "nan.nii.gz"), "1 NaN or infinite voxels. Replace them")


def test_colours(tmp_path: Path) -> None:
    colour = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save_raw(colour, tmp_path / "rgb.nii"), "not real numbers")


def test_a_singular_affine(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    image.header["srow_z"] = 0
    image.header["sform_code"] = 1
    nibabel.save(image, tmp_path / "flat.nii")
    raw = bytearray((tmp_path / "flat.nii").read_bytes())
    raw[312:328] = bytes(16)  # srow_z
    (tmp_path / "flat.nii").write_bytes(raw)
    refused(tmp_path / "flat.nii", "singular affine. Mend the header")
    raw[312:316] = np.float32(np.nan).tobytes()
    (tmp_path / "flat.nii").write_bytes(raw)
    refused(tmp_path / "flat.nii", "no finite 4x4 affine")


def test_an_affine_of_ones_own_is_refused(tmp_path: Path) -> None:
    path = good(tmp_path / "scan.nii")
    with pytest.raises(InputError, match=r"scan\.nii: has its own affine"):
        io.read(path, affine=np.eye(4))


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = good(tmp_path / "scan.nii.gz")
    before = path.read_bytes()

    def half(image: object, place: Path) -> None:
        Path(place).write_bytes(b"half")
        raise RuntimeError("boom")

    monkeypatch.setattr(nibabel, "save", half)
    with pytest.raises(RuntimeError, match="boom"):
        io.write(Volume(np.zeros((2, 2, 2), np.float32)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 2, 2), np.float32))
    blocker = good(tmp_path / "scan.nii.gz")
    with pytest.raises(OutputError, match=r"scan\.nii\.gz/out\.nii: cannot be written"):
        io.write(volume, blocker / "out.nii")
    with pytest.raises(InputError, match=r"out\.png: is of no known image format"):
        io.write(volume, tmp_path / "out.png")


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    path = good(tmp_path / "scan.nii.gz")
    for name in ("A.NII.GZ", "A.NII"):
        volume = io.read(path)
        io.write(volume, tmp_path / name)
        np.testing.assert_array_equal(io.read(tmp_path / name).data, volume.data)
    shutil.copy(path, tmp_path / "B.Nii.Gz")
    assert io.read(tmp_path / "B.Nii.Gz").shape == (12, 12, 12)


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [
        ("sub-1_T1w.nii.gz", ".nii.gz", "sub-1_T1w"),
        ("a.b.NII", ".nii", "a.b"),
        ("x.npz", ".npz", "x"),
        ("x.gz", None, "x.gz"),
        ("x.txt", None, "x.txt"),
    ],
)
def test_suffix_and_stem(name: str, suffix: str | None, stem: str) -> None:
    assert io.suffix_of(f"folder.nii/{name}") == suffix
    assert io.stem_of(f"folder.nii/{name}") == stem
