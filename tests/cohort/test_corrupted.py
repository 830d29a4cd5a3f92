"""Falsified cohorts: the same people and brain masks, another image, the same one every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atypia.cohort import Cohort, joined
from atypia.cohort.corrupted import with_artefact
from atypia.errors import SettingsError
from tests.phantoms import phantom_cohort


def test_only_the_image_changes() -> None:
    clean = phantom_cohort(range(2))
    falsified = with_artefact(clean, "Gaussian_noise", 4)
    for before, after in zip(clean, falsified, strict=True):
        assert after.condition == "gaussian_noise"
        assert after.person == before.person
        assert after.id != before.id
        assert after.image().geometry.matches(before.image().geometry)
        assert not np.array_equal(after.image().data, before.image().data)
        np.testing.assert_array_equal(after.image().data, after.image().data)
        assert after.brain() is not None
        np.testing.assert_array_equal(after.brain().data, before.brain().data)


def test_higher_severity_changes_more_and_another_seed_differently() -> None:
    clean = phantom_cohort(range(1))
    image = clean[0].image().data
    changes = [
        np.abs(with_artefact(clean, "spike", severity)[0].image().data - image).mean()
        for severity in (1, 3, 5)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]
    other = with_artefact(clean, "spike", 5, seed=1)[0].image().data
    assert not np.array_equal(other, with_artefact(clean, "spike", 5)[0].image().data)


def test_an_unknown_artefact_is_an_error() -> None:
    with pytest.raises(SettingsError, match="zippr"):
        with_artefact(phantom_cohort(range(1)), "zippr", 3)


def test_joined_cohorts_keep_names_apart_and_people_together() -> None:
    first, second = phantom_cohort(range(2)), phantom_cohort(range(1, 3))
    together = joined(first, second)
    assert len(together) == 4
    assert len({scan.id for scan in together}) == 4
    assert len({scan.person for scan in together}) == 3


def test_only_unlabelled_scans_are_named() -> None:
    bare = tuple(replace(scan, condition="") for scan in phantom_cohort(range(2)))
    known = replace(bare[1], condition="blob")
    named = Cohort((bare[0], known), "two").named("healthy")
    assert [scan.condition for scan in named] == ["healthy", "blob"]
