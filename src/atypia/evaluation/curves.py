"""Curves over thresholds, and figures at one threshold, over voxels and over volumes.

A voxel or volume is flagged when its score lies strictly above the threshold. Labels and scores
come as arrays or as sequences of arrays of any shapes; give `truth[brain]` and `score[brain]` to
look at the brains alone. A figure is None where it is not defined, which is said with each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import unknown_name
from atypia.evaluation.histogram import ScoreHistogram
from atypia.evaluation.pairs import Images, Labels, Scores, pairs_of, pooled
from atypia.evaluation.subject import auroc, average_precision, bootstrap_interval, dice
from atypia.scoring.reduce import top_mean

Values = NDArray[np.float64]
Points = tuple[Values, Values, Values]

METRICS = ("f1", "precision", "recall", "accuracy")
REDUCTIONS = ("max", "p99", "top_mean")
TOP_SHARE = 0.01
"""Share of a volume's voxels that ``"top_mean"`` looks at."""
EXACT_VOXELS = 20_000_000
"""Up to so many voxels are sorted; more are counted in a `ScoreHistogram`, which is right to about
0.1 % and takes 16 MB however many there are."""


def roc_curve_points(truth: Images, scores: Images) -> Points | None:
    """Give the points of the ROC curve, corners only.

    Parameters
    ----------
    truth
        True (non-zero) where abnormal.
    scores
        Higher = more abnormal.

    Returns
    -------
    tuple of arrays, or None
        False-positive rates, true-positive rates, and thresholds at or above which scores are
        flagged (first infinity), as of `sklearn.metrics.roc_curve`; None when the truth holds one
        class alone.

    Raises
    ------
    InputError
        As of `atypia.evaluation.pairs.pairs_of`.
    """
    labels, values = pooled(truth, scores)
    if labels.all() or not labels.any():
        return None
    from sklearn import metrics

    fpr, tpr, thresholds = metrics.roc_curve(labels, values)
    return fpr, tpr, thresholds


def precision_recall_points(truth: Images, scores: Images) -> Points | None:
    """Give the points of the precision-recall curve.

    Parameters
    ----------
    truth, scores
        As of `roc_curve_points`.

    Returns
    -------
    tuple of arrays, or None
        Precisions `(K + 1,)`, recalls `(K + 1,)`, falling, and thresholds `(K,)` at or above which
        scores are flagged, as of `sklearn.metrics.precision_recall_curve`; None when the truth
        holds one class alone.

    Raises
    ------
    InputError
        As of `roc_curve_points`.
    """
    labels, values = pooled(truth, scores)
    if labels.all() or not labels.any():
        return None
    from sklearn import metrics

    precision, recall, thresholds = metrics.precision_recall_curve(
        labels, values, drop_intermediate=True
    )
    return precision, recall, thresholds


