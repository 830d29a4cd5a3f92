"""Resample: image and mask on one grid, refusing a brain that is elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atypia.errors import InputError
from atypia.preprocessing.grid import Resample
from atypia.preprocessing.step import State
from tests.grids import centre_of_mass
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
