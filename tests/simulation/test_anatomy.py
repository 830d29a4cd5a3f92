"""Healthy brains: valid tissue shares, invertible deformations, variety."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from atypia.simulation import (
    Anatomy,
    AnatomyParameters,
    render_anatomy,
    sample_anatomy,
    sample_held_out_anatomy,
)
from atypia.simulation.anatomy import template_displacement
from atypia.simulation.deformation import COARSE_MM, jacobian_determinant
from atypia.simulation.tissue import tissue_maps


def test_shares_sum_to_one_in_the_brain_and_to_zero_outside(anatomy: Anatomy) -> None:
    total = anatomy.gray + anatomy.white + anatomy.csf
    np.testing.assert_allclose(total, anatomy.brain, atol=1e-5)
    for share in (anatomy.gray, anatomy.white, anatomy.csf):
        assert share.dtype == np.float32
        assert share.min() >= -1e-5
        assert share.max() <= 1 + 1e-5


def test_the_grid_leaves_a_margin_and_the_brain_is_of_human_size(anatomy: Anatomy) -> None:
    for axis in range(3):
        edges = np.take(anatomy.brain, [0, -1], axis=axis)
        assert not edges.any()
    volume_ml = anatomy.brain.sum() * anatomy.geometry.voxel_volume_mm3 / 1000
    assert 1100 < volume_ml < 2600


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sample", [sample_anatomy, sample_held_out_anatomy])
def test_the_deformation_never_folds(
    sample: Callable[[np.random.Generator], AnatomyParameters], seed: int
) -> None:
    displacement = template_displacement(sample(np.random.default_rng(seed)))
    assert np.abs(displacement).max() > 2
    assert jacobian_determinant(displacement, COARSE_MM).min() > 0


def test_jacobian_sees_a_fold() -> None:
    x = np.arange(8, dtype=np.float32) * 5
    mirrored = np.zeros((3, 8, 8, 8), dtype=np.float32)
    mirrored[0] = -2 * x[:, None, None]
    np.testing.assert_allclose(jacobian_determinant(mirrored, 5.0), -1, atol=1e-4)


def test_same_parameters_same_brain_other_seed_other_brain(anatomy: Anatomy) -> None:
    again = render_anatomy(sample_anatomy(np.random.default_rng(3)), 4.0)
    np.testing.assert_array_equal(again.gray, anatomy.gray)
    other = render_anatomy(sample_anatomy(np.random.default_rng(4)), 4.0)
    assert other.gray.shape != anatomy.gray.shape or not np.array_equal(other.gray, anatomy.gray)


def test_ventricles_and_sulci_follow_their_parameters() -> None:
    parameters = sample_anatomy(np.random.default_rng(0))
    fluid = {}
    for name, push, width in (("plain", -1.0, 1.0), ("open", 4.0, 1.0), ("wide", -1.0, 2.0)):
        drawn = replace(parameters, ventricle_mm=(push, push), sulcal_width=width)
        brain = render_anatomy(drawn, 4.0)
        near = brain.ventricle_mm < 4
        fluid[name] = (float(brain.csf[near].sum()), float(brain.csf[~near].sum()))
    assert fluid["open"][0] > 1.5 * fluid["plain"][0]
    assert fluid["wide"][1] > 1.3 * fluid["plain"][1]


def test_each_ventricle_has_its_own_size() -> None:
    parameters = sample_anatomy(np.random.default_rng(0))
    ratios = []
    for pushes in ((-1.0, 4.0), (4.0, -1.0)):
        brain = render_anatomy(replace(parameters, ventricle_mm=pushes), 4.0)
        inside = brain.csf * (brain.ventricle_mm < 4)
        left = inside[brain.template_mm[0] < -5].sum()
        ratios.append(inside[brain.template_mm[0] > 5].sum() / left)
    assert ratios[0] > 1.2
    assert ratios[1] < 0.8


def test_even_extreme_ventricles_do_not_fold() -> None:
    drawn = sample_anatomy(np.random.default_rng(1))
    for push in (-1.5, 5.5):
        field = template_displacement(replace(drawn, ventricle_mm=(push, push)))
        assert jacobian_determinant(field, COARSE_MM).min() > 0


def test_ventricle_size_varies_between_people() -> None:
    pushes = [sample_anatomy(np.random.default_rng(seed)).ventricle_mm[0] for seed in range(30)]
    assert np.std(pushes) > 0.5


def test_no_gray_rim_round_the_ventricles() -> None:
    """The template's own gray matter map has such a rim, of about one half."""
    maps = tissue_maps()
    x, y, z = np.round(maps.geometry.voxel([0, -45, 22])).astype(int)
    beside = (maps.ventricle_mm > 0) & (maps.ventricle_mm <= 3)
    behind = np.zeros_like(beside)
    behind[x - 35 : x + 35, y - 6 : y + 12, z - 5 : z + 5] = True
    rim = beside & behind
    assert rim.sum() > 200
    assert maps.gray[rim].mean() < 0.12


def test_import_leaves_torch_alone() -> None:
    code = "import sys, atypia.simulation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_held_out_generator_draws_brains_that_the_usual_one_never_does() -> None:
    def drawn(sample: Callable[[np.random.Generator], AnatomyParameters]) -> list[float]:
        bodies = [sample(np.random.default_rng(seed)) for seed in range(200)]
        return [abs(b.ventricle_mm[0] - b.ventricle_mm[1]) for b in bodies]

    usual, held_out = drawn(sample_anatomy), drawn(sample_held_out_anatomy)
    assert np.median(held_out) > 1.2
    assert np.mean(np.array(usual) < 1.2) > 0.8
    other = render_anatomy(sample_held_out_anatomy(np.random.default_rng(3)), 4.0)
    total = (other.gray + other.white + other.csf)[other.brain]
    assert total.min() > 0.99
    assert other.brain.sum() * 64 / 1e6 == pytest.approx(1.4, abs=0.6)  # litres
