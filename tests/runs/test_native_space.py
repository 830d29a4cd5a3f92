"""Native space: a landmark comes back where it was, and BIDS names where the input has them."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from atypia import io
from atypia.cohort import Cohort, Scan, open_cohort
from atypia.detectors import Detector
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.runs.derivatives import BidsName
from atypia.runs.predicting import predict_cohort, read_prediction
from atypia.scoring.smooth import median_in_brain
from atypia.volume import Volume
from tests.phantoms import phantom, phantom_cohort

LESION_MM = np.array([24.0, -14.0, 12.0])
RADIUS_MM = 11.0


@pytest.fixture(scope="module")
def model() -> Detector:
    """A small baseline."""
    detector = ZScore(ZScoreSettings.tiny()).fit(phantom_cohort(range(5)))
    detector.calibrate(phantom_cohort(range(20, 23)), voxel_fpr=0.01)
    return detector


def raw_like(folder: Path) -> tuple[Path, np.ndarray]:
    """Write an oblique, anisotropic, left-handed scan with a lesion; give it and where that is."""
    spacing = (1.7, 1.5, 4.0)
    image, brain, _ = phantom(77, shape=(84, 112, 34), spacing_mm=spacing)
    index = np.indices(image.shape).reshape(3, -1).T
    world = image.geometry.world(index).reshape(*image.shape, 3)
    # Finer voxels make a finer texture: smooth it to what the other phantoms have.
    smooth = ndimage.gaussian_filter(image.data, 4 / np.array(spacing))
    smooth /= np.maximum(ndimage.gaussian_filter(brain.data * 1.0, 4 / np.array(spacing)), 0.1)
    lesion = np.linalg.norm(world - LESION_MM, axis=-1) < RADIUS_MM
    data = np.where(brain.data, smooth + 120 * lesion, 0).astype(np.int16)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [9, -6, 12], degrees=True).as_matrix()
    turn[:3, 3] = [14, -22, 9]
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    path = folder / "sub-07" / "ses-a" / "anat" / "sub-07_ses-a_T2w.nii.gz"
    io.write(Volume(data[::-1], turn @ image.affine @ flip), path)
    return path, np.argwhere(lesion[::-1]).mean(axis=0)


def test_a_planted_lesion_comes_back_within_half_a_voxel(tmp_path: Path) -> None:
    settings = ZScoreSettings(spacing_mm=4.0, align="affine")
    detector = ZScore(settings).fit(phantom_cohort(range(4)))
    detector.calibrate(phantom_cohort(range(20, 21)), voxel_fpr=0.01)
    path, centre = raw_like(tmp_path / "data")
    report = predict_cohort(detector, open_cohort(path), tmp_path / "out")
    assert not report.failures
    raw = nibabel.load(path)
    place = tmp_path / "out" / "scans" / "sub-07_ses-a_T2w"
    for name in ("score_map", "mask", "brain_mask", "restoration"):
        back = nibabel.load(place / f"{name}.nii.gz")
        assert back.shape == raw.shape
        np.testing.assert_allclose(back.affine, raw.affine, atol=1e-4)
    score = np.asarray(nibabel.load(place / "score_map.nii.gz").dataobj)
    labels, _ = ndimage.label(score > score.max() / 2)
    found = labels == labels[tuple(np.round(centre).astype(int))]
    assert labels[tuple(np.round(centre).astype(int))] > 0
    off = np.array(ndimage.center_of_mass(score * found)) - centre
    assert np.abs(off).max() <= 0.5, off
    # Lesions are placed in the template as the highest score is: here, and on the working grid.
    plan, prepared = detector._prepared(Scan.of(path), None)
    deviation = median_in_brain(detector._score(prepared).score, prepared.brain.data, 3)
    peaks = [np.unravel_index(values.argmax(), values.shape) for values in (score, deviation)]
    native, working = (
        volume.geometry.world(np.array([peak]))[0]
        for volume, peak in zip((prepared.native_brain, prepared.image), peaks, strict=True)
    )
    moved = (plan.world_of(prepared) @ [*native, 1])[:3]
    assert np.linalg.norm(moved - working) < 4
    assert np.linalg.norm(native - working) > 8
    lesions = json.loads((place / "scan.json").read_text())["lesions"]
    for one in lesions:
        expected = (plan.world_of(prepared) @ [*one["centre_mm"], 1])[:3]
        assert one["template_mm"] == pytest.approx(expected, abs=1e-3)
    read = read_prediction(place, Scan.of(path))
    assert [list(lesion.template_mm or ()) for lesion in read.lesions] == [
        one["template_mm"] for one in lesions
    ]


def bids_tree(root: Path) -> Cohort:
    for seed in (60, 61):
        image, brain, _ = phantom(seed, lesion=True)
        anat = root / f"sub-{seed}" / "anat"
        io.write(image, anat / f"sub-{seed}_run-1_T2w.nii.gz")
        io.write(brain, anat / f"sub-{seed}_run-1_desc-brain_mask.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "tree", "BIDSVersion": "1.10.0"}')
    return open_cohort(root)


def test_derivatives_have_bids_names_and_sidecars(model: Detector, tmp_path: Path) -> None:
    detector, cohort, out = model, bids_tree(tmp_path / "tree"), tmp_path / "out"
    assert not predict_cohort(detector, cohort, out).failures
    base = out / "derivatives" / "atypia"
    description = json.loads((base / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "atypia"
    assert description["DatasetLinks"] == {"raw": (tmp_path / "tree").as_uri()}
    anat = base / "sub-60" / "anat"
    stems = ["desc-atypiaScore_T2w", "desc-brain_mask", "desc-restored_T2w"]
    stems.insert(3, "label-anomaly_desc-atypia_mask")
    expected = [f"sub-60_run-1_{stem}{end}" for stem in stems for end in (".json", ".nii.gz")]
    assert sorted(p.name for p in anat.iterdir()) == sorted(expected)
    score = anat / "sub-60_run-1_desc-atypiaScore_T2w.nii.gz"
    assert score.samefile(out / "scans" / "sub-60_run-1" / "score_map.nii.gz")
    told = json.loads((anat / "sub-60_run-1_label-anomaly_desc-atypia_mask.json").read_text())
    assert told["Sources"] == ["bids:raw:sub-60/anat/sub-60_run-1_T2w.nii.gz"]
    assert told["SpatialReference"] == told["Sources"][0]
    assert told["ThresholdProvenance"] == "healthy n=3, voxel FPR 1.00%"
    assert told["Model"] == {"Method": "zscore", "Digest": detector.digest()}
    assert told["Type"] == "ROI"
    # Put into the data set, they are no lesion masks and no scans of their own.
    base.parent.rename(tmp_path / "tree" / "derivatives")
    again = open_cohort(tmp_path / "tree")
    assert [(s.id, s.lesion_mask) for s in again] == [(s.id, None) for s in cohort]


def test_derivatives_follow_when_results_are_kept_or_done_anew(
    model: Detector, tmp_path: Path
) -> None:
    detector, out = copy.copy(model), tmp_path / "out"
    cohort = bids_tree(tmp_path / "tree").take([0])
    assert predict_cohort(detector, cohort, out, derivatives=False).done == 1
    assert not (out / "derivatives").exists()
    assert predict_cohort(detector, cohort, out).kept == 1
    anat = out / "derivatives" / "atypia" / "sub-60" / "anat"
    stamps = {p: p.stat().st_mtime_ns for p in anat.iterdir()}
    assert len(stamps) == 8
    assert predict_cohort(detector, cohort, out).kept == 1
    assert {p: p.stat().st_mtime_ns for p in anat.iterdir()} == stamps
    detector.calibration = None
    assert predict_cohort(detector, cohort, out).done == 1
    assert len(list(anat.iterdir())) == 6  # no mask without a calibration
    score = json.loads((anat / "sub-60_run-1_desc-atypiaScore_T2w.json").read_text())
    assert score["Threshold"] is None


def test_scans_without_bids_names_have_no_derivatives(model: Detector, tmp_path: Path) -> None:
    predict_cohort(model, phantom_cohort(range(50, 51)), tmp_path / "out")
    assert not (tmp_path / "out" / "derivatives").exists()


def test_links_are_copies_where_the_disk_cannot_link(
    model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cannot link")

    monkeypatch.setattr(os, "link", refuse)
    detector, out = copy.copy(model), tmp_path / "out"
    cohort = bids_tree(tmp_path / "tree").take([0])
    predict_cohort(detector, cohort, out)
    score = next(out.glob("derivatives/atypia/sub-60/anat/*Score_T2w.nii.gz"))
    stamp = score.stat().st_ctime_ns
    assert io.read(score).shape == cohort[0].image().shape
    assert predict_cohort(detector, cohort, out).kept == 1
    assert score.stat().st_ctime_ns == stamp


@pytest.mark.parametrize(
    ("path", "derived", "root"),
    [
        ("d/sub-1/anat/sub-1_T1w.nii.gz", "sub-1_label-anomaly_desc-atypia_mask", "d"),
        (
            "d/sub-1/ses-2/anat/sub-1_ses-2_run-3_FLAIR.nii",
            "sub-1_ses-2_run-3_label-anomaly_desc-atypia_mask",
            "d",
        ),
        (
            "sub-1_space-MNI_desc-preproc_T1w.nii.gz",
            "sub-1_space-MNI_label-anomaly_desc-preprocAtypia_mask",
            None,
        ),
        ("d/sub-1_bold.nii.gz", None, None),
        ("d/p1_T1w.nii.gz", None, None),
        ("d/sub-_T1w.nii.gz", None, None),
    ],
)
def test_names(path: str, derived: str | None, root: str | None, tmp_path: Path) -> None:
    name = BidsName.of(tmp_path / path)
    if derived is None:
        assert name is None
        return
    assert name is not None
    assert name.derived("anomaly", "atypia", "mask") == derived
    assert name.root == (None if root is None else tmp_path / root)


def test_an_image_in_memory_has_no_name() -> None:
    assert BidsName.of(phantom(0)[0]) is None
