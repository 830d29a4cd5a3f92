"""Curves and figures against scikit-learn and against trying every threshold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from atypia.errors import InputError, SettingsError
from atypia.evaluation import curves
from atypia.evaluation.curves import (
    METRICS,
    best_threshold,
    precision_recall_points,
    roc_curve_points,
    volume_figures,
    volume_score,
    voxel_figures,
)

# Few distinct scores, so that ties are common.
labelled = st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=40)


def split(data: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = zip(*data, strict=True)
    return np.array(labels), np.array(scores, np.float32) / 3


def figure(metric: str, labels: np.ndarray, flagged: np.ndarray) -> float:
    tp, fp = int((flagged & labels).sum()), int((flagged & ~labels).sum())
    fn = int(labels.sum()) - tp
    part, whole = {
        "f1": (2 * tp, 2 * tp + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "accuracy": (labels.size - fp - fn, labels.size),
    }[metric]
    return part / whole if whole else 0.0


def scans(seed: int = 0, count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Half of the scans with a lesion of higher scores."""
    rng = np.random.default_rng(seed)
    truths, scores = [], []
    for number in range(count):
        truth = np.zeros((6, 7, 5 + number), bool)
        if number % 2:
            truth[1:4, 2:4, 1:3] = True
        scores.append((rng.standard_normal(truth.shape) + 2 * truth).astype(np.float32))
        truths.append(truth)
    return truths, scores


def flat(images: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([image.ravel() for image in images])


def test_points_lie_on_the_curves() -> None:
    truths, scores = scans()
    labels, values = flat(truths), flat(scores)
    roc = roc_curve_points(truths, scores)
    assert roc is not None
    assert metrics.auc(roc[0], roc[1]) == pytest.approx(metrics.roc_auc_score(labels, values))
    for fpr, tpr, threshold in list(zip(*roc, strict=True))[::7]:
        flagged = values >= threshold
        assert fpr == pytest.approx(flagged[~labels].mean())
        assert tpr == pytest.approx(flagged[labels].mean())
    points = precision_recall_points(truths, scores)
    assert points is not None
    precision, recall, thresholds = points
    for i in range(0, thresholds.size, 7):
        flagged = values >= thresholds[i]
        assert precision[i] == pytest.approx(metrics.precision_score(labels, flagged))
        assert recall[i] == pytest.approx(metrics.recall_score(labels, flagged))
    assert (precision[-1], recall[-1]) == (1, 0)


@pytest.mark.parametrize("metric", METRICS)
@given(labelled, st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_best_threshold_is_best_of_all(
    metric: str, data: list[tuple[bool, int]], whole: bool
) -> None:
    labels, scores = split(data)
    if whole:
        scores = np.rint(scores * 3).astype(np.int16)
    found = best_threshold(labels, scores, metric)
    if labels.all() or not labels.any():
        assert found is None
        return
    assert found is not None
    threshold, value = found
    tried = {float(t): figure(metric, labels, scores > t) for t in np.unique(scores)}
    everything = figure(metric, labels, np.ones(labels.shape, bool))
    assert value == pytest.approx(max(everything, *tried.values()))
    # What it says is what one gets, with scores strictly above the threshold.
    assert figure(metric, labels, scores > threshold) == pytest.approx(value)
    # Of equally good thresholds it is the highest.
    good = [t for t, other in tried.items() if other >= value - 1e-12]
    assert max(good, default=threshold) == pytest.approx(threshold)


def test_the_best_threshold_counts_exactly() -> None:
    # In floats, a forty-ninth of 49 positives is not one.
    assert 1 / 49 * 49 < 1
    labels = np.arange(60) < 49
    scores = -np.arange(60.0)
    scores[49:] = -0.5
    assert best_threshold(labels, scores, "precision") == (-0.5, 1.0)


@given(labelled, st.integers(-5, 5))
@settings(max_examples=30, deadline=None)
def test_voxel_figures_agree_with_sklearn(data: list[tuple[bool, int]], threshold: int) -> None:
    labels, scores = split(data)
    found = voxel_figures(labels, scores, threshold / 3 + 0.01)
    flagged = scores > threshold / 3 + 0.01
    both = labels.any() and not labels.all()
    if both:
        assert found.auc == pytest.approx(metrics.roc_auc_score(labels, scores))
        assert found.pr_auc == pytest.approx(metrics.average_precision_score(labels, scores))
    else:
        assert (found.auc, found.pr_auc) == (None, None)
    nothing = not labels.any() and not flagged.any()
    assert found.iou == (
        1.0 if nothing else pytest.approx(metrics.jaccard_score(labels, flagged, zero_division=0))
    )
    assert found.dice == found.f1
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, flagged))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, flagged, average="binary", zero_division=0
    )
    assert found.f1 == (1.0 if nothing else pytest.approx(f1))
    assert found.precision == (pytest.approx(precision) if flagged.any() else None)
    assert found.recall == (pytest.approx(recall) if labels.any() else None)


def test_scans_are_pooled_whatever_their_shapes() -> None:
    truths, scores = scans()
    assert voxel_figures(truths, scores, 1.0) == voxel_figures(flat(truths), flat(scores), 1.0)
    assert best_threshold(truths, scores) == best_threshold(flat(truths), flat(scores))
    one = [truths[1].astype(np.uint8)]
    assert voxel_figures(one, [scores[1]], 1.0) == voxel_figures(truths[1], scores[1], 1.0)


