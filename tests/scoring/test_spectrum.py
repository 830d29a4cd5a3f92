"""Spectra of scans: what the figures mean, and that artefacts move them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.scoring.spectrum import (
    BAND_EDGES_MM,
    UsualSpectrum,
    band_energies,
    line_roughness,
    spectrum_of,
)
from atypia.volume import Array

SPACING = (3.0, 3.0, 3.0)


def ball(shape: tuple[int, int, int] = (48, 56, 44)) -> Array:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.asarray(sum(axis**2 for axis in axes) < 0.8)


def head(seed: int) -> Array:
    """Make a smooth random scan, `(48, 56, 44)`."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(48, 56, 44))
    spectrum = np.fft.fftn(image)
    radius = np.sqrt(sum(f**2 for f in np.ix_(*(np.fft.fftfreq(n, 3.0) for n in image.shape))))
    smooth = np.fft.ifftn(spectrum / (1 + (radius / 0.01) ** 2)).real
    return np.where(ball(), smooth / smooth.std(), 0).astype(np.float32)


def test_a_wave_lies_in_its_own_band() -> None:
    brain = np.ones((40, 40, 40), dtype=bool)
    x = 3.0 * np.arange(40)
    # Three, six and ten waves in 120 mm: 40, 20 (an edge belongs to the finer band) and 12 mm.
    for waves, band in ((3, 1), (6, 3), (10, 4)):
        image = np.broadcast_to(np.sin(2 * np.pi * waves * x / 120)[:, None, None], brain.shape)
        energies = np.exp(band_energies(image, brain, SPACING))
        assert energies.argmax() == band
        assert energies[band] == pytest.approx(0.5, rel=1e-4)
    assert len(energies) == len(BAND_EDGES_MM) - 1


@given(st.integers(0, 100), st.floats(0.1, 10))
@settings(max_examples=10, deadline=None)
def test_energies_sum_to_the_mean_square_and_scale_with_intensity(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    brain = ball((20, 22, 24))
    # Neither the mean nor waves longer than the coarsest band are counted.
    image = np.where(brain, rng.normal(size=brain.shape), 0)
    power = np.abs(np.fft.fftn(image)) ** 2 / (brain.size * brain.sum())
    grid = np.ix_(*(np.fft.fftfreq(n, 3.0) for n in brain.shape))
    radius = np.sqrt(sum(f**2 for f in grid))
    energies = np.exp(band_energies(image, brain, SPACING))
    assert energies.sum() == pytest.approx(power[radius >= 1 / BAND_EDGES_MM[0]].sum(), rel=1e-4)
    scaled = band_energies(factor * image, brain, SPACING)
    np.testing.assert_allclose(scaled - np.log(energies), 2 * np.log(factor), atol=1e-3)
    rough = line_roughness(image, brain)
    np.testing.assert_allclose(line_roughness(factor * image, brain), rough, atol=1e-3)


def test_weaker_lines_of_k_space_are_rough_along_their_axis() -> None:
    image, brain = head(0), ball()
    lines = np.fft.fft(image, axis=1)
    lines[:, ::3] *= 0.3
    ghosted = np.abs(np.fft.ifft(lines, axis=1))
    change = line_roughness(ghosted, brain) - line_roughness(image, brain)
    assert change.argmax() == 1
    assert change[1] > 0.5


def test_noise_and_ghosts_lie_far_from_healthy_spectra() -> None:
    brain = ball()
    rng = np.random.default_rng(5)
    healthy = np.array([spectrum_of(head(s), brain, SPACING, None) for s in range(30)])
    usual = UsualSpectrum.learn(healthy)
    others = [usual.distance(spectrum_of(head(s), brain, SPACING, None)) for s in range(40, 50)]
    noisy = head(40) + 0.1 * rng.normal(size=brain.shape)
    assert usual.distance(spectrum_of(noisy, brain, SPACING, None)) > max(others)


def test_the_distance_is_that_of_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 5))
    spectra = rng.normal(size=(20_000, 5)) @ mixing
    usual = UsualSpectrum.learn(spectra)
    probe = 3 * rng.normal(size=5) @ mixing
    covariance = np.cov(spectra.T)
    expected = np.sqrt(probe @ np.linalg.solve(covariance, probe))
    # The share of the identity draws it in a little.
    assert usual.distance(probe + spectra.mean(0)) == pytest.approx(expected, rel=0.25)
    assert usual.distance(usual.centre) == pytest.approx(0, abs=1e-6)


def test_few_scans_are_enough_to_give_a_distance() -> None:
    one = UsualSpectrum.learn(np.zeros((1, 9)))
    assert np.isfinite(one.distance(np.ones(9)))
    with pytest.raises(ValueError, match="no spectra"):
        UsualSpectrum.learn(np.zeros((0, 9)))


def test_a_residual_adds_its_bands() -> None:
    image, brain = head(1), ball()
    assert spectrum_of(image, brain, SPACING, None).shape == (9,)
    both = spectrum_of(image, brain, SPACING, 0.1 * image)
    assert both.shape == (15,)
    np.testing.assert_allclose(both[:6], both[6:12] + 2 * np.log(0.1), atol=1e-3)
