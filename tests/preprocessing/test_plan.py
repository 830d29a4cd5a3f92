"""Plan: data that round trips, a shared grid, and the way back to the scan's own space."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.cohort import Cohort, Scan
from atypia.errors import SettingsError
from atypia.preprocessing import Plan, make_plan
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.grid import Resample
from atypia.preprocessing.intensity import Normalise
from atypia.preprocessing.step import Step
from atypia.resampling import box_of, resample
from atypia.simulation import SimulatedSubject, SimulationSettings, simulate_subject
from atypia.templates import mni152
from atypia.volume import Volume
from tests.grids import affine_of, ball, centre_of_mass, overlap, small_angles
from tests.phantoms import phantom, phantom_cohort, phantom_scan


def plan_for(cohort: Cohort, **options: Any) -> Plan:
    return make_plan(cohort, **{"spacing_mm": 6.0, "align": "none", **options})


@given(st.sampled_from(["none", "rigid", "affine"]), st.floats(2, 8), st.sampled_from([1, 4, 8]))
@settings(max_examples=20)
def test_a_plan_is_json(align: str, spacing: float, multiple: int) -> None:
    plan = plan_for(phantom_cohort(range(1)), align=align, spacing_mm=spacing, multiple_of=multiple)
    again = Plan.make(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert [type(s) for s in again.steps] == [type(s) for s in plan.steps]
    assert again.digest() == plan.digest()
    assert again.grid.matches(plan.grid, 1e-9)
    assert all(size % multiple == 0 for size in plan.grid.shape)
    assert plan.grid.spacing_mm == pytest.approx((spacing,) * 3)


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(SettingsError, match="steps"):
        Plan.make({"steps": [{"step": "polish"}]})


def test_without_alignment_the_grid_holds_every_brain() -> None:
    cohort = phantom_cohort(range(3))
    far = phantom_scan(7)
    shift = np.eye(4)
    shift[:3, 3] = 30, -20, 10
    moved = [
        replace(v, affine=shift @ v.affine)
        for v in (far.images["T2w"], far.brain_mask)  # type: ignore[type-var,union-attr]
    ]
    cohort = Cohort((*cohort, Scan("far", {"T2w": moved[0]}, brain_mask=moved[1])))
    grid = plan_for(cohort).grid
    low, high = grid.world([0, 0, 0]), grid.world(np.array(grid.shape) - 1)
    for scan in cohort:
        brain = scan.brain()
        assert brain is not None
        corner, opposite = box_of(brain)
        assert (low <= corner + 1e-6).all()
        assert (high >= opposite - 1e-6).all()


def test_with_alignment_no_scan_is_read_and_the_grid_holds_the_template() -> None:
    def fail() -> Volume:
        raise AssertionError("read")

    plan = plan_for(Cohort((Scan("a", {"T1w": fail}),)), align="affine")
    assert [s.step for s in plan.steps] == ["find_brain", "align", "resample", "normalise"]
    corner, opposite = box_of(mni152().brain)
    grid = plan.grid
    assert (grid.world([0, 0, 0]) <= corner - 6).all()
    assert (grid.world(np.array(grid.shape) - 1) >= opposite + 6).all()


def test_a_prepared_scan_lies_on_the_grid_and_is_normalised() -> None:
    plan = plan_for(phantom_cohort(range(2)))
    image, brain, _ = phantom(1)
    prepared = plan.apply(image, brain)
    for volume in (prepared.image, prepared.brain):
        assert volume.geometry.matches(plan.grid)
    assert prepared.image.data.dtype == np.float32
    assert not prepared.image.data[~prepared.brain.data].any()
    assert prepared.image.data[prepared.brain.data].std() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(prepared.native_brain.data, brain.data)
    # A found brain serves like a supplied one.
    found = plan.apply(image)
    np.testing.assert_array_equal(found.native_brain.data, brain.data)
    np.testing.assert_array_equal(found.image.data, prepared.image.data)
    assert len(prepared.parameters) == len(plan.steps)
    json.dumps(prepared.parameters)


@given(
    small_angles,
    st.tuples(*[st.floats(-15, 15)] * 3),
    st.tuples(*[st.floats(4, 6)] * 3),
    st.booleans(),
    st.tuples(*[st.floats(-20, 20)] * 3),
)
@settings(max_examples=20)
def test_a_blob_comes_back_to_its_place(
    turn: tuple[float, float, float],
    shift: tuple[float, float, float],
    spacing: tuple[float, float, float],
    mirrored: bool,
    place: tuple[float, float, float],
) -> None:
    affine = affine_of(turn, spacing, (0, 0, 0), mirrored)
    shape = (36, 36, 36)
    affine[:3, 3] = np.array(shift) - affine[:3, :3] @ (np.array(shape) - 1) / 2
    brain = ball(shape, affine, shift, 60)
    texture = np.random.default_rng(0).normal(100, 10, shape)
    image = Volume(np.where(brain.data, texture, 0), affine, space=2)
    rows = ((4, 0, 0, -94), (0, 4, 0, -94), (0, 0, 4, -94), (0, 0, 0, 1))
    plan = Plan(steps=(FindBrain(), Resample(shape=(48, 48, 48), affine=rows), Normalise()))
    prepared = plan.apply(image, brain)
    blob = ball(plan.grid.shape, plan.grid.affine, np.array(shift) + place, 14)
    for kind in ("mask", "score"):
        native = plan.to_native(blob.with_data(blob.data, kind), prepared)  # type: ignore[arg-type]
        assert (native.kind, native.space) == (kind, image.space)
        image.require_same_grid(native)
        off = np.linalg.norm(centre_of_mass(native) - centre_of_mass(blob))
        assert off < min(spacing) / 2


@pytest.fixture(scope="module")
def subject() -> SimulatedSubject:
    """Give a simulated brain, other than the template."""
    return simulate_subject(SimulationSettings(spacing_mm=4.0, modality="T1w"), 5)


def test_an_aligned_mask_comes_back_over_the_native_one(subject: SimulatedSubject) -> None:
    turn = affine_of((10, -8, 12), (1, 1, 1), (25, -10, 30))
    image = replace(subject.image, affine=turn @ subject.image.affine)
    brain = replace(subject.brain, affine=turn @ subject.brain.affine)
    plan = plan_for(Cohort(()), align="affine", spacing_mm=4.0)
    prepared = plan.apply(image, brain)
    assert prepared.image.space == 4
    native = plan.to_native(prepared.brain, prepared)
    assert overlap(native, brain) > 0.9
    # In the template's space it lies over the template's brain.
    assert overlap(prepared.brain, resample(mni152().brain, plan.grid)) > 0.9
    # A ball in the working space comes back where the matrix says.
    matrix = np.array(prepared.parameters[1]["matrix"])
    blob = ball(plan.grid.shape, plan.grid.affine, (15, -30, 20), 14)
    back = plan.to_native(blob, prepared)
    expected = np.linalg.inv(matrix) @ [*centre_of_mass(blob), 1]
    assert np.linalg.norm(centre_of_mass(back) - expected[:3]) < 2


def test_scores_outside_the_native_brain_are_zero_but_images_are_kept() -> None:
    plan = plan_for(phantom_cohort(range(2)))
    image, brain, _ = phantom(1)
    prepared = plan.apply(image, brain)
    ones = prepared.image.with_data(np.ones(prepared.image.shape, np.float32))
    score = plan.to_native(ones.with_data(ones.data, "score"), prepared)
    assert not score.data[~brain.data].any()
    assert score.data[brain.data].mean() > 0.95
    kept = plan.to_native(ones, prepared)
    assert kept.data[~brain.data].any()


def test_a_restoration_comes_back_in_the_scans_units() -> None:
    plan = plan_for(phantom_cohort(range(2)))
    image, brain, _ = phantom(1)
    prepared = plan.apply(image, brain)
    units = plan.restore_intensity(prepared.image.data, prepared)
    inside = prepared.brain.data
    assert units[inside].mean() == pytest.approx(image.data[brain.data].mean(), rel=0.02)
    assert units[inside].std() == pytest.approx(image.data[brain.data].std(), rel=0.15)


def test_a_step_must_say_what_it_does() -> None:
    with pytest.raises(NotImplementedError):
        Step().apply(None, {})  # type: ignore[arg-type]
