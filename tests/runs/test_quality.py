"""Quality figures: what they measure, and who is called an outlier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from atypia.preprocessing import Prepared, make_plan
from atypia.runs.quality import FEWEST, LEVELS, Quality, compare, measure
from tests.phantoms import phantom, phantom_cohort

PLAN = make_plan(phantom_cohort(range(2)), spacing_mm=6.0, align="none")


def prepared(seed: int) -> Prepared:
    image, brain, _ = phantom(seed)
    return PLAN.apply(image, brain)


def test_the_figures_are_what_they_say() -> None:
    one = prepared(0)
    found = measure(one)
    image, brain = one.image.data, one.brain.data
    assert found.skewness == pytest.approx(stats.skew(image[brain].astype(float)), abs=1e-6)
    voxel_ml = one.native_brain.geometry.voxel_volume_mm3 / 1000
    assert found.brain_ml == pytest.approx(one.native_brain.data.sum() * voxel_ml)
    assert found.quantiles[100] == pytest.approx(np.median(image[brain]), abs=1e-4)
    assert found.overlap is None
    rough = np.where(brain, image + np.random.default_rng(0).normal(0, 1, image.shape), 0)
    noisy = measure(replace(one, image=one.image.with_data(rough.astype(np.float32))))
    smooth = ndimage.gaussian_filter(image, 1) * brain
    blurred = measure(replace(one, image=one.image.with_data(smooth)))
    assert blurred.roughness < found.roughness < noisy.roughness
    assert Quality.from_json(found.to_json()) == found
    assert Quality.from_json({**found.to_json(), "format": 0}) is None


def test_overlap_with_the_template() -> None:
    image, brain, _ = phantom(0)
    plan = make_plan(phantom_cohort(range(1)), spacing_mm=6.0, align="affine")
    aligned = measure(plan.apply(image, brain)).overlap
    off = brain.with_data(np.roll(brain.data, 3, axis=0))
    assert aligned is not None
    assert aligned > 0.8
    moved = plan.apply(image, brain)
    shifted = replace(moved, brain=moved.brain.with_data(np.roll(moved.brain.data, 5, axis=1)))
    worse = measure(shifted).overlap
    assert worse is not None
    assert worse < aligned - 0.1
    assert off.data.any()


def cohort_of(volumes: list[float], **last: float) -> list[Quality]:
    levels = tuple(float(v) for v in LEVELS)
    found = [Quality(v, 0.93, 0.1, 0.3, levels) for v in volumes]
    return [*found[:-1], replace(found[-1], **last)]


def test_outliers_are_told_in_words() -> None:
    volumes = [1300.0, 1350, 1400, 1450, 1500, 1250, 700]
    verdicts = compare(cohort_of(volumes, overlap=0.7))
    assert [len(v.remarks) for v in verdicts] == [0] * 6 + [2]
    assert verdicts[-1].remarks == (
        "brain volume 700 is far below the others' (z -4.4)",
        "overlap with the template 0.7 is far below the others' (z -46.0)",
    )
    assert verdicts[-1].largest_z == pytest.approx(46, abs=0.1)
    # Better than the others is not strange, and a trifle is not either.
    assert not compare(cohort_of([1300.0] * 7, overlap=0.999))[-1].remarks
    assert not compare(cohort_of([1300.0] * 6 + [1310.0]))[-1].remarks


def test_another_histogram_is_an_outlier() -> None:
    cohort = cohort_of([1300.0] * 7)
    moved = tuple(q + 0.5 for q in cohort[-1].quantiles)
    verdict = compare([*cohort[:-1], replace(cohort[-1], quantiles=moved)])[-1]
    assert verdict.values["distance"] == pytest.approx(0.5)
    assert verdict.remarks[0].startswith("distance of the histogram 0.5 is far above")


def test_few_scans_make_no_outliers() -> None:
    verdicts = compare(cohort_of([1300.0] * (FEWEST - 2) + [100.0]))
    assert all(v.largest_z == 0 for v in verdicts)
    assert compare([]) == []
