"""Images: order of tissues, background, scanner units, variety of protocols."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atypia.errors import SettingsError
from atypia.simulation import MODALITIES, Anatomy, render_contrast, sample_contrast
from atypia.simulation.contrast import ANY

BRIGHTEST_FIRST = {
    "T1w": ("white", "gray", "csf"),
    "T2w": ("csf", "gray", "white"),
    "FLAIR": ("gray", "white", "csf"),
}


@pytest.mark.parametrize("modality", BRIGHTEST_FIRST)
@pytest.mark.parametrize("seed", range(3))
def test_tissues_have_the_order_of_the_modality(anatomy: Anatomy, modality: str, seed: int) -> None:
    image = render_contrast(anatomy, sample_contrast(np.random.default_rng(seed), modality))
    means = [image[getattr(anatomy, name) > 0.8].mean() for name in BRIGHTEST_FIRST[modality]]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("modality", MODALITIES)
def test_positive_in_the_brain_exactly_zero_outside(anatomy: Anatomy, modality: str) -> None:
    image = render_contrast(anatomy, sample_contrast(np.random.default_rng(1), modality))
    assert image.dtype == np.float32
    assert (image[~anatomy.brain] == 0).all()
    assert image[anatomy.brain].min() > 0
    assert 50 < image[anatomy.brain].mean() < 3000


def test_any_contrast_is_of_every_order_and_never_flat() -> None:
    drawn = [sample_contrast(np.random.default_rng(seed), ANY) for seed in range(200)]
    assert {p.modality for p in drawn} == {ANY}
    orders = {tuple(np.argsort([p.gray, p.white, p.csf])) for p in drawn}
    assert len(orders) == 6
    assert min(np.ptp([p.gray, p.white, p.csf]) for p in drawn) >= 0.25
    # Deep gray matter lies between gray and white matter, or a fifth of the way before gray.
    for p in drawn:
        low, high = sorted((p.gray - 0.2 * (p.white - p.gray), p.gray + 0.8 * (p.white - p.gray)))
        assert low - 1e-9 <= p.deep <= high + 1e-9 or p.deep in (0.05, 1.1)
    assert {bool(p.texture > 0) for p in drawn} == {True, False}
    assert drawn[3] == sample_contrast(np.random.default_rng(3), ANY)


@pytest.mark.parametrize("seed", range(3))
def test_any_contrast_shows_the_tissues_it_drew(anatomy: Anatomy, seed: int) -> None:
    drawn = sample_contrast(np.random.default_rng(seed), ANY)
    still = replace(drawn, texture=0.0, grain=0.0, bias=0.0, noise=0.0)
    image = render_contrast(anatomy, still) / drawn.scale
    for tissue in ("white", "csf"):
        level = max(getattr(drawn, tissue), 0.02) ** drawn.gamma
        inside = getattr(anatomy, tissue) > 0.999
        np.testing.assert_allclose(image[inside], level, rtol=0.02)


def test_noise_and_bias_do_what_they_say(anatomy: Anatomy) -> None:
    plain = replace(
        sample_contrast(np.random.default_rng(1), "T1w"), bias=0.0, noise=0.0, grain=0.0, gamma=1.0
    )
    clean = render_contrast(anatomy, plain) / plain.scale
    noisy = render_contrast(anatomy, replace(plain, noise=0.03)) / plain.scale
    bright = anatomy.white > 0.9
    assert np.std(noisy[bright] - clean[bright]) == pytest.approx(0.03, rel=0.15)
    biased = render_contrast(anatomy, replace(plain, bias=0.1)) / plain.scale
    ratio = np.log(biased[anatomy.brain] / clean[anatomy.brain])
    assert 0.03 < np.std(ratio) < 0.2


def test_protocols_differ_by_more_than_one_scale() -> None:
    drawn = [sample_contrast(np.random.default_rng(seed), "FLAIR") for seed in range(40)]
    assert np.std([p.white / p.gray for p in drawn]) > 0.03
    assert np.std([p.gamma for p in drawn]) > 0.05
    assert np.std([p.scale for p in drawn]) > 80


def test_unknown_modality_is_refused() -> None:
    with pytest.raises(SettingsError, match="T2w"):
        sample_contrast(np.random.default_rng(0), "T2")
