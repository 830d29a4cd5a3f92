"""Numpy files: round trips, affines, and bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.errors import InputError
from atypia.volume import Volume
from tests.grids import affine_of

AFFINE = affine_of((10, 20, 30), (1, 2, 3), (4, 5, 6), mirrored=True)


def volume(seed: int = 0) -> Volume:
    return Volume(np.random.default_rng(seed).normal(size=(6, 7, 8)).astype(np.float32), AFFINE)


@pytest.mark.parametrize("name", ["x.npz", "X.NPZ"])
def test_npz_keeps_voxels_and_affine(tmp_path: Path, name: str) -> None:
    io.write(volume(), tmp_path / name)
    again = io.read(tmp_path / name)
    np.testing.assert_array_equal(again.data, volume().data)
    np.testing.assert_array_equal(again.affine, AFFINE)
    assert again.source == str(tmp_path / name)
    with pytest.raises(InputError, match="has its own affine"):
        io.read(tmp_path / name, affine=np.eye(4))


def test_npy_takes_its_affine_as_an_option(tmp_path: Path) -> None:
    io.write(volume(), tmp_path / "x.npy")
    again = io.read(tmp_path / "x.npy", affine=AFFINE)
    np.testing.assert_array_equal(again.data, volume().data)
    np.testing.assert_array_equal(again.affine, AFFINE)
    np.testing.assert_array_equal(io.read(tmp_path / "x.npy").affine, np.eye(4))
    with pytest.raises(InputError, match=r"x\.npy: has no finite 4x4 affine"):
        io.read(tmp_path / "x.npy", affine=np.eye(3))
    with pytest.raises(InputError, match=r"x\.npy: has no finite 4x4 affine"):
        io.read(tmp_path / "x.npy", affine=[["a"]])


def test_npz_without_affine_is_in_the_grid_of_one_mm(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", data=np.ones((2, 2, 2)))
    np.testing.assert_array_equal(io.read(tmp_path / "x.npz").affine, np.eye(4))
    np.testing.assert_array_equal(io.read(tmp_path / "x.npz", affine=AFFINE).affine, AFFINE)


def test_a_mask_is_boolean(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([[[0, 2]]]))
    assert io.read(tmp_path / "m.npy", "mask").data.tolist() == [[[False, True]]]


def refused(path: Path, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        io.read(path)
    assert caught.value.where == str(path)
    assert "numpy.save" in caught.value.remedy


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no zip", b"\x93NUMPY\x01"])
def test_what_is_no_numpy_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    refused(path, "not a readable numpy file")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.02])
def test_a_truncated_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"x{suffix}"
    io.write(volume(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refused(path, "not a readable numpy file")


@pytest.mark.parametrize("byte", [0, 255])
def test_a_damaged_archive(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "x.npz"
    io.write(volume(), path)
    whole = bytearray(path.read_bytes())
    for start in (60, len(whole) // 3):
        broken = whole.copy()
        broken[start : start + 40] = bytes([byte]) * 40
        path.write_bytes(broken)
        refused(path, "not a readable numpy file")


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.ones((2, 2, 2)), other=np.ones((2, 2, 2)))
    refused(tmp_path / "x.npz", "data")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "x.npy", "pickle")
    np.savez(tmp_path / "x.npz", data=np.array([{}], dtype=object))
    refused(tmp_path / "x.npz", "pickle")


@pytest.mark.parametrize("names", [("volume", "other"), ("scan", "affine")])
def test_npz_may_call_its_voxels_otherwise(tmp_path: Path, names: tuple[str, str]) -> None:
    voxels = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.savez(tmp_path / "x.npz", **{names[1]: np.eye(4), names[0]: voxels})
    np.testing.assert_array_equal(io.read(tmp_path / "x.npz").data, voxels)
