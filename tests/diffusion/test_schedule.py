"""The diffusion process: published values, and steps against the literal formulas."""

from __future__ import annotations

import math

import pytest
import torch

from atypia.diffusion.schedule import (
    CDDPM_TIME,
    CDDPM_TIMES,
    MAHALANOBIS_TIME,
    Schedule,
    cosine,
    ddim_step,
    ddim_times,
    linear,
    min_snr_weights,
)
from atypia.errors import SettingsError

BOTH = pytest.mark.parametrize("schedule", [cosine(), linear()], ids=["cosine", "linear"])


def images(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 1, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("t", "signal", "noise"),
    [(249, 0.9203, 0.3911), (MAHALANOBIS_TIME, 0.7038, 0.7104), (749, 0.3798, 0.9251)],
)
def test_cosine_has_the_published_values(t: int, signal: float, noise: float) -> None:
    schedule = cosine()
    assert schedule.steps == 1000
    assert float(schedule.signal(t)) == pytest.approx(signal, abs=5e-5)
    assert float(schedule.noise(t)) == pytest.approx(noise, abs=5e-5)


def test_cosine_is_the_literal_product() -> None:
    def f(place: float) -> float:
        return math.cos((place / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    kept = 1.0
    for t in range(1000):
        kept *= 1 - min(1 - f(t + 1) / f(t), 0.999)
        if t in (0, 1, 249, 499, 998, 999):
            assert float(cosine().signal(t)) == pytest.approx(math.sqrt(kept), rel=1e-6)
    assert float(cosine().betas[-1]) == 0.999


def test_linear_has_its_ends_and_as_much_noise_with_fewer_steps() -> None:
    betas = linear().betas
    assert betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02])
    assert float(linear(250).noise(249)) == pytest.approx(float(linear().noise(999)), abs=1e-3)


def test_the_repositories_mean_different_indices_by_500() -> None:
    assert (CDDPM_TIME, MAHALANOBIS_TIME) == (499, 498)
    assert CDDPM_TIME in CDDPM_TIMES
    assert float(cosine().signal(CDDPM_TIME)) < float(cosine().signal(MAHALANOBIS_TIME))


@BOTH
def test_factors_keep_variance_and_noise_grows(schedule: Schedule) -> None:
    t = torch.arange(-1, 1000)
    signal, noise = schedule.signal(t), schedule.noise(t)
    assert signal.dtype == torch.float32
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(1001))
    assert (signal[0], noise[0]) == (1, 0)
    assert bool((noise.diff() > 0).all())
    ratio = schedule.signal_to_noise(t[1:])
    torch.testing.assert_close(ratio, (signal / noise)[1:] ** 2, rtol=1e-3, atol=0)


@pytest.mark.parametrize("t", [-2, 1000])
def test_times_that_do_not_exist_are_refused(t: int) -> None:
    with pytest.raises(IndexError):
        cosine().signal(t)
    with pytest.raises(IndexError):
        cosine().noise(torch.tensor([5, t]))


