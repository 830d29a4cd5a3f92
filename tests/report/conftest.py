"""A tiny results folder, written as `atypia predict` and `atypia evaluate` write them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from atypia import files, io
from atypia.calibration import Calibration, Threshold
from atypia.cohort.scan import Scan
from atypia.detectors.base import Prediction
from atypia.evaluation.evaluation import Evaluation, ScanResult
from atypia.runs.predicting import write_prediction
from atypia.scoring.components import lesions_of
from atypia.volume import Volume

# Left-posterior-superior with 2 x 2 x 5 mm voxels: neither RAS+ nor isotropic.
AFFINE = np.array([[-2.0, 0, 0, 24], [0, -2, 0, 28], [0, 0, 5, -20], [0, 0, 0, 1]])
SHAPE = (24, 28, 9)
CURVE = {
    "percent": [20.0, 40.0, 60.0, 80.0, 100.0],
    "threshold": [0.1, 0.3, 0.8, 2.5, 60.0],
    "fitted": [0.1, 0.3, 0.7, 3.0, 70.0],
    "determination": 0.95,
    "gamma": 0.1,
    "knee_percent": 80.0,
    "chosen": 2.5,
    "unit": "median error",
}
CALIBRATION = Calibration(
    voxel_threshold=2.0,
    voxel_fpr=0.01,
    subject_scores=(1.0, 1.5, 2.0),
    flagged_share=(0.01, 0.01, 0.01),
    people=("a", "b", "c"),
    cohort="the healthy ones",
    detector="abc",
)


def write_scan(folder, subject, condition, lesion=True, calibrated=True):
    """Write one scan's images beside, and its results into, a results folder."""
    rng = np.random.default_rng(len(subject))
    inside = np.zeros(SHAPE, bool)
    inside[3:-3, 3:-3, 1:-1] = True
    truth = np.zeros(SHAPE, bool)
    if lesion:
        truth[5:9, 6:10, 3:6] = True
    image = folder.parent / "scans" / f"{len(list(folder.parent.glob('scans/*')))}.nii.gz"
    label = image.with_name(f"label-{image.name}")
    pixels = (100 * inside + 80 * truth + rng.normal(0, 5, SHAPE)).astype(np.float32)
    io.write(Volume(pixels, AFFINE), image)
    io.write(Volume(truth, AFFINE, "mask"), label)
    scan = Scan(subject, {"T2w": image}, lesion_mask=label, condition=condition)
    score = Volume((rng.random(SHAPE) + 4 * truth) * inside, AFFINE, "score", str(image))
    brain = Volume(inside, AFFINE, "mask")
    mask = brain.with_data(score.data > 2.0)
    prediction = Prediction(
        scan=scan,
        score_map=score,
        brain=brain,
        score=float(np.sort(score.data[inside])[-20:].mean()),
        restoration=Volume((100 * inside).astype(np.float32), AFFINE),
        own_mask=mask,
        details={"outcome": "mask refined", "rounds": 2, "threshold_curve": CURVE},
        mask=mask if calibrated else None,
        threshold=CALIBRATION.threshold if calibrated else None,
        p_value=0.25 if calibrated else None,
        lesions=lesions_of(mask, score) if calibrated else (),
    )
    write_prediction(prediction, folder / "scans" / scan.id, "key", 0.1)
    return scan, prediction


def write_run(folder, ids, failed=(), calibrated=True):
    """Write `run.json`."""
    files.write_json(
        folder / "run.json",
        {
            "atypia": "0.1",
            "python": "3.11",
            "method": "mask_refinement",
            "model": "models/<b>bold</b>",
            "detector": "abc",
            "settings": {"spacing_mm": 3.0, "training": {"steps": 30}, "channels": [8, 8]},
            "trained_on": {"cohort": "learners"},
            "calibration": None
            if not calibrated
            else {"provenance": CALIBRATION.provenance, "cohort": CALIBRATION.cohort}
            | CALIBRATION.model_dump(mode="json", exclude={"people"}),
            "cohort": "testers",
            "scans": len(ids) + len(failed),
            "items": [{"id": i, "status": "done", "seconds": 0.1} for i in ids]
            + [{"id": i, "status": "failed", "error": why} for i, why in failed],
        },
    )


def evaluation_of(found):
    """Evaluate the predictions, as two methods of which one is a baseline."""
    evaluation = Evaluation(["zscore"])
    for scan, prediction in found:
        for method, factor in (("mask_refinement", 1.0), ("zscore", 0.5)):
            lesion = scan.lesion()
            evaluation.add(
                ScanResult(
                    scan=scan.id,
                    condition=scan.condition,
                    method=method,
                    score=prediction.score * factor,
                    score_map=prediction.score_map.data * factor,
                    brain=prediction.brain.data,
                    lesion=lesion.data,
                    mask=prediction.mask.data,
                    threshold=Threshold(2.0 * factor, CALIBRATION.provenance),
                    voxel_fpr=0.01,
                )
            )
    return {"cohort": "testers", **evaluation.to_json()}


@pytest.fixture(scope="session")
def untouched(tmp_path_factory):
    """Four scans of which one failed, and an evaluation; not to be changed by a test."""
    folder = tmp_path_factory.mktemp("report") / "out"
    found = [
        write_scan(folder, "healthy-1", "healthy", lesion=False),
        write_scan(folder, "tumour-1", "tumour"),
        write_scan(folder, "stroke-1", "stroke"),
    ]
    write_run(
        folder, [scan.id for scan, _ in found], [("lost-1", "lost-1.nii: no such file & so on")]
    )
    files.write_json(folder / "evaluation.json", evaluation_of(found))
    return folder


@pytest.fixture
def results(untouched, tmp_path):
    """A copy of those results, to be damaged."""
    return Path(shutil.copytree(untouched, tmp_path / "out"))
