"""DICOM: where slices lie decides, series are told apart, what is missing or double is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atypia import io
from atypia.errors import AtypiaError, InputError, MissingDependencyError
from atypia.io.dicom import find_series
from atypia.volume import Array, Volume
from tests.dicom import PATIENT, SERIES, write_enhanced, write_slices
from tests.grids import affine_of, affines, world_of

OBLIQUE = affine_of((10, 20, 30), (0.9, 1.1, 3), (-80, 60, 40), mirrored=True)


def volume(
    shape: tuple[int, int, int] = (5, 6, 7), affine: Array = OBLIQUE, dtype: str = "int16"
) -> Volume:
    return Volume(np.arange(np.prod(shape)).reshape(shape).astype(dtype), affine)


def same(one: Volume, other: Volume, atol: float = 1e-4) -> None:
    """Both must have the same intensities at the same places of the world."""
    order = [np.lexsort(np.round(world_of(v), 2).reshape(-1, 3).T) for v in (one, other)]
    places = [world_of(v).reshape(-1, 3)[o] for v, o in zip((one, other), order, strict=True)]
    values = [v.data.ravel()[o] for v, o in zip((one, other), order, strict=True)]
    np.testing.assert_allclose(places[0], places[1], atol=atol)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


@given(affine=affines, seed=st.integers(0, 99), enhanced=st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_orientation_in_any_order(
    affine: Array, seed: int, enhanced: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "p01"
    shutil.rmtree(folder, ignore_errors=True)
    whole = volume(affine=affine)
    if enhanced:
        order = np.random.default_rng(seed).permutation(7)
        write_enhanced(whole, folder / "one.dcm", order=order)
    else:
        write_slices(whole, folder, seed=seed)
    again = io.read(folder)
    # Slices run along the normal, which may turn the last axis round.
    turned = again.canonical()
    np.testing.assert_allclose(turned.affine, whole.canonical().affine, atol=1e-4)
    np.testing.assert_array_equal(turned.data, whole.canonical().data)
    assert again.data.dtype == np.int16
    assert (again.source, again.space) == (str(folder), 1)


def test_the_same_world_as_nifti(tmp_path: Path) -> None:
    write_slices(volume(), tmp_path / "dicom")
    io.write(volume(), tmp_path / "x.nii")
    same(io.read(tmp_path / "dicom"), io.read(tmp_path / "x.nii"), 1e-3)


def test_the_same_voxels_and_world_as_gdcm(tmp_path: Path) -> None:
    files = write_slices(volume(), tmp_path / "p", slopes=np.full(7, 0.5))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "p")))
    assert len(files) == 7
    image = reader.Execute()
    again = io.read(tmp_path / "p")
    for index in ((0, 0, 0), (1, 2, 3), (4, 5, 6)):
        left, back, up = image.TransformIndexToPhysicalPoint(index)
        voxel = np.round(again.geometry.voxel((-left, -back, up))).astype(int)
        np.testing.assert_allclose(again.geometry.world(voxel), (-left, -back, up), atol=1e-3)
        assert again.data[tuple(voxel)] == pytest.approx(image[index])


@pytest.mark.parametrize("enhanced", [False, True])
def test_every_slice_has_its_own_scaling(tmp_path: Path, enhanced: bool) -> None:
    slopes = np.array([1, 0.5, 2, 1, 3, 0.25, 1])
    whole, folder = volume(), tmp_path / "p"
    if enhanced:
        write_enhanced(whole, folder / "x", slopes=slopes, order=np.array([3, 1, 2, 0, 6, 5, 4]))
    else:
        write_slices(whole, folder, slopes=slopes)
    again = io.read(folder)
    assert again.data.dtype == np.float32
    same(again, whole.with_data((whole.data - 10.0) * slopes))


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
@pytest.mark.parametrize("bits", [12, 16])
def test_dark_means_much(tmp_path: Path, dtype: str, bits: int) -> None:
    whole = volume(dtype=dtype)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits, "HighBit": bits - 1}
    write_slices(whole, tmp_path / "p", tags=tags)
    again = io.read(tmp_path / "p")
    top = -1 if dtype == "int16" else 2**bits - 1
    assert again.data.dtype == np.dtype(dtype)
    same(again, whole.with_data(top - whole.data.astype(int)))


def test_a_tilted_stack_is_a_sheared_grid(tmp_path: Path) -> None:
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    whole = volume(affine=sheared)
    write_slices(whole, tmp_path / "p")
    same(io.read(tmp_path / "p"), whole)


def test_files_of_any_name_in_any_subfolder(tmp_path: Path) -> None:
    whole, folder = volume(), tmp_path / "p"
    files = write_slices(whole, folder / "A", prefix="x.")
    (folder / "B").mkdir()
    for file in files[::2]:
        file.rename(folder / "B" / file.name)
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "B" / "._hidden").write_bytes(bytes(128) + b"DICM")
    shutil.copy(files[1], folder / "copy")  # a copy of a slice counts once
    same(io.read(folder), whole)
    assert [str(s.path) for s in find_series(folder)] == [str(folder)]


def test_a_slice_names_its_series_and_a_multi_frame_file_itself(tmp_path: Path) -> None:
    one, two = volume(), volume((4, 4, 4))
    slices = write_slices(one, tmp_path / "p")
    write_enhanced(two, tmp_path / "p" / "multi.dcm")
    first = io.read(slices[3])
    same(first, one)
    second = io.read(tmp_path / "p" / "multi.dcm")
    same(second, two)
    for found, whole in ((first, one), (second, two)):
        assert found.source.startswith(f"{tmp_path / 'p'}#")
        same(io.read(found.source), whole)
        assert io.stem_of(found.source) == "p"
        assert io.exists(found.source)
        assert len(io.files_of(found.source)) == 8
    assert io.stem_of(slices[3]) == "p"


def mixed(folder: Path) -> dict[str, Volume]:
    """Put a localiser of three planes, a T1 and two echoes of one series into one folder."""
    there = {"t1": volume(), "short": volume(affine=OBLIQUE + 0), "long": volume(dtype="uint16")}
    for number, turn in enumerate([(0, 0, 0), (90, 0, 0), (0, 90, 0)]):
        plane = volume((8, 8, 3), affine_of(turn, (2, 2, 9), (0, 0, 0)))
        tags = {
            "SeriesDescription": "scout",
            "SeriesNumber": 1,
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "LOCALIZER"],
        }
        write_slices(
            plane, folder, series=f"{SERIES}.1", seed=number, prefix=f"a{number}", tags=tags
        )
    write_slices(
        there["t1"],
        folder,
        series=f"{SERIES}.2",
        prefix="b",
        tags={"SeriesDescription": "t1_mprage", "SeriesNumber": 2},
    )
    for number, (name, time) in enumerate({"short": 20.0, "long": 90.0}.items()):
        write_slices(
            there[name],
            folder,
            series=f"{SERIES}.3",
            seed=number,
            prefix=f"c{number}",
            tags={
                "SeriesDescription": "pd+t2",
                "SeriesNumber": 3,
                "EchoTime": time,
                "EchoNumbers": number + 1,
            },
        )
    return there


def test_mixed_series_are_told_apart(tmp_path: Path) -> None:
    there = mixed(tmp_path / "p")
    series = find_series(tmp_path / "p")
    assert [len(s.frames) for s in series] == [3, 3, 3, 7, 7, 7]
    assert [s.localiser for s in series] == [True] * 3 + [False] * 3
    assert [s.description for s in series] == ["scout"] * 3 + ["t1_mprage", "pd+t2", "pd+t2"]
    assert len({s.path for s in series}) == 6
    same(series[3].read(), there["t1"])
    echoes = {s.frames[0].echo: s for s in series[4:]}
    same(echoes["20.0 ms, number 1"].read(), there["short"])
    same(echoes["90.0 ms, number 2"].read(), there["long"])
    for one in series:
        same(io.read(one.path), one.read())
    with pytest.raises(InputError, match="p: holds 6 series: .*Name one of these") as caught:
        io.read(tmp_path / "p")
    for one in series:
        assert one.path.name in caught.value.problem
    assert "(t1_mprage, 7 slices)" in caught.value.problem
    assert "(pd+t2, 7 slices, echo 90.0 ms, number 2)" in caught.value.problem


def test_echoes_of_one_multi_frame_file_are_two_series(tmp_path: Path) -> None:
    whole = volume()
    path = write_enhanced(whole, tmp_path / "p" / "x.dcm", echoes=(20.0, 90.0))
    assert [len(s.frames) for s in find_series(tmp_path / "p")] == [7, 7]
    with pytest.raises(InputError, match=r"holds 2 series: .*echo 20\.0 ms"):
        io.read(path)
    for one in find_series(tmp_path / "p"):
        same(one.read(), whole)


def refused(path: Path, problem: str, where: Path | None = None) -> AtypiaError:
    with pytest.raises(InputError, match=problem) as caught:
        io.read(path)
    assert caught.value.where == str(where or path)
    assert len(caught.value.remedy) > 10
    assert PATIENT not in str(caught.value)
    return caught.value


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    write_slices(volume(), tmp_path / "p", leave_out=(2,))
    error = refused(tmp_path / "p", "gap of 6.00 mm .* where 3.00 mm is usual")
    # Slices may be numbered from either end.
    assert any(f"slices {a} and {a + 1} of 6" in error.problem for a in (2, 4))


def test_spacing_that_jitters_a_little_is_read(tmp_path: Path) -> None:
    files = write_slices(volume(affine=np.diag([1.0, 1, 3, 1])), tmp_path / "p")
    for number, shift in ((2, 0.05), (4, 0.5)):
        header = pydicom.dcmread(files[number])
        header.ImagePositionPatient[2] += shift
        header.save_as(files[number])
        if shift < 0.1:
            assert io.read(tmp_path / "p").spacing_mm == pytest.approx((1, 1, 3))
        else:
            refused(tmp_path / "p", "gap of")


def test_slices_beside_the_line(tmp_path: Path) -> None:
    files = write_slices(volume(affine=np.diag([1.0, 1, 3, 1])), tmp_path / "p")
    header = pydicom.dcmread(files[3])
    header.ImagePositionPatient[0] += 2
    header.save_as(files[3])
    refused(tmp_path / "p", "no straight line")


def test_several_volumes_in_one_series(tmp_path: Path) -> None:
    for time in range(3):
        write_slices(volume(), tmp_path / "p", seed=time, prefix=f"{time}")
    refused(tmp_path / "p", "14 slices at the place of another, as a time series")


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    write_slices(volume((4, 4, 1)), tmp_path / "p")
    refused(tmp_path / "p", "holds one slice")


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.3])
def test_a_truncated_slice(tmp_path: Path, kept: float) -> None:
    files = write_slices(volume((20, 20, 5)), tmp_path / "p")
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[: int(len(whole) * kept)])
    error = refused(tmp_path / "p", "damaged")
    assert files[2].name not in str(error)


def test_a_file_that_only_begins_as_dicom(tmp_path: Path) -> None:
    write_slices(volume(), tmp_path / "p")
    (tmp_path / "p" / "A").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    refused(tmp_path / "p", r"DICOM file 1 of 8 \(in the order of names\) is damaged")


def test_a_file_that_does_not_say_what_it_is(tmp_path: Path) -> None:
    whole = volume()
    for file in write_slices(whole, tmp_path / "p"):
        header = pydicom.dcmread(file)
        del header.file_meta.MediaStorageSOPClassUID
        header.save_as(file)
    same(io.read(tmp_path / "p"), whole)


def test_tags_that_make_no_sense(tmp_path: Path) -> None:
    write_slices(volume(), tmp_path / "p", tags={"PixelSpacing": [0, 0]})
    refused(tmp_path / "p", "lacks what a slice must say")


def test_colours(tmp_path: Path) -> None:
    whole = Volume(np.zeros((3, 3, 4), np.uint16))
    tags = {
        "SamplesPerPixel": 3,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "Rows": 2,
    }
    write_slices(whole, tmp_path / "p", tags=tags)
    refused(tmp_path / "p", "colours")


def test_a_palette_is_of_colours(tmp_path: Path) -> None:
    write_slices(volume(), tmp_path / "p", tags={"PhotometricInterpretation": "PALETTE COLOR"})
    refused(tmp_path / "p", "colours")


def test_a_slope_without_an_intercept(tmp_path: Path) -> None:
    write_slices(volume(), tmp_path / "p", tags={"RescaleSlope": 2, "RescaleIntercept": None})
    same(io.read(tmp_path / "p"), volume().with_data(volume().data * 2.0))


def test_odd_tags_are_not_quoted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write_slices(volume(), tmp_path / "p")
    # A length that is no multiple of two, and letters where numbers belong.
    raw = (
        files[0]
        .read_bytes()
        .replace(f"{SERIES}.0.1".encode(), b"JOHN" + SERIES[4:].encode() + b".0.1")
    )
    files[0].write_bytes(raw)
    io.read(tmp_path / "p")
    assert not caplog.records


def test_compression_without_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import JPEGLosslessSV1

    files = write_slices(volume(), tmp_path / "p")
    header = pydicom.dcmread(files[0])
    header.PixelData = pydicom.encaps.encapsulate([b"jpeg"])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.save_as(files[0])
    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(MissingDependencyError, match=r"compressed \(JPEG Lossless.*atypia\[dicom"):
        io.read(tmp_path / "p")


def test_run_length_compression(tmp_path: Path) -> None:
    whole = volume()
    for file in write_slices(whole, tmp_path / "p"):
        header = pydicom.dcmread(file)
        header.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        header.save_as(file)
    same(io.read(tmp_path / "p"), whole)


def test_what_holds_no_volume(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, "is a folder without slices")
    (report,) = write_slices(
        volume((4, 4, 1)), tmp_path / "p", tags={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    )
    refused(report, "is no slice of a DICOM volume")
    refused(tmp_path / "p#12345678", "is a folder without slices")
    refused(tmp_path / "absent#12345678", "no such file")
    write_slices(volume(), tmp_path / "q")
    with pytest.raises(InputError, match="q: has its own affine"):
        io.read(tmp_path / "q", affine=np.eye(4))


def test_nothing_tells_who_the_patient_is(tmp_path: Path) -> None:
    mixed(tmp_path / "p")
    series = find_series(tmp_path / "p")
    assert PATIENT not in "".join(map(repr, series))
    with pytest.raises(InputError) as caught:
        io.read(tmp_path / "p")
    assert PATIENT not in str(caught.value)
    assert SERIES not in str(caught.value)
    assert SERIES not in series[0].read().source
