"""CorrectBias: a planted shading goes away, and comes back in a restoration."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from atypia.errors import InputError
from atypia.preprocessing.bias import CorrectBias, _field_on
from atypia.preprocessing.step import Parameters, State
from atypia.volume import Array, Geometry, Volume
from tests.grids import affine_of
from tests.phantoms import phantom

STEP = CorrectBias(shrink=1, iterations=(20, 20, 20))


def shaded() -> tuple[Volume, Volume, Array]:
    """Make a phantom under a smooth field of mean one; give image, brain and field."""
    image, brain, _ = phantom(0)
    x, y, _ = np.moveaxis(image.geometry.world(np.moveaxis(np.indices(image.shape), 0, -1)), -1, 0)
    log_field = 0.3 * np.sin(x / 60) + 0.2 * y / 70
    field = np.exp(log_field - log_field[brain.data].mean())
    return image.with_data((image.data * field).astype(np.float32)), brain, field


@pytest.fixture(scope="module")
def measured() -> tuple[State, Array, Parameters]:
    image, brain, field = shaded()
    state = State(image, brain)
    return state, field, STEP.measure(state)


def test_a_planted_shading_is_found(measured: tuple[State, Array, Parameters]) -> None:
    state, field, parameters = measured
    json.dumps(parameters)
    inside = state.require_brain().data
    found = _field_on(state.image.geometry, parameters)
    before = np.log(field)[inside].std()
    after = (np.log(field) - np.log(found))[inside].std()
    assert after < 0.35 * before
    assert np.log(found)[inside].mean() == pytest.approx(0, abs=0.02)
    flat = STEP.apply(state, parameters).image
    np.testing.assert_allclose(flat.data, state.image.data / found, rtol=1e-5)


def test_the_shading_comes_back_where_it_was(measured: tuple[State, Array, Parameters]) -> None:
    state, _, parameters = measured
    flat = STEP.apply(state, parameters).image
    back = STEP.restore_intensity(flat.data, parameters, flat.geometry)
    np.testing.assert_allclose(back, state.image.data, rtol=1e-4)
    assert STEP.restore_intensity(flat.data, parameters) is flat.data


def test_a_turned_grid_gets_the_same_field(measured: tuple[State, Array, Parameters]) -> None:
    from scipy import ndimage

    state, _, parameters = measured
    native = state.image.geometry
    turned = Geometry((20, 20, 20), affine_of((10, 5, -20), (3, 3, 3), (-30, -25, -28)))
    places = native.voxel(turned.world(np.moveaxis(np.indices(turned.shape), 0, -1)))
    expected = ndimage.map_coordinates(
        _field_on(native, parameters), np.moveaxis(places, -1, 0), order=3
    )
    np.testing.assert_allclose(_field_on(turned, parameters), expected, rtol=0.01)


def test_a_thin_slab_and_shrinking_by_axis() -> None:
    image, brain, _ = shaded()
    thin = Volume(image.data[:, :, 10:12], image.affine @ np.diag([1.0, 1, 3, 1]))
    mask = Volume(brain.data[:, :, 10:12], thin.affine, "mask")
    step = CorrectBias(shrink=2, iterations=(5, 5))
    state = State(thin, mask)
    out = step.apply(state, step.measure(state)).image
    assert np.isfinite(out.data).all()


@pytest.mark.parametrize("value", [0.0, -5.0])
def test_a_brain_without_positive_intensity(value: float) -> None:
    image, brain, _ = phantom(0)
    state = State(image.with_data(np.full(image.shape, value)), brain)
    with pytest.raises(InputError, match="phantom 0: has no positive.*without correct_bias"):
        STEP.measure(state)


def test_an_error_of_n4_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import SimpleITK as sitk

    def failing(self: Any, image: object, mask: object) -> None:
        raise RuntimeError("Exception thrown\nITK ERROR: mask is empty")

    monkeypatch.setattr(sitk.N4BiasFieldCorrectionImageFilter, "Execute", failing)
    image, brain, _ = phantom(0)
    with pytest.raises(InputError, match="phantom 0: N4 fails .*mask is empty"):
        STEP.measure(State(image, brain))
