import base64
import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia import files
from atypia.report.slices import read_volumes
from atypia.report.viewer_volumes import MOST_LEVELS, outline, pack, ranked, viewer_volumes
from tests.report.conftest import AFFINE


def unpacked(text):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def scan_of(results, name):
    place = results / "scans" / name
    return read_volumes(place, files.read_json(place / "scan.json"))


@given(
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["even", "heavy", "constant", "few", "negative"]),
    stops=st.lists(st.floats(-3, 2000, width=32), max_size=3),
)
def test_every_stop_gives_the_mask_of_its_level(seed, kind, stops):
    rng = np.random.default_rng(seed)
    score = {
        "even": rng.random((5, 6, 7)),
        "heavy": np.exp(3 * rng.normal(size=(5, 6, 7))),
        "constant": np.full((5, 6, 7), 0.1),
        "few": rng.integers(0, 3, (5, 6, 7)),
        "negative": rng.normal(size=(5, 6, 7)) - 2,
    }[kind].astype(np.float32)
    brain = rng.random(score.shape) < 0.7
    found = ranked(score, brain, stops)
    assert (np.diff(found.levels) > 0).all()
    assert len(found.levels) <= MOST_LEVELS
    assert set(np.float32(stops)) <= set(found.levels)
    assert len(found.values) == len(found.levels) + 1
    for stop, level in enumerate(found.levels):
        np.testing.assert_array_equal(found.ranks >= stop + 2, brain & (score > level))
    np.testing.assert_array_equal(found.ranks > 0, brain)


def test_values_lie_between_the_levels_of_their_rank():
    score = np.linspace(0, 5, 1000, dtype=np.float32).reshape(10, 10, 10)
    found = ranked(score, np.ones(score.shape, bool))
    assert np.abs(found.values[found.ranks - 1] - score).max() < 5 / 100


def test_a_brain_without_voxels_has_no_ranks():
    found = ranked(np.ones((2, 2, 2), np.float32), np.zeros((2, 2, 2), bool), [0.5])
    assert not found.ranks.any()


def test_a_threshold_is_found_again():
    found = ranked(np.random.default_rng(0).random((9, 9, 9)), np.ones((9, 9, 9), bool), [0.1234])
    assert found.levels[found.index_of(0.1234)] == np.float32(0.1234)


def test_a_packed_volume_is_read_back_by_nibabel():
    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    image = unpacked(pack(data, 0.5, -3.0, AFFINE))
    np.testing.assert_array_equal(image.get_fdata(), data * 0.5 - 3.0)
    np.testing.assert_array_equal(image.affine, AFFINE)


def test_equal_volumes_give_equal_texts():
    data = np.ones((2, 3, 4), np.uint8)
    assert pack(data, 1, 0, AFFINE) == pack(data, 1, 0, AFFINE)


def test_an_outline_is_the_rim_of_a_mask():
    mask = np.zeros((7, 7, 7), bool)
    mask[1:6, 1:6, 1:6] = True
    expected = mask.copy()
    expected[2:5, 2:5, 2:5] = False
    np.testing.assert_array_equal(outline(mask), expected)


def test_volumes_lie_where_the_scan_lies_and_keep_its_values(untouched):
    volumes = scan_of(untouched, "tumour-1")
    shown = viewer_volumes(volumes, [2.0])
    assert set(shown.packed) == {"scan", "score", "flagged", "restoration", "own", "truth"}
    images = {name: unpacked(text) for name, text in shown.packed.items()}
    for image in images.values():
        assert image.shape == shown.geometry.shape
        np.testing.assert_allclose(image.affine, shown.geometry.affine, atol=1e-5)
    # Every embedded voxel, looked up in the whole volume by its place in mm.
    index = np.stack(np.indices(shown.geometry.shape), axis=-1)
    where = volumes.score.geometry.voxel(shown.geometry.world(index))
    whole = tuple(np.rint(where[..., axis]).astype(int) for axis in range(3))
    brain = volumes.brain.data[whole]
    assert brain.sum() == volumes.brain.data.sum()  # nothing of it was cut away
    low, high = shown.window
    true = volumes.image.data[whole]
    usual = true < high
    step = (true.max() - true.min()) / 255
    assert np.abs(images["scan"].get_fdata() - true)[usual].max() <= step
    restored = np.where(brain, volumes.restoration.data[whole], low)
    assert np.abs(images["restoration"].get_fdata() - restored).max() <= step
    np.testing.assert_array_equal(
        images["truth"].get_fdata() > 0, outline(volumes.lesion.data[whole])
    )
    stop = shown.scores.index_of(2.0)
    np.testing.assert_array_equal(
        images["score"].get_fdata() >= stop + 2, brain & (volumes.score.data[whole] > 2.0)
    )
    assert not images["flagged"].get_fdata().any()


def test_only_what_there_is_is_packed(results):
    place = results / "scans" / "healthy-1"
    for name in ("restoration", "own_mask"):
        (place / f"{name}.nii.gz").unlink()
    described = files.read_json(place / "scan.json") | {"lesion_mask": None}
    shown = viewer_volumes(read_volumes(place, described), [])
    assert set(shown.packed) == {"scan", "score", "flagged"}


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_can_be_packed(untouched, value):
    from dataclasses import replace

    volumes = scan_of(untouched, "tumour-1")
    flat = volumes.image.with_data(np.full(volumes.image.shape, value, np.float32))
    shown = viewer_volumes(replace(volumes, image=flat), [])
    found = unpacked(shown.packed["scan"]).get_fdata()
    np.testing.assert_allclose(found, value, atol=1e-5)
