"""Descriptors against their formulas, written out voxel by voxel in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from atypia.errors import InputError, SettingsError
from atypia.scoring.descriptors import GROUPS, describe, mirror_sum_of
from atypia.volume import Array

Place = tuple[int, int, int]
Doubles = NDArray[np.float64]

SHAPE = (8, 5, 6)
SPACING = (1.5, 2.0, 2.5)
SCALE = 2.6


def scan(seed: int = 0, shape: Place = SHAPE) -> tuple[Array, Array]:
    """Make noise with a trend, and a ragged brain in part of the grid."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape) + np.linspace(0, 3, shape[0])[:, None, None]
    brain = rng.random(shape) < 0.8
    brain[0], brain[:, -1] = False, False
    return image.astype(np.float32), brain


def voxels(shape: tuple[int, ...]) -> Iterator[Place]:
    yield from np.ndindex(*shape)


def weight(p: Place, q: Place, sigma_mm: float) -> float:
    apart = (np.subtract(p, q) * SPACING / sigma_mm) ** 2
    return float(np.exp(-apart.sum() / 2)) if apart.max() <= 36 else 0.0


def smooth_at(image: Array, brain: Array, p: Place, sigma_mm: float) -> float:
    """Take the mean under a Gaussian over the brain; `p` may lie outside of the grid."""
    pairs = [(weight(p, q, sigma_mm), float(image[q])) for q in voxels(image.shape) if brain[q]]
    return sum(w * v for w, v in pairs) / sum(w for w, _ in pairs)


def moved(p: Place, axis: int, by: int) -> Place:
    q = list(p)
    q[axis] += by
    return (q[0], q[1], q[2])


def filled(brain: Array, at: Callable[[Place], float]) -> Doubles:
    result = np.zeros(brain.shape)
    for p in voxels(brain.shape):
        if brain[p]:
            result[p] = at(p)
    return result


def slopes_of(image: Array, brain: Array, p: Place) -> Doubles:
    return np.array(
        [
            SCALE
            * (
                smooth_at(image, brain, moved(p, axis, 1), SCALE)
                - smooth_at(image, brain, moved(p, axis, -1), SCALE)
            )
            / (2 * SPACING[axis])
            for axis in range(3)
        ]
    )


def only(group: str, image: Array, brain: Array, **options: object) -> dict[str, Array]:
    features, names = describe(image, brain, SPACING, (SCALE,), (group,), **options)
    assert features.dtype == np.float32
    assert not features[:, ~brain].any()
    return dict(zip(names, features, strict=True))


def test_intensity_is_the_mean_under_a_gaussian_over_the_brain() -> None:
    image, brain = scan()
    expected = filled(brain, lambda p: smooth_at(image, brain, p, SCALE))
    found = only("intensity", image, brain)["intensity_2.6mm"]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_gradient_laplacian_and_coherence() -> None:
    image, brain = scan(shape=(6, 5, 5))
    slopes = np.zeros((*brain.shape, 3))
    for p in voxels(brain.shape):
        if brain[p]:
            slopes[p] = slopes_of(image, brain, p)

    def laplacian(p: Place) -> float:
        total, centre = 0.0, smooth_at(image, brain, p, SCALE)
        for axis in range(3):
            around = [smooth_at(image, brain, moved(p, axis, by), SCALE) for by in (-1, 1)]
            total += (sum(around) - 2 * centre) * (SCALE / SPACING[axis]) ** 2
        return total

    def tensor(p: Place) -> Doubles:
        parts = [
            weight(p, q, SCALE) * np.outer(slopes[q], slopes[q])
            for q in voxels(brain.shape)
            if brain[q]
        ]
        return np.asarray(np.sum(parts, axis=0))

    tensors = {p: tensor(p) for p in voxels(brain.shape) if brain[p]}
    even = 1e-3 * np.mean([np.linalg.norm(t) for t in tensors.values()])

    def coherence(p: Place) -> float:
        values = np.linalg.eigvalsh(tensors[p])
        apart = ((values - values.mean()) ** 2).sum()
        return float(np.sqrt(1.5 * apart / ((values**2).sum() + even**2)))

    found = only("gradient", image, brain)
    magnitude = np.linalg.norm(slopes, axis=-1)
    np.testing.assert_allclose(found["gradient_2.6mm"], magnitude, atol=2e-5)
    np.testing.assert_allclose(found["laplacian_2.6mm"], filled(brain, laplacian), atol=5e-5)
    np.testing.assert_allclose(found["coherence_2.6mm"], filled(brain, coherence), atol=1e-4)


