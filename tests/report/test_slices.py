import numpy as np
import pytest

from atypia import files, io
from atypia.errors import InputError
from atypia.report import write_montage
from atypia.report.pictures import ANCHOR_AT, ScoreScale
from atypia.report.slices import VIEWS, ScanVolumes, box_of_interest, cut, focus_of, read_volumes
from atypia.volume import Volume
from tests.report.conftest import AFFINE, SHAPE, write_run, write_scan


def volumes_with(lesion=None, mask=None, peak=(4, 4, 4)):
    score = np.zeros((9, 9, 9), np.float32)
    score[peak] = 3
    brain = np.ones((9, 9, 9), bool)
    return ScanVolumes(
        image=Volume(score),
        score=Volume(score, kind="score"),
        brain=Volume(brain, kind="mask"),
        mask=None if mask is None else Volume(mask, kind="mask"),
        lesion=None if lesion is None else Volume(lesion, kind="mask"),
    )


def block(*corner, size=3):
    mask = np.zeros((9, 9, 9), bool)
    mask[tuple(slice(c, c + size) for c in corner)] = True
    return mask


def test_volumes_are_turned_so_that_the_left_of_the_patient_is_on_the_left(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "one", "tumour")
    place = folder / "scans" / scan.id
    volumes = read_volumes(place, files.read_json(place / "scan.json"))
    assert np.all(np.diag(volumes.score.affine)[:3] > 0)
    # The lesion has low indices on axes that run left and back: it is at the right front.
    focus = focus_of(volumes)
    assert focus.centre_mm[0] > 0
    assert focus.centre_mm[1] > 0
    box = (slice(None), slice(None), slice(None))
    axial = cut(volumes.lesion.data, VIEWS[0], focus, box)
    assert axial.shape == (SHAPE[1], SHAPE[0])
    rows, columns = np.nonzero(axial)
    assert columns.mean() > SHAPE[0] / 2
    assert rows.mean() > SHAPE[1] / 2


def test_the_views_cut_through_the_true_lesion_first():
    mask, lesion = block(0, 0, 0), block(5, 5, 5) | block(0, 8, 8, size=1)
    focus = focus_of(volumes_with(lesion, mask))
    assert focus.voxel == (6, 6, 6)
    assert "true" in focus.reason


def test_the_views_cut_through_the_peak_of_what_was_found():
    mask = block(3, 3, 3) | block(0, 0, 0, size=2)
    assert focus_of(volumes_with(mask=mask, lesion=block(0, 0, 0, size=0))).voxel == (4, 4, 4)


def test_the_views_cut_through_the_highest_score_when_nothing_was_found():
    focus = focus_of(volumes_with(peak=(2, 3, 7)))
    assert focus.voxel == (2, 3, 7)
    assert "nothing is flagged" in focus.reason


def test_an_empty_brain_shows_the_whole_field_of_view():
    volumes = volumes_with()
    empty = ScanVolumes(
        volumes.image, volumes.score, volumes.brain.with_data(block(0, 0, 0, size=0))
    )
    assert [part.stop - part.start for part in box_of_interest(empty)] == [9, 9, 9]
    assert focus_of(empty).voxel == (0, 0, 0)


def test_another_grid_is_refused(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "one", "tumour")
    place = folder / "scans" / scan.id
    io.write(Volume(np.zeros((3, 3, 3)), AFFINE), place / "restoration.nii.gz")
    with pytest.raises(InputError, match="differs"):
        read_volumes(place, files.read_json(place / "scan.json"))


@pytest.mark.parametrize("threshold", [3.0, 0.0, -1.0])
def test_the_threshold_has_its_place_on_the_colour_scale(threshold):
    scale = ScoreScale.of(threshold, [5.0, 7.0])
    assert scale(np.array([threshold]))[0] == pytest.approx(ANCHOR_AT)
    assert scale(np.array([1e9]))[0] == 1
    assert scale.low < threshold < scale.high


def test_without_a_threshold_the_scale_reaches_the_usual_scores():
    scale = ScoreScale.of(None, [1.0, 2.0])
    assert scale(np.array([0.0, 100.0])).tolist() == [0, 1]
    assert ScoreScale.of(None, []).high == 1


def test_the_montage_takes_the_first_scan_of_every_condition(untouched, tmp_path):
    path = write_montage(untouched, tmp_path / "montage.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_montage_needs_lesions(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "one", "healthy", lesion=False)
    write_run(folder, [scan.id])
    with pytest.raises(InputError, match="true lesion"):
        write_montage(folder, tmp_path / "montage.png")


def test_only_the_labels_of_the_lesion_are_shown(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "one", "tumour")
    place = folder / "scans" / scan.id
    description = files.read_json(place / "scan.json")
    assert description["lesion_labels"] == []
    whole = read_volumes(place, description).lesion
    label = io.read(description["lesion_mask"])
    io.write(label.with_data(label.data * 2), description["lesion_mask"])
    for labels, voxels in (([2], int(whole.data.sum())), ([1], 0)):
        shown = read_volumes(place, {**description, "lesion_labels": labels}).lesion
        assert shown.data.sum() == voxels
