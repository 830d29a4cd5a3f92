"""Cohorts with planted lesions: the same people and brains, another image, the same every time."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from atypia.cohort import Cohort
from atypia.cohort.planted import with_planted
from atypia.errors import InputError, SettingsError
from tests.phantoms import phantom_cohort


def test_image_lesion_and_name_change_and_nothing_else() -> None:
    clean = phantom_cohort(range(2))
    for before, after in zip(clean, with_planted(clean, 20, 0.3, 2), strict=True):
        assert after.condition == "planted"
        assert after.person == before.person
        assert after.id != before.id
        assert after.image().geometry.matches(before.image().geometry)
        np.testing.assert_array_equal(after.image().data, after.image().data)
        lesion, brain = after.lesion(), after.brain()
        assert lesion is not None
        assert brain is not None
        changed = after.image().data - before.image().data
        median = np.median(before.image().data[brain.data])
        # Voxels of 6 mm at its edge hold only a part of the lesion.
        assert 0.2 * median < changed[lesion.data].mean() < 0.3 * median
        assert abs(changed[~lesion.data]).mean() < 0.01 * median


def test_the_seed_decides_on_the_lesions_and_the_contrast_does_not() -> None:
    clean = phantom_cohort(range(1))
    cohorts = [
        with_planted(clean, 20, 0.3),
        with_planted(clean, 20, -0.3),
        with_planted(clean, 20, 0.3, seed=1),
    ]
    masks = [cohort[0].lesion() for cohort in cohorts]
    assert masks[0] is not None and masks[1] is not None and masks[2] is not None  # noqa: PT018
    np.testing.assert_array_equal(masks[0].data, masks[1].data)
    assert not np.array_equal(masks[0].data, masks[2].data)
    assert cohorts[0][0].id != cohorts[1][0].id


def test_planted_scans_can_go_to_another_process() -> None:
    scan = with_planted(phantom_cohort(range(1)), 20, 0.3)[0]
    copy = pickle.loads(pickle.dumps(scan))
    np.testing.assert_array_equal(copy.image().data, scan.image().data)


def test_the_brain_may_come_from_elsewhere_and_without_one_it_is_an_error() -> None:
    clean = phantom_cohort(range(1))
    bare = Cohort((replace(clean[0], brain_mask=None),), "bare")
    planted = with_planted(bare, 20, 0.3, brain=lambda _: clean[0].brain())[0]
    known = with_planted(clean, 20, 0.3)[0]
    np.testing.assert_array_equal(planted.image().data, known.image().data)
    assert planted.brain() is None
    with pytest.raises(InputError, match="has no brain mask"):
        with_planted(bare, 20, 0.3)[0].image()


def test_an_impossible_lesion_is_refused_before_an_image_is_read() -> None:
    with pytest.raises(SettingsError, match="diameter -1"):
        with_planted(phantom_cohort(range(1)), -1, 0.3)
