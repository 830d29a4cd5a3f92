"""Figures of a mask against known shapes, and against a literal formulation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity as skimages

from atypia.evaluation.masks import (
    average_surface_distance,
    hausdorff_95,
    mask_figures,
    peak_signal_to_noise,
    structural_similarity,
    surface_distances,
)

SHAPE = (14, 12, 10)


def block(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[start:stop, 3:9, 3:8] = True
    return mask


def literal_distances(
    first: np.ndarray, second: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All distances between all surface voxels."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(3):
            for step in (-1, 1):
                inside &= np.roll(padded, step, axis)
        return np.argwhere(padded & ~inside) * spacing

    a, b = surface(first), surface(second)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return distances.min(1), distances.min(0)


def literal_distance(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> float:
    return float(np.concatenate(literal_distances(first, second, spacing)).mean())


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two blobs that overlap in part and touch the faces of the volume."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, *SHAPE)), (0, 1.5, 1.5, 1.5))
    common = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)
    first, second = (part + common > 0.12 for part in smooth)
    return first, second


def test_overlap_of_two_blocks() -> None:
    figures = mask_figures(block(2, 8), block(4, 10), (1.0, 1.0, 1.0))
    assert figures.dice == pytest.approx(4 / 6)
    assert figures.iou == pytest.approx(4 / 8)
    assert figures.sensitivity == pytest.approx(4 / 6)
    assert figures.precision == pytest.approx(4 / 6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_surface_distance_is_the_literal_one(spacing: tuple[float, float, float]) -> None:
    first, second = block(2, 8), block(4, 11)
    second[5:7, 4:6, 7:9] = True
    found = average_surface_distance(first, second, spacing)
    assert found == pytest.approx(literal_distance(first, second, np.array(spacing)))
    assert average_surface_distance(first, first, spacing) == 0


def test_empty_masks_have_no_distance_and_no_precision() -> None:
    nothing = np.zeros(SHAPE, bool)
    missed = mask_figures(nothing, block(2, 8), (1.0, 1.0, 1.0))
    assert (missed.dice, missed.sensitivity) == (0, 0)
    assert missed.precision is None
    assert missed.assd_mm is missed.hd95_mm is None
    assert hausdorff_95(nothing, block(2, 8), (1.0, 1.0, 1.0)) is None
    assert surface_distances(block(2, 8), nothing, (1.0, 1.0, 1.0)) is None
    right = mask_figures(nothing, nothing, (1.0, 1.0, 1.0))
    assert (right.dice, right.iou, right.sensitivity) == (1, 1, None)
    assert right.hd95_mm is None


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_is_the_literal_one(seed: int, spacing: tuple[float, float, float]) -> None:
    first, second = random_masks(seed)
    there, back = literal_distances(first, second, np.array(spacing))
    expected = max(np.percentile(there, 95), np.percentile(back, 95))
    assert hausdorff_95(first, second, spacing) == pytest.approx(expected) != 0
    assert hausdorff_95(second, first, spacing) == pytest.approx(expected)
    assert expected < max(there.max(), back.max())
    figures = mask_figures(first, second, spacing)
    assert figures.hd95_mm == pytest.approx(expected)
    assert figures.assd_mm == average_surface_distance(first, second, spacing)


def test_hausdorff_by_hand() -> None:
    one, other = np.zeros((2, *SHAPE), bool)
    one[2, 3, 4], other[5, 3, 8] = True, True
    assert hausdorff_95(one, other, (1.0, 1.0, 1.0)) == 5
    assert hausdorff_95(one, other, (2.0, 1.0, 2.0)) == 10
    assert hausdorff_95(one, one, (1.0, 1.0, 1.0)) == 0
    # Fewer than a twentieth of the surface far away is passed over, but not by the other side's.
    far = block(2, 8)
    far[13, 11, 9] = True
    assert hausdorff_95(far, block(2, 8), (1.0, 1.0, 1.0)) == 0
    many = one.copy()
    many[2, 3, 4:10] = True
    assert hausdorff_95(many, block(2, 8), (1.0, 1.0, 1.0)) > 3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_figures_agree_with_monai(spacing: tuple[float, float, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai = pytest.importorskip("monai.metrics")
    pairs = [random_masks(seed) for seed in range(4)]
    firsts, seconds = (
        torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))
        for masks in zip(*pairs, strict=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        far = monai.HausdorffDistanceMetric(percentile=95, include_background=True)
        mean = monai.SurfaceDistanceMetric(symmetric=True, include_background=True)
        overlap = monai.DiceMetric(include_background=True)
        expected = [
            far(firsts, seconds, spacing=spacing),
            mean(firsts, seconds, spacing=spacing),
            overlap(firsts, seconds),
        ]
    for number, (first, second) in enumerate(pairs):
        found = mask_figures(first, second, spacing)
        assert [found.hd95_mm, found.assd_mm, found.dice] == pytest.approx(
            [float(metric[number, 0]) for metric in expected], rel=1e-5
        )


def test_peak_signal_to_noise() -> None:
    image = np.linspace(0, 100, 1680, dtype=np.float32).reshape(SHAPE)
    region = block(2, 8)
    peak = float(image[region].max())
    found = peak_signal_to_noise(image, image + 2, region)
    assert found == pytest.approx(10 * np.log10(peak**2 / 4), rel=1e-5)
    assert peak_signal_to_noise(image, image, region) is None
    assert peak_signal_to_noise(image, image, np.zeros(SHAPE, bool)) is None


def literal_similarity(image: np.ndarray, restored: np.ndarray, region: np.ndarray) -> float:
    """Weighted moments of the region's voxels in the window, voxel by voxel."""
    places = np.argwhere(region)
    x, y = image[region].astype(np.float64), restored[region].astype(np.float64)
    peak = x.max()
    first, second = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for place in places:
        step = places - place
        weight = np.exp(-0.5 * (step**2).sum(1)) * (np.abs(step) <= 4).all(1)
        weight /= weight.sum()
        a, b = weight @ x, weight @ y
        spread = weight @ (x - a) ** 2 + weight @ (y - b) ** 2
        shared = weight @ ((x - a) * (y - b))
        top = (2 * a * b + first) * (2 * shared + second)
        found.append(top / ((a**2 + b**2 + first) * (spread + second)))
    return float(np.mean(found))


