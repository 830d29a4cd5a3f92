"""The expected scan: against a literal robust regression, exact on mixtures, unmoved by lesions."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from atypia.cohort.simulated import simulated_cohort
from atypia.detectors.tissue_prior import tissues_on
from atypia.preprocessing import make_plan, prepare
from atypia.scoring import tissue_fit
from atypia.scoring.tissue_fit import TISSUES, contrast_of, expected_scans, fit_tissues
from atypia.simulation import SimulationSettings
from atypia.templates import mni152
from atypia.training.loop import seeded
from atypia.volume import Geometry

Floats = NDArray[np.float64]

LEVELS = torch.tensor([1.2, 0.1, 0.5, -1.8])


@cache
def template() -> tuple[torch.Tensor, torch.Tensor]:
    """Brain and tissues of the template on a grid of 5 mm."""
    whole = mni152().brain
    affine = whole.affine @ np.diag([5.0, 5.0, 5.0, 1.0])
    brain = whole.data[::5, ::5, ::5]
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    tissues = tissues_on(Geometry(shape, affine))[0]
    return torch.from_numpy(np.array(brain)) & (tissues.sum(0) > 0.5), tissues


def mixture(levels: torch.Tensor = LEVELS) -> torch.Tensor:
    brain, tissues = template()
    return torch.einsum("t,txyz->xyz", levels, tissues) * brain


def literal_levels(values: Floats, maps: Floats) -> Floats:
    """Iteratively reweighted least squares with Tukey's biweight, one voxel after the other."""
    count, tissues = maps.shape
    weights = [1.0] * count
    levels = np.zeros(tissues)
    for _ in range(6):
        normal, right = np.zeros((tissues, tissues)), np.zeros(tissues)
        for row, value, weight in zip(maps, values, weights, strict=True):
            normal += weight * np.outer(row, row)
            right += weight * value * row
        for t in range(tissues):
            normal[t, t] += 1e-3 * sum(weights) / tissues
        levels = np.linalg.inv(normal) @ right
        off = [abs(value - row @ levels) for row, value in zip(maps, values, strict=True)]
        cut = 4.685 * 1.4826 * sorted(off)[(count - 1) // 2]
        weights = [(1 - (u / cut) ** 2) ** 2 if u < cut else 0.0 for u in off]
    return levels


def test_levels_are_those_of_a_literal_robust_regression() -> None:
    brain, tissues = template()
    rng = np.random.default_rng(0)
    image = mixture() + 0.2 * torch.from_numpy(rng.normal(size=brain.shape).astype(np.float32))
    image[20:28, 20:28] += 3  # a lesion, so that weights of zero occur
    image *= brain
    some = brain.clone()
    some[::2] = some[:, ::2] = some[:, :, ::2] = False
    _, found = fit_tissues(image, some, tissues)
    values = image[some].double().numpy()
    maps = tissues[:, some].double().numpy().T
    np.testing.assert_allclose(found, literal_levels(values, maps), rtol=1e-5)


def test_the_fit_of_a_mixture_is_exact_but_for_the_ridge() -> None:
    brain, tissues = template()
    image = mixture()
    expected, found = fit_tissues(image, brain, tissues)
    # It pulls the intensities of rare tissues towards zero, here by 0.12 of 1.8 for fluid.
    torch.testing.assert_close(found, LEVELS, rtol=0, atol=0.15)
    off = (expected - image)[brain]
    assert float(off.square().mean().sqrt()) < 0.04 * float(image[brain].std())
    assert not expected[~brain].any()


def test_without_the_ridge_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tissue_fit, "RIDGE", 0.0)
    brain, tissues = template()
    expected, found = fit_tissues(mixture(), brain, tissues)
    torch.testing.assert_close(found, LEVELS, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expected, mixture(), rtol=1e-5, atol=1e-5)