@BOTH
def test_noise_is_added_item_by_item_and_both_predictions_undo_it(schedule: Schedule) -> None:
    clean, noise = images(0), images(1)
    t = torch.tensor([0, 400, 900])
    noisy = schedule.add_noise(clean, noise, t)
    for item in range(3):
        expected = schedule.signal(t)[item] * clean[item] + schedule.noise(t)[item] * noise[item]
        torch.testing.assert_close(noisy[item], expected)
        single = schedule.add_noise(clean[[item]], noise[[item]], int(t[item]))
        torch.testing.assert_close(single[0], expected)
    torch.testing.assert_close(schedule.clean_of(noisy, noise, t), clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(schedule.noise_of(noisy, clean, t), noise, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("start", "steps", "times"),
    [
        (999, 4, (999, 749, 499, 249)),
        (498, 1, (498,)),
        (0, 1, (0,)),
        (4, 5, (4, 3, 2, 1, 0)),
        (9, 4, (9, 7, 4, 2)),
    ],
)
def test_times_of_a_restoration(start: int, steps: int, times: tuple[int, ...]) -> None:
    assert ddim_times(start, steps) == times


def test_every_number_of_steps_gives_that_many_falling_times() -> None:
    for steps in range(1, 101):
        times = ddim_times(99, steps)
        assert len(times) == steps
        assert times[0] == 99
        assert all(a > b for a, b in zip(times, (*times[1:], -1), strict=True))


@pytest.mark.parametrize(("start", "steps"), [(10, 0), (10, 12), (-1, 1)])
def test_impossible_numbers_of_steps_are_refused(start: int, steps: int) -> None:
    with pytest.raises(SettingsError, match="steps"):
        ddim_times(start, steps)


@BOTH
def test_a_deterministic_step_stays_on_the_line_of_clean_and_noise(schedule: Schedule) -> None:
    clean, noise = images(2), images(3)
    t, t_next = torch.tensor([900, 500, 20]), torch.tensor([600, 499, 3])
    noisy = schedule.add_noise(clean, noise, t)
    stepped = ddim_step(schedule, noisy, clean, t, t_next)
    expected = schedule.add_noise(clean, noise, t_next)
    torch.testing.assert_close(stepped, expected, atol=1e-4, rtol=1e-4)


@BOTH
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_last_step_gives_the_clean_image(schedule: Schedule, eta: float) -> None:
    stepped = ddim_step(schedule, images(4), images(5), 300, -1, eta, images(6))
    torch.testing.assert_close(stepped, images(5))


@BOTH
@pytest.mark.parametrize("t", [1, 10, 250, 499, 900, 999])
def test_the_ancestral_step_is_the_posterior_of_ddpm(schedule: Schedule, t: int) -> None:
    # Ho et al. 2020, equations 6 and 7.
    beta = schedule.betas.double()
    kept = (1 - beta).cumprod(0)
    noisy, clean, fresh = images(7).double(), images(8).double(), images(9).double()
    mean = (
        kept[t - 1].sqrt() * beta[t] / (1 - kept[t]) * clean
        + (1 - beta[t]).sqrt() * (1 - kept[t - 1]) / (1 - kept[t]) * noisy
    )
    variance = (1 - kept[t - 1]) / (1 - kept[t]) * beta[t]
    expected = mean + variance.sqrt() * fresh
    found = ddim_step(schedule, noisy, clean, t, t - 1, 1.0, fresh)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_steps_keep_the_variance_of_the_process(eta: float) -> None:
    schedule, count = cosine(), 60_000
    generator = torch.Generator().manual_seed(0)
    clean = torch.zeros(count, 1)
    noise, fresh = torch.randn(2, count, 1, generator=generator)
    stepped = ddim_step(
        schedule, schedule.add_noise(clean, noise, 700), clean, 700, 300, eta, fresh
    )
    assert float(stepped.std()) == pytest.approx(float(schedule.noise(300)), rel=0.02)


def test_a_random_step_needs_noise() -> None:
    with pytest.raises(ValueError, match="needs noise"):
        ddim_step(cosine(), images(0), images(1), 5, 4, eta=0.1)


def test_weights_are_the_bounded_ratio() -> None:
    schedule, t = cosine(), torch.tensor([0, 100, 500, 900])
    ratio = schedule.signal_to_noise(t)
    assert float(ratio[0]) > 5 > float(ratio[2])
    clean = min_snr_weights(schedule, t, "clean")
    assert clean.tolist() == pytest.approx([5, 5, float(ratio[2]), float(ratio[3])])
    noise = min_snr_weights(schedule, t, "noise")
    torch.testing.assert_close(noise * ratio, clean)
    assert noise[2:].tolist() == [1, 1]
    assert float(min_snr_weights(schedule, t, "clean", gamma=2.0).max()) == 2