def test_many_voxels_are_counted_in_a_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    truths, scores = scans(count=30)
    exact = voxel_figures(truths, scores, 1.0).to_json()
    monkeypatch.setattr(curves, "EXACT_VOXELS", 100)
    counted = voxel_figures(truths, scores, 1.0).to_json()
    assert counted != exact
    assert counted == pytest.approx(exact, abs=1e-3)


def test_volume_figures_at_a_healthy_threshold() -> None:
    truths, scores = scans(count=30)
    labels = np.array([truth.any() for truth in truths])
    highest = np.array([score.max() for score in scores])
    threshold = float(np.median(highest[~labels]))
    found = volume_figures(truths, scores, 1.5, threshold, resamples=200)
    flagged = highest > threshold
    assert 0 < (flagged & ~labels).sum() < (~labels).sum()
    assert (found.volumes, found.abnormal) == (30, 15)
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, highest))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, flagged))
    for name in ("precision", "recall", "f1"):
        assert getattr(found, name) == pytest.approx(figure(name, labels, flagged))
    pairs = list(zip(flat_each(truths), [s.ravel() > 1.5 for s in scores], strict=True))
    dices = [metrics.f1_score(t, p, zero_division=1.0) for t, p in pairs]
    ious = [
        metrics.jaccard_score(t, p, zero_division=1.0) if (t | p).any() else 1 for t, p in pairs
    ]
    assert (found.mean_dice, found.std_dice) == pytest.approx((np.mean(dices), np.std(dices)))
    assert (found.mean_iou, found.std_iou) == pytest.approx((np.mean(ious), np.std(ious)))
    for name, ends in found.intervals.items():
        assert ends is not None
        assert ends[0] <= getattr(found, name) <= ends[1]
        assert ends[0] < ends[1] or name == "recall"
    assert set(found.intervals) == {
        "mean_iou", "mean_dice", "auc", "accuracy", "precision", "recall", "f1"
    }  # fmt: skip


def flat_each(images: list[np.ndarray]) -> list[np.ndarray]:
    return [image.ravel() for image in images]


def test_other_volumes_do_not_change_a_volumes_decision() -> None:
    # With the median of the tested volumes as threshold, half of them would be flagged.
    truths, scores = scans(count=10)
    healthy = volume_figures(truths[::2], scores[::2], 1.5, 100.0, resamples=10)
    assert (healthy.accuracy, healthy.precision, healthy.recall, healthy.f1) == (
        1,
        None,
        None,
        None,
    )
    assert healthy.auc is None
    assert healthy.intervals["auc"] is None
    assert healthy.mean_dice < 1


def test_without_a_volume_threshold_nothing_is_decided() -> None:
    truths, scores = scans()
    found = volume_figures(truths, scores, 1.5, resamples=10)
    assert found.auc is not None
    assert (found.accuracy, found.precision, found.recall, found.f1) == (None,) * 4
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["volumes"] == 6


def test_volumes_come_as_a_list_or_stacked_and_seeds_repeat() -> None:
    truths, scores = (np.stack([image[..., :5] for image in images]) for images in scans())
    options: dict[str, Any] = {"volume_threshold": 2.5, "resamples": 20}
    stacked = volume_figures(truths, scores, 1.5, **options)
    assert stacked.volumes == 6
    assert stacked == volume_figures(list(truths), list(scores), 1.5, **options)
    other = volume_figures(truths, scores, 1.5, seed=1, **options)
    assert stacked.intervals != other.intervals


def test_reductions_of_a_volume() -> None:
    score = np.random.default_rng(0).permutation(1000).reshape(10, 10, 10).astype(np.float32)
    assert volume_score(score) == 999
    assert volume_score(score, "p99") == pytest.approx(np.percentile(np.arange(1000), 99))
    assert volume_score(score, "top_mean") == np.arange(990, 1000).mean()
    truths, scores = scans()
    means = [volume_score(s, "top_mean") for s in scores]
    found = volume_figures(truths, scores, 1.5, reduce="top_mean", resamples=10).auc
    assert found == pytest.approx(metrics.roc_auc_score([t.any() for t in truths], means))


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_one_class_alone_has_no_curve(labels: list[bool]) -> None:
    assert roc_curve_points(labels, [1.0, 2.0]) is None
    assert precision_recall_points(labels, [1.0, 2.0]) is None
    assert best_threshold(labels, [1.0, 2.0]) is None
    assert voxel_figures(labels, [1.0, 2.0], 0).auc is None


def test_misuse_is_refused() -> None:
    truths, scores = scans()
    for ask in (roc_curve_points, precision_recall_points, best_threshold):
        for wrong in ([1.0, np.nan], [1.0, np.inf], [1.0, 2.0, 3.0], ["a", "b"]):
            with pytest.raises(InputError, match="scores 0"):
                ask([True, False], wrong)
        with pytest.raises(InputError, match="6 of the truth and 5 of scores"):
            ask(truths, scores[1:])
        with pytest.raises(InputError, match="empty"):
            ask([], [])
    with pytest.raises(InputError, match="scores 2"):
        voxel_figures(truths, [*scores[:2], scores[0], *scores[3:]], 1.0)
    with pytest.raises(SettingsError, match="Did you mean 'recall'"):
        best_threshold(truths, scores, "recal")
    with pytest.raises(SettingsError, match="reduction"):
        volume_figures(truths, scores, 1.0, reduce="median")
