"""The figures show the numbers they are given, leave no global state, and are written whole."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics

from atypia.errors import InputError, SettingsError
from atypia.report.score_figures import (
    POINTS,
    draw_heat_map,
    draw_precision_recall_curves,
    draw_roc_curves,
    draw_score_distributions,
    draw_training_curves,
)
from atypia.report.threshold_figures import draw_threshold_sweep
from atypia.scoring.thresholds import threshold_sweep
from atypia.volume import Volume

RNG = np.random.default_rng(0)
TRUTH = RNG.random(20_000) < 0.1
SCORES = RNG.standard_normal(TRUTH.size) + 1.5 * TRUTH
MODELS = [("a", TRUTH, SCORES), ("b", TRUTH[:300], SCORES[:300])]


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def line(figure: Figure, name: str) -> tuple[np.ndarray, np.ndarray]:
    lines = [x for x in figure.axes[0].lines if str(x.get_label()).startswith(name)]
    assert len(lines) == 1
    x, y = lines[0].get_data()
    return np.asarray(x), np.asarray(y)


def test_roc_curves_and_their_areas() -> None:
    figure = draw_roc_curves(MODELS)
    area = metrics.roc_auc_score(TRUTH, SCORES)
    assert f"a (AUC {area:.3f})" in legend(figure)
    fpr, tpr = line(figure, "a")
    assert fpr.size <= POINTS
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert metrics.auc(fpr, tpr) == pytest.approx(area, abs=1e-3)
    assert metrics.auc(*line(figure, "b")) == pytest.approx(
        metrics.roc_auc_score(TRUTH[:300], SCORES[:300])
    )


def test_precision_recall_steps_hold_the_average_precision() -> None:
    figure = draw_precision_recall_curves(MODELS)
    for name, truth, scores in MODELS:
        area = metrics.average_precision_score(truth, scores)
        assert f"{name} (AP {area:.3f})" in legend(figure)
        recall, precision = line(figure, name)
        assert (recall[0], recall[-1], precision[-1]) == (1, 0, 1)
        # From each point on, the drawn step goes level to the next one's recall.
        drawn = next(x for x in figure.axes[0].lines if str(x.get_label()).startswith(name))
        assert drawn.get_drawstyle() == "steps-post"
        stepped = float(np.sum(-np.diff(recall) * precision[:-1]))
        assert stepped == pytest.approx(area, abs=2e-3 if name == "a" else 1e-9)


def test_a_single_class_is_said_in_the_legend() -> None:
    models = [*MODELS, ("healthy", np.zeros(5), np.arange(5))]
    for figure in (draw_roc_curves(models), draw_precision_recall_curves(models)):
        assert "healthy (one class alone, no curve)" in legend(figure)
    with pytest.raises(InputError, match="no model"):
        draw_roc_curves([])


def test_distributions_share_bins_and_are_densities() -> None:
    figure = draw_score_distributions(SCORES[~TRUTH], SCORES[TRUTH], 1.25, bins=20)
    axes = figure.axes[0]
    for container in axes.containers:
        bars = list(container)
        assert len(bars) == 20
        assert sum(b.get_width() * b.get_height() for b in bars) == pytest.approx(1)
    first, second = ([b.get_x() for b in container] for container in axes.containers)
    assert first == second
    names = {"threshold 1.25", f"normal (n = {(~TRUTH).sum()})", f"abnormal (n = {TRUTH.sum()})"}
    assert set(legend(figure)) == names
    assert list(axes.lines[0].get_xdata()) == [1.25, 1.25]
    assert axes.get_title("right") == f"AUC {metrics.roc_auc_score(TRUTH, SCORES):.3f}"


def test_distributions_of_one_class_and_without_threshold() -> None:
    for threshold in (None, np.inf):
        axes = draw_score_distributions([1.0, 2.0], [], threshold).axes[0]
        assert len(axes.containers) == 1
        assert not axes.lines
        assert axes.get_title("right") == ""
    for bad in ([], [np.nan]):
        with pytest.raises(InputError, match="scores"):
            draw_score_distributions(bad, [])


def test_the_heat_map_shows_the_middle_slices_in_ras() -> None:
    shape = (6, 8, 4)
    data = RNG.random(shape).astype(np.float32)
    score = RNG.random(shape).astype(np.float32)
    affine = np.diag([-1.0, 1.0, 2.5, 1.0])  # stored right to left, slices 2.5 mm apart
    figure = draw_heat_map(Volume(data, affine), Volume(score, affine, "score"))
    axial, coronal, sagittal = figure.axes[:3]
    np.testing.assert_array_equal(axial.images[0].get_array(), data[::-1][:, :, 2].T)
    np.testing.assert_array_equal(axial.images[1].get_array(), score[::-1][:, :, 2].T)
    np.testing.assert_array_equal(coronal.images[1].get_array(), score[::-1][:, 4].T)
    np.testing.assert_array_equal(sagittal.images[1].get_array(), score[::-1][3].T)
    assert [axes.get_aspect() for axes in (axial, coronal, sagittal)] == [1, 2.5, 2.5]
    # One scale for all three, opaque where the score is high.
    assert {axes.images[1].get_clim() for axes in figure.axes[:3]} == {(score.min(), score.max())}
    opacity = axial.images[1].get_alpha()
    order = score[::-1][:, :, 2].T
    assert (np.argsort(np.asarray(opacity).ravel()) == np.argsort(order.ravel())).all()


def test_the_heat_map_takes_arrays_and_refuses_other_grids() -> None:
    data = np.zeros((3, 4, 5), np.float32)
    assert len(draw_heat_map(data, data).axes) == 4
    with pytest.raises(InputError):
        draw_heat_map(data, np.zeros((3, 4, 4)))
    with pytest.raises(InputError):
        draw_heat_map(Volume(data), Volume(data, np.diag([2.0, 2, 2, 1]), "score"))


def test_training_curves_mark_the_best_epoch() -> None:
    history = {
        "train_loss": [3.0, 2.0, 1.0],
        "val_loss": [3.0, 1.5, 2.0],
        "learning_rate": [1e-3, 1e-3, 5e-4],
    }
    losses, rates = draw_training_curves(history).axes
    drawn = [(list(x.get_xdata()), list(x.get_ydata())) for x in losses.lines]
    epochs = [1, 2, 3]
    assert drawn == [
        (epochs, history["train_loss"]), (epochs, history["val_loss"]), ([2], [1.5])
    ]  # fmt: skip
    assert list(rates.lines[0].get_ydata()) == history["learning_rate"]
    alone = draw_training_curves({"train_loss": [1.0, 0.5], "val_loss": []})
    assert len(alone.axes[0].lines) == 1
    with pytest.raises(InputError, match="train_loss"):
        draw_training_curves({"val_loss": [1.0]})


def test_the_sweep_has_four_panels() -> None:
    score = RNG.random((6, 7, 8)).astype(np.float32)
    sweep = threshold_sweep(score, 0.2, 1.2, 20)  # nothing lies above the last ones
    figure = draw_threshold_sweep(sweep)
    coverage, pieces, size, scores = figure.axes
    for axes, values in (
        (coverage, 100 * sweep.coverage),
        (pieces, sweep.components),
        (size, sweep.largest_component),
        (scores, sweep.mean_score),
    ):
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), sweep.thresholds)
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), values)


def test_every_figure_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    volume = RNG.random((6, 7, 8)).astype(np.float32)
    sweep = threshold_sweep(volume, 0, 1, 5)
    figures = {
        "sweep.png": lambda path: draw_threshold_sweep(sweep, path),
        "roc.png": lambda path: draw_roc_curves(MODELS[1:], path),
        "pr.PNG": lambda path: draw_precision_recall_curves(MODELS[1:], path),
        "distributions": lambda path: draw_score_distributions(SCORES, SCORES, 1, path),
        "deep/heat.png": lambda path: draw_heat_map(volume, volume, path),
        "training.png": lambda path: draw_training_curves({"train_loss": [1, 2]}, str(path)),
    }
    for name, draw in figures.items():
        assert isinstance(draw(tmp_path / name), Figure)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300
    draw_roc_curves(MODELS[1:], tmp_path / "roc.svg")
    assert "<svg" in (tmp_path / "roc.svg").read_text()
    with pytest.raises(SettingsError, match="'doc'"):
        draw_roc_curves(MODELS[1:], tmp_path / "roc.doc")
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == {Path(name).name for name in figures} | {"deep", "roc.svg"}
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
