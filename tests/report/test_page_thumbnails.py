"""The small pictures of the table: which slice, what is outlined, and when they are made anew."""

import io

import numpy as np
import pytest
from PIL import Image

from atypia import files
from atypia.io import write
from atypia.progress import silent
from atypia.report.results import read_results
from atypia.report.thumbnails import (
    EDGE,
    MOST_BYTES,
    NAME,
    _abnormal_slice,
    _encoded,
    drawn,
    thumbnails_of,
)
from atypia.volume import Volume
from tests.report.test_slices import block, volumes_with


def thumbnail(results, name="tumour-1"):
    (entry,) = [e for e in read_results(results).done if e.id == name]
    (one,) = thumbnails_of([entry], workers=1, progress=silent)
    return one


def orange(pixels):
    """Where the outline is: red without blue."""
    return pixels[..., 0].astype(int) - pixels[..., 2] > 100


def test_the_slice_is_the_one_with_most_above_the_threshold():
    mask = block(1, 1, 1, size=2) | block(5, 5, 6, size=2)
    volumes = volumes_with(mask=mask, peak=(6, 6, 7))
    assert _abnormal_slice(volumes) == 7
    volumes = volumes_with(mask=block(1, 1, 2, size=1) | block(5, 5, 5, size=1), peak=(0, 0, 8))
    assert _abnormal_slice(volumes) == 2  # equal scores: the first


def test_nothing_flagged_shows_the_highest_score_of_the_brain():
    volumes = volumes_with(mask=np.zeros((9, 9, 9), bool), peak=(1, 1, 3))
    assert _abnormal_slice(volumes) == 3
    volumes.score.data[8, 8, 8] = 99
    volumes.brain.data[8] = False
    assert _abnormal_slice(volumes) == 3


def test_left_is_left_and_front_is_up(tmp_path):
    shape = (20, 30, 6)
    flagged = np.zeros(shape, bool)
    flagged[2:6, 22:27, 4] = True  # in RAS+: left and in front
    brain = np.ones(shape, bool)
    # The files are turned: axes towards the left and the back.
    affine = np.diag([-3.0, -3, 5, 1])
    for name, data, kind in (
        ("score_map", flagged * 5.0, "score"),
        ("mask", flagged, "mask"),
        ("brain_mask", brain, "mask"),
        ("image", np.where(flagged, 200.0, 100.0), "image"),
    ):
        turned = data[::-1, ::-1].astype(bool if kind == "mask" else np.float32)
        write(Volume(turned, affine, kind), tmp_path / f"{name}.nii.gz")
    pixels = drawn(tmp_path, {"image": str(tmp_path / "image.nii.gz")})
    assert pixels.shape == (EDGE, EDGE * 2 // 3, 3)
    rows, columns = np.nonzero(orange(pixels))
    assert rows.size
    assert rows.max() < EDGE / 3
    assert columns.max() < EDGE / 3
    # A closed line around a part of 4 x 5 voxels with 3.2 pixels each, which itself stays grey.
    middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    assert not orange(pixels)[middle]
    assert 12 < np.ptp(rows) < 22
    assert 9 < np.ptp(columns) < 19


def test_a_thumbnail_is_small_and_kept_beside_the_scan(results):
    (results / "scans" / "tumour-1" / NAME).unlink(missing_ok=True)
    one = thumbnail(results)
    path = results / "scans" / "tumour-1" / NAME
    assert one.problem == ""
    assert path.read_bytes() == one.picture
    assert 100 < len(one.picture) <= MOST_BYTES
    with Image.open(path) as image:
        assert max(image.size) == EDGE
        assert orange(np.asarray(image.convert("RGB"))).any()


def test_a_kept_thumbnail_is_used_until_the_results_change(results):
    thumbnail(results)
    place = results / "scans" / "tumour-1"
    (place / "score_map.nii.gz").unlink()
    assert thumbnail(results).problem == ""
    files.write_json(place / "scan.json", files.read_json(place / "scan.json") | {"key": "other"})
    assert "no such file" in thumbnail(results).problem


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no picture", b"\0" * 5000])
def test_a_damaged_thumbnail_is_made_anew(results, content):
    path = results / "scans" / "tumour-1" / NAME
    path.write_bytes(content)
    assert len(thumbnail(results).picture) > 100
    assert path.read_bytes() != content


def test_a_place_that_cannot_be_written_is_no_problem(results):
    path = results / "scans" / "tumour-1" / NAME
    path.unlink(missing_ok=True)
    (path / "in the way").mkdir(parents=True)
    assert thumbnail(results).picture


def test_noise_is_small_too():
    noise = np.random.default_rng(1).integers(0, 255, (EDGE, EDGE, 3), np.uint8)
    picture = _encoded(noise, "mark")
    assert len(picture) <= MOST_BYTES
    with Image.open(io.BytesIO(picture)) as image:
        assert image.info["xmp"] == b"mark"
