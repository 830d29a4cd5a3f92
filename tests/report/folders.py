"""Small folders of every kind that has a page, made by the package from phantoms in files."""

from __future__ import annotations

from pathlib import Path

from atypia import files, io
from atypia.cohort import Cohort, Scan, open_cohort
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.report import write_comparison, write_quality_page, write_training_page
from atypia.report.power import write_power
from atypia.report.samples import Sample, Samples
from atypia.runs.comparing import compare_methods
from atypia.runs.power import examples, power_of
from atypia.runs.preparing import PreparationSettings, prepare_cohort
from atypia.runs.protocol import Protocol
from tests.phantoms import phantom
from tests.report.test_training_page import write_model

SETTINGS = {"spacing_mm": 6.0, "align": "none"}
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="


def write_phantoms(folder: Path, seeds: range, lesion: bool = False) -> Path:
    """Write images with their masks, as `atypia.cohort.folder` reads them."""
    for seed in seeds:
        image, brain, truth = phantom(seed, lesion=lesion)
        io.write(image, folder / f"p{seed}_T2w.nii.gz")
        io.write(brain, folder / f"p{seed}_brain_mask.nii.gz")
        if lesion:
            io.write(truth, folder / f"p{seed}_lesion_mask.nii.gz")
    return folder


def comparison(folder: Path) -> Path:
    """Compare the baselines; give the page."""
    scans = folder / "scans-to-compare"
    ill = write_phantoms(scans / "ill", range(40, 42), lesion=True)
    listed = {name: str(ill / f"p40_{name}.nii.gz") for name in ("T2w", "lesion_mask")}
    listed["brain"] = str(ill / "p40_brain_mask.nii.gz")
    one = {"subject": "listed", "image": listed["T2w"], "lesion": listed["lesion_mask"]}
    protocol = Protocol.make(
        {
            "summary": f"Baselines on the scans of {scans}/ill",
            "modality": "T2w",
            "settings": SETTINGS,
            "methods": [{"method": "zscore"}],
            "train": [{"path": str(write_phantoms(scans / "train", range(4)))}],
            "calibration": [{"path": str(write_phantoms(scans / "calibration", range(10, 13)))}],
            "test": [
                {"path": str(ill), "condition": "blob"},
                {"scans": [{**one, "brain": listed["brain"]}], "condition": "the same"},
            ],
        }
    )
    compare_methods(protocol, folder / "comparison", workers=1)
    return write_comparison(folder / "comparison")


def training(folder: Path) -> Path:
    """Write what a training leaves, with settings that name a folder; give the page."""
    model = write_model(folder / "model")
    told = files.read_json(model / "detector.json")
    told["settings"]["encoder"] = str(folder / "encoder")
    files.write_json(model / "detector.json", told)
    pictures = (Sample("scan", DOT), Sample("step 5", DOT, 0.125))
    return write_training_page(model, samples=Samples("p1", False, pictures, (1, 1)))


def quality(folder: Path) -> Path:
    """Prepare three scans, of which one cannot be read; give the page."""
    scans = write_phantoms(folder / "scans-to-prepare", range(2))
    (scans / "bad_T2w.nii.gz").write_text("no image")
    settings = PreparationSettings.make(SETTINGS)
    prepare_cohort(open_cohort(scans), folder / "prepared", settings)
    return write_quality_page(folder / "prepared")


def power(folder: Path) -> Path:
    """Plant lesions into three scans, of which one cannot be read; give the page."""
    scans = write_phantoms(folder / "scans-to-plant", range(60, 62))
    healthy = open_cohort(scans)
    bad = scans / "bad_T2w.nii.gz"
    bad.write_text("no image")
    detector = ZScore(ZScoreSettings.make(SETTINGS))
    detector.fit(open_cohort(write_phantoms(folder / "learnt", range(6))))
    detector.calibrate(
        open_cohort(write_phantoms(folder / "calibrated", range(30, 34))), voxel_fpr=0.002
    )
    asked = Cohort((*healthy, Scan("bad", {"T2w": bad})), healthy.name)
    found = power_of(detector, asked, diameters_mm=(36,), contrasts=(0.1, 0.8))
    assert found.failed
    return write_power(found, folder / "power", examples(detector, asked, found))
