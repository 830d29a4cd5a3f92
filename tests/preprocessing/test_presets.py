"""Presets: each is a plan that prepares a scan; plans are read and written as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.cohort import Cohort
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.errors import InputError, SettingsError
from atypia.preprocessing import PRESETS, Plan, make_plan
from atypia.preprocessing.align import Align
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.classes import Quantise
from atypia.preprocessing.grid import Resample
from atypia.preprocessing.intensity import NyulLandmarks, ScaleRange
from atypia.preprocessing.presets import _grid_of_size
from atypia.resampling import box_of
from atypia.templates import mni152
from atypia.volume import Volume
from tests.phantoms import phantom, phantom_cohort, phantom_scan

NOBODY = Cohort(())


@pytest.mark.parametrize(
    ("preset", "shape", "spacing"),
    [
        ("ifl", (160, 160, 160), 1.3125),
        ("itermask3d", (192, 192, 192), 1.0),
        ("mhd", (96, 96, 50), 2.0),
        ("patches", (128, 128, 128), 1.5),
    ],
)
def test_a_preset_has_its_published_grid_round_the_brain(
    preset: str, shape: tuple[int, int, int], spacing: float
) -> None:
    grid = make_plan(NOBODY, preset=preset).grid
    assert grid.shape == shape
    assert grid.spacing_mm == pytest.approx((spacing,) * 3)
    middle = grid.world((np.array(shape) - 1) / 2)
    np.testing.assert_allclose(middle, np.mean(box_of(mni152().brain), axis=0), atol=1e-6)


def test_the_recommended_preset_is_the_default() -> None:
    plan = make_plan(NOBODY)
    assert plan == make_plan(NOBODY, preset="atypia", spacing_mm=2.0, align="affine")
    assert [s.step for s in plan.steps] == ["find_brain", "align", "resample", "normalise"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("align", ["centre", "none"])
def test_every_preset_prepares_a_scan_at_any_spacing(preset: str, align: str) -> None:
    cohort = phantom_cohort(range(2))
    plan = make_plan(cohort, preset=preset, spacing_mm=8.0, align=align)  # type: ignore[arg-type]
    assert Plan.make(json.loads(json.dumps(plan.to_json()))) == plan
    assert all(size % 8 == 0 for size in plan.grid.shape)
    image, brain, _ = phantom(0)
    prepared = plan.apply(image, brain)
    assert prepared.image.geometry.matches(plan.grid, 1e-6)
    assert prepared.image.data.dtype == np.float32
    assert not prepared.image.data[~prepared.brain.data].any()
    native = plan.to_native(prepared.brain, prepared)
    image.require_same_grid(native)
    # mhd leaves out what lies more than 50 mm above or below the middle.
    assert native.data.sum() > (0.7 if preset == "mhd" else 0.9) * brain.data.sum()
    assert np.isfinite(plan.restore_intensity(prepared.image.data, prepared)).all()
    again = plan.apply(image, brain)
    np.testing.assert_array_equal(again.image.data, prepared.image.data)
    json.dumps(prepared.parameters)


def test_a_size_that_is_no_multiple_grows() -> None:
    grid = _grid_of_size(PRESETS["mhd"], np.zeros(3), 5.0, 8)
    assert grid.shape == (80, 80, 48)  # 40, 40 and 24 voxels of 5 mm once they are doubled
    assert grid.spacing_mm == pytest.approx((2.5,) * 3)


def test_an_unknown_preset() -> None:
    with pytest.raises(SettingsError, match="'itermask'.*'itermask3d'.*Known: atypia, ifl"):
        make_plan(NOBODY, preset="itermask")


# -- plans as files -----------------------------------------------------------------------------


def own_plan() -> Plan:
    rows = ((8, 0, 0, -92), (0, 8, 0, -92), (0, 0, 8, -92), (0, 0, 0, 1))
    onto = Resample(shape=(24, 24, 24), affine=rows)
    return Plan(steps=(FindBrain(), onto, NyulLandmarks(), Quantise(centres=(), count=4)))


def test_a_plan_of_a_file_learns_from_the_cohort_in_order(tmp_path: Path) -> None:
    own_plan().write(tmp_path / "plan.json")
    cohort = phantom_cohort(range(3))
    plan = make_plan(cohort, preset=str(tmp_path / "plan.json"))
    assert [step.must_learn for step in plan.steps] == [False] * 4
    landmarks, classes = plan.steps[2:]
    assert isinstance(landmarks, NyulLandmarks)
    assert landmarks.scale[0] == 0
    assert landmarks.scale[-1] == pytest.approx(100)
    assert isinstance(classes, Quantise)
    assert len(classes.centres) == 4
    # The centres are those of intensities on the scale of the landmarks.
    assert -20 < classes.centres[0] < classes.centres[-1] < 120
    image, brain, _ = phantom(0)
    values = plan.apply(image, brain).image.data
    assert set(np.unique(values)) == {0, 1, 2, 3}
    with pytest.raises(SettingsError, match="nyul_landmarks: has not learnt"):
        own_plan().apply(image, brain)


def test_a_plan_of_a_file_leaves_nothing_to_choose(tmp_path: Path) -> None:
    own_plan().write(tmp_path / "plan.json")
    with pytest.raises(SettingsError, match="says spacing and alignment itself"):
        make_plan(NOBODY, preset=str(tmp_path / "plan.json"), spacing_mm=2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "is no plan"),
        ('{"steps": [{"step": "polish"}]}', "is no plan .*steps"),
        ('{"steps": [{"step": "find_brain"}]}', "needs one find_brain, and a resample"),
        (
            '{"steps": [{"step": "normalise"}, {"step": "find_brain"}, {"step": "resample",'
            '"shape": [8, 8, 8], "affine": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}]}',
            "normalise must come after find_brain",
        ),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=rf"plan\.json: .*{message}"):
        make_plan(NOBODY, preset=str(path))


def test_a_detector_takes_a_preset_or_a_plan_and_keeps_it(tmp_path: Path) -> None:
    cohort = phantom_cohort(range(3))
    detector = ZScore(ZScoreSettings(preprocessing="itermask3d", spacing_mm=8.0))
    detector.fit(cohort)
    assert detector.plan == make_plan(cohort, preset="itermask3d", spacing_mm=8.0)
    with pytest.raises(SettingsError, match="preprocessing is learnt"):
        detector.but(preprocessing="mhd")
    own_plan().write(tmp_path / "plan.json")
    other = ZScore(ZScoreSettings(preprocessing=str(tmp_path / "plan.json"))).fit(cohort)
    assert other.plan is not None
    assert other.plan.grid.shape == (24, 24, 24)
    assert detector.digest() != other.digest()
    assert other.score_map(phantom_scan(5)).shape == phantom(5)[0].shape


# -- another template ---------------------------------------------------------------------------


def template_file(folder: Path, seed: int = 3) -> Path:
    image, _, _ = phantom(seed)
    path = folder / "template.nii.gz"
    io.write(Volume(image.data, image.affine), path)
    return path


@pytest.mark.parametrize("transform", ["centre", "rigid", "affine"])
def test_a_template_of_the_user(tmp_path: Path, transform: str) -> None:
    path = template_file(tmp_path)
    plan = make_plan(NOBODY, spacing_mm=6.0, align=transform, template=str(path))  # type: ignore[arg-type]
    image, brain, _ = phantom(0)
    shift = np.eye(4)
    shift[:3, 3] = 40, -30, 20
    moved = Volume(image.data, shift @ image.affine)
    prepared = plan.apply(moved, Volume(brain.data, moved.affine, "mask"))
    assert prepared.image.space == 2
    _, target, _ = phantom(3)
    boxes = [box_of(mask) for mask in (prepared.brain, target)]
    np.testing.assert_allclose(np.mean(boxes[0], 0), np.mean(boxes[1], 0), atol=6)


def test_a_plan_belongs_to_the_template_it_was_made_with(tmp_path: Path) -> None:
    path = template_file(tmp_path)
    options = {"spacing_mm": 8.0, "align": "centre", "template": str(path)}
    plan = make_plan(NOBODY, **options)  # type: ignore[arg-type]
    assert Plan.make(plan.to_json()) == plan
    template_file(tmp_path, seed=4)
    assert make_plan(NOBODY, **options).digest() != plan.digest()  # type: ignore[arg-type]
    image, brain, _ = phantom(0)
    with pytest.raises(InputError, match=r"template\.nii\.gz: is not the template.*Put that file"):
        plan.apply(image, brain)
    path.unlink()
    with pytest.raises(InputError, match=r"template\.nii\.gz: .*cannot be read"):
        plan.apply(image, brain)
    with pytest.raises(InputError, match="nothing.nii: .*cannot be read.*mni152"):
        Align(template="nothing.nii")


def test_what_a_range_lost_is_not_in_the_restoration() -> None:
    step = ScaleRange()
    back = step.restore_intensity(np.array([0.0, 1.0]), {"low": 5.0, "high": 7.0})
    np.testing.assert_allclose(back, [5.0, 7.0])
