"""Thresholds, metrics and figures by the described names, over `atypia.scoring` and others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from atypia.errors import InputError
from atypia.evaluation.curves import (
    best_threshold,
    precision_recall_points,
    roc_curve_points,
    volume_figures,
    voxel_figures,
)
from atypia.evaluation.subject import auroc, average_precision, dice
from atypia.patch_pipeline.tensors import Given, as_array, as_map, as_truth, is_several
from atypia.report.score_figures import (
    draw_precision_recall_curves,
    draw_roc_curves,
    draw_score_distributions,
)
from atypia.report.threshold_figures import draw_threshold_sweep
from atypia.scoring.morphology import cleaned
from atypia.scoring.thresholds import (
    ThresholdSweep,
    threshold_by_histogram,
    threshold_from_healthy,
    threshold_sweep,
)

Curve = tuple[float, NDArray[Any], NDArray[Any], NDArray[Any]]
Named = Sequence[tuple[str, Any, Any]]

SWEEP = {
    "thresholds": "thresholds",
    "anomaly_volumes": "volumes",
    "max_component_sizes": "largest_component",
    "num_components": "components",
    "mean_scores": "mean_score",
    "std_scores": "std_score",
    "coverage_ratios": "coverage",
}
"""Described name -> the one of `ThresholdSweep`."""

# -- thresholds -----------------------------------------------------------------------------


def compute_threshold_from_normal_scores(
    scores: Any,
    method: str = "percentile",
    percentile: float = 95.0,
    sigma_multiplier: float = 3.0,
    contamination_rate: float | None = None,
) -> float:
    """Choose a threshold from healthy scores, see `threshold_from_healthy`.

    Parameters
    ----------
    scores
        Of healthy scans that were not learnt from, of the kind that will be thresholded: voxels of
        score maps for a map, not errors of patches.
    method
        "percentile", "sigma", "mad", "iqr", "contamination" or "conformal".
    percentile, sigma_multiplier, contamination_rate
        Of the methods percentile, sigma and mad, and contamination.
    """
    return threshold_from_healthy(
        as_array(scores),
        method,
        percentile=percentile,
        k=sigma_multiplier,
        rate=contamination_rate,
    )


def apply_threshold(score_map: Given, threshold: float, binary_output: bool = True) -> Tensor:
    """Give 1 where scores lie strictly above a threshold, or by how much they do; `(D, H, W)`."""
    scores = torch.from_numpy(as_map(score_map).copy())
    return (scores > threshold).float() if binary_output else (scores - threshold).clamp(min=0)


def adaptive_threshold(
    score_map: Given, method: str = "otsu", bins: int = 256
) -> tuple[Tensor, float]:
    """Give mask and threshold by "otsu", "triangle", "yen" or "li" of one map's histogram.

    Such a threshold flags something in a healthy scan too.
    """
    threshold = threshold_by_histogram(as_map(score_map), method, bins)
    return apply_threshold(score_map, threshold), threshold


def multi_threshold_analysis(
    score_map: Given,
    threshold_range: tuple[float, float] | None = None,
    num_thresholds: int = 50,
    return_stats: bool = True,
) -> dict[str, NDArray[Any]]:
    """Try evenly spaced thresholds on one score map, see `threshold_sweep`.

    Parameters
    ----------
    score_map
        `(D, H, W)`.
    threshold_range
        First and last threshold; None for the range of the scores.
    num_thresholds
        How many.
    return_stats
        Whether means, standard deviations and coverage are given too.

    Returns
    -------
    dict
        `(num_thresholds,)` each: `thresholds`, `anomaly_volumes`, `max_component_sizes`,
        `num_components`, `mean_scores`, `std_scores`, `coverage_ratios`.
    """
    scores = as_map(score_map)
    low, high = threshold_range or (float(scores.min()), float(scores.max()))
    sweep = threshold_sweep(scores, low, high, num_thresholds)
    names = list(SWEEP) if return_stats else list(SWEEP)[:4]
    return {name: getattr(sweep, SWEEP[name]) for name in names}


def visualize_threshold_analysis(
    results: Mapping[str, Any], save_path: str | Path | None = None
) -> Figure:
    """Draw what `multi_threshold_analysis` gave with its statistics, in four panels."""
    missing = [name for name in SWEEP if name not in results]
    if missing:
        raise InputError("results", f"lack {missing}", "Analyse with return_stats=True")
    values = {real: np.asarray(results[name]) for name, real in SWEEP.items()}
    return draw_threshold_sweep(ThresholdSweep(**values), save_path)


def morphological_postprocessing(
    mask: Given,
    min_component_size: int = 10,
    erosion_iterations: int = 1,
    dilation_iterations: int = 2,
) -> Tensor:
    """Remove small components, erode, dilate, see `cleaned`; float `(D, H, W)`.

    The described defaults delete lesions up to two voxels thick and enlarge all others.
    """
    found = cleaned(
        as_map(mask),
        smallest=min_component_size,
        erosion=erosion_iterations,
        dilation=dilation_iterations,
    )
    return torch.from_numpy(found).float()


# -- metrics --------------------------------------------------------------------------------


def compute_roc_auc(y_true: Any, y_scores: Any) -> Curve:
    """Give area, false-positive rates, true-positive rates and thresholds of the ROC curve.

    Pairs with NaN are left out; with one class alone the area is NaN and the curve empty.
    """
    labels, scores = _rows(y_true, y_scores)
    points = roc_curve_points(labels, scores) if labels.size else None
    empty = np.empty(0)
    area = _number(auroc(scores[~labels], scores[labels]))
    return (area, *(points or (empty, empty, empty)))


def compute_precision_recall(y_true: Any, y_scores: Any) -> Curve:
    """Give average precision, precisions, recalls and thresholds; as `compute_roc_auc`."""
    labels, scores = _rows(y_true, y_scores)
    points = precision_recall_points(labels, scores) if labels.size else None
    empty = np.empty(0)
    one_class = points is None
    area = math.nan if one_class else _number(average_precision(scores[~labels], scores[labels]))
    return (area, *(points or (empty, empty, empty)))


def compute_pixel_wise_iou(prediction: Any, ground_truth: Any) -> float:
    """Give intersection over union of two masks; 1 when both are empty."""
    overlap = compute_dice_coefficient(prediction, ground_truth)
    return overlap / (2 - overlap)


def compute_dice_coefficient(prediction: Any, ground_truth: Any) -> float:
    """Give the Dice coefficient of two masks; 1 when both are empty."""
    return dice(as_truth(prediction), as_truth(ground_truth))


def compute_optimal_threshold(
    y_true: Any, y_scores: Any, metric: str = "f1"
) -> tuple[float, float]:
    """Give the threshold with the best figure and that figure, an upper bound on these data.

    Parameters
    ----------
    y_true, y_scores
        One image, or a list of them.
    metric
        "f1", "precision", "recall" or "accuracy".

    Returns
    -------
    tuple of float
        NaN both with one class alone.
    """
    found = best_threshold(_images(y_true, as_truth), _images(y_scores, as_array), metric)
    return found or (math.nan, math.nan)


def comprehensive_evaluation(
    ground_truth_masks: Any,
    score_maps: Any,
    threshold: float,
    compute_volume_metrics: bool = True,
    volume_threshold: float | None = None,
) -> dict[str, Any]:
    """Compare score maps with true masks.

    Parameters
    ----------
    ground_truth_masks, score_maps
        One each a scan, `(D, H, W)` or `(1, D, H, W)`.
    threshold
        Voxels above are flagged. Choose it on other data.
    compute_volume_metrics
        Whether scans are judged as wholes too, by their highest score.
    volume_threshold
        Scans whose highest score is above are flagged; None for no decision.

    Returns
    -------
    dict
        `pixel_` auc, pr_auc, iou, dice, precision, recall, f1, accuracy; `volume_` auc, accuracy,
        precision, recall, f1; `mean_volume_` and `std_volume_` iou and dice; NaN where a figure is
        not defined. `intervals`: 95 % bootstrap interval over scans by the same names, or None.
    """
    truths, scores = _images(ground_truth_masks, as_truth), _images(score_maps, as_array)
    truths = truths if isinstance(truths, list) else [truths]
    scores = scores if isinstance(scores, list) else [scores]
    if len(truths) != len(scores):
        problem = f"{len(truths)} masks and {len(scores)} score maps"
        raise InputError("evaluation", problem, "Give one mask for each map")
    truths = [truth[0] if truth.ndim == 4 and len(truth) == 1 else truth for truth in truths]
    scores = [score[0] if score.ndim == 4 and len(score) == 1 else score for score in scores]
    voxels = voxel_figures(truths, scores, threshold).to_json()
    found: dict[str, Any] = {f"pixel_{name}": _number(v) for name, v in voxels.items()}
    if not compute_volume_metrics:
        return found
    figures = volume_figures(truths, scores, threshold, volume_threshold)
    for name in ("auc", "accuracy", "precision", "recall", "f1"):
        found[f"volume_{name}"] = _number(getattr(figures, name))
    for kind in ("iou", "dice"):
        for name in ("mean", "std"):
            found[f"{name}_volume_{kind}"] = _number(getattr(figures, f"{name}_{kind}"))
    found["intervals"] = {
        name.replace("mean_", "mean_volume_") if "mean_" in name else f"volume_{name}": ends
        for name, ends in figures.intervals.items()
    }
    return found


# -- figures --------------------------------------------------------------------------------


def plot_roc_curves(results: Named, save_path: str | Path | None = None) -> Figure:
    """Draw the ROC curves of `(name, truth, scores)`."""
    return draw_roc_curves(_named(results), save_path)


def plot_precision_recall_curves(results: Named, save_path: str | Path | None = None) -> Figure:
    """Draw the precision-recall curves of `(name, truth, scores)`."""
    return draw_precision_recall_curves(_named(results), save_path)


def plot_score_distributions(
    normal_scores: Any,
    anomaly_scores: Any,
    threshold: float | None = None,
    save_path: str | Path | None = None,
    bins: int = 50,
) -> Figure:
    """Draw how healthy and abnormal scores are distributed."""
    return draw_score_distributions(
        as_array(normal_scores), as_array(anomaly_scores), threshold, save_path, bins
    )


def _images(given: Any, turned: Any) -> Any:
    return [turned(one) for one in given] if is_several(given) else turned(given)


def _named(results: Named) -> list[tuple[str, Any, Any]]:
    return [(n, _images(truth, as_truth), _images(s, as_array)) for n, truth, s in results]


def _rows(y_true: Any, y_scores: Any) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Give labels and scores as rows, without pairs of which one is NaN."""

    def row(given: Any) -> NDArray[np.float64]:
        images = list(given) if is_several(given) else [given]
        return np.concatenate([np.asarray(as_array(one), np.float64).ravel() for one in images])

    labels, scores = row(y_true), row(y_scores)
    if labels.shape != scores.shape:
        problem = f"{labels.size} labels and {scores.size} scores"
        raise InputError("scores", problem, "Align them")
    known = ~(np.isnan(labels) | np.isnan(scores))
    return as_truth(labels[known]), scores[known]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
