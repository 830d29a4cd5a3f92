"""Figures about scores: curves, distributions, a map over its scan, and how training went.

Each function returns the matplotlib figure. With a path it is written as well, atomically, in the
format of the suffix; an `OutputError` or `SettingsError` says when that cannot be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from atypia.errors import InputError
from atypia.evaluation import auroc, average_precision
from atypia.evaluation.curves import precision_recall_points, roc_curve_points
from atypia.evaluation.pairs import Images, pooled
from atypia.report.figures import MAIN, QUIET, SECOND, new_figure, plain, written
from atypia.report.pictures import SCORE_COLOURS, letters
from atypia.report.slices import VIEWS
from atypia.volume import Array, Volume

Named = Sequence[tuple[str, Images, Images]]

POINTS = 2000
"""The most points of a drawn curve: more than a figure has pixels across."""
STRONGEST = 0.75
"""Opacity of the highest scores over the scan."""


def draw_roc_curves(models: Named, path: str | Path | None = None) -> Figure:
    """Draw the ROC curves of several models, with the area under each.

    Parameters
    ----------
    models
        Name, truth and scores of each, as of `roc_curve_points`. A model whose truth holds one
        class alone has no curve, and the legend says so.
    path
        Where to write it; None to draw only.

    Raises
    ------
    InputError
        There is no model, or its truth and scores do not fit.
    """
    figure, axes = _square(models)
    axes.plot((0, 1), (0, 1), color=QUIET, linestyle=":", label="chance")
    for name, truth, scores in models:
        points = roc_curve_points(truth, scores)
        if points is None:
            _absent(axes, name)
            continue
        fpr, tpr = _thinned(points[0], points[1])
        axes.plot(fpr, tpr, label=f"{name} (AUC {metrics.auc(points[0], points[1]):.3f})")
    plain(axes, "false-positive rate", "true-positive rate")
    axes.legend(loc="lower right", frameon=False)
    return written(figure, path)


def draw_precision_recall_curves(models: Named, path: str | Path | None = None) -> Figure:
    """Draw the precision-recall curves of several models, with the average precision of each.

    The curves are steps, as the average precision sums them. Dotted lines are the shares of
    positives, which is the precision of chance.

    Parameters
    ----------
    models, path
        As of `draw_roc_curves`.

    Raises
    ------
    InputError
        There is no model, or its truth and scores do not fit.
    """
    figure, axes = _square(models)
    for name, truth, scores in models:
        points = precision_recall_points(truth, scores)
        if points is None:
            _absent(axes, name)
            continue
        labels, values = pooled(truth, scores)
        area = average_precision(values[~labels], values[labels])
        axes.axhline(float(labels.mean()), color=QUIET, linestyle=":")
        recall, precision = _thinned(points[1], points[0])
        axes.step(recall, precision, where="post", label=f"{name} (AP {area:.3f})")
    plain(axes, "recall", "precision")
    axes.legend(loc="lower left", frameon=False)
    return written(figure, path)


def draw_score_distributions(
    normal: ArrayLike,
    abnormal: ArrayLike,
    threshold: float | None = None,
    path: str | Path | None = None,
    bins: int = 50,
) -> Figure:
    """Draw how the scores of both classes are distributed, each as a density of its own.

    Parameters
    ----------
    normal, abnormal
        Scores of any shape; one of them may be empty.
    threshold
        Marked by a line, unless None or infinite.
    path
        Where to write it; None to draw only.
    bins
        Over the range of all scores.

    Raises
    ------
    InputError
        There is no score at all, or one is NaN or infinite.
    """
    groups = [np.asarray(group, dtype=np.float64).ravel() for group in (normal, abnormal)]
    values = np.concatenate(groups)
    if not values.size or not np.isfinite(values).all():
        raise InputError("scores", "are empty, NaN or infinite", "Give finite scores")
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(values, bins)
    for group, name, colour in zip(groups, ("normal", "abnormal"), (MAIN, SECOND), strict=True):
        if group.size:
            label = f"{name} (n = {group.size})"
            axes.hist(group, edges.tolist(), density=True, color=colour, alpha=0.5, label=label)
    if threshold is not None and np.isfinite(threshold):
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3g}")
    area = auroc(*groups)
    axes.set_title("" if area is None else f"AUC {area:.3f}", loc="right", fontsize="medium")
    plain(axes, "score", "density")
    axes.legend(frameon=False)
    return written(figure, path)


def draw_heat_map(
    volume: Volume | Array, score_map: Volume | Array, path: str | Path | None = None
) -> Figure:
    """Draw the three middle slices of a scan, with the scores over it in colour.

    Colour and opacity grow from the lowest score to the highest. Volumes are turned to RAS+ and
    drawn in their true proportions; arrays count as RAS+ with voxels of equal sides.

    Parameters
    ----------
    volume, score_map
        `(X, Y, Z)`, on one grid.
    path
        Where to write it; None to draw only.

    Raises
    ------
    InputError
        One is not a finite 3D volume, or they lie on different grids.
    """
    image = volume if isinstance(volume, Volume) else Volume(volume)
    if not isinstance(score_map, Volume):
        score_map = image.with_data(score_map, "score")
    image.require_same_grid(score_map)
    image, score = image.canonical(), score_map.canonical()
    black, white = (float(v) for v in np.percentile(image.data, (0.5, 99.7)))
    low, high = float(score.data.min()), float(score.data.max())
    scale = Normalize(low, high if high > low else low + 1)
    figure = new_figure(10, 3.9)
    panels = figure.subplots(1, len(VIEWS))
    for axes, view in zip(panels, VIEWS, strict=True):
        middle = image.shape[view.axis] // 2
        across, up = view.plane
        grey, flat = (np.take(v.data, middle, view.axis).T for v in (image, score))
        ratio = image.spacing_mm[up] / image.spacing_mm[across]
        place = {"origin": "lower", "aspect": ratio, "interpolation": "nearest"}
        axes.imshow(grey, cmap="gray", vmin=black, vmax=max(white, black + 1e-6), **place)
        opacity = STRONGEST * np.asarray(scale(flat), dtype=np.float64)
        axes.imshow(flat, cmap=SCORE_COLOURS, norm=scale, alpha=opacity, **place)
        letters(axes, view)
        axes.set_title(view.name)
    bar = ScalarMappable(scale, SCORE_COLOURS)
    figure.colorbar(bar, ax=list(panels), label="score", shrink=0.8)
    return written(figure, path)


def draw_training_curves(
    history: Mapping[str, Sequence[float]], path: str | Path | None = None
) -> Figure:
    """Draw the losses and the learning rate by epoch.

    Parameters
    ----------
    history
        ``"train_loss"``, and, unless empty or absent, ``"val_loss"`` and ``"learning_rate"``: one
        value an epoch. The best validation loss is marked.
    path
        Where to write it; None to draw only.

    Raises
    ------
    InputError
        There is no training loss.
    """
    rows = {name: np.asarray(history.get(name, ()), dtype=np.float64) for name in _HISTORY}
    if not rows["train_loss"].size:
        raise InputError("history", "holds no 'train_loss'", "Give one value an epoch")
    figure = new_figure(9, 3.8)
    losses, rates = figure.subplots(1, 2)
    for name, colour in (("train_loss", MAIN), ("val_loss", SECOND)):
        values = rows[name]
        if values.size:
            losses.plot(_epochs(values), values, color=colour, label=_HISTORY[name])
    validation = rows["val_loss"]
    if np.isfinite(validation).any():
        best = int(np.nanargmin(validation))
        losses.plot(best + 1, validation[best], "o", color=SECOND, label=f"best, epoch {best + 1}")
    losses.legend(frameon=False)
    plain(losses, "epoch", "loss")
    rate = rows["learning_rate"]
    rates.plot(_epochs(rate), rate, color=MAIN)
    plain(rates, "epoch", _HISTORY["learning_rate"])
    return written(figure, path)


_HISTORY = {"train_loss": "training", "val_loss": "validation", "learning_rate": "learning rate"}


def _epochs(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.arange(1, values.size + 1)


def _square(models: Named) -> tuple[Figure, Axes]:
    if not models:
        raise InputError("curves", "are of no model", "Give name, truth and scores of one")
    figure = new_figure(5.6, 5.4)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return figure, axes


def _absent(axes: Axes, name: str) -> None:
    axes.plot([], [], color="none", label=f"{name} (one class alone, no curve)")


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Array, Array]:
    """Keep points evenly along a curve, its ends among them."""
    if x.size <= POINTS:
        return x, y
    gone = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(gone, np.linspace(0, gone[-1], POINTS)))
    kept = np.append(kept[:-1], x.size - 1)
    return x[kept], y[kept]
