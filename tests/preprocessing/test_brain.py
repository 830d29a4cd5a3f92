"""FindBrain: the supplied mask, or the foreground; and scans in which no brain is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.errors import InputError
from atypia.preprocessing.brain import FindBrain, foreground
from atypia.preprocessing.step import State
from atypia.volume import Volume
from tests.grids import ball
from tests.phantoms import phantom

FIND = FindBrain()


def test_the_foreground_of_a_stripped_scan_is_its_brain() -> None:
    image, brain, _ = phantom(0)
    found = FIND.apply(State(image), {}).require_brain()
    np.testing.assert_array_equal(found.data, brain.data)
    assert found.kind == "mask"


@given(st.sampled_from([0.0, -1024.0, 7.0]))
def test_any_background_value_will_do(background: float) -> None:
    image, brain, _ = phantom(1)
    shifted = image.with_data(np.where(brain.data, image.data, background).astype(np.float32))
    np.testing.assert_array_equal(foreground(shifted), brain.data)


def test_holes_are_filled_and_specks_dropped() -> None:
    image, brain, _ = phantom(2)
    data = image.data.copy()
    data[13, 15, 12] = 0  # a dark ventricle
    data[1, 1, 1] = 50  # a speck outside
    np.testing.assert_array_equal(foreground(image.with_data(data)), brain.data)


def test_a_supplied_mask_is_taken_as_it_is() -> None:
    image, _, lesion = phantom(0, lesion=True)
    found = FIND.apply(State(image, lesion), {}).require_brain()
    np.testing.assert_array_equal(found.data, lesion.data)
    assert found.source == image.source


@pytest.mark.parametrize("value", [0, 5])
def test_an_all_zero_or_constant_image(value: int) -> None:
    image = Volume(np.full((5, 5, 5), value), source="scan.nii")
    with pytest.raises(InputError, match=r"scan\.nii: .*same value.*Give a scan of a brain"):
        FIND.apply(State(image), {})


def test_an_empty_mask() -> None:
    image, brain, _ = phantom(0)
    empty = brain.with_data(np.zeros(brain.shape))
    with pytest.raises(InputError, match="phantom 0: .*brain mask has no voxel"):
        FIND.apply(State(image, empty), {})


def test_a_mask_of_another_shape_or_place() -> None:
    image, brain, _ = phantom(0)
    for other in (
        Volume(brain.data[1:], brain.affine, "mask", "mask.nii"),
        Volume(brain.data, brain.affine @ np.diag([1.0, 1, 1.1, 1]), "mask", "mask.nii"),
    ):
        with pytest.raises(InputError, match=r"mask\.nii: .*phantom 0.*Resample it"):
            FIND.apply(State(image, other), {})


def test_a_head_with_its_skull() -> None:
    affine = np.diag([6.0, 6, 6, 1])
    head = ball((32, 32, 32), affine, (93, 93, 93), 88, "image")  # 2850 ml
    head = Volume(head.data, affine, source="head.nii")
    with pytest.raises(InputError, match=r"head\.nii: .*28\d\d ml.*skull.*Strip the skull"):
        FindBrain(engine="foreground").apply(State(head), {})
    # Whoever supplies a mask is believed.
    mask = head.with_data(head.data, "mask")
    assert FIND.apply(State(head, mask), {}).require_brain().data.any()
    assert FindBrain(largest_brain_ml=3000).apply(State(head), {}).require_brain().data.any()