def test_a_lesion_of_a_tenth_of_the_brain_does_not_move_it() -> None:
    brain, tissues = template()
    noise = torch.randn(brain.shape, generator=seeded(1))
    image = (mixture() + 0.1 * noise) * brain
    before = fit_tissues(image, brain, tissues)[1]
    # A ball in one hemisphere: what is nearest to its middle.
    grid = torch.stack(torch.meshgrid(*map(torch.arange, brain.shape), indexing="ij")).float()
    places = brain.nonzero().float().mean(0) + torch.tensor([7.0, 0.0, 2.0])
    distance = (grid - places[:, None, None, None]).norm(dim=0)
    lesion = brain & (distance <= torch.quantile(distance[brain], 0.1))
    sick = torch.where(lesion, image + 4, image)
    expected, after = fit_tissues(sick, brain, tissues)
    assert float((after - before).abs().max()) < 0.05
    # Plain least squares is drawn away: the test would see it.
    maps = tissues[:, brain].double().T
    plain = torch.linalg.lstsq(maps, sick[brain].double()[:, None]).solution[:, 0]
    assert float((plain - before).abs().max()) > 0.3
    residual = (sick - expected)[brain].abs()
    assert float(residual[lesion[brain]].median()) > 10 * float(residual[~lesion[brain]].median())


def test_a_subset_of_the_voxels_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    brain, tissues = template()
    image = (mixture() + 0.2 * torch.randn(brain.shape, generator=seeded(2))) * brain
    every = fit_tissues(image, brain, tissues)[1]
    monkeypatch.setattr(tissue_fit, "MOST", 2000)
    some = fit_tissues(image, brain, tissues)[1]
    assert not torch.equal(some, every)
    torch.testing.assert_close(some, every, rtol=0.1, atol=0.1)


def test_what_is_not_seen_is_zero_and_no_brain_is_no_error() -> None:
    brain, tissues = template()
    pure = (tissues > 0.95).float()
    _, levels = fit_tissues(torch.ones(brain.shape), pure[0] > 0, pure)
    assert float(levels[0]) == pytest.approx(1, abs=1e-3)
    assert not levels[1:].any()
    nothing = torch.zeros_like(brain)
    expected, levels = fit_tissues(mixture(), nothing, tissues)
    assert not expected.any()
    assert not levels.any()


def test_a_batch_is_fitted_scan_by_scan() -> None:
    brain, tissues = template()
    images = torch.stack([mixture(), mixture(-LEVELS)])[:, None]
    brains = torch.stack([brain, brain & (tissues[0] < 0.9)])[:, None]
    found = expected_scans(images, brains, tissues[None])
    assert found.shape == images.shape
    for one, image, inside in zip(found, images, brains, strict=True):
        assert torch.equal(one[0], fit_tissues(image[0], inside[0], tissues)[0])


@pytest.mark.parametrize(
    ("levels", "name"),
    [
        ((3, 2, 0, 1), "T1w"),
        ((1, 2, 0, 3), "T2w"),
        ((2, 3, 0, 1), "FLAIR"),
        ((2, 2, 0, 1), "FLAIR"),
        ((3, 1, 0, 2), "other"),
        ((1, 3, 0, 2), "other"),
        ((2, 1, 0, 3), "other"),
    ],
)
def test_contrasts_have_names(levels: tuple[float, ...], name: str) -> None:
    assert len(levels) == len(TISSUES)
    assert contrast_of(levels) == name


@pytest.mark.parametrize("modality", ["T1w", "T2w", "FLAIR"])
def test_the_contrast_of_a_healthy_brain_is_read_off_it(modality: str) -> None:
    cohort = simulated_cohort(SimulationSettings(modality=modality, spacing_mm=4), range(2))
    plan = make_plan(cohort, preset="atypia", spacing_mm=4.0, align="centre", modality=modality)
    names = []
    for scan in cohort:
        prepared = prepare(scan, plan)
        image = torch.from_numpy(np.array(prepared.image.data))
        brain = torch.from_numpy(np.array(prepared.brain.data))
        tissues = tissues_on(prepared.image.geometry)[0]
        names.append(contrast_of(fit_tissues(image, brain, tissues)[1].tolist()))
    assert names == [modality] * 2
