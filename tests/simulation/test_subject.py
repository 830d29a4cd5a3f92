"""Subjects: determined by settings and seed, with a healthy twin, refusing unknown names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atypia.errors import SettingsError
from atypia.simulation import (
    LESIONS,
    SimulatedSubject,
    SimulationSettings,
    simulate_subject,
)
from atypia.simulation.acquisition import AcquisitionParameters, acquire
from atypia.simulation.contrast import ANY, TISSUES

TINY = SimulationSettings.tiny()


def test_same_seed_same_scan_other_seed_other_scan(healthy: SimulatedSubject) -> None:
    again = simulate_subject(TINY, 3)
    np.testing.assert_array_equal(again.image.data, healthy.image.data)
    other = simulate_subject(TINY, 4)
    assert other.parameters != healthy.parameters
    assert other.image.shape != healthy.image.shape or not np.array_equal(
        other.image.data, healthy.image.data
    )


def test_a_healthy_subject_is_complete(healthy: SimulatedSubject) -> None:
    assert not healthy.lesion.data.any()
    assert (healthy.lesion.kind, healthy.brain.kind) == ("mask", "mask")
    for volume in (healthy.brain, healthy.lesion):
        healthy.image.require_same_grid(volume)
    assert healthy.image.spacing_mm == pytest.approx((4, 4, 4))
    assert (healthy.image.data[~healthy.brain.data] == 0).all()


@pytest.mark.parametrize("name", LESIONS)
def test_the_healthy_twin_differs_only_near_the_lesion(name: str) -> None:
    settings = TINY.but(lesion=name, modality="FLAIR")
    sick = simulate_subject(settings, 5)
    twin = simulate_subject(settings.but(lesion=None), 5)
    np.testing.assert_array_equal(sick.brain.data, twin.brain.data)
    change = np.abs(sick.image.data - twin.image.data) / twin.image.data.max()
    from scipy import ndimage

    far = ndimage.distance_transform_edt(~sick.lesion.data, sampling=4) > 45
    near = sick.lesion.data
    assert far.any() or name == "white_matter_lesions"
    assert change[far].max(initial=0) < 1e-3
    assert change[near].mean() > 0.05


@pytest.mark.parametrize("modality", TISSUES)
def test_the_same_person_in_every_modality(modality: str, healthy: SimulatedSubject) -> None:
    other = simulate_subject(TINY.but(modality=modality, artefact="ring"), 3)
    np.testing.assert_array_equal(other.brain.data, healthy.brain.data)
    assert other.parameters["anatomy"] == healthy.parameters["anatomy"]


def test_any_contrast_is_the_same_person_under_another_protocol(healthy: SimulatedSubject) -> None:
    settings = TINY.but(modality=ANY)
    drawn = simulate_subject(settings, 3)
    assert drawn.parameters["anatomy"] == healthy.parameters["anatomy"]
    assert drawn.parameters["contrast"]["modality"] == ANY
    assert healthy.parameters["acquisition"] is None
    again = simulate_subject(settings, 3)
    np.testing.assert_array_equal(again.image.data, drawn.image.data)
    assert json.loads(json.dumps(drawn.parameters, allow_nan=False)) == drawn.parameters
    # What was drawn tells how the mask came about.
    protocol = AcquisitionParameters(**drawn.parameters["acquisition"])
    _, brain = acquire(healthy.image, healthy.brain, protocol)
    np.testing.assert_array_equal(brain.data, drawn.brain.data)
    drawn.image.require_same_grid(drawn.brain)
    assert not drawn.image.data[~drawn.brain.data].any()
    assert (drawn.image.data[drawn.brain.data] > 0).all()


def test_an_artefact_changes_the_image_but_not_the_truth(healthy: SimulatedSubject) -> None:
    faulty = simulate_subject(TINY.but(artefact="zipper", severity=5), 3)
    assert not np.array_equal(faulty.image.data, healthy.image.data)
    np.testing.assert_array_equal(faulty.brain.data, healthy.brain.data)
    assert not faulty.lesion.data.any()
    sick = simulate_subject(TINY.but(artefact="zipper", severity=5, lesion="cavity"), 3)
    assert sick.parameters["artefact"] == faulty.parameters["artefact"]


def test_parameters_are_plain_json() -> None:
    settings = TINY.but(lesion="stroke", artefact="Gaussian_noise")
    subject = simulate_subject(settings, 1)
    assert json.loads(json.dumps(subject.parameters, allow_nan=False)) == subject.parameters
    assert subject.parameters["artefact"]["name"] == "gaussian_noise"


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"lesion": "tumor"}, "tumour"),
        ({"artefact": "rings"}, "periodic_line"),
        ({"modality": "T2"}, "T2w"),
        ({"spacing_mm": 0.1}, "0.5"),
        ({"severity": 6}, "5"),
        ({"lesoin": "stroke"}, "lesoin"),
        ({"modality": "any", "lesion": "stroke"}, "lesions are simulated in T1w, T2w and FLAIR"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], hint: str) -> None:
    with pytest.raises(SettingsError, match=hint):
        SimulationSettings.make(values)