def best_threshold(truth: Images, scores: Images, metric: str = "f1") -> tuple[float, float] | None:
    """Find the threshold with the best figure, over all that differ, by one sort.

    Its provenance is "oracle": the labels are used. What is measured at this threshold on the same
    data is an upper bound, not what a user would get.

    Parameters
    ----------
    truth, scores
        As of `roc_curve_points`.
    metric
        ``"f1"``, ``"precision"``, ``"recall"`` or ``"accuracy"``. Flagging nothing has an F1 and a
        precision of zero. Flagging everything has full recall, so that recall alone chooses the
        highest threshold that misses nothing.

    Returns
    -------
    tuple of float, or None
        The threshold, above which scores are flagged, and its figure; the highest threshold among
        equally good ones. None when the truth holds one class alone.

    Raises
    ------
    InputError
        As of `roc_curve_points`.
    SettingsError
        An unknown metric.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    labels, values = pooled(truth, scores)
    if labels.all() or not labels.any():
        return None
    from sklearn import metrics

    fpr, tpr, reached = metrics.roc_curve(labels, values, drop_intermediate=False)
    positives = int(labels.sum())
    negatives = labels.size - positives
    # Rates are counts divided: rounding gives the counts back exactly.
    tp, fp = np.rint(tpr * positives), np.rint(fpr * negatives)
    flagged = tp + fp
    figures: Values = {
        "f1": 2 * tp / (flagged + positives),
        "precision": tp / np.maximum(flagged, 1),
        "recall": tp / positives,
        "accuracy": (tp + negatives - fp) / labels.size,
    }[metric]
    best = int(np.argmax(figures))
    # "At or above one score" is "above the next lower one"; below the lowest one comes its
    # neighbour in the precision in which scores are compared.
    least = values.min() if values.dtype.kind == "f" else float(values.min())
    lower = reached[best + 1] if best + 1 < reached.size else np.nextafter(least, -np.inf)
    return float(lower), float(figures[best])


@dataclass(frozen=True)
class VoxelFigures:
    """Figures over the voxels of all scans, pooled.

    Parameters
    ----------
    auc
        Area under the ROC curve; None when the truth holds one class alone.
    pr_auc
        Average precision: the sum over thresholds of (R_k - R_{k-1}) P_k, not the area by
        trapezoids, which is too large. None when the truth holds one class alone.
    iou, dice, f1
        Overlap at the threshold; 1.0 when nothing was to be found and nothing was. The F1 of
        voxels is their Dice.
    precision
        None when nothing is flagged.
    recall
        None when there is nothing to find.
    accuracy
        Share of voxels that are right; near 1 for whatever flags little, since lesions are small.
    """

    auc: float | None
    pr_auc: float | None
    iou: float
    dice: float
    precision: float | None
    recall: float | None
    f1: float
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        """Give the figures by name."""
        return dict(vars(self))


def voxel_figures(truths: Images, scores: Images, threshold: float) -> VoxelFigures:
    """Compare score maps with true masks, voxel by voxel, all scans pooled.

    Parameters
    ----------
    truths
        True masks; non-zero is inside.
    scores
        Score maps, higher = more abnormal.
    threshold
        Voxels above are flagged. Choose it on other data.

    Raises
    ------
    InputError
        As of `roc_curve_points`.
    """
    pairs = pairs_of(truths, scores)
    counts = np.sum([_counts(label, score > threshold) for label, score in pairs], axis=0)
    tp, fp, fn, tn = (int(count) for count in counts)
    ranking = _ranking(pairs)
    overlap = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0
    return VoxelFigures(
        *ranking,
        iou=tp / (tp + fp + fn) if tp + fp + fn else 1.0,
        dice=overlap,
        precision=_share(tp, tp + fp),
        recall=_share(tp, tp + fn),
        f1=overlap,
        accuracy=(tp + tn) / (tp + fp + fn + tn),
    )


@dataclass(frozen=True)
class VolumeFigures:
    """Figures over volumes; each volume counts as one subject.

    Parameters
    ----------
    volumes, abnormal
        How many there are, and how many hold a lesion.
    mean_iou, std_iou, mean_dice, std_dice
        Over all volumes, at the voxel threshold; population standard deviations. A volume without
        a lesion counts 1 when nothing is flagged in it, else 0.
    auc
        Of the volumes' scores; None when all volumes are of one class.
    accuracy, precision, recall, f1
        Of the volumes that are flagged; None without a volume threshold. Precision is None when
        no volume is flagged, recall when none is abnormal, F1 when neither.
    intervals
        Percentile bootstrap interval of each of these figures (but the standard deviations), by
        name. None where the figure is None, there or in a resample, or for a class of fewer than
        two volumes. Volumes are drawn within their class, for `mean_iou` and `mean_dice` among
        all.
    """

    volumes: int
    abnormal: int
    mean_iou: float
    std_iou: float
    mean_dice: float
    std_dice: float
    auc: float | None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give the figures by name."""
        ends = {name: pair and list(pair) for name, pair in self.intervals.items()}
        return {**vars(self), "intervals": ends}


def volume_score(score: ArrayLike, reduce: str = "max") -> float:
    """Reduce a score map to one number: how abnormal the whole volume is.

    Parameters
    ----------
    score
        Of any shape.
    reduce
        ``"max"``, ``"p99"`` (the 99th percentile) or ``"top_mean"`` (mean of the highest 1 %).

    Raises
    ------
    SettingsError
        An unknown reduction.
    """
    if reduce not in REDUCTIONS:
        raise unknown_name("reduction", reduce, REDUCTIONS)
    values = np.asarray(score)
    if reduce == "max":
        return float(values.max())
    if reduce == "p99":
        return float(np.percentile(values, 99))
    return top_mean(values, np.ones(values.shape, bool), TOP_SHARE)