@pytest.mark.parametrize(("scale", "reach"), [(SCALE, (1, 1, 1)), (5.0, (3, 2, 2))])
def test_texture_is_mean_and_deviation_over_a_cube_of_the_brain(scale: float, reach: Place) -> None:
    image, brain = scan()

    def around(p: Place) -> Doubles:
        box = tuple(slice(max(i - r, 0), i + r + 1) for i, r in zip(p, reach, strict=True))
        return image[box][brain[box]].astype(np.float64)

    (mean, deviation), _ = describe(image, brain, SPACING, (scale,), ("texture",))
    np.testing.assert_allclose(mean, filled(brain, lambda p: around(p).mean()), atol=1e-5)
    # Rounding is of the order of 1e-7 in the variance, so of its root in the deviation.
    np.testing.assert_allclose(deviation, filled(brain, lambda p: around(p).std()), atol=1e-3)


@pytest.mark.parametrize(("neighbour_mm", "steps"), [(2.0, (1, 1, 1)), (4.2, (3, 2, 2))])
def test_self_similarity_is_mind(neighbour_mm: float, steps: Place) -> None:
    image, brain = scan()
    sigma = neighbour_mm / 2

    def inside(p: Place) -> bool:
        return all(0 <= i < n for i, n in zip(p, brain.shape, strict=True)) and bool(brain[p])

    def distance(p: Place, axis: int, by: int) -> float:
        total, weights = 0.0, 0.0
        for q in voxels(brain.shape):
            neighbour = moved(q, axis, by)
            if brain[q] and inside(neighbour):
                w = weight(p, q, sigma)
                total += w * (float(image[q]) - float(image[neighbour])) ** 2
                weights += w
        return total / weights if weights else 0.0

    sides = [(axis, sign * steps[axis]) for axis in range(3) for sign in (-1, 1)]
    distances = np.array([filled(brain, lambda p, s=s: distance(p, *s)) for s in sides])
    variance = np.maximum(distances.mean(0), 1e-3 * distances.mean(0)[brain].mean())
    expected = np.where(brain, np.exp(-distances / np.where(brain, variance, 1)), 0)
    found, names = describe(
        image, brain, SPACING, (SCALE,), ("self_similarity",), neighbour_mm=neighbour_mm
    )
    sides_of_it = ("left", "right", "back", "front", "down", "up")
    assert names == tuple(f"self_similarity_{side}" for side in sides_of_it)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("origin", [-6.0, -5.5, -7.1, 0.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_asymmetry_is_the_difference_to_the_mirrored_place(origin: float, sign: int) -> None:
    image, brain = scan()
    affine = np.diag([sign * SPACING[0], SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = sign * origin, 11.0, -3.0
    smooth = filled(brain, lambda p: smooth_at(image, brain, p, SCALE))

    def difference(p: Place) -> float:
        x = affine[0, 0] * p[0] + affine[0, 3]
        place = (-x - affine[0, 3]) / affine[0, 0]
        total, share = 0.0, 0.0
        for i in range(brain.shape[0]):
            if brain[i, p[1], p[2]] and abs(i - place) < 1:
                total += (1 - abs(i - place)) * smooth[i, p[1], p[2]]
                share += 1 - abs(i - place)
        # A share of exactly one half must not hang on the last bit.
        return smooth[p] - total / share if share > 0.5 - 1e-9 else 0.0

    expected = filled(brain, difference)
    assert expected.any() == (origin < 0)
    found = only("asymmetry", image, brain, affine=affine)["asymmetry_2.6mm"]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_mirrored_scan_has_no_asymmetry_until_one_side_is_brighter() -> None:
    rng = np.random.default_rng(3)
    half = rng.normal(size=(6, 8, 8)).astype(np.float32)
    image = np.concatenate([half, half[::-1]])
    brain = np.ones(image.shape, bool)
    (found,), _ = describe(image, brain, (2.0,) * 3, (2.0,), ("asymmetry",))
    assert abs(found).max() < 1e-5
    image[2:4, 3:5, 3:5] += 5
    (found,), _ = describe(image, brain, (2.0,) * 3, (2.0,), ("asymmetry",))
    assert found[2, 3, 3] > 1
    np.testing.assert_allclose(found, -found[::-1], atol=1e-5)


def test_mirrored_places_and_oblique_axes() -> None:
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = -90
    assert mirror_sum_of(affine) == 90
    affine[1, 0] = 0.1
    with pytest.raises(InputError, match="does not run along x"):
        mirror_sum_of(affine)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_shift_of_the_image_shifts_the_descriptors(seed: int) -> None:
    image, brain = scan(seed)
    shift = (4, 3, 5)
    larger = tuple(n + s + 1 for n, s in zip(SHAPE, shift, strict=True))
    place = tuple(slice(s, s + n) for n, s in zip(SHAPE, shift, strict=True))
    far_image, far_brain = np.full(larger, 77, np.float32), np.zeros(larger, bool)
    far_image[place], far_brain[place] = image, brain
    affine = np.diag([*SPACING, 1.0])
    affine[0, 3] = -6.0
    far_affine = affine.copy()
    far_affine[0, 3] -= SPACING[0] * shift[0]
    near, names = describe(image, brain, SPACING, (2.0, 4.0), GROUPS, affine)
    far, far_names = describe(far_image, far_brain, SPACING, (2.0, 4.0), GROUPS, far_affine)
    assert names == far_names
    assert near.std(axis=(1, 2, 3)).min() > 0
    np.testing.assert_allclose(far[:, *place], near, atol=1e-6)


def test_what_is_outside_of_the_brain_does_not_matter_and_nothing_is_random() -> None:
    image, brain = scan()
    one, names = describe(image, brain, SPACING)
    image[~brain] = np.random.default_rng(5).normal(size=(~brain).sum()) * 1e6
    other, _ = describe(image, brain, SPACING)
    np.testing.assert_array_equal(one, other)
    assert len(names) == len(set(names)) == len(one) == 27
    assert names[:4] == ("intensity_2mm", "intensity_4mm", "intensity_8mm", "gradient_2mm")


def test_a_large_offset_costs_little_precision() -> None:
    image, brain = scan()
    one, names = describe(image, brain, SPACING, groups=("gradient", "texture", "self_similarity"))
    other, _ = describe(
        image + np.float32(4096), brain, SPACING, groups=("gradient", "texture", "self_similarity")
    )
    for name, before, after in zip(names, one, other, strict=True):
        offset = 4096 if name.startswith("mean") else 0
        np.testing.assert_allclose(after[brain], before[brain] + offset, atol=3e-3, err_msg=name)


def test_faint_noise_in_an_even_part_is_no_structure() -> None:
    image = np.random.default_rng(0).normal(size=(32, 6, 6)).astype(np.float32)
    image[8:] *= 1e-3
    groups = ("gradient", "self_similarity")
    found, names = describe(image, np.ones(image.shape, bool), (2.0,) * 3, (2.0,), groups)
    values = dict(zip(names, found, strict=True))
    assert values["coherence_2mm"][:8].mean() > 0.3
    assert values["coherence_2mm"][22:].max() < 0.05
    assert values["self_similarity_up"][:8].mean() < 0.6
    assert values["self_similarity_up"][22:].min() > 0.95


def test_an_even_brain_and_no_brain() -> None:
    brain = np.ones((5, 5, 5), bool)
    image = np.full(brain.shape, 0.1, np.float32)
    found = dict(zip(*describe(image, brain, (2.0,) * 3)[::-1], strict=True))
    for name, values in found.items():
        same = 0.1 if name.startswith(("intensity", "mean")) else float("similarity" in name)
        np.testing.assert_allclose(values, same, atol=1e-6, err_msg=name)
    assert not describe(image, ~brain, (2.0,) * 3)[0].any()


def test_what_cannot_be_described() -> None:
    image, brain = scan()
    with pytest.raises(SettingsError, match="Did you mean 'texture'"):
        describe(image, brain, SPACING, groups=("textur",))
    with pytest.raises(SettingsError, match="too fine for voxels of 2.5 mm"):
        describe(image, brain, SPACING, (0.3,))
    with pytest.raises(InputError, match="not those of one 3D grid"):
        describe(image, brain[1:], SPACING)
