"""The high pass, against a literal full complex transform, and on waves of known length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.scoring.frequency import REFERENCE_WAVELENGTH_MM, high_pass, high_pass_by_index
from atypia.volume import Array
from tests.oracles.itermask3d import literal_high_pass


def oracle(image: Array, spacing_mm: tuple[float, ...], wavelength_mm: float) -> Array:
    """Do what the paper does: full complex transform, centred, a ball of ones taken out."""
    spectrum = np.fft.fftshift(np.fft.fftn(image.astype(np.complex128)))
    axes = [
        np.fft.fftshift(np.fft.fftfreq(n, d)) for n, d in zip(image.shape, spacing_mm, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    spectrum[np.sqrt(x**2 + y**2 + z**2) < 1 / wavelength_mm] = 0
    return np.asarray(np.fft.ifftn(np.fft.ifftshift(spectrum)).real)


@given(
    st.tuples(*[st.integers(5, 13)] * 3),
    st.tuples(*[st.sampled_from([1.0, 1.7, 3.1])] * 3),
    st.sampled_from([3.77, 9.13, 25.3]),
    st.integers(0, 99),
)
@settings(max_examples=30)
def test_equals_the_full_complex_transform(
    shape: tuple[int, ...], spacing: tuple[float, float, float], wavelength: float, seed: int
) -> None:
    image = np.random.default_rng(seed).normal(1, 1, shape).astype(np.float32)
    found = high_pass(torch.from_numpy(image), spacing, wavelength)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), oracle(image, spacing, wavelength), atol=1e-4)
    assert abs(float(found.mean())) < 1e-5


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 4.0)])
def test_a_long_wave_goes_and_a_short_one_stays(spacing: tuple[float, float, float]) -> None:
    x, y, _ = np.meshgrid(*[np.arange(64) * step for step in spacing], indexing="ij")
    # Both waves fit into the field of view: 64 mm and 8 mm, along different axes.
    long_wave, short_wave = np.cos(2 * np.pi * x / 64), np.sin(2 * np.pi * y / 8)
    image = torch.from_numpy((3 + long_wave + short_wave).astype(np.float32))
    found = high_pass(image, spacing, REFERENCE_WAVELENGTH_MM)
    np.testing.assert_allclose(found.numpy(), short_wave, atol=1e-4)


def test_the_wavelength_itself_is_kept() -> None:
    x = np.arange(32)[:, None, None] * np.ones((32, 4, 4))
    image = torch.from_numpy(np.cos(2 * np.pi * x / 16).astype(np.float32))
    kept = high_pass(image, (1, 1, 1), 16.0)
    assert float(kept.abs().max()) == pytest.approx(1, abs=1e-4)
    assert float(high_pass(image, (1, 1, 1), 15.9).abs().max()) < 1e-5


def test_a_batch_is_filtered_image_by_image() -> None:
    images = torch.randn(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    found = high_pass(images, (2, 2, 2), 8.0)
    assert found.shape == images.shape
    for one, image in zip(found[:, 0], images[:, 0], strict=True):
        torch.testing.assert_close(one, high_pass(image, (2, 2, 2), 8.0))


@pytest.mark.parametrize("shape", [(32, 32, 32), (24, 31, 36), (40, 16, 9)])
def test_high_pass_by_index_is_the_published_masking(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).normal(size=shape) + 3
    found = high_pass_by_index(torch.from_numpy(image), radius=5)
    np.testing.assert_allclose(found.numpy(), literal_high_pass(image, 5), atol=2e-6)


def test_both_cutoffs_agree_on_a_cube_of_192_mm() -> None:
    image = torch.randn(48, 48, 48)
    by_length = high_pass(image, (4.0, 4.0, 4.0), REFERENCE_WAVELENGTH_MM)
    # They differ by the constant amplitude one, which is small against the image's.
    torch.testing.assert_close(high_pass_by_index(image), by_length, atol=0.01, rtol=0)
