"""FROC curves against a literal loop over thresholds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from atypia.errors import InputError, SettingsError
from atypia.evaluation.froc import Froc
from atypia.evaluation.lesion_figures import lesion_figures

SHAPE = (12, 11, 10)
LADDER = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0)
Scan = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def scans(count: int = 5) -> list[Scan]:
    """Smooth noise with two lesions, the second partly out of the brain; every third is healthy."""
    rng = np.random.default_rng(0)
    made: list[Scan] = []
    for number in range(count):
        brain = np.zeros(SHAPE, bool)
        brain[1:-1, 1:-1, 1:-1] = True
        truth = np.zeros(SHAPE, bool)
        truth[2:4, 3:6, 4:6] = truth[9:12, 8:10, 2:4] = number % 3 > 0
        noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.7)
        score = noise / noise.std() + rng.uniform(0.5, 2) * truth
        score[0] = 100  # outside the brain
        made.append((score.astype(np.float32), brain, truth if number % 3 else None))
    return made


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_curve_is_the_literal_one(share: float) -> None:
    froc = Froc(LADDER, share)
    for score, brain, truth in scans():
        froc.update(score, brain, truth)
    points = froc.points()
    assert points is not None
    false, recall = points
    assert recall is not None
    for number, threshold in enumerate(LADDER):
        counts = [
            lesion_figures(
                (score > threshold) & brain,
                np.zeros(SHAPE, bool) if truth is None else truth,
                (1.0, 1.0, 1.0),
                least_overlap=share,
            ).every
            for score, brain, truth in scans()
        ]
        assert false[number] == np.mean([c.false_positives for c in counts])
        assert recall[number] == sum(c.detected for c in counts) / sum(c.lesions for c in counts)
    assert np.unique(recall).size > 2
    assert false.max() > 4


def test_recall_at_so_many_false_positives() -> None:
    froc = Froc(LADDER)
    for scan in scans():
        froc.update(*scan)
    points = froc.points()
    assert points is not None
    false, recall = points
    assert recall is not None
    for asked in (0.0, 1.0, 2.0, 4.0):
        reached = 0.0
        for place in range(len(LADDER) - 1, -1, -1):
            if false[place] > asked:
                break
            reached = recall[place]
        assert froc.recall_at(asked) == reached
    assert froc.to_json()["recall_at"]["4"] == froc.recall_at(4)
    # At the lowest threshold all is one component, which is no success.
    assert (false[0], recall[0]) == (pytest.approx(0.4), 1.0)
    assert froc.recall_at(1) < 1


def test_the_ladder_may_begin_too_low() -> None:
    score, brain, truth = scans()[1]
    froc = Froc([0.5])
    froc.update(score, brain, truth)
    assert froc.points()[0][0] > 1  # type: ignore[index]
    assert froc.recall_at(1) == 0


def test_lesions_outside_the_brain_are_missed() -> None:
    truth = np.zeros(SHAPE, bool)
    truth[0, 4:6, 4:6] = True
    score, brain, _ = scans()[0]
    froc = Froc(LADDER)
    froc.update(score, brain, truth)
    assert froc.points()[1].tolist() == [0] * len(LADDER)  # type: ignore[index,union-attr]


def test_parts_merge_to_the_whole_in_bounded_memory() -> None:
    whole, parts = Froc(LADDER), [Froc(LADDER), Froc(LADDER)]
    held = []
    for number, scan in enumerate(scans()):
        whole.update(*scan)
        parts[number % 2].update(*scan)
        held.append(sum(a.nbytes for a in vars(whole).values() if isinstance(a, np.ndarray)))
    parts[0].merge(parts[1])
    assert parts[0].to_json() == whole.to_json()
    assert len(set(held)) == 1
    json.dumps(whole.to_json(), allow_nan=False)
    with pytest.raises(SettingsError, match="ladder"):
        whole.merge(Froc([1.0]))
    with pytest.raises(SettingsError, match="ladder"):
        whole.merge(Froc(LADDER, 0.5))


def test_without_lesions_or_scans() -> None:
    froc = Froc(LADDER)
    assert froc.points() is None
    assert froc.recall_at(1) is None
    assert froc.to_json()["recall"] is froc.to_json()["false_positives"] is None
    score, brain, _ = scans()[0]
    froc.update(score, brain)
    false, recall = froc.points()  # type: ignore[misc]
    assert recall is None
    assert false[0] >= 1
    assert froc.recall_at(4) is None


def test_folds_merge_by_the_shares_that_their_thresholds_mean() -> None:
    rates = [0.1 / (1 + place) for place in range(len(LADDER))]
    first, second = Froc(LADDER, rates=rates), Froc([t + 1 for t in LADDER], rates=rates)
    alone = Froc([t + 1 for t in LADDER], rates=rates)
    made = scans()
    first.update(*made[1])
    second.update(*made[2])
    alone.update(*made[2])
    one = first.points()
    first.merge(second)
    merged, two = first.points(), alone.points()
    assert one is not None
    assert two is not None
    assert merged is not None
    assert merged[0].tolist() == ((one[0] + two[0]) / 2).tolist()
    again = Froc.from_counts(json.loads(json.dumps(first.to_counts())))
    assert again.to_json() == first.to_json()
    with pytest.raises(SettingsError, match="ladder"):
        first.merge(Froc(LADDER, rates=rates[::-1]))
    with pytest.raises(SettingsError, match="as many"):
        Froc(LADDER, rates=rates[1:])


def test_equal_thresholds_keep_their_places() -> None:
    froc = Froc([1.0, 0.0, 1.0], rates=[0.1, 0.3, 0.2])
    froc.update(*scans()[1])
    false, recall = froc.points()  # type: ignore[misc]
    assert froc.rates == (0.3, 0.1, 0.2)
    assert false[1] == false[2]
    assert recall[1] == recall[2]  # type: ignore[index]


def test_misuse_is_refused() -> None:
    for bad in ([], [np.nan], [np.inf]):
        with pytest.raises(SettingsError, match="thresholds"):
            Froc(bad)
    with pytest.raises(SettingsError, match="least_overlap"):
        Froc(LADDER, -0.1)
    froc = Froc(LADDER)
    score, brain, truth = scans()[1]
    with pytest.raises(InputError, match="differ"):
        froc.update(score[1:], brain, truth)
    broken = score.copy()
    broken[5, 5, 5] = np.nan
    with pytest.raises(InputError, match="NaN"):
        froc.update(broken, brain, truth)
    assert froc.scans == froc.lesions == 0
    broken[5, 5, 5], broken[0, 0, 0] = 0, np.nan  # outside the brain it does not matter
    froc.update(broken, brain, truth)
    assert froc.lesions == 2


def test_a_score_at_the_threshold_is_not_flagged() -> None:
    truth = np.zeros(SHAPE, bool)
    truth[5, 5, 5] = True
    score = np.where(truth, np.float32(1.0), np.float32(0.0))
    froc = Froc([0.0, 0.9, 1.0])
    froc.update(score, np.ones(SHAPE, bool), truth)
    false, recall = froc.points()  # type: ignore[misc]
    assert recall.tolist() == [1, 1, 0]  # type: ignore[union-attr]
    assert false.tolist() == [0, 0, 0]
