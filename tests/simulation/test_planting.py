"""Planted lesions: the volume that was asked for, inside the brain, on any grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from atypia.errors import InputError, SettingsError
from atypia.evaluation.lesion_figures import components
from atypia.simulation.planting import (
    ROUGHNESS,
    PlantedParameters,
    apply_planted,
    least_distance_mm,
    planted_mask,
    render_planted,
    sample_planted,
    surface_waves,
)
from atypia.volume import Volume

Spacing = tuple[float, float, float]


def head(
    spacing_mm: Spacing = (2, 2, 2), angles: Spacing = (0, 0, 0), radius_mm: float = 40
) -> tuple[Volume, Volume]:
    """Make a ball of intensity 200 around the world's origin, and its mask."""
    shape = [math.ceil(2 * radius_mm / s) + 3 for s in spacing_mm]
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    inside = (world**2).sum(-1) < radius_mm**2
    image = Volume(np.where(inside, 200, 0).astype(np.int16), affine)
    return image, image.with_data(inside, "mask")


def one(brain: Volume, diameter_mm: float, seed: int = 0) -> PlantedParameters:
    return sample_planted(brain, diameter_mm, 0.3, 1, np.random.default_rng(seed))[0]


spacings = st.tuples(*[st.floats(1.2, 4.0)] * 3)
turns = st.tuples(*[st.floats(-180.0, 180.0)] * 3)


@settings(max_examples=12)
@given(spacings, turns, st.floats(5.0, 24.0), st.integers(0, 1000))
def test_on_any_grid_the_volume_is_right_and_all_of_it_lies_in_the_brain(
    spacing_mm: Spacing, angles: Spacing, diameter_mm: float, seed: int
) -> None:
    _, brain = head(spacing_mm, angles, radius_mm=32)
    parameters = one(brain, diameter_mm, seed)
    mask = planted_mask(brain, [parameters])
    voxel = brain.geometry.voxel_volume_mm3
    wanted = math.pi / 6 * diameter_mm**3
    assert abs(mask.data.sum() * voxel - wanted) <= max(0.1 * wanted, voxel)
    assert not (mask.data & ~brain.data).any()
    assert components(mask.data)[1] == 1
    # Roundish, and where it was asked for.
    away = brain.geometry.world(np.argwhere(mask.data)) - parameters.centre_mm
    room = np.linalg.norm(brain.spacing_mm) / 2
    assert np.linalg.norm(away, axis=1).max() <= 0.8 * diameter_mm + room
    assert np.linalg.norm(away.mean(0)) <= 0.1 * diameter_mm + room


@pytest.mark.parametrize("gap_mm", [2.0, 4.0])
def test_a_lesion_beside_a_gap_is_of_one_piece_and_as_large(gap_mm: float) -> None:
    _, whole = head((2, 2, 2))
    across = whole.geometry.world(np.argwhere(whole.data))[:, 0]
    halves = whole.data.copy()
    # The halves hang together below, as those of a brain do, but not within the lesion's reach.
    below = whole.geometry.world(np.argwhere(whole.data))[:, 2] < -30
    halves[whole.data] = (np.abs(across) > gap_mm / 2) | below
    brain = whole.with_data(halves, "mask")
    for seed in range(4):
        parameters = PlantedParameters((gap_mm / 2 + 4.0, 3.0, 5.0), 24.0, 0.3, 0.8, seed)
        lesion = render_planted(brain, parameters)
        mask = planted_mask(brain, [parameters])
        assert components(mask.data)[1] == 1
        assert mask.data.sum() == round(math.pi / 6 * 24**3 / 8)
        assert (brain.geometry.world(np.argwhere(mask.data))[:, 0] > 0).all()
        # Nor is there anything in the image where the mask does not tell of it.
        beyond = brain.geometry.world(np.argwhere(halves))[:, 0] < 0
        there = np.zeros(brain.shape, dtype=np.float32)
        there[lesion.box] = lesion.share
        assert there[halves][beyond].max() < 0.5


def test_another_contrast_is_the_same_lesion_only_stronger() -> None:
    image, brain = head()
    weak, strong = (
        sample_planted(brain, 16, contrast, 2, np.random.default_rng(5)) for contrast in (-0.1, 0.3)
    )
    assert [p.centre_mm for p in weak] == [p.centre_mm for p in strong]
    np.testing.assert_array_equal(planted_mask(brain, weak).data, planted_mask(brain, strong).data)
    changes = [apply_planted(image, brain, lesions).data - 200.0 for lesions in (weak, strong)]
    changes = [np.where(brain.data, change, 0) for change in changes]
    np.testing.assert_allclose(changes[0], changes[1] / -3, atol=1e-3)
    assert changes[1].max() == pytest.approx(0.3 * 200, rel=0.01)
    other = sample_planted(brain, 16, 0.3, 2, np.random.default_rng(6))
    assert not np.array_equal(planted_mask(brain, other).data, planted_mask(brain, strong).data)