def volume_figures(
    truths: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    threshold: float,
    volume_threshold: float | None = None,
    reduce: str = "max",
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 2000,
) -> VolumeFigures:
    """Compare score maps with true masks, volume by volume.

    A volume is abnormal when its true mask holds a voxel.

    Parameters
    ----------
    truths, scores
        One true mask and one score map a volume, one volume a subject.
    threshold
        Voxels above are flagged.
    volume_threshold
        Volumes whose `volume_score` is above are flagged. Choose it on held-out healthy volumes,
        e.g. by `threshold_from_healthy` with ``"conformal"``: a threshold taken from the tested
        volumes, such as their median, would only say how many of them are abnormal. None for no
        decision.
    reduce
        As of `volume_score`.
    seed, level, resamples
        Of the bootstrap intervals.

    Raises
    ------
    InputError
        As of `roc_curve_points`.
    SettingsError
        An unknown reduction.
    """
    # A stack of volumes is as good as a list of them.
    pairs = pairs_of(list(truths), list(scores))
    single = np.array([volume_score(score, reduce) for _, score in pairs])
    abnormal = np.array([bool(label.any()) for label, _ in pairs])
    dices = np.array([dice(score > threshold, label) for label, score in pairs])
    ious = dices / (2 - dices)
    groups = single[~abnormal], single[abnormal]
    intervals = {
        f"mean_{name}": bootstrap_interval(values, seed=seed, level=level, resamples=resamples)
        for name, values in (("iou", ious), ("dice", dices))
    }
    found: dict[str, float | None] = {}
    for name, statistic in _statistics(volume_threshold).items():
        found[name] = statistic(*groups)
        intervals[name] = bootstrap_interval(
            *groups, seed=seed, level=level, statistic=statistic, resamples=resamples
        )
    return VolumeFigures(
        volumes=len(pairs),
        abnormal=int(abnormal.sum()),
        mean_iou=float(ious.mean()),
        std_iou=float(ious.std()),
        mean_dice=float(dices.mean()),
        std_dice=float(dices.std()),
        **found,
        intervals=intervals,
    )


def _statistics(threshold: float | None) -> dict[str, Callable[[Values, Values], float | None]]:
    """Give the figures of healthy and abnormal volumes' scores, by name."""
    if threshold is None:
        return {"auc": auroc}

    def counts(healthy: Values, abnormal: Values) -> tuple[int, int, int, int]:
        fp, tp = int((healthy > threshold).sum()), int((abnormal > threshold).sum())
        return tp, fp, abnormal.size - tp, healthy.size - fp

    def accuracy(healthy: Values, abnormal: Values) -> float | None:
        tp, fp, fn, tn = counts(healthy, abnormal)
        return _share(tp + tn, tp + fp + fn + tn)

    def precision(healthy: Values, abnormal: Values) -> float | None:
        tp, fp, _, _ = counts(healthy, abnormal)
        return _share(tp, tp + fp)

    def recall(healthy: Values, abnormal: Values) -> float | None:
        tp, _, fn, _ = counts(healthy, abnormal)
        return _share(tp, tp + fn)

    def f1(healthy: Values, abnormal: Values) -> float | None:
        tp, fp, fn, _ = counts(healthy, abnormal)
        return _share(2 * tp, 2 * tp + fp + fn)

    return {
        "auc": auroc, "accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1
    }  # fmt: skip


def _ranking(pairs: Sequence[tuple[Labels, Scores]]) -> tuple[float | None, float | None]:
    """Give area under the ROC curve and average precision."""
    if sum(score.size for _, score in pairs) <= EXACT_VOXELS:
        healthy = np.concatenate([score[~label] for label, score in pairs])
        abnormal = np.concatenate([score[label] for label, score in pairs])
        return auroc(healthy, abnormal), average_precision(healthy, abnormal)
    histogram = ScoreHistogram()
    for label, score in pairs:
        histogram.update(score, label)
    result = histogram.result()
    return result.auroc, result.average_precision


def _counts(label: Labels, flagged: Labels) -> tuple[int, int, int, int]:
    tp = int(np.count_nonzero(label & flagged))
    fp, fn = int(np.count_nonzero(flagged)) - tp, int(np.count_nonzero(label)) - tp
    return tp, fp, fn, label.size - tp - fp - fn


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
