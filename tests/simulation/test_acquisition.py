"""Acquisition: thick slices are averages of thin ones; masks and fields of view err as told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atypia.simulation import SimulatedSubject
from atypia.simulation.acquisition import AcquisitionParameters, acquire, sample_acquisition
from atypia.volume import Volume

PLAIN = AcquisitionParameters(
    thickness_mm=1.0,
    slice_axis=2,
    below_mm=0.0,
    above_mm=0.0,
    mask_shift_mm=0.0,
    mask_error_mm=0.0,
    rim=0.5,
    seed=1,
)


def literal_slices(column: NDArray[np.float64], count: float) -> NDArray[np.float64]:
    """Average a column over slices of `count` voxels, voxel by voxel, and join the middles."""
    size = len(column)
    starts, means, middles = [], [], []
    start = 0.0
    while start < size - 1e-9:
        starts.append(start)
        start += count
    for start in starts:
        end = min(start + count, size)
        weight = [max(0.0, min(k + 1, end) - max(k, start)) for k in range(size)]
        means.append(sum(w * v for w, v in zip(weight, column, strict=True)) / sum(weight))
        # A slice that reaches beyond the grid keeps its middle: the next would follow there.
        middles.append(start + count / 2 - 0.5)
    return np.interp(np.arange(size), middles, means)


@given(
    axis=st.integers(0, 2),
    thickness=st.sampled_from([2.5, 3.0, 4.0, 5.7, 6.0]),
    spacing=st.sampled_from([1.0, 1.5, 2.0, 2.25]),
    seed=st.integers(0, 99),
)
def test_slices_are_what_a_loop_gives(axis: int, thickness: float, spacing: float, seed: int):
    shape = (9, 11, 10)
    voxels = np.random.default_rng(seed).uniform(100, 900, shape).astype(np.float32)
    image = Volume(voxels, np.diag([spacing, spacing, spacing, 1]))
    brain = image.with_data(np.ones(shape, bool), "mask")
    found, mask = acquire(image, brain, replace(PLAIN, thickness_mm=thickness, slice_axis=axis))
    expected = np.apply_along_axis(
        literal_slices, axis, voxels.astype(np.float64), thickness / spacing
    )
    np.testing.assert_allclose(found.data, expected, rtol=2e-5)
    assert mask.data.all()


def test_a_plain_protocol_changes_nothing(healthy: SimulatedSubject) -> None:
    image, brain = acquire(healthy.image, healthy.brain, PLAIN)
    np.testing.assert_array_equal(image.data, healthy.image.data)
    np.testing.assert_array_equal(brain.data, healthy.brain.data)
    thin = replace(PLAIN, thickness_mm=3.9)
    np.testing.assert_array_equal(
        acquire(healthy.image, healthy.brain, thin)[0].data, healthy.image.data
    )


def test_the_field_of_view_ends_where_it_is_told(healthy: SimulatedSubject) -> None:
    def heights(mask: Volume) -> NDArray[np.float64]:
        index = np.flatnonzero(mask.data.any((0, 1)))
        return mask.geometry.world(index[:, None] * np.array([0, 0, 1]))[:, 2]

    whole = heights(healthy.brain)
    told = replace(PLAIN, below_mm=30.0, above_mm=13.0)
    image, brain = acquire(healthy.image, healthy.brain, told)
    seen = heights(brain)
    # To the voxel, which is 4 mm here.
    assert seen[0] - whole[0] == pytest.approx(32)
    assert whole[-1] - seen[-1] == pytest.approx(16)
    assert not image.data[~brain.data].any()
    assert (image.data[brain.data] > 0).all()


@pytest.mark.parametrize("shift", [-6.0, 6.0])
def test_a_mask_errs_by_as_much_as_told(healthy: SimulatedSubject, shift: float) -> None:
    from scipy import ndimage

    image, brain = acquire(healthy.image, healthy.brain, replace(PLAIN, mask_shift_mm=shift))
    truth = healthy.brain.data
    # Distance of each voxel's centre from the border, which runs half a voxel before the next.
    distance = np.where(
        truth,
        -ndimage.distance_transform_edt(truth, (4, 4, 4)) + 2,
        ndimage.distance_transform_edt(~truth, (4, 4, 4)) - 2,
    )
    np.testing.assert_array_equal(brain.data, distance < shift)
    assert (image.data[brain.data] > 0).all()
    assert not image.data[~brain.data].any()
    kept = brain.data & truth
    np.testing.assert_array_equal(image.data[kept], healthy.image.data[kept])


@pytest.mark.parametrize("rim", [0.0, 1.2])
def test_the_rim_has_its_intensity(healthy: SimulatedSubject, rim: float) -> None:
    image, brain = acquire(healthy.image, healthy.brain, replace(PLAIN, mask_shift_mm=5.0, rim=rim))
    low, high = np.percentile(healthy.image.data[healthy.brain.data], (1, 99))
    around = image.data[brain.data & ~healthy.brain.data]
    assert np.median(around) == pytest.approx(low + rim * (high - low), rel=0.15)


def test_local_errors_go_both_ways(healthy: SimulatedSubject) -> None:
    _, brain = acquire(healthy.image, healthy.brain, replace(PLAIN, mask_error_mm=4.0))
    assert (brain.data & ~healthy.brain.data).any()
    assert (~brain.data & healthy.brain.data).any()


def test_protocols_are_of_every_kind_and_reproduce() -> None:
    drawn = [sample_acquisition(np.random.default_rng(seed)) for seed in range(300)]
    assert drawn[7] == sample_acquisition(np.random.default_rng(7))
    thick = np.array([p.thickness_mm for p in drawn])
    assert (thick > 1).mean() == pytest.approx(0.5, abs=0.1)
    assert thick.max() <= 6
    assert {p.slice_axis for p in drawn} == {0, 1, 2}
    shares = {"below_mm": 0.25, "above_mm": 0.15, "mask_shift_mm": 0.6, "mask_error_mm": 0.6}
    for name, share in shares.items():
        assert np.mean([getattr(p, name) != 0 for p in drawn]) == pytest.approx(share, abs=0.1)
