"""What the drawn figures share: their paper, their colours, and how they are written."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from atypia import files
from atypia.errors import SettingsError

MAIN, SECOND, QUIET = "#2a6fb0", "#c0392b", "#8a94a0"
"""Colours of what a figure is about, of what it is compared with, and of guides."""
DPI = 115


def new_figure(wide: float, high: float) -> Figure:
    """Make an empty figure of a size in inches; it belongs to no window and no global state."""
    figure = Figure(figsize=(wide, high), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, across: str, up: str) -> None:
    """Name both axes, and leave only what helps reading."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def written(figure: Figure, path: str | Path | None) -> Figure:
    """Write a figure atomically, its format by the suffix (PNG without one); None for not at all.

    Raises
    ------
    SettingsError
        The suffix is of no format that can be drawn.
    OutputError
        The place cannot be written.
    """
    if path is None:
        return figure
    form = Path(path).suffix[1:].lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise SettingsError(path, f"no figure is written as {form!r}", "End its name in .png")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format=form)
    return figure