def test_structural_similarity_is_the_literal_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(50, 100, SHAPE).astype(np.float32)
    restored = (image + rng.normal(0, 10, SHAPE)).astype(np.float32)
    region = block(2, 8)
    region[4, 5, 5] = False
    found = structural_similarity(image, restored, region)
    assert found == pytest.approx(literal_similarity(image, restored, region), abs=1e-5)
    assert 0.3 < found < 0.95
    # What lies outside has no part in it, whatever it is.
    image[~region], restored[~region] = np.nan, 1e9
    assert structural_similarity(image, restored, region) == found


def test_structural_similarity_is_skimages_where_no_border_is_near() -> None:
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 1, (24, 24, 24))
    restored = image + rng.normal(0, 0.2, image.shape)
    whole = np.ones(image.shape, bool)
    _, expected = skimages(
        image, restored, gaussian_weights=True, sigma=1.0, data_range=float(image.max()), full=True,
        use_sample_covariance=False,
    )  # fmt: skip
    found = structural_similarity(image, restored, whole)
    assert found == pytest.approx(expected[4:-4, 4:-4, 4:-4].mean(), abs=0.01)


def test_structural_similarity_of_nothing_and_of_the_perfect() -> None:
    image = np.random.default_rng(0).uniform(1, 2, SHAPE).astype(np.float32)
    assert structural_similarity(image, image, block(2, 8)) == pytest.approx(1)
    assert structural_similarity(image, image, np.zeros(SHAPE, bool)) is None
    assert structural_similarity(0 * image, image, block(2, 8)) is None
