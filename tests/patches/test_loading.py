"""Loading: one array from every format, exact normalisation, places kept, mask in lock-step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from atypia import io
from atypia.errors import InputError, SettingsError
from atypia.patches.loading import (
    LazyVolumes,
    augmented,
    load_and_normalise,
    load_mask,
    resized,
    rotated,
)
from atypia.volume import Array, Volume
from tests.dicom import write_slices
from tests.grids import affine_of, affines, centre_of_mass

OBLIQUE = affine_of((10, 20, 30), (0.9, 1.1, 3), (-80, 60, 40), mirrored=True)


def numbers(shape: tuple[int, int, int] = (5, 6, 7), seed: int = 0) -> Array:
    return np.random.default_rng(seed).gamma(2, 50, shape).astype(np.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [None, (10, 4, 7)])
def test_every_format_gives_the_same_voxels_in_the_same_places(
    shape: tuple[int, int, int] | None, tmp_path: Path
) -> None:
    volume = Volume(np.arange(210).reshape(5, 6, 7).astype(np.int16) ** 2, OBLIQUE)
    expected = volume.canonical().affine
    for name in ("x.nii", "x.nii.gz", "x.npz", "x.npy"):
        io.write(volume, tmp_path / name)
    write_slices(volume, tmp_path / "series")
    loaded = [load_and_normalise(tmp_path / name, shape) for name in ("x.nii", "x.nii.gz", "x.npz")]
    loaded.append(load_and_normalise(tmp_path / "x.npy", shape, affine=OBLIQUE))
    loaded.append(load_and_normalise(tmp_path / "series", shape))
    for one in loaded:
        assert one.data.dtype == np.float32
        np.testing.assert_array_equal(one.data, loaded[0].data)
        np.testing.assert_allclose(one.affine, loaded[0].affine, atol=1e-4)
    if shape is None:
        np.testing.assert_allclose(loaded[0].affine, expected, atol=1e-5)
    else:
        assert loaded[0].shape == shape


@pytest.mark.parametrize("clip", [None, (1.0, 99.0), (5.0, 90.0)])
@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("method", ["z_score", "min_max", "percentile"])
def test_normalisation_is_its_formula(
    method: str, foreground: bool, clip: tuple[float, float] | None, tmp_path: Path
) -> None:
    data = numbers((8, 9, 10))
    data[:3] = 0
    io.write(Volume(data), tmp_path / "x.npz")
    values = data[data != 0].astype(np.float64) if foreground else data.astype(np.float64).ravel()
    whole = data.astype(np.float64)
    if clip:
        low, high = np.percentile(values, clip)
        values, whole = values.clip(low, high), whole.clip(low, high)
    if method == "z_score":
        expected = (whole - values.mean()) / (values.std() + 1e-8)
    elif method == "min_max":
        expected = (whole - values.min()) / (values.max() - values.min() + 1e-8)
    else:
        first, last = np.percentile(values, (1, 99))
        expected = (whole - first) / (last - first + 1e-8)
    if foreground:
        expected[data == 0] = 0
    found = load_and_normalise(tmp_path / "x.npz", None, method, clip, foreground)
    np.testing.assert_allclose(found.data, expected, atol=1e-6)


def test_a_constant_scan_becomes_zero_and_an_empty_one_has_no_foreground(tmp_path: Path) -> None:
    io.write(Volume(np.full((3, 3, 3), 0.1, np.float32)), tmp_path / "x.npz")
    for method in ("z_score", "min_max", "percentile"):
        assert not load_and_normalise(tmp_path / "x.npz", normalise=method).data.any()
    io.write(Volume(np.zeros((3, 3, 3))), tmp_path / "y.npz")
    with pytest.raises(InputError, match="is 0 everywhere"):
        load_and_normalise(tmp_path / "y.npz", foreground_only=True)


def at(volume: Volume, points_mm: Array) -> Array:
    """Interpolate linearly at points of the world; beyond the border its nearest voxel."""
    places = volume.geometry.voxel(points_mm).T
    data = volume.data.astype(np.float64)
    return np.asarray(ndimage.map_coordinates(data, places, order=1, mode="nearest"))


@given(affine=affines, target=st.tuples(*[st.integers(1, 9)] * 3))
@settings(max_examples=25)
def test_resizing_is_linear_interpolation_at_the_places_of_the_new_voxels(
    affine: Array, target: tuple[int, int, int]
) -> None:
    volume = Volume(numbers(), affine)
    new = resized(volume, target)
    points = new.geometry.world(np.argwhere(np.ones(target, bool)))
    np.testing.assert_allclose(new.data.ravel(), at(volume, points), rtol=1e-4, atol=1e-2)
    # Both grids fill the same box.
    for corner in ((0, 0, 0), (1, 0, 1), (1, 1, 1)):
        edges = [np.array(corner) * v.shape - 0.5 for v in (volume, new)]
        np.testing.assert_allclose(volume.geometry.world(edges[0]), new.geometry.world(edges[1]))


@given(target=st.tuples(*[st.integers(1, 13)] * 3))
@settings(max_examples=25)
def test_a_resized_mask_takes_the_nearest_voxel(target: tuple[int, int, int]) -> None:
    mask = numbers() > 80
    new = resized(Volume(mask, OBLIQUE, "mask"), target)
    places = [
        # The middle of a new voxel lies in exactly one old one, except on a border of two.
        np.floor((np.arange(n) + 0.5) * old / n + 1e-9).astype(int)
        for n, old in zip(target, mask.shape, strict=True)
    ]
    assert new.data.dtype == bool
    np.testing.assert_array_equal(new.data, mask[np.ix_(*places)])


@given(affine=affines)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scan_and_mask_stay_where_they_are_in_the_world(affine: Array, tmp_path: Path) -> None:
    data = np.zeros((24, 20, 22), np.float32)
    data[9:14, 4:11, 12:18] = 1
    scan = Volume(data, affine)
    io.write(scan, tmp_path / "scan.nii.gz")
    io.write(Volume(data > 0, affine, "mask"), tmp_path / "mask.nii.gz")
    loaded = load_and_normalise(tmp_path / "scan.nii.gz", (30, 30, 30), "min_max", None)
    mask = load_mask(tmp_path / "mask.nii.gz", (30, 30, 30))
    assert (mask.data.dtype, mask.kind) == (bool, "mask")
    loaded.require_same_grid(mask)
    tolerance = 0.5 * max(mask.spacing_mm)
    for one in (loaded, mask):
        np.testing.assert_allclose(centre_of_mass(one), centre_of_mass(scan), atol=tolerance)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'z_score'"):
        load_and_normalise(tmp_path / "x.nii", normalise="zscore")
    with pytest.raises(SettingsError, match="not two rising percentiles"):
        load_and_normalise(tmp_path / "x.nii", clip_percentiles=(99.0, 1.0))
    with pytest.raises(SettingsError, match="no size of a grid"):
        load_mask(tmp_path / "x.nii", (4, 0, 4))
    with pytest.raises(InputError, match="no such file"):
        load_and_normalise(tmp_path / "x.nii")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_rotation_by_a_known_angle(axis: int, spacing: tuple[float, float, float]) -> None:
    data = ndimage.gaussian_filter(numbers((13, 12, 10)), 1.0)
    degrees = [0.0, 0.0, 0.0]
    degrees[axis] = 25.0
    c, s = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))
    turn = np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], (axis, axis), (0, 1))
    back = np.diag(1 / np.array(spacing)) @ turn.T @ np.diag(spacing)
    middle = (np.array(data.shape) - 1) / 2
    expected = ndimage.affine_transform(data, back, middle - back @ middle, order=1, mode="nearest")
    labels = ndimage.affine_transform(
        (data > 100).astype(np.uint8), back, middle - back @ middle, order=0, mode="nearest"
    )
    image = torch.from_numpy(np.stack([data, -data]))
    found, mask = rotated(image, torch.from_numpy(data > 100), tuple(degrees), spacing)
    np.testing.assert_allclose(found[0], expected, atol=1e-3)
    np.testing.assert_allclose(found[1], -expected, atol=1e-3)
    assert mask is not None
    assert mask.dtype == torch.bool
    # Places in the middle between two voxels may fall to either side.
    assert (mask.numpy() != labels).mean() < 0.01
    assert (mask.numpy() != (data > 100)).mean() > 0.05


def test_rotations_follow_each_other_about_x_then_y_then_z() -> None:
    image = torch.from_numpy(numbers((7, 7, 7)))[None]
    quarter = (90.0, 90.0, 0.0)
    found, _ = rotated(image, None, quarter)
    first, _ = rotated(image, None, (90.0, 0.0, 0.0))
    second, _ = rotated(first, None, (0.0, 90.0, 0.0))
    torch.testing.assert_close(found, second, atol=1e-2, rtol=0)
    # About X, right-handed: y turns to z.
    torch.testing.assert_close(first, torch.rot90(image, 1, (2, 3)), atol=1e-2, rtol=0)


def pair(shape: tuple[int, int, int] = (14, 16, 12)) -> tuple[Tensor, Tensor]:
    rough = np.random.default_rng(7).normal(size=shape)
    mask = torch.from_numpy(ndimage.gaussian_filter(rough, 1.5) > 0.05)
    return mask[None].float(), mask


@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_change_in_lock_step(seed: int) -> None:
    image, mask = pair()
    turned, labels = augmented(image, mask, generator(seed), 20.0, 0.5, 0.0, 0.0)
    assert labels is not None
    assert labels.dtype == torch.bool
    # The nearest of eight voxels has a weight of one eighth at least.
    assert labels[turned[0] > 7 / 8].all()
    assert not labels[turned[0] < 1 / 8].any()
    assert (labels != mask).float().mean() > 0.02
    flipped, labels = augmented(image, mask, generator(seed), 0.0, 1.0, 0.0, 0.0)
    assert labels is not None
    torch.testing.assert_close(flipped[0], labels.float(), rtol=0, atol=0)
    assert any(torch.equal(labels, mask.flip(axis)) for axis in range(3))


def test_the_mask_keeps_its_labels() -> None:
    image, mask = pair()
    labels = mask.to(torch.int16) * 7
    one, turned = augmented(image, labels, generator(), brightness=0.9, noise_sd=3.0)
    assert turned is not None
    assert turned.dtype == torch.int16
    assert set(turned.unique().tolist()) == {0, 7}
    assert one.shape == image.shape


def test_brightness_and_noise_have_the_asked_size() -> None:
    image = torch.ones(1, 20, 20, 20)
    factors = []
    for seed in range(200):
        bright, _ = augmented(image, None, generator(seed), 0.0, 0.0, 0.0, 0.1)
        assert bright.std() < 1e-6
        factors.append(float(bright.mean()))
    assert 0.9 <= min(factors) < 0.91
    assert 1.09 < max(factors) <= 1.1
    noisy, _ = augmented(image, None, generator(), 0.0, 0.0, 0.5, 0.0)
    assert float(noisy.std()) == pytest.approx(0.5, rel=0.05)
    assert float(noisy.mean()) == pytest.approx(1.0, abs=0.03)


def test_flips_happen_as_often_as_asked_along_every_axis() -> None:
    image = torch.arange(8.0).reshape(1, 2, 2, 2)
    found = [augmented(image, None, generator(s), 0, 0.4, 0, 0)[0] for s in range(400)]
    shares = [np.mean([torch.equal(f, image.flip(a)) for f in found]) for a in (1, 2, 3)]
    assert sum(shares) == pytest.approx(0.4, abs=0.1)
    assert min(shares) > 0.07
    assert np.mean([torch.equal(f, image) for f in found]) == pytest.approx(1 - sum(shares))


def test_the_generator_decides_everything() -> None:
    image, mask = pair()
    torch.manual_seed(1)
    one = augmented(image, mask, generator(3))
    torch.manual_seed(2)
    same = augmented(image, mask, generator(3))
    other = augmented(image, mask, generator(4))
    assert torch.equal(one[0], same[0])
    assert one[1] is not None
    assert same[1] is not None
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    # The noise changes neither flip nor rotation.
    quiet = augmented(image, mask, generator(3), noise_sd=0.0)
    assert quiet[1] is not None
    assert torch.equal(quiet[1], one[1])


def test_nothing_asked_changes_nothing() -> None:
    image, mask = pair()
    same, labels = augmented(image, mask, generator(), 0.0, 0.0, 0.0, 0.0)
    assert labels is not None
    assert torch.equal(same, image)
    assert torch.equal(labels, mask)


def test_lazy_volumes_load_on_access(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.npz" for i in range(3)]
    scans = LazyVolumes(paths, target_shape=(4, 4, 4), normalise="min_max")
    assert len(scans) == 3
    for i, path in enumerate(paths):
        io.write(Volume(numbers(seed=i), OBLIQUE), path)
    for scan, path in zip(scans, paths, strict=True):
        expected = load_and_normalise(path, (4, 4, 4), "min_max")
        np.testing.assert_array_equal(scan.data, expected.data)
        np.testing.assert_array_equal(scan.affine, expected.affine)
    paths[1].unlink()
    assert scans[-1].shape == (4, 4, 4)
    with pytest.raises(InputError, match="no such file"):
        _ = scans[1]
    with pytest.raises(SettingsError, match="unknown"):
        LazyVolumes(paths, normalise="none")
