"""Components: sizes in mm3 and centres in world mm, on an oblique grid of long voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atypia.scoring.components import lesions_of, without_small
from atypia.volume import Volume
from tests.grids import affine_of

AFFINE = affine_of((10, 20, 30), (1, 2, 3), (-40, 5, 60), mirrored=True)
VOXEL_MM3 = 6.0


def volumes() -> tuple[Volume, Volume]:
    inside = np.zeros((12, 12, 12), bool)
    inside[1:3, 1:3, 1:4] = True  # 12 voxels
    inside[6, 6, 6] = inside[7, 7, 7] = True  # two, touching at a corner
    inside[10, 1, 10] = True  # one
    score = np.zeros(inside.shape, np.float32)
    score[inside] = np.arange(inside.sum())
    score[5, 5, 5] = 99  # outside the mask
    mask = Volume(inside, AFFINE, "mask")
    return mask, mask.with_data(score, "score")


def test_sizes_centres_and_scores() -> None:
    mask, score = volumes()
    found = lesions_of(mask, score)
    assert [lesion.size_mm3 for lesion in found] == pytest.approx([72, 12, 6])
    centres = [(1.5, 1.5, 2), (6.5, 6.5, 6.5), (10, 1, 10)]
    for lesion, voxel in zip(found, centres, strict=True):
        assert lesion.centre_mm == pytest.approx((AFFINE @ [*voxel, 1])[:3])
    assert [(lesion.peak_score, lesion.mean_score) for lesion in found] == [
        (11, 5.5),
        (13, 12.5),
        (14, 14),
    ]


def test_small_components_are_left_out_and_the_limit_is_kept() -> None:
    mask, score = volumes()
    assert len(lesions_of(mask, score, 11.9)) == 2
    for smallest, voxels in ((0, 15), (6, 15), (6.1, 14), (11.9, 14), (12.1, 12), (73, 0)):
        kept = without_small(mask, smallest)
        assert kept.data.sum() == voxels
        assert kept.kind == "mask"
        assert not (kept.data & ~mask.data).any()
        sizes = [lesion.size_mm3 for lesion in lesions_of(mask, score, smallest)]
        assert sum(sizes) == pytest.approx(voxels * VOXEL_MM3)


def test_an_empty_mask_has_no_lesion() -> None:
    mask, score = volumes()
    empty = mask.with_data(np.zeros(mask.shape))
    assert lesions_of(empty, score) == ()
    assert not without_small(empty, 100).data.any()


def test_a_lesion_is_json() -> None:
    lesion = lesions_of(*volumes())[0]
    assert json.loads(json.dumps(lesion.to_json()))["centre_mm"] == list(lesion.centre_mm)
