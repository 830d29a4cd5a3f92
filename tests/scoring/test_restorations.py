"""Rules for restorations: presets stage by stage, written out with scipy and the dense oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from atypia.errors import InputError, SettingsError
from atypia.scoring.mahalanobis import mahalanobis_distance, mahalanobis_map
from atypia.scoring.restorations import (
    RestorationRules,
    eroded,
    min_max,
    numbers_of_restorations,
    score_of_restorations,
)
from atypia.scoring.ssim import ssim_ensemble, ssim_map
from atypia.volume import Array
from tests.oracles.mahalanobis import dense_map

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


@pytest.fixture(scope="module")
def scan() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    shape = (17, 15, 6)
    x, y, _ = np.indices(shape)
    brain = ((x - 8) / 7.6) ** 2 + ((y - 7) / 6.8) ** 2 < 1
    brain[8:, 7, 2] = False  # a notch, into which a median filter would leak
    mean = ndimage.gaussian_filter(rng.random(shape), 1)
    restorations = mean + 0.05 * rng.normal(size=(5, *shape))
    image = mean + 0.2 * rng.normal(size=shape)
    image[4:8, 4:8, 2:4] += 1
    return image.astype(np.float32), restorations.astype(np.float32), brain


def rules(preset: str | None = None, **values: Any) -> RestorationRules:
    return RestorationRules.make(values, preset=preset)


def literally_eroded(brain: Array, times: int) -> Array:
    result = brain.copy()
    for z in range(brain.shape[2]):
        for _ in range(times):
            result[:, :, z] = ndimage.binary_erosion(result[:, :, z], CROSS)
    return result


def test_preset_of_the_mahalanobis_code(scan: tuple[Array, Array, Array]) -> None:
    image, restorations, brain = scan
    score = dense_map(image, restorations, brain, "low_rank", "product", "slice", ridge=0.01)
    score = (score - score.min()) / (score.max() - score.min())
    score = ndimage.gaussian_filter(score, 1)
    score = score * (1 - ssim_map(restorations.mean(axis=0), image, 1.0)) * brain
    found = score_of_restorations(*scan, rules("mhd_repo"))
    np.testing.assert_allclose(found, score, atol=1e-5)
    assert found.dtype == np.float32
    assert found.max() > 0.1


def test_presets_of_the_diffusion_models(scan: tuple[Array, Array, Array]) -> None:
    image, restorations, brain = scan
    residual = np.abs(image - restorations.mean(axis=0)) * brain
    core = literally_eroded(brain, 3)
    code = ndimage.median_filter(residual * core, 5, mode="constant") * core
    paper = ndimage.median_filter(residual, 5, mode="constant") * core
    assert np.abs(code - paper).max() > 0.01
    found = score_of_restorations(*scan, rules("cddpm_repo"))
    np.testing.assert_allclose(found, code, atol=1e-6)
    np.testing.assert_allclose(score_of_restorations(*scan, rules("paper")), paper, atol=1e-6)


def test_our_preset_is_the_default_and_not_scaled(scan: tuple[Array, Array, Array]) -> None:
    image, restorations, brain = scan
    assert rules("atypia") == rules()
    spread = np.sqrt(restorations.astype(np.float64).var(axis=0, ddof=1) + 0.05**2)
    expected = np.abs(image - restorations.mean(axis=0)) / spread * brain
    found = score_of_restorations(*scan, rules("atypia"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # Twice the deviation is twice the score, which a scaled map would not show.
    doubled = restorations.mean(axis=0) + 2 * (image - restorations.mean(axis=0))
    np.testing.assert_allclose(
        score_of_restorations(doubled, restorations, brain, rules()), 2 * found, rtol=1e-3
    )


@pytest.mark.parametrize("deviation", ["absolute", "squared", "variance"])
def test_simple_deviations(scan: tuple[Array, Array, Array], deviation: str) -> None:
    image, restorations, brain = scan
    difference = image - restorations.mean(axis=0)
    expected = {
        "absolute": np.abs(difference),
        "squared": difference**2,
        "variance": restorations.var(axis=0, ddof=1),
    }[deviation]
    found = score_of_restorations(*scan, rules(deviation=deviation))
    np.testing.assert_allclose(found, expected * brain, atol=1e-6)
    one = score_of_restorations(image, restorations[:1], brain, rules(deviation=deviation))
    assert np.isfinite(one).all()
    assert one.any() == (deviation != "variance")


@pytest.mark.parametrize("factor", ["ssim", "ssim_ensemble", "absolute", "squared"])
def test_factors(scan: tuple[Array, Array, Array], factor: str) -> None:
    image, restorations, _ = scan
    mean = restorations.mean(axis=0)
    expected = {
        "ssim": 1 - ssim_map(mean, image, 0.7),
        "ssim_ensemble": ssim_ensemble(mean, image),
        "absolute": np.abs(image - mean),
        "squared": (image - mean) ** 2,
    }[factor]
    plain = score_of_restorations(*scan, rules())
    found = score_of_restorations(*scan, rules(multiply_by=factor, ssim_sigma=0.7))
    np.testing.assert_allclose(found, plain * expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        {"covariance": "low_rank", "decomposition": "signed", "scope": "volume", "ridge": 0.02},
        {"covariance": "ledoit_wolf", "decomposition": "product", "ridge": 0.001},
        {"covariance": "patch", "patch": (5, 3, 1)},
    ],
)
def test_the_rules_reach_the_covariance(
    scan: tuple[Array, Array, Array], values: dict[str, Any]
) -> None:
    found = score_of_restorations(*scan, rules(**values))
    options: dict[str, Any] = {"decomposition": "whitened", "ridge": 0.0025} | values
    np.testing.assert_array_equal(found, mahalanobis_map(*scan, **options))


@pytest.mark.parametrize("preset", list(RestorationRules.presets))
@pytest.mark.parametrize("decomposition", ["product", "signed"])
def test_nothing_outside_the_brain(
    scan: tuple[Array, Array, Array], preset: str, decomposition: str
) -> None:
    image, restorations, brain = scan
    chosen = rules(preset, decomposition=decomposition, smoothing_sigma=2.0, scaling="min_max")
    found = score_of_restorations(image, restorations, brain, chosen)
    assert found.any()
    assert not found[~brain].any()
    nowhere = np.zeros_like(brain)
    assert not score_of_restorations(image, restorations, nowhere, chosen).any()


def test_erosion_is_within_slices(scan: tuple[Array, Array, Array]) -> None:
    brain = scan[2]
    for times in (0, 1, 3):
        np.testing.assert_array_equal(eroded(brain, times), literally_eroded(brain, times))
    assert eroded(np.ones((5, 5, 1), bool), 2).sum() == 1


def test_min_max() -> None:
    np.testing.assert_array_equal(min_max(np.array([[[-1.0, 0.0, 3.0]]])), [[[0, 0.25, 1]]])
    assert not min_max(np.full((2, 2, 2), 4.0)).any()


def test_numbers_of_the_scan(scan: tuple[Array, Array, Array]) -> None:
    image, restorations, brain = scan
    found = numbers_of_restorations(*scan, rules("mhd_repo"))
    error = np.abs(image - restorations.mean(axis=0))[brain].mean()
    assert found["mean_absolute_error"] == pytest.approx(error, rel=1e-5)
    distance = mahalanobis_distance(*scan).sum() / brain.sum()
    assert found["mean_squared_distance"] == pytest.approx(distance, rel=1e-9)
    noise = np.full(image.shape, 0.04)
    usual = numbers_of_restorations(*scan, rules(), noise)["mean_squared_distance"]
    assert 0.5 < usual < numbers_of_restorations(*scan, rules())["mean_squared_distance"]
    patches = numbers_of_restorations(*scan, rules(covariance="patch", patch=(1, 1, 1)))
    plain = numbers_of_restorations(*scan, rules())
    assert patches["mean_squared_distance"] == pytest.approx(plain["mean_squared_distance"])
    nothing = numbers_of_restorations(image, restorations, np.zeros_like(brain), rules())
    assert set(nothing.values()) == {0.0}


def test_what_cannot_be_computed_is_refused(scan: tuple[Array, Array, Array]) -> None:
    image, restorations, brain = scan
    with pytest.raises(SettingsError, match="median_size: must be odd"):
        rules(median_size=4)
    with pytest.raises(SettingsError, match="patch: must be odd"):
        rules(patch=(3, 3, 2))
    with pytest.raises(SettingsError, match="ridge"):
        rules(ridge=-1)
    with pytest.raises(SettingsError, match="no noise variance"):
        score_of_restorations(*scan, rules("paper"), np.ones(image.shape))
    with pytest.raises(SettingsError, match="no noise variance"):
        score_of_restorations(*scan, rules("mhd_repo"), np.ones(image.shape))
    with pytest.raises(InputError, match="grid"):
        score_of_restorations(image[1:], restorations, brain, rules("paper"))


def test_rules_round_trip() -> None:
    for preset in RestorationRules.presets:
        chosen = rules(preset)
        assert RestorationRules.make(chosen.to_json()) == chosen
