"""Diffusion: what its settings do to noise, time, boxes and scores, against the plain steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from atypia.detectors.diffusion import Diffusion, DiffusionSettings
from atypia.diffusion.noise import draw_noise
from atypia.diffusion.schedule import cosine
from atypia.errors import SettingsError
from atypia.preprocessing import prepare
from atypia.scoring.restorations import RestorationRules, score_of_restorations
from atypia.training.loop import seeded
from atypia.training.slices import (
    random_slices,
    slices_of,
    unit_volume,
    usable_slices,
    usual_range,
    volume_of,
)
from tests.phantoms import phantom_cohort, phantom_scan

FEW = {"training": {"steps": 2, "validate_every": 1}}


def fitted(**values) -> Diffusion:
    settings = DiffusionSettings.make({**FEW, **values}, "tiny")
    return Diffusion(settings).fit(phantom_cohort(range(4)))


@pytest.fixture(scope="module")
def detector() -> Diffusion:
    return fitted()


@pytest.fixture(scope="module")
def prepared(detector: Diffusion):
    return prepare(phantom_scan(50, lesion=True), detector.plan)


def test_restorations_are_the_plain_steps_one_slice_at_a_time(detector, prepared) -> None:
    found = detector.restorations(prepared)
    unit = unit_volume(prepared, detector._bounds())
    places = np.flatnonzero(prepared.brain.data.any((0, 1)))
    clean = slices_of(unit)[places]
    rng, schedule = seeded(detector.settings.seed, 13), cosine(1000)
    expected = []
    for time, _ in itertools.product(detector.settings.test_times, range(2)):
        noise = draw_noise("simplex", tuple(clean.shape), rng)
        noisy = schedule.add_noise(2 * clean - 1, noise, time)
        volume = np.zeros_like(unit)
        for place, one, image in zip(places, noisy, clean, strict=True):
            with torch.no_grad():
                answer = detector.network_(one[None], torch.tensor([time]), image[None])
            volume[..., place] = (answer[0, 0].numpy() + 1) / 2
        expected.append(np.where(prepared.brain.data, volume, 0))
    assert found.shape == (4, *unit.shape)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_the_score_is_that_of_the_restorations(detector, prepared) -> None:
    rules = RestorationRules.make(preset="mhd_repo")
    finding = detector.but(rules=rules.model_dump())._score(prepared)
    unit, restored = unit_volume(prepared, detector._bounds()), detector.restorations(prepared)
    expected = score_of_restorations(unit, restored, prepared.brain.data, rules)
    np.testing.assert_allclose(finding.score, expected)
    low, high = detector.range_
    mean = np.where(prepared.brain.data, restored.mean(0) * (high - low) + low, 0)
    np.testing.assert_allclose(finding.restoration, mean, atol=1e-5)
    assert finding.details["restorations"] == 4


def test_noise_alone_is_predicted_when_asked() -> None:
    """A network that predicts the noise gives the clean slice by the schedule."""
    detector = fitted(predicts="noise", variant="unconditioned")
    noisy = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        answer = detector.network_.denoiser(noisy, torch.tensor([499, 499]), None)
    found = detector._predict(noisy, 499, None)
    torch.testing.assert_close(found, cosine(1000).clean_of(noisy, answer, 499))


def test_patched_restores_each_box_from_clean_surroundings(prepared) -> None:
    detector = fitted(variant="patched", box_size=16, samples=1, test_times=(300,))
    seen = []
    inner = detector._predict

    def watch(noisy, time, context):
        seen.append(noisy.clone())
        return inner(noisy, time, context)

    detector._predict = watch
    detector.restorations(prepared)
    clean = 2 * slices_of(unit_volume(prepared, detector._bounds())) - 1
    first = clean[np.flatnonzero(prepared.brain.data.any((0, 1)))][: len(seen[0])]
    boxes = [(noisy != first).any(0)[0] for noisy in seen[:4]]
    together = torch.stack(boxes).sum(0)
    # Every pixel is noised in a box, and in the others it is clean.
    assert len(boxes) == 4
    assert together.min() >= 1
    assert all(int(box.sum()) <= 256 for box in boxes)


def test_several_steps_and_paired_noise(detector, prepared) -> None:
    several = detector.but(sampler_steps=3).restorations(prepared)
    assert np.abs(several - detector.restorations(prepared)).max() > 1e-4
    noise = list(detector.but(paired_noise=True)._draw(torch.zeros(3, 1, 8, 8), seeded(0)))
    torch.testing.assert_close(noise[0], -noise[1])


def test_shared_noise_is_one_field_for_all_slices(detector) -> None:
    (noise, _) = detector.but(noise="simplex_shared")._draw(torch.zeros(3, 1, 8, 8), seeded(0))
    assert torch.equal(noise[0], noise[2])
    (own, _) = detector._draw(torch.zeros(3, 1, 8, 8), seeded(0))
    assert not torch.equal(own[0], own[2])


def test_healthy_residuals_become_the_noise_variance(prepared) -> None:
    rules = {"covariance": "low_rank_diagonal"}
    detector = fitted(healthy_residuals=2, rules=rules)
    assert detector.noise_variance_.shape == prepared.image.shape
    assert (detector.noise_variance_ >= 0).all()
    with_it = detector._score(prepared).score
    detector.noise_variance_ = np.zeros((1, 1, 1), np.float32)
    assert np.abs(detector._score(prepared).score - with_it).max() > 1e-3


def test_training_lowers_the_validation_loss() -> None:
    cohort = phantom_cohort(range(6))
    losses = []
    for steps in (1, 60):
        values = {"training": {"steps": steps, "validate_every": steps}}
        detector = Diffusion(DiffusionSettings.make(values, "tiny")).fit(cohort)
        scans = [prepare(phantom_scan(90 + i), detector.plan) for i in range(2)]
        with torch.no_grad():
            losses.append(detector._validation(detector.network_, scans))
    assert losses[1] < 0.6 * losses[0]


def test_a_batch_of_one_is_refused_where_the_encoder_normalises_batches() -> None:
    with pytest.raises(SettingsError, match="batch_size"):
        fitted(training={"steps": 1, "batch_size": 1})


@pytest.mark.parametrize("name", sorted(DiffusionSettings.presets))
def test_presets_are_valid(name: str) -> None:
    settings = DiffusionSettings.make(preset=name)
    assert settings.samples * len(settings.test_times) >= 1


def test_the_reference_preset_is_the_published_network() -> None:
    settings = DiffusionSettings.make(preset="mahalanobis")
    detector = Diffusion(settings)
    with torch.device("meta"):
        detector._build()
    count = sum(p.numel() for p in detector.network_.denoiser.parameters())
    assert count == 44_068_481
    assert settings.test_times == (498,)
    assert settings.rules == RestorationRules.make(preset="mhd_repo")


def test_slices_there_and_back(prepared) -> None:
    volume = prepared.image.data
    np.testing.assert_array_equal(volume_of(slices_of(volume)), volume)


def test_random_slices_have_brain_and_the_range_that_was_asked(prepared) -> None:
    low, high = usual_range([prepared])
    inside = prepared.image.data[prepared.brain.data]
    np.testing.assert_allclose((low, high), np.percentile(inside, (1, 99)))
    unit = unit_volume(prepared, (low, high))
    usable = usable_slices(prepared, 0.1)
    assert all(prepared.brain.data[..., z].mean() >= 0.1 for z in usable)
    drawn = random_slices([prepared] * 20, (low, high), 0.1, seeded(3))
    known = {slices_of(unit)[z].numpy().tobytes() for z in usable}
    assert {one.numpy().tobytes() for one in drawn} <= known
    assert len({one.numpy().tobytes() for one in drawn}) > 3
