"""Loading, augmentation and patches by the described names."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from atypia.errors import InputError, SettingsError
from atypia.patch_pipeline import (
    augment_volume,
    create_patch_grid,
    extract_patches_3d,
    extract_patches_with_coordinates,
    load_and_normalize_volume,
    load_dataset,
    reconstruct_from_patches,
)

ARRAY = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_one_array_loads_alike_from_every_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"scan{suffix}"
    if suffix.startswith(".nii"):
        nib.save(nib.Nifti1Image(ARRAY, np.eye(4)), path)
    elif suffix == ".npy":
        np.save(path, ARRAY)
    else:
        np.savez(path, volume=ARRAY)
    cut = ARRAY.astype(np.float64).clip(*np.percentile(ARRAY, (1, 99)))
    found = load_and_normalize_volume(path)
    assert found.shape == (1, 5, 6, 7)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], (cut - cut.mean()) / cut.std(), atol=1e-5)
    assert load_and_normalize_volume(path, (8, 8, 8), add_channel_dim=False).shape == (8, 8, 8)


def test_a_mask_is_neither_normalised_nor_interpolated(tmp_path: Path) -> None:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2, 3, 4] = 7  # so small that the percentiles would cut it away
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    found = load_and_normalize_volume(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(found[0], mask > 0)
    larger = load_and_normalize_volume(tmp_path / "mask.nii.gz", (16, 16, 16))
    assert larger.unique().tolist() == [0, 1]
    assert larger.sum() == 8


def test_an_unknown_normalisation_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ARRAY)
    with pytest.raises(SettingsError, match="z_score"):
        load_and_normalize_volume(tmp_path / "a.npy", normalize_method="zscore")


def test_a_data_set_is_augmented_by_its_seed(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", ARRAY)
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    plain = load_dataset(paths, normalize_method="percentile")
    one, two = (load_dataset(paths, apply_augmentation=True, seed=seed) for seed in (1, 1))
    assert torch.equal(plain[0], plain[1])
    assert not torch.equal(one[0], one[1])
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    still = load_dataset(
        paths, apply_augmentation=True, rotation_range=0, flip_probability=0,
        noise_std=0, brightness_range=0,
    )  # fmt: skip
    torch.testing.assert_close(still[0], load_dataset(paths)[0])


def test_augmentation_keeps_the_shape_and_follows_the_global_seed() -> None:
    volume = torch.from_numpy(ARRAY)
    torch.manual_seed(3)
    first = augment_volume(volume)
    torch.manual_seed(3)
    assert torch.equal(first, augment_volume(volume))
    assert first.shape == (5, 6, 7)
    assert augment_volume(volume[None]).shape == (1, 5, 6, 7)


def test_patches_of_several_sizes_as_the_reference_asks_for_them() -> None:
    volume = torch.rand(1, 20, 20, 20)
    small, large = extract_patches_3d(volume, patch_sizes=[(8, 8, 8), (16, 16, 16)], stride=4)
    assert small.shape == (4**3, 8**3)
    assert large.shape == (2**3, 16**3)
    (half,) = extract_patches_3d(volume, [8])
    assert torch.equal(half, small)
    (same,) = extract_patches_3d(volume, [8], 4, padding="same")
    assert same.shape == (6**3, 8**3)
    assert torch.equal(same[0].reshape(8, 8, 8)[4:, 4:, 4:], volume[0, :4, :4, :4])
    with pytest.raises(SettingsError, match="valid"):
        extract_patches_3d(volume, [8], padding="valit")


@pytest.mark.parametrize(
    ("stride", "aggregation"), [*product([1, 2, 3, (2, 3, 4)], ["mean", "sum"])]
)
def test_what_was_cut_out_is_put_back(stride, aggregation: str) -> None:
    volume = torch.rand(2, 9, 8, 7)
    patches, corners = extract_patches_with_coordinates(volume, (3, 2, 4), stride)
    assert patches.shape == (len(corners), 2 * 24)
    order = torch.randperm(len(corners))
    back = reconstruct_from_patches(
        patches[order], corners[order], volume.shape, (3, 2, 4), aggregation
    )
    times = torch.zeros(9, 8, 7)
    for x, y, z in corners.tolist():
        times[x : x + 3, y : y + 2, z : z + 4] += 1
    wanted = volume * (times if aggregation == "sum" else (times > 0))
    torch.testing.assert_close(back, wanted)


def test_grids_and_patches_beyond_the_volume() -> None:
    boxes = create_patch_grid((1, 8, 8, 9), (4, 4, 4))
    assert len(boxes) == 8
    assert boxes[1] == (slice(0, 4), slice(0, 4), slice(4, 8))
    assert len(create_patch_grid((8, 8, 8), 4, 2)) == 27
    with pytest.raises(InputError, match="beyond"):
        reconstruct_from_patches(torch.rand(1, 8), [[7, 0, 0]], (8, 8, 8), 2)
    alone = extract_patches_with_coordinates(torch.rand(4, 4, 4), 2, return_coordinates=False)
    assert alone.shape == (27, 8)
