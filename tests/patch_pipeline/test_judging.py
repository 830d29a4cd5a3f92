"""Thresholds, metrics and figures by the described names."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics

from atypia.errors import InputError
from atypia.patch_pipeline import (
    adaptive_threshold,
    apply_threshold,
    comprehensive_evaluation,
    compute_dice_coefficient,
    compute_optimal_threshold,
    compute_pixel_wise_iou,
    compute_precision_recall,
    compute_roc_auc,
    compute_threshold_from_normal_scores,
    create_anomaly_score_map,
    morphological_postprocessing,
    multi_threshold_analysis,
    plot_precision_recall_curves,
    plot_roc_curves,
    plot_score_distributions,
    visualize_threshold_analysis,
)

RNG = np.random.default_rng(0)
MAP = RNG.random((6, 7, 8)).astype(np.float32)
TRUTH = MAP + 0.3 * RNG.random(MAP.shape) > 0.9


def test_thresholds_of_healthy_scores() -> None:
    scores = torch.from_numpy(MAP)
    assert compute_threshold_from_normal_scores(scores) == pytest.approx(np.percentile(MAP, 95))
    found = compute_threshold_from_normal_scores(scores, method="mad", sigma_multiplier=2.0)
    middle = np.median(MAP)
    assert found == pytest.approx(middle + 2 * 1.4826 * np.median(np.abs(MAP - middle)))
    found = compute_threshold_from_normal_scores(scores, "contamination", contamination_rate=0.1)
    assert found == pytest.approx(np.percentile(MAP, 90))


def test_masks_are_strict_and_float() -> None:
    scores = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert apply_threshold(scores, 0.5).tolist() == [[[0, 0, 1]]]
    assert apply_threshold(scores[None].numpy(), 0.25, binary_output=False).tolist() == [
        [[0, 0.25, 0.75]]
    ]
    assert apply_threshold(scores, 0.5).dtype == torch.float32


@pytest.mark.parametrize("method", ["otsu", "triangle", "yen", "li"])
def test_adaptive_thresholds_are_those_of_scikit_image(method: str) -> None:
    from skimage import filters

    values = np.concatenate([RNG.normal(0, 1, 2000), RNG.normal(6, 1, 200)]).reshape(10, 10, 22)
    mask, threshold = adaptive_threshold(values, method)
    wanted = getattr(filters, f"threshold_{method}")(values.astype(np.float32))
    assert threshold == pytest.approx(wanted, abs=np.ptp(values) / 256)
    np.testing.assert_array_equal(mask, values.astype(np.float32) > threshold)


def test_many_thresholds_and_their_figure(tmp_path: Path) -> None:
    found = multi_threshold_analysis(
        torch.from_numpy(MAP), threshold_range=(0, 1), num_thresholds=50
    )
    assert {values.shape for values in found.values()} == {(50,)}
    np.testing.assert_array_equal(found["anomaly_volumes"], [
        (t < MAP).sum() for t in found["thresholds"]
    ])  # fmt: skip
    visualize_threshold_analysis(found, save_path=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert len(multi_threshold_analysis(MAP, return_stats=False)) == 4
    with pytest.raises(InputError, match="return_stats"):
        visualize_threshold_analysis(multi_threshold_analysis(MAP, return_stats=False))


def test_morphology_does_what_its_three_numbers_say() -> None:
    mask = np.zeros((12, 12, 12))
    mask[2:6, 2:6, 2:6] = 1
    mask[9, 9, 9] = 1
    kept = morphological_postprocessing(mask, erosion_iterations=0, dilation_iterations=0)
    assert kept.sum() == 64
    assert morphological_postprocessing(mask, 0, 0, 0).sum() == 65
    assert morphological_postprocessing(mask, 10, 2, 0).sum() == 0


@pytest.mark.parametrize("aggregation", ["mean", "max", "min"])
def test_a_score_map_is_the_plain_loop_over_patches(aggregation: str) -> None:
    corners = np.array([[0, 0, 0], [1, 2, 0], [3, 2, 4], [0, 2, 4]])
    errors = np.array([1.0, 5.0, 2.0, 4.0])
    found = create_anomaly_score_map(errors, corners, (1, 6, 5, 7), (3, 3, 3), aggregation)
    for place in np.ndindex(6, 5, 7):
        own = [
            error
            for error, corner in zip(errors, corners, strict=True)
            if all(c <= p < c + 3 for c, p in zip(corner, place, strict=True))
        ]
        wanted = {"mean": np.mean, "max": np.max, "min": np.min}[aggregation](own) if own else 0
        assert found[place] == pytest.approx(wanted)
    smooth = create_anomaly_score_map(errors, corners, (6, 5, 7), 3, smoothing_sigma=1.0)
    assert smooth.max() < 5


def test_curves_are_those_of_scikit_learn_without_nan() -> None:
    scores = MAP.copy()
    scores[0, 0, 0] = np.nan
    area, fpr, tpr, _ = compute_roc_auc(torch.from_numpy(TRUTH), torch.from_numpy(scores))
    labels, values = TRUTH.ravel()[1:], scores.ravel()[1:]
    assert area == pytest.approx(metrics.roc_auc_score(labels, values))
    assert metrics.auc(fpr, tpr) == pytest.approx(area)
    area, precision, recall, _ = compute_precision_recall(TRUTH, scores)
    assert area == pytest.approx(metrics.average_precision_score(labels, values))
    assert precision.shape == recall.shape
    assert math.isnan(compute_roc_auc(np.zeros(3), np.arange(3))[0])
    assert math.isnan(compute_precision_recall([0, 0], [1.0, 2.0])[0])
    with pytest.raises(InputError, match="3 labels and 2 scores"):
        compute_roc_auc([0, 1, 1], [1.0, 2.0])


def test_overlaps() -> None:
    a, b = torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 0])
    assert compute_dice_coefficient(a, b) == pytest.approx(0.5)
    assert compute_pixel_wise_iou(a, b) == pytest.approx(1 / 3)
    assert compute_pixel_wise_iou(0 * a, 0 * b) == compute_dice_coefficient(0 * a, 0 * b) == 1
    # A mask that was z-scored by mistake is still that mask.
    assert compute_dice_coefficient((b - 0.5) / 0.5, b) == 1


def test_the_best_threshold_of_an_array_and_of_a_list() -> None:
    threshold, value = compute_optimal_threshold(TRUTH, MAP, metric="f1")
    assert value == pytest.approx(metrics.f1_score(TRUTH.ravel(), MAP.ravel() > threshold))
    every = [metrics.f1_score(TRUTH.ravel(), MAP.ravel() > t) for t in np.unique(MAP)[::5]]
    assert value >= max(every)
    halves = [torch.from_numpy(TRUTH[:3]), torch.from_numpy(TRUTH[3:])], [MAP[:3], MAP[3:]]
    assert compute_optimal_threshold(*halves, metric="f1") == (threshold, value)
    assert math.isnan(compute_optimal_threshold(np.zeros(4), np.arange(4.0))[0])


def test_the_evaluation_has_every_key() -> None:
    truths, maps = [TRUTH, TRUTH & False, TRUTH, TRUTH & False], [MAP, MAP / 2, MAP, MAP / 3]
    found = comprehensive_evaluation(truths, maps, 0.8, volume_threshold=0.8)
    pixel = {
        f"pixel_{n}"
        for n in ["auc", "pr_auc", "iou", "dice", "precision", "recall", "f1", "accuracy"]
    }
    volume = {f"volume_{n}" for n in ["auc", "accuracy", "precision", "recall", "f1"]}
    over = {f"{n}_volume_{k}" for n in ("mean", "std") for k in ("iou", "dice")}
    assert set(found) == pixel | volume | over | {"intervals"}
    assert found["volume_accuracy"] == found["volume_auc"] == 1
    labels, flagged = np.stack(truths).ravel(), np.stack(maps).ravel() > 0.8
    assert found["pixel_f1"] == pytest.approx(metrics.f1_score(labels, flagged))
    assert found["pixel_iou"] == pytest.approx(metrics.jaccard_score(labels, flagged))
    low, high = found["intervals"]["mean_volume_dice"]
    assert low <= found["mean_volume_dice"] <= high
    one = comprehensive_evaluation(
        torch.from_numpy(TRUTH)[None], torch.from_numpy(MAP), 0.8, compute_volume_metrics=False
    )
    assert set(one) == pixel
    assert math.isnan(comprehensive_evaluation(truths, maps, 0.8)["volume_f1"])
    with pytest.raises(InputError, match="4 masks and 3"):
        comprehensive_evaluation(truths, maps[:3], 0.8)


def test_figures_are_written(tmp_path: Path) -> None:
    results = [("ours", [torch.from_numpy(TRUTH)], [torch.from_numpy(MAP)])]
    plot_roc_curves(results, save_path=tmp_path / "roc.png")
    plot_precision_recall_curves(results, save_path=tmp_path / "pr.png")
    plot_score_distributions(MAP[~TRUTH], MAP[TRUTH], 0.8, tmp_path / "scores.png", bins=20)
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3
