"""Structural similarity against windows written out in float64, scikit-image and identities."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from atypia.errors import InputError, SettingsError
from atypia.scoring.ssim import SIGMAS, gaussian_window, ssim_ensemble, ssim_map
from atypia.volume import Array


def literal_ssim(first: Array, second: Array, sigma: float, data_range: float) -> Array:
    """Every window taken out of the mirrored volumes, its weighted moments written out."""
    half = int(3.5 * sigma + 0.5)
    axis = np.arange(-half, half + 1)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    weights = np.exp(-(x**2 + y**2 + z**2) / (2 * sigma**2))
    weights /= weights.sum()
    a, b = (np.pad(v.astype(np.float64), half, mode="reflect") for v in (first, second))
    low, high = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = np.empty(first.shape)
    for place in product(*map(range, first.shape)):
        window = tuple(slice(p, p + 2 * half + 1) for p in place)
        mean_a, mean_b = (weights * a[window]).sum(), (weights * b[window]).sum()
        variance_a = (weights * (a[window] - mean_a) ** 2).sum()
        variance_b = (weights * (b[window] - mean_b) ** 2).sum()
        shared = (weights * (a[window] - mean_a) * (b[window] - mean_b)).sum()
        found[place] = ((2 * mean_a * mean_b + low) * (2 * shared + high)) / (
            (mean_a**2 + mean_b**2 + low) * (variance_a + variance_b + high)
        )
    return found


def pair(shape: tuple[int, int, int] = (6, 7, 5), offset: float = 0.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    first = rng.random(shape)
    second = 0.6 * first + 0.3 * rng.random(shape)
    return (first + offset).astype(np.float32), (second + offset).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.3])
@pytest.mark.parametrize("offset", [0.0, -0.5, 300.0])
def test_equals_windows_written_out(sigma: float, offset: float) -> None:
    first, second = pair(offset=offset)
    expected = literal_ssim(first, second, sigma, float(np.ptp(first)))
    found = ssim_map(first, second, sigma)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.dtype == np.float32
    given = ssim_map(first, second, sigma, data_range=4.0)
    np.testing.assert_allclose(given, literal_ssim(first, second, sigma, 4.0), atol=2e-5)


def test_the_larger_range_counts_whichever_volume_has_it() -> None:
    first, second = pair()
    assert np.ptp(first) > np.ptp(second)
    np.testing.assert_allclose(ssim_map(first, second), ssim_map(second, first), atol=1e-6)


def test_equals_scikit_image_away_from_the_faces() -> None:
    # They repeat the outermost voxel at the faces, so that only the inside can be compared.
    from skimage import metrics

    first, second = pair((16, 15, 14))
    _, expected = metrics.structural_similarity(
        first.astype(np.float64),
        second.astype(np.float64),
        data_range=1.5,
        gaussian_weights=True,
        sigma=1.0,
        use_sample_covariance=False,
        full=True,
    )
    inside = (slice(4, -4),) * 3
    found = ssim_map(first, second, 1.0, data_range=1.5)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)


def test_window_of_the_published_code() -> None:
    assert len(gaussian_window(1.0)) == 9
    assert gaussian_window(1.7).sum() == pytest.approx(1)


def test_alike_is_one_and_constant_volumes_have_an_answer() -> None:
    first, _ = pair()
    np.testing.assert_allclose(ssim_map(first, first), 1, atol=1e-6)
    flat = np.full((3, 3, 1), 2.0)
    np.testing.assert_allclose(ssim_map(flat, flat), 1, atol=1e-6)
    assert (ssim_map(flat, np.zeros_like(flat)) < 0.01).all()
    np.testing.assert_allclose(ssim_ensemble(first, first), 0, atol=1e-6)


def test_ensemble_weights_the_least_alike_most() -> None:
    first, second = pair()
    maps = np.stack([literal_ssim(first, second, s, float(np.ptp(first))) for s in SIGMAS[:4]])
    weights = np.exp(-maps) / np.exp(-maps).sum(axis=0)
    found = ssim_ensemble(first, second, SIGMAS[:4])
    np.testing.assert_allclose(found, 1 - (weights * maps).sum(axis=0), atol=2e-5)
    assert (found >= 1 - maps.mean(axis=0) - 1e-5).all()
    np.testing.assert_allclose(
        ssim_ensemble(first, second, [1.0]), 1 - ssim_map(first, second), atol=1e-6
    )


def test_what_cannot_be_computed_is_refused() -> None:
    first, second = pair()
    with pytest.raises(InputError, match="one grid"):
        ssim_map(first, second[1:])
    with pytest.raises(InputError, match="one grid"):
        ssim_map(first[0], second[0])
    with pytest.raises(SettingsError, match="sigma 0"):
        ssim_map(first, second, 0.0)
    with pytest.raises(SettingsError, match="data_range -1"):
        ssim_map(first, second, data_range=-1.0)
    with pytest.raises(SettingsError, match="sigmas"):
        ssim_ensemble(first, second, [])
