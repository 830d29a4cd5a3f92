"""Apply, then invert: masks come back for random plans at about 1 mm."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.preprocessing import Plan
from atypia.preprocessing.align import Align
from atypia.preprocessing.bias import CorrectBias
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.grid import CropPad, Downsample, Reorient, Resample
from atypia.preprocessing.intensity import Normalise, ScaleRange
from atypia.volume import Volume
from tests.grids import affine_of, centred, overlap, small_angles, world_of
from tests.phantoms import phantom

SHAPE = (90, 84, 80)
RADII_MM = np.array([38.0, 34.0, 32.0])
TURNS = st.permutations([0, 1, 2])


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, np.ndarray]:
    """Give a plan of random steps that keeps the brain in view, and the transform of its Align."""
    spacing = draw(st.floats(0.8, 1.2))
    size = int(np.ceil(100 / spacing)) + draw(st.integers(0, 9))
    rows = np.diag([spacing, spacing, spacing, 1.0])
    rows[:3, 3] = -(size - 1) / 2 * spacing
    kinds = draw(st.sampled_from([None, "rigid", "affine"]))
    scale = (1.0, 1.0, 1.0)
    if kinds == "affine":
        scale = tuple(draw(st.tuples(*[st.floats(0.9, 1.1)] * 3)))
    matrix = affine_of(draw(small_angles), scale, draw(st.tuples(*[st.floats(-2, 2)] * 3)))
    steps: list[Any] = [FindBrain(engine="foreground")]
    early = draw(st.sampled_from(["none", "reorient", "crop", "both"]))
    if early in ("reorient", "both"):
        steps.insert(0, Reorient())
    if early in ("crop", "both"):
        sizes = [84 + draw(st.integers(0, 20)) for _ in range(3)]
        steps.insert(0, CropPad(shape=tuple(sizes)))
    if kinds:
        steps.append(Align(transform=kinds))
    way = draw(st.sampled_from(["linear", "bspline"]))
    steps.append(Resample(shape=(size,) * 3, affine=rows.tolist(), interpolation=way))
    if draw(st.booleans()):
        sizes = [int(np.ceil(96 / spacing)) + draw(st.integers(0, 30)) for _ in range(3)]
        steps.append(CropPad(shape=tuple(sizes)))
    steps.append(draw(st.sampled_from([Normalise(), ScaleRange()])))
    if draw(st.booleans()):
        steps.append(Downsample(factor=draw(st.sampled_from([1, 2])), interpolation=way))
    return Plan(steps=tuple(steps)), matrix


def ellipsoid(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[Volume, Volume]:
    empty = Volume(np.zeros(shape, np.float32), affine)
    distance = np.linalg.norm(world_of(empty) / RADII_MM, axis=-1)
    brain = distance < 1
    image = np.where(brain, 100 + 20 * np.cos(3 * distance), 0)
    return empty.with_data(image), empty.with_data(brain, "mask")


@given(plans(), small_angles, st.booleans(), TURNS)
@settings(max_examples=12)
def test_masks_come_back(
    plan_and_matrix: tuple[Plan, np.ndarray],
    turn: tuple[float, float, float],
    mirrored: bool,
    order: list[int],
) -> None:
    plan, matrix = plan_and_matrix
    turned = affine_of(turn, (1, 1, 1), (0, 0, 0), mirrored)
    turned[:3, :3] = turned[:3, order]
    shape = (SHAPE[order[0]], SHAPE[order[1]], SHAPE[order[2]])
    image, brain = ellipsoid(centred(turned, shape, np.zeros(3)), shape)
    with mock.patch.object(Align, "measure", return_value={"matrix": matrix.tolist()}):
        prepared = plan.apply(image)
    assert prepared.image.geometry.matches(plan.grid, 1e-6)
    image.require_same_grid(prepared.native_brain)
    assert overlap(prepared.native_brain, brain) > 0.999
    # As an image, because what comes back as a mask is cut at the native brain.
    share = prepared.image.with_data(prepared.brain.data.astype(np.float32))
    native = plan.to_native(share, prepared)
    assert overlap(native.with_data(native.data >= 0.5, "mask"), brain) > 0.98
    lesion = plan.to_native(prepared.brain, prepared)
    assert overlap(lesion, brain) > 0.98


@pytest.mark.parametrize("shrink", [1, 2])
def test_a_restoration_comes_back_with_its_shading(shrink: int) -> None:
    image, brain, _ = phantom(0)
    x = world_of(image)[..., 0]
    shaded = image.with_data((image.data * np.exp(x / 150)).astype(np.float32))
    rows = ((6, 0, 0, -93), (0, 6, 0, -93), (0, 0, 6, -93), (0, 0, 0, 1))
    matrix = affine_of((5, 0, 10), (1, 1.1, 1), (4, -3, 2))
    steps = (
        FindBrain(),
        CorrectBias(shrink=shrink, iterations=(20, 20)),
        Align(),
        Resample(shape=(32, 32, 32), affine=rows),
        Normalise(limit=100),
    )
    plan = Plan(steps=steps)
    with mock.patch.object(Align, "measure", return_value={"matrix": matrix.tolist()}):
        prepared = plan.apply(shaded, brain)
    units = plan.restore_intensity(prepared.image.data, prepared).astype(np.float32)
    native = plan.to_native(prepared.image.with_data(units), prepared)
    from scipy import ndimage

    inner = ndimage.binary_erosion(brain.data, iterations=2)
    error = np.abs(native.data - shaded.data)[inner].mean()
    spread = shaded.data[inner].std()
    assert error < 0.35 * spread
    slope = np.polyfit(x[inner], np.log(native.data[inner] / image.data[inner]), 1)[0]
    assert slope == pytest.approx(1 / 150, rel=0.15)
