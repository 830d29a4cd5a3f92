"""Align: a brain that was moved is found again, and what cannot be registered is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atypia.errors import InputError
from atypia.preprocessing.align import Align, register
from atypia.preprocessing.step import State
from atypia.resampling import box_of, grid_around, resample
from atypia.templates import mni152
from atypia.volume import Array, Volume
from tests.grids import affine_of, overlap


@pytest.fixture(scope="module")
def template() -> tuple[Volume, Volume]:
    """Give the template's image and brain at 4 mm."""
    whole = mni152()
    grid = grid_around(*box_of(whole.brain), 4.0)
    return resample(whole.t1w, grid), resample(whole.brain, grid)


def worst_mm(found: Array, truth: Array, brain: Volume) -> float:
    """Largest distance (mm) between where two matrices take the voxels of a brain."""
    places = brain.geometry.world(np.argwhere(brain.data))
    ends = [places @ m[:3, :3].T + m[:3, 3] for m in (found, truth)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=1).max())


@pytest.mark.parametrize(("transform", "scale"), [("rigid", 1.0), ("affine", 1.1)])
def test_a_moved_template_is_brought_back(
    template: tuple[Volume, Volume], transform: str, scale: float
) -> None:
    image, brain = template
    moved = affine_of((8, -6, 10), (scale, 1.0, scale), (12, -7, 20))
    scan = replace(image, affine=moved @ image.affine)
    mask = replace(brain, affine=moved @ brain.affine)
    step = Align(transform=transform)  # type: ignore[arg-type]
    measured = step.measure(State(scan, mask))
    assert worst_mm(step.world(measured), np.linalg.inv(moved), mask) < 3
    state = step.apply(State(scan, mask), measured)
    assert state.image.space == state.require_brain().space == 4
    np.testing.assert_array_equal(state.image.data, scan.data)
    back = resample(state.require_brain(), brain.geometry)
    assert overlap(back, brain) > 0.95
    if transform == "rigid":
        turn = step.world(measured)[:3, :3]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)


def test_a_left_handed_scan_is_not_mirrored(template: tuple[Volume, Volume]) -> None:
    image, brain = template
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    scan = Volume(image.data[::-1], image.affine @ flip)
    mask = Volume(brain.data[::-1], brain.affine @ flip, "mask")
    found = register(scan, mask, "rigid", 4.0)
    assert worst_mm(found, np.eye(4), brain) < 1
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("transform", ["rigid", "affine"])
@pytest.mark.parametrize("thin", [(slice(0, 1),) * 3, (slice(None), slice(None), slice(9, 10))])
def test_a_mask_that_is_no_brain_is_our_error(
    template: tuple[Volume, Volume], transform: str, thin: tuple[slice, ...]
) -> None:
    image, brain = template
    inside = np.zeros(brain.shape, bool)
    inside[thin] = True
    scan = Volume(image.data, image.affine, source="scan.nii")
    with pytest.raises(InputError, match=r"scan\.nii: .*too thin.*Check the brain mask"):
        register(scan, brain.with_data(inside), transform, 4.0)  # type: ignore[arg-type]


def test_an_error_of_the_registration_is_ours(
    template: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    import SimpleITK as sitk

    def failing(self: object, fixed: object, moving: object) -> None:
        raise RuntimeError("Exception thrown\nITK ERROR: all samples map outside")

    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", failing)
    scan = replace(template[0], source="scan.nii")
    with pytest.raises(InputError, match=r"scan\.nii: cannot be registered.*all samples"):
        register(scan, template[1], "rigid", 4.0)
