"""The checks that every registered detector passes; each takes a fitted, tiny detector or its name.

A new detector needs nothing here: the suite takes its names from the registry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atypia.detectors import Detector, load_detector, save_detector
from atypia.errors import AtypiaError, CohortError, InputError, NotFittedError, SettingsError
from atypia.registry import detector_class
from atypia.volume import Volume
from tests.phantoms import phantom, phantom_cohort, phantom_scan

TRAIN, HEALTHY = range(6), range(100, 104)


def tiny(name: str) -> Detector:
    """Make an unfitted detector with its settings for tests."""
    kind = detector_class(name)
    return kind(kind.settings_class.tiny())


def check_settings_round_trip(name: str, fitted: Detector, tmp_path: Path) -> None:
    settings = tiny(name).settings
    again = type(settings).make(json.loads(json.dumps(settings.to_json())))
    assert again == settings
    import tomllib

    assert type(settings).make(tomllib.loads(settings.to_toml())) == settings
    with pytest.raises(SettingsError, match="no_such_setting"):
        type(settings).make({"no_such_setting": 1})


def check_constructor_does_no_work(name: str, fitted: Detector, tmp_path: Path) -> None:
    detector = detector_class(name)()
    assert not [a for a in vars(detector) if a.endswith("_")]
    with pytest.raises(NotFittedError):
        detector.score_map(phantom(0)[0])


def check_fit_returns_self_and_keeps_inputs(name: str, fitted: Detector, tmp_path: Path) -> None:
    cohort = phantom_cohort(TRAIN)
    before = [scan.image().data.copy() for scan in cohort]
    detector = tiny(name)
    settings = detector.settings.to_json()
    assert detector.fit(cohort) is detector
    assert detector.settings.to_json() == settings
    for scan, data in zip(cohort, before, strict=True):
        np.testing.assert_array_equal(scan.image().data, data)


def check_same_seed_same_result(name: str, fitted: Detector, tmp_path: Path) -> None:
    again = tiny(name).fit(phantom_cohort(TRAIN))
    scan = phantom_scan(200, lesion=True)
    np.testing.assert_array_equal(again.score_map(scan).data, fitted.score_map(scan).data)


def check_score_map_on_the_scans_grid(name: str, fitted: Detector, tmp_path: Path) -> None:
    scan = phantom_scan(201)
    found = fitted.predict(scan)
    image = scan.image()
    assert found.score_map.kind == "score"
    assert found.score_map.data.dtype == np.float32
    assert np.isfinite(found.score_map.data).all()
    for volume in (found.score_map, found.brain, found.restoration, found.own_mask):
        assert volume is None or volume.geometry.matches(image.geometry)
    np.testing.assert_array_equal(fitted.score_map(scan).data, found.score_map.data)
    assert fitted.score(scan) == found.score
    brain = scan.brain()
    assert brain is not None
    assert not found.score_map.data[~brain.data].any()
    assert np.isfinite(found.score)
    json.dumps(found.details, allow_nan=False)


def check_planted_lesion_raises_the_score(name: str, fitted: Detector, tmp_path: Path) -> None:
    healthy, _, _ = phantom(202)
    sick, brain, lesion = phantom(202, lesion=True)
    before, after = fitted.score_map(healthy), fitted.score_map(sick)
    inside = lesion.data & brain.data
    assert after.data[inside].mean() > before.data[inside].mean()
    assert after.data[inside].mean() > after.data[brain.data & ~inside].mean()


def check_score_ignores_other_scans(name: str, fitted: Detector, tmp_path: Path) -> None:
    scans = [phantom_scan(s, lesion=s % 2 == 0) for s in (203, 204, 205)]
    alone = fitted.score_map(scans[1]).data.copy()
    forwards = [fitted.score_map(scan).data for scan in scans]
    backwards = [fitted.score_map(scan).data for scan in reversed(scans)][::-1]
    np.testing.assert_array_equal(forwards[1], alone)
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one, other)


def check_saved_and_loaded_in_a_fresh_process(name: str, fitted: Detector, tmp_path: Path) -> None:
    save_detector(fitted, tmp_path / "model")
    image, brain, _ = phantom(206, lesion=True)
    np.savez(tmp_path / "scan.npz", data=image.data, affine=image.affine, brain=brain.data)
    code = f"""
import numpy as np
from atypia.cohort import Scan
from atypia.detectors import load_detector
from atypia.volume import Volume
with np.load({str(tmp_path / "scan.npz")!r}) as file:
    image = Volume(file["data"], file["affine"])
    brain = image.with_data(file["brain"], "mask")