def test_nothing_changes_elsewhere_nor_gets_darker_than_the_background() -> None:
    image, brain = head()
    lesions = sample_planted(brain, 16, -1.0, 1, np.random.default_rng(0))
    planted = apply_planted(image, brain, lesions)
    assert planted.data.dtype == np.float32
    assert planted.data.min() == 0
    far = np.ones(brain.shape, dtype=bool)
    far[render_planted(brain, lesions[0]).box] = False
    np.testing.assert_array_equal(planted.data[far], image.data[far])
    np.testing.assert_array_equal(planted.data[~brain.data], 0)
    dim = image.with_data(np.where(np.arange(brain.shape[0])[:, None, None] % 3, image.data, 5))
    assert np.median(dim.data[brain.data]) == 200  # a third of the brain is far below its median
    assert apply_planted(dim, brain, lesions).data.min() == 0


def literal_share(brain: Volume, parameters: PlantedParameters, parts: int) -> NDArray[np.float64]:
    """Give the share of a lesion in every voxel of a grid, voxel by voxel and wave by wave."""
    vectors, phases = surface_waves(parameters)
    radius = parameters.diameter_mm / 2
    places = (np.arange(parts) + 0.5) / parts - 0.5
    offsets = np.stack(np.meshgrid(places, places, places, indexing="ij"), axis=-1).reshape(-1, 3)
    heights = np.full((*brain.shape, len(offsets)), -1e3)
    for voxel in np.argwhere(brain.data):
        for number, offset in enumerate(offsets):
            away = brain.geometry.world(voxel + offset) - parameters.centre_mm
            distance = float(np.linalg.norm(away))
            if distance > 2 * radius:
                continue
            noise = math.sqrt(2 / len(phases)) * np.cos(vectors @ away + phases).sum()
            heights[(*voxel, number)] = radius + ROUGHNESS * radius * noise - distance
    volume = brain.geometry.voxel_volume_mm3 / len(offsets)
    count = round(math.pi / 6 * parameters.diameter_mm**3 / volume)
    edge = np.sort(heights.ravel())[-count]
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp((edge - heights) / parameters.softness_mm))).mean(-1)


def test_the_share_is_that_of_the_literal_formulation() -> None:
    _, brain = head((3, 3, 3), (10, 20, 30), radius_mm=12)
    parameters = one(brain, 9, seed=3)
    lesion = render_planted(brain, parameters)
    whole = np.zeros(brain.shape)
    whole[lesion.box] = lesion.share
    np.testing.assert_allclose(whole, literal_share(brain, parameters, 3), atol=1e-5)


def test_a_coarse_grid_shows_the_average_of_a_fine_one() -> None:
    _, fine = head((1, 1, 1), radius_mm=20)
    size = [n // 2 for n in fine.shape]
    cut = fine.data[: 2 * size[0], : 2 * size[1], : 2 * size[2]]
    blocks = cut.reshape(size[0], 2, size[1], 2, size[2], 2)
    affine = fine.affine @ np.diag([2, 2, 2, 1.0])
    affine[:3, 3] = fine.affine[:3, 3] + 0.5
    coarse = Volume(blocks.all((1, 3, 5)), affine, "mask")
    parameters = PlantedParameters((1.0, -2.0, 3.0), 10.0, 0.3, 0.5, 4)
    shares = []
    for brain in (fine, coarse):
        lesion = render_planted(brain, parameters)
        share = np.zeros(brain.shape)
        share[lesion.box] = lesion.share
        shares.append(share)
    cut = shares[0][: 2 * size[0], : 2 * size[1], : 2 * size[2]]
    mean = cut.reshape(size[0], 2, size[1], 2, size[2], 2).mean((1, 3, 5))
    np.testing.assert_allclose(shares[1], mean, atol=1e-4)


def test_lesions_keep_their_distance_and_fewer_are_planted_where_they_do_not_fit() -> None:
    _, brain = head()
    lesions = sample_planted(brain, 8, 0.3, 4, np.random.default_rng(1))
    centres = np.array([p.centre_mm for p in lesions])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(4, 1)]
    assert len(lesions) == 4
    assert apart.min() >= least_distance_mm(8)
    assert 1 <= len(sample_planted(brain, 30, 0.3, 9, np.random.default_rng(1))) < 9
    assert sample_planted(brain, 90, 0.3, 3, np.random.default_rng(1)) == ()
    nothing = brain.with_data(np.zeros(brain.shape, dtype=bool))
    assert sample_planted(nothing, 6, 0.3, 3, np.random.default_rng(1)) == ()


def test_a_lesion_much_smaller_than_a_voxel_shows_faintly() -> None:
    _, brain = head((6, 6, 6))
    lesion = render_planted(brain, one(brain, 3))
    assert lesion.mask.sum() == 1
    assert 0 < lesion.share.sum() * 216 < 1.3 * math.pi / 6 * 27


@pytest.mark.parametrize(("diameter", "contrast"), [(0, 0.3), (math.nan, 0.3), (9, math.inf),
                                                    (9, -1.1)])  # fmt: skip
def test_impossible_lesions_are_refused(diameter: float, contrast: float) -> None:
    with pytest.raises(SettingsError):
        sample_planted(head()[1], diameter, contrast, 1, np.random.default_rng(0))


def test_an_image_without_units_and_a_lesion_of_another_brain_are_refused() -> None:
    image, brain = head()
    normalised = image.with_data(image.data.astype(np.float32) - 300)
    with pytest.raises(InputError, match="median intensity of its brain is -100"):
        apply_planted(normalised, brain, [one(brain, 9)])
    with pytest.raises(InputError, match="no brain at"):
        render_planted(brain, PlantedParameters((900.0, 0.0, 0.0), 9.0, 0.3, 0.5, 1))
