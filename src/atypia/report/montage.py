"""Montage: one picture with a row per condition, for a first look at what a method does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from atypia import files
from atypia.errors import InputError
from atypia.report.pictures import FOUND, TRUE, ScoreScale, letters, painters_of
from atypia.report.results import Entry, read_results
from atypia.report.slices import VIEWS, ScanVolumes, focus_of, read_volumes

PAPER, INK, QUIET = "#000000", "#f0f3f6", "#9aa4b0"


def write_montage(results: Path, output: Path, count: int = 4) -> Path:
    """Write a PNG: rows are scans, columns are scan, restoration, score map and masks.

    The scans are not picked by how they look: the first by name of every condition that has a
    true lesion, in the order of the conditions' names. The view is axial, through the lesion.

    Parameters
    ----------
    results
        Results folder of `atypia predict` on scans with lesion masks.
    output
        The PNG.
    count
        The most rows.

    Raises
    ------
    InputError
        No scan of the folder has a true lesion, or one cannot be read.
    """
    found = read_results(Path(results))
    chosen: dict[str, tuple[Entry, ScanVolumes]] = {}
    for entry in sorted(found.done, key=lambda entry: (entry.condition, entry.id)):
        if entry.condition in chosen or len(chosen) == count:
            continue
        if entry.description["lesion_mask"]:
            volumes = read_volumes(entry.place, entry.description)
            if volumes.lesion is not None and volumes.lesion.data.any():
                chosen[entry.condition] = entry, volumes
    if not chosen:
        raise InputError(results, "holds no scan with a true lesion", "Predict labelled scans")
    calibration = found.run["calibration"]
    threshold = None if calibration is None else float(calibration["voxel_threshold"])
    scale = ScoreScale.of(threshold, [entry.score for entry in found.done])
    figure = _figure([volumes for _, volumes in chosen.values()], list(chosen), scale)
    with files.replacing(output) as temporary:
        figure.savefig(temporary, format="png", facecolor=PAPER)
    return Path(output)


def _figure(rows: list[ScanVolumes], names: list[str], scale: ScoreScale) -> Figure:
    # The calibrated mask is what all methods have in common; a second one would only clutter.
    shown = [replace(volumes, own_mask=None) for volumes in rows]
    painters = [painters_of(volumes, focus_of(volumes), scale) for volumes in shown]
    titles = {key: title for row in painters for key, (title, _) in row.items()}
    side, head, foot, label = 2.3, 0.42, 0.4, 0.42
    wide, high = label + side * len(titles), head + foot + side * 1.12 * len(rows)
    figure = Figure(figsize=(wide, high), dpi=115, facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        len(titles),
        left=label / wide,
        right=0.995,
        bottom=foot / high,
        top=1 - head / high,
        wspace=0.02,
        hspace=0.03,
    )
    for i, row in enumerate(painters):
        for j, (key, title) in enumerate(titles.items()):
            axes = figure.add_subplot(grid[i, j])
            axes.set_axis_off()
            if key in row:
                row[key][1](axes, VIEWS[0])
            if j == 0:
                letters(axes, VIEWS[0])
            if i == 0:
                axes.set_title(title, color=INK, fontsize=12, pad=6)
        height = 1 - (head + side * 1.12 * (i + 0.5)) / high
        figure.text(
            0.5 * label / wide, height, names[i].replace("_", " "), color=QUIET, fontsize=12,
            rotation=90, ha="center", va="center",
        )  # fmt: skip
    _legend(figure, any(volumes.mask is not None for volumes in rows))
    return figure


def _legend(figure: Figure, flagged: bool) -> None:
    lines: list[Artist] = [Line2D([], [], color=TRUE, lw=2, label="true lesion")]
    if flagged:
        lines.insert(0, Patch(color=FOUND, label="flagged at the calibrated threshold"))
    figure.legend(
        handles=lines,
        loc="lower right",
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=11,
        borderaxespad=0.2,
    )
