"""Lesions: true masks, volumes, intensities per modality, mass effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atypia.errors import SettingsError
from atypia.simulation import (
    LESIONS,
    Anatomy,
    SimulationSettings,
    render_anatomy,
    render_lesion,
    sample_anatomy,
    sample_lesion,
    simulate_subject,
)
from atypia.simulation.contrast import TISSUES, render_contrast, sample_contrast

SEEDS = range(4)


@pytest.mark.parametrize("name", LESIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_lies_in_the_brain_and_has_the_drawn_volume(
    anatomy: Anatomy, name: str, seed: int
) -> None:
    parameters = sample_lesion(np.random.default_rng(seed), name)
    low, high = LESIONS[name].volume_ml
    assert low <= parameters.volume_ml <= high
    lesion = render_lesion(anatomy, parameters)
    assert not (lesion.mask & ~anatomy.brain).any()
    volume_ml = lesion.mask.sum() * 0.064
    assert volume_ml == pytest.approx(parameters.volume_ml, rel=0.1, abs=0.13)


@pytest.mark.parametrize("name", LESIONS)
def test_a_tiny_lesion_on_a_coarse_grid_is_not_lost(name: str) -> None:
    anatomy = render_anatomy(sample_anatomy(np.random.default_rng(3)), 6.0)
    parameters = replace(sample_lesion(np.random.default_rng(0), name), volume_ml=0.001)
    assert 1 <= render_lesion(anatomy, parameters).mask.sum() <= 3


@pytest.mark.parametrize("name", LESIONS)
@pytest.mark.parametrize("modality", TISSUES)
def test_the_contrast_has_the_right_sign(anatomy: Anatomy, name: str, modality: str) -> None:
    expected = 1 if modality == "T2w" else -1 if modality == "T1w" or name == "cavity" else 1
    protocol = replace(sample_contrast(np.random.default_rng(1), modality), noise=0.001)
    healthy = render_contrast(anatomy, protocol)
    for seed in SEEDS:
        lesion = render_lesion(anatomy, sample_lesion(np.random.default_rng(seed), name))
        image = render_contrast(lesion.anatomy, protocol, lesion.components)
        # Deep inside: the gliotic rim of a cavity is bright where its fluid is dark.
        inside = lesion.components[-1][0] > 0.5 if name == "cavity" else lesion.mask
        change = (image - healthy)[inside].mean() / healthy[anatomy.brain].mean()
        assert expected * change > 0.03


def test_edges_are_graded() -> None:
    anatomy = render_anatomy(sample_anatomy(np.random.default_rng(3)), 2.0)
    parameters = sample_lesion(np.random.default_rng(1), "stroke")
    share = render_lesion(anatomy, parameters).components[0][0]
    between = ((share > 0.1) & (share < 0.4)).sum()
    assert between > 0.15 * (share > 0.4).sum()


def test_stroke_stays_on_its_side(anatomy: Anatomy) -> None:
    for seed in SEEDS:
        parameters = sample_lesion(np.random.default_rng(seed), "stroke")
        mask = render_lesion(anatomy, parameters).mask
        side = np.sign(parameters.centre_mm[0]) * anatomy.template_mm[0][mask]
        assert (side > -3).mean() > 0.98


def test_white_matter_lesions_lie_in_white_matter(anatomy: Anatomy) -> None:
    for seed in SEEDS:
        parameters = sample_lesion(np.random.default_rng(seed), "white_matter_lesions")
        mask = render_lesion(anatomy, parameters).mask
        assert anatomy.white[mask].mean() > anatomy.white[anatomy.brain].mean() + 0.2


def test_oedema_prefers_white_matter(anatomy: Anatomy) -> None:
    shares = []
    for seed in SEEDS:
        drawn = sample_lesion(np.random.default_rng(seed), "tumour")
        parameters = replace(drawn, mass_effect_mm=0.0, volume_ml=60.0, core_share=0.2)
        lesion = render_lesion(anatomy, parameters)
        oedema = lesion.mask & (lesion.components[1][0] < 0.3)
        shares.append(anatomy.white[oedema].mean())
    assert min(shares) > 0.6


def test_mass_effect_moves_tissue_only_nearby_and_keeps_shares_valid(anatomy: Anatomy) -> None:
    parameters = replace(
        sample_lesion(np.random.default_rng(2), "tumour"), mass_effect_mm=6.0, volume_ml=60.0
    )
    moved = render_lesion(anatomy, parameters).anatomy
    change = np.abs(moved.white - anatomy.white)
    assert change.max() > 0.3
    total = moved.gray + moved.white + moved.csf
    np.testing.assert_allclose(total, anatomy.brain, atol=1e-4)
    offset = anatomy.template_mm - np.array(parameters.centre_mm)[:, None, None, None]
    assert change[np.linalg.norm(offset, axis=0) > 75].max() < 1e-6


def test_the_same_lesion_at_every_spacing() -> None:
    settings = SimulationSettings(lesion="tumour", modality="FLAIR")
    centres = []
    for spacing in (3.0, 5.0):
        lesion = simulate_subject(settings.but(spacing_mm=spacing), 4).lesion
        centres.append(lesion.geometry.world(np.argwhere(lesion.data)).mean(axis=0))
    assert np.linalg.norm(centres[0] - centres[1]) < 5


def test_unknown_lesion_is_refused() -> None:
    with pytest.raises(SettingsError, match="tumour"):
        sample_lesion(np.random.default_rng(0), "tumor")
