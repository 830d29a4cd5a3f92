"""Lesions one by one: twenty cases by hand, and random masks against a literal flood fill."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from sklearn import metrics

from atypia.errors import InputError, SettingsError
from atypia.evaluation.lesion_figures import (
    LesionCounts,
    lesion_figures,
    needed_voxels,
    size_names,
)

SHAPE = (8, 8, 8)
ONE = (1.0, 1.0, 1.0)
Places = list[tuple[int, int, int]]

A, DIAGONAL, EDGE, FACE, FAR = (1, 1, 1), (2, 2, 2), (2, 2, 1), (2, 1, 1), (6, 6, 6)
KNIGHT, CORNER, OTHER_CORNER = (3, 2, 1), (0, 0, 0), (7, 7, 7)
ROW: Places = [(i, 4, 4) for i in range(8)]


def at(places: Places) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for place in places:
        mask[place] = True
    return mask


CASES: list[tuple[str, Places, Places, float, tuple[int, int, int, int]]] = [
    # truth, mask, least overlap -> lesions, detected, components, true components
    ("nothing at all", [], [], 0, (0, 0, 0, 0)),
    ("empty truth", [], [A, FAR], 0, (0, 0, 2, 0)),
    ("empty prediction", [A, FAR], [], 0, (2, 0, 0, 0)),
    ("one voxel found", [A], [A], 0, (1, 1, 1, 1)),
    ("one voxel missed", [A], [FAR], 0, (1, 0, 1, 0)),
    ("beside is not on", [A], [FACE], 0, (1, 0, 1, 0)),
    ("diagonal neighbours are one lesion", [A, DIAGONAL], [A], 0, (1, 1, 1, 1)),
    ("neighbours by an edge are one lesion", [A, EDGE], [EDGE], 0, (1, 1, 1, 1)),
    ("two steps away is another lesion", [A, KNIGHT], [A], 0, (2, 1, 1, 1)),
    ("diagonal components are one", [A], [A, DIAGONAL], 0, (1, 1, 1, 1)),
    ("one component covers two lesions", [ROW[0], ROW[7]], ROW, 0, (2, 2, 1, 1)),
    ("two components in one lesion", ROW, [ROW[0], ROW[7]], 0, (1, 1, 2, 2)),
    ("a true and a false component", [A], [A, FAR], 0, (1, 1, 2, 1)),
    ("opposite corners of the volume", [CORNER], [OTHER_CORNER], 0, (1, 0, 1, 0)),
    ("all is flagged", [A, FAR], list(product(range(8), repeat=3)), 0, (2, 2, 1, 1)),
    ("all is lesion", list(product(range(8), repeat=3)), [A], 0, (1, 1, 1, 1)),
    ("half is enough for half", ROW, ROW[:4], 0.5, (1, 1, 1, 1)),
    ("less than half is not", ROW, ROW[:3], 0.5, (1, 0, 1, 1)),
    ("all voxels asked for, all there", ROW, ROW, 1, (1, 1, 1, 1)),
    ("all voxels asked for, one missing", ROW, ROW[1:], 1, (1, 0, 1, 1)),
    ("the share is of all its voxels", ROW, [ROW[0], ROW[4]], 0.25, (1, 1, 2, 2)),
    ("found over two components", ROW, [ROW[0], ROW[4]], 0.3, (1, 0, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "truth", "mask", "share", "counts"), CASES)
def test_by_hand(
    name: str, truth: Places, mask: Places, share: float, counts: tuple[int, int, int, int]
) -> None:
    found = lesion_figures(at(mask), at(truth), ONE, least_overlap=share).every
    assert tuple(vars(found).values()) == counts, name


def test_rates_and_what_is_undefined() -> None:
    found = LesionCounts(4, 1, 3, 2)
    assert (found.recall, found.precision, found.false_positives) == (1 / 4, 2 / 3, 1)
    assert found.f1 == pytest.approx(2 * (1 / 4) * (2 / 3) / (1 / 4 + 2 / 3))
    nothing, missed, false = LesionCounts(), LesionCounts(2, 0, 0, 0), LesionCounts(0, 0, 2, 0)
    assert (nothing.recall, nothing.precision, nothing.f1) == (None, None, None)
    assert (missed.recall, missed.precision, missed.f1) == (0, None, 0)
    assert (false.recall, false.precision, false.f1, false.false_positives) == (None, 0, 0, 2)
    assert LesionCounts(2, 0, 3, 0).f1 == 0


def test_as_sklearn_counts_objects_where_nothing_is_split_or_joined() -> None:
    # Isolated voxels: every object is one voxel, and lesion-wise figures are those of voxels.
    rng = np.random.default_rng(0)
    for _ in range(5):
        truth, mask = np.zeros((2, 9, 9, 9), bool)
        truth[::2, ::2, ::2] = rng.random((5, 5, 5)) < 0.3
        mask[::2, ::2, ::2] = rng.random((5, 5, 5)) < 0.4
        found = lesion_figures(mask, truth, ONE).every
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            truth.ravel(), mask.ravel(), average="binary"
        )
        assert (found.precision, found.recall) == pytest.approx((precision, recall))
        assert found.f1 == pytest.approx(f1)


def literal_components(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    found = []
    while left:
        component, border = set(), [left.pop()]
        while border:
            place = border.pop()
            component.add(place)
            for step in product((-1, 0, 1), repeat=3):
                other = tuple(a + b for a, b in zip(place, step, strict=True))
                if other in left:
                    left.remove(other)
                    border.append(other)
        found.append(component)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_random_masks_against_a_flood_fill(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, mask = rng.random((2, 9, 7, 8)) < (0.02 + 0.01 * seed)
    spacing, share, edges = (1.0, 2.0, 0.5), 0.4, (0.0, 1.5, 3.0, math.inf)
    found = lesion_figures(mask, truth, spacing, least_overlap=share, edges_mm3=edges)
    lesions, components = literal_components(truth), literal_components(mask)
    flagged, true = set.union(set(), *components), set.union(set(), *lesions)

    def counts(low: float, high: float) -> tuple[int, ...]:
        sized = [x for x in lesions if low <= len(x) < high]
        drawn = [x for x in components if low <= len(x) < high]
        detected = [x for x in sized if x & flagged and len(x & flagged) >= share * len(x)]
        return len(sized), len(detected), len(drawn), sum(bool(x & true) for x in drawn)

    assert tuple(vars(found.every).values()) == counts(0, math.inf)
    # A voxel is 1 mm3.
    for (low, high), counted in zip(
        [(0, 1.5), (1.5, 3), (3, math.inf)], found.by_size.values(), strict=True
    ):
        assert tuple(vars(counted).values()) == counts(low, high)
    assert sum(c.lesions for c in found.by_size.values()) == found.every.lesions > 3


def test_sizes_are_in_mm3_and_an_edge_belongs_to_the_larger_ones() -> None:
    truth = at([A, *ROW[4:]])
    # 25 mm3 a voxel, of an affine that is not quite exact.
    spacing = (2.5, 5.0, 2.0 * (1 - 1e-7))
    found = lesion_figures(at([A]), truth, spacing)
    assert tuple(found.by_size) == size_names() == (
        "under 100 mm3", "100 to 1000 mm3", "1000 to 10000 mm3", "10000 mm3 and more"
    )  # fmt: skip
    assert found.by_size["under 100 mm3"] == LesionCounts(1, 1, 1, 1)
    assert found.by_size["100 to 1000 mm3"] == LesionCounts(1, 0, 0, 0)
    thinner = lesion_figures(at([A]), truth, (2.5, 5.0, 1.9))
    assert thinner.by_size["under 100 mm3"].lesions == 2
    values = found.to_json()
    assert values["recall"] == 0.5
    assert values["by_size"]["100 to 1000 mm3"]["recall"] == 0


def test_a_share_that_floats_cannot_say() -> None:
    assert 0.1 * 3 * 10 > 3
    assert needed_voxels(np.array([30, 31, 1, 10]), 0.1).tolist() == [3, 4, 1, 1]
    assert needed_voxels(np.array([30]), 0.0).tolist() == [1]
    assert needed_voxels(np.array([3]), 1.0).tolist() == [3]


def test_misuse_is_refused() -> None:
    good = at([A])
    with pytest.raises(SettingsError, match="least_overlap"):
        lesion_figures(good, good, ONE, least_overlap=1.1)
    for edges in ((0.0,), (0.0, 5.0, 5.0)):
        with pytest.raises(SettingsError, match="do not rise"):
            lesion_figures(good, good, ONE, edges_mm3=edges)
    for bad in (good[0], good[1:], good.astype(np.uint8)):
        with pytest.raises(InputError, match="boolean masks"):
            lesion_figures(bad, good, ONE)
