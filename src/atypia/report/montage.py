"""Montage: one picture with a row per condition, for a first look at what a method does."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atypia import files
from atypia.errors import InputError
from atypia.report.pictures import ScoreScale, letters, painters_of
from atypia.report.results import Entry, read_results
from atypia.report.slices import VIEWS, ScanVolumes, focus_of, read_volumes

PAPER, INK, QUIET = "#0d1117", "#f0f3f6", "#9aa4b0"


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
    painters = [painters_of(volumes, focus_of(volumes), scale) for volumes in rows]
    titles = {key: title for row in painters for key, (title, _) in row.items()}
    titles["mask"] = "Flagged, true outline"
    side, head, label = 2.3, 0.42, 0.42
    figure = Figure(
        figsize=(label + side * len(titles), head + side * 1.12 * len(rows)),
        dpi=140,
        facecolor=PAPER,
    )
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        len(titles),
        left=label / figure.get_figwidth(),
        right=0.995,
        bottom=0.01,
        top=1 - head / figure.get_figheight(),
        wspace=0.02,
        hspace=0.03,
    )
    for i, row in enumerate(painters):
        for j, (key, title) in enumerate(titles.items()):
            axes = figure.add_subplot(grid[i, j])
            if key in row:
                row[key][1](axes, VIEWS[0])
            letters(axes, VIEWS[0], size=9 if j == 0 else 0)
            if i == 0:
                axes.set_title(title, color=INK, fontsize=12, pad=6)
            if j == 0:
                axes.text(
                    -0.04, 0.5, names[i].replace("_", " "), color=QUIET, fontsize=12,
                    rotation=90, ha="right", va="center", transform=axes.transAxes,
                )  # fmt: skip
    return figure
