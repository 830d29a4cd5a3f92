"""Steps of the grid: image and mask stay together, and nothing moves in the world."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import InputError
from atypia.preprocessing.grid import CropPad, Downsample, Reorient, Resample
from atypia.preprocessing.step import State
from atypia.volume import Volume
from tests.grids import affines, centre_of_mass, shapes
from tests.phantoms import phantom

ONTO = Resample(
    shape=(24, 24, 24),
    affine=((8, 0, 0, -92), (0, 8, 0, -92), (0, 0, 8, -92), (0, 0, 0, 1)),
)


def test_image_and_mask_lie_on_the_grid() -> None:
    image, brain, _ = phantom(0)
    state = ONTO.apply(State(image, brain), {})
    for volume in (state.image, state.require_brain()):
        assert volume.geometry.matches(ONTO.grid)
    found = state.require_brain()
    assert found.kind == "mask"
    assert np.linalg.norm(centre_of_mass(found) - centre_of_mass(brain)) < 2
    inner = found.data & (state.image.data > 0)
    assert state.image.data[inner].mean() == pytest.approx(image.data[brain.data].mean(), rel=0.1)


def test_a_brain_out_of_view_is_refused() -> None:
    image, brain, _ = phantom(0)
    far = brain.affine.copy()
    far[0, 3] += 1000
    state = State(replace(image, affine=far), replace(brain, affine=far))
    with pytest.raises(InputError, match="phantom 0: no part of the brain.*alignment"):
        ONTO.apply(state, {})


def test_a_step_without_brain_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="put FindBrain before"):
        ONTO.apply(State(phantom(0)[0]), {})


def test_splines_are_sharper_than_lines_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    x = np.indices((24, 24, 24))
    wave = 50 + 40 * np.sin(x[0] / 1.5) * np.cos(x[1] / 2) + rng.normal(0, 0.1, x[0].shape)
    image = Volume(wave.astype(np.float32), np.diag([2.0, 2, 2, 1]))
    brain = image.with_data(np.ones(image.shape), "mask")
    # Half a voxel aside: the true values are known.
    rows = ((2, 0, 0, 1), (0, 2, 0, 1), (0, 0, 2, 1), (0, 0, 0, 1))
    truth = 50 + 40 * np.sin((x[0] + 0.5) / 1.5) * np.cos((x[1] + 0.5) / 2)
    inner = (slice(3, -3),) * 3
    errors = {}
    for way in ("linear", "bspline"):
        step = Resample(shape=(24, 24, 24), affine=rows, interpolation=way)  # type: ignore[arg-type]
        found = step.apply(State(image, brain), {}).image.data
        errors[way] = np.abs(found - truth)[inner].mean()
        assert found.min() >= min(0, image.data.min())
        assert found.max() <= image.data.max()
    assert errors["bspline"] < errors["linear"] / 4


def coded(shape: tuple[int, int, int], affine: np.ndarray) -> Volume:
    """Make a volume whose values tell where in the world they were (its x coordinate)."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    empty = Volume(np.zeros(shape, np.float32), affine)
    return empty.with_data(empty.geometry.world(index)[..., 0])


@given(shapes, affines)
def test_reorienting_moves_no_voxel_in_the_world(
    shape: tuple[int, int, int], affine: np.ndarray
) -> None:
    image = coded(shape, affine)
    brain = image.with_data(np.ones(shape), "mask")
    state = Reorient().apply(State(image, brain), {})
    np.testing.assert_allclose(
        state.image.data, coded(state.image.shape, state.image.affine).data, atol=1e-6
    )
    assert nibabel.aff2axcodes(state.image.affine) == ("R", "A", "S")
    state.image.require_same_grid(state.require_brain())
    assert Reorient().apply(State(image), {}).brain is None


@given(shapes, affines, st.tuples(*[st.integers(1, 9)] * 3))
def test_cutting_and_padding_moves_no_voxel_in_the_world(
    shape: tuple[int, int, int], affine: np.ndarray, size: tuple[int, int, int]
) -> None:
    image = coded(shape, affine)
    brain = image.with_data(np.ones(shape), "mask")
    step = CropPad(shape=size)
    state = step.apply(State(image, brain), {})
    assert state.image.shape == size
    inside = state.require_brain().data
    assert inside.sum() == np.prod(np.minimum(shape, size))
    expected = np.where(inside, coded(size, state.image.affine).data, 0)
    np.testing.assert_allclose(state.image.data, expected, atol=1e-6)
    grid = step.grid_after(image.geometry)
    assert grid is not None
    assert grid.matches(state.image.geometry, 1e-9)
    # The centre stays, to half a voxel of each axis.
    middles = [v.geometry.world((np.array(v.shape) - 1) / 2) for v in (image, state.image)]
    offset = np.linalg.solve(affine[:3, :3], middles[1] - middles[0])
    assert np.abs(offset).max() <= 0.5 + 1e-6


def test_cutting_the_brain_away_is_refused() -> None:
    image, brain, _ = phantom(0)
    corner = brain.with_data(np.zeros(brain.shape), "mask")
    corner.data[0, 0, 0] = True
    with pytest.raises(InputError, match="phantom 0: no part of the brain"):
        CropPad(shape=(4, 4, 4)).apply(State(image, corner), {})


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_coarser_grid_covers_the_same_field_of_view(factor: int, interpolation: str) -> None:
    image, brain, _ = phantom(0)
    step = Downsample(factor=factor, interpolation=interpolation)  # type: ignore[arg-type]
    state = step.apply(State(image, brain), {})
    assert state.image.shape == tuple(n // factor for n in image.shape)
    assert state.image.spacing_mm == pytest.approx((6.0 * factor,) * 3)
    np.testing.assert_allclose(
        centre_of_mass(state.require_brain()), centre_of_mass(brain), atol=factor
    )
    if image.shape[0] % factor == 0:
        middle = [v.geometry.world((np.array(v.shape) - 1) / 2) for v in (image, state.image)]
        np.testing.assert_allclose(middle[0][0], middle[1][0], atol=1e-9)
    assert state.image.data[state.require_brain().data].mean() == pytest.approx(
        image.data[brain.data].mean(), rel=0.12
    )


def test_without_a_working_grid_none_is_known() -> None:
    assert CropPad(shape=(4, 4, 4)).grid_after(None) is None
    assert Downsample().grid_after(None) is None
