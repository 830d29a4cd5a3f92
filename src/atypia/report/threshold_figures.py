"""Figures about thresholds: what each of many would leave of a score map."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from atypia.report.figures import MAIN, SECOND, new_figure, plain, written
from atypia.scoring.thresholds import ThresholdSweep


def draw_threshold_sweep(sweep: ThresholdSweep, path: str | Path | None = None) -> Figure:
    """Draw four panels over the thresholds: how much lies above, in what pieces, and how high.

    Parameters
    ----------
    sweep
        Of `threshold_sweep`.
    path
        Where to write it, the format by the suffix; None to draw only.

    Raises
    ------
    OutputError, SettingsError
        The place cannot be written, or its suffix is of no format that can be drawn.
    """
    figure = new_figure(9, 6.4)
    (volume, pieces), (size, scores) = figure.subplots(2, 2, sharex=True)
    at = sweep.thresholds
    volume.plot(at, 100 * sweep.coverage, color=MAIN)
    plain(volume, "", "% of voxels above")
    pieces.plot(at, sweep.components, color=MAIN)
    plain(pieces, "", "connected components")
    size.plot(at, sweep.largest_component, color=MAIN, label="largest component")
    size.plot(at, sweep.volumes, color=SECOND, linestyle="--", label="all above")
    # Counts fall by orders of magnitude, down to none.
    size.set_yscale("symlog", linthresh=1)
    size.set_ylim(bottom=0)
    size.legend(frameon=False)
    plain(size, "threshold", "voxels")
    scores.plot(at, sweep.mean_score, color=MAIN, label="mean")
    low, high = sweep.mean_score - sweep.std_score, sweep.mean_score + sweep.std_score
    scores.fill_between(at, low, high, color=MAIN, alpha=0.2, label="± standard deviation")
    scores.legend(frameon=False)
    plain(scores, "threshold", "score of voxels above")
    return written(figure, path)