scan = Scan("x", {{"T2w": image}}, brain_mask=brain)
detector = load_detector({str(tmp_path / "model")!r})
np.save({str(tmp_path / "map.npy")!r}, detector.score_map(scan).data)
"""
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], check=True, timeout=120
    )
    from atypia.cohort import Scan

    here = fitted.score_map(Scan("x", {"T2w": image}, brain_mask=brain)).data
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), here)
    suffixes = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".toml", ".safetensors"}, "nothing is pickled"


def check_calibration_changes_only_the_mask(name: str, fitted: Detector, tmp_path: Path) -> None:
    save_detector(fitted, tmp_path / "model")
    detector = load_detector(tmp_path / "model")
    scan = phantom_scan(207, lesion=True)
    bare = detector.predict(scan)
    assert bare.mask is None
    healthy = phantom_cohort(HEALTHY)
    loose = detector.calibrate(healthy, voxel_fpr=0.2)
    strict = detector.calibrate(healthy, voxel_fpr=0.01)
    assert loose.voxel_threshold < strict.voxel_threshold
    some = detector.predict(scan, calibration=loose)
    few = detector.predict(scan, calibration=strict)
    assert some.mask is not None
    assert few.mask is not None
    assert few.mask.data.sum() < some.mask.data.sum()
    for found in (some, few):
        np.testing.assert_array_equal(found.score_map.data, bare.score_map.data)
        assert found.score == bare.score
    assert "healthy n=4" in strict.provenance
    assert 0 < strict.p_value(bare.score) <= 1


def check_odd_grids(name: str, fitted: Detector, tmp_path: Path) -> None:
    for shape, spacing in (
        ((31, 33, 9), (5.0, 5.0, 16.0)),
        ((23, 1, 25), (6.0, 6.0, 6.0)),
        ((17, 19, 13), (9.0, 8.5, 10.0)),
    ):
        scan = phantom_scan(208, shape=shape, spacing_mm=spacing)
        found = fitted.score_map(scan)
        assert found.shape == shape
        assert np.isfinite(found.data).all()


def check_bad_volumes_are_refused(name: str, fitted: Detector, tmp_path: Path) -> None:
    image, brain, _ = phantom(209)
    empty = image.with_data(np.zeros(image.shape, np.float32))
    with pytest.raises(InputError, match="brain is empty"):
        fitted.score_map(empty)
    spoilt = image.data.copy()
    spoilt[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        fitted.score_map(Volume(spoilt, image.affine))
    from atypia.cohort import Scan

    half = Volume(brain.data[:10], image.affine, "mask", source="half.nii.gz")
    with pytest.raises(InputError, match=r"half\.nii\.gz"):
        fitted.score_map(Scan("x", {"T2w": image}, brain_mask=half))


def check_constant_brain_has_finite_scores(name: str, fitted: Detector, tmp_path: Path) -> None:
    image, brain, _ = phantom(210)
    flat = image.with_data(brain.data.astype(np.float32) * 7)
    assert np.isfinite(fitted.score_map(flat).data).all()


def check_abnormal_training_scans_are_refused(name: str, fitted: Detector, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="needs healthy scans"):
        tiny(name).fit(phantom_cohort(range(2), lesion=True))
    with pytest.raises(AtypiaError, match="used for training"):
        fitted.calibrate(phantom_cohort(range(2)))


def check_resumes_after_an_interruption(name: str, fitted: Detector, tmp_path: Path) -> None:
    """Interrupted in the middle and run again, a fit gives what an unbroken one gives."""
    cohort = phantom_cohort(TRAIN)

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "train" and done == 2 * total // 3:
            raise KeyboardInterrupt

    detector = tiny(name)
    training = getattr(detector.settings, "training", None)
    if training is None:
        pytest.skip(f"{name} does not train")
    detector.settings = detector.settings.but(training={"checkpoint_every": 5})
    with pytest.raises(KeyboardInterrupt):
        detector.fit(cohort, folder=tmp_path, progress=interrupt)
    resumed = tiny(name)
    resumed.settings = detector.settings
    seen: list[int] = []
    resumed.fit(
        cohort,
        folder=tmp_path,
        progress=lambda task, done, total, note="": seen.append(done) if task == "train" else None,
    )
    assert min(seen) > 1, "it started from the checkpoint, not from the first step"
    scan = phantom_scan(211, lesion=True)
    np.testing.assert_array_equal(resumed.score_map(scan).data, fitted.score_map(scan).data)


CHECKS: tuple[Callable[[str, Detector, Path], None], ...] = tuple(
    value for key, value in list(globals().items()) if key.startswith("check_")
)
