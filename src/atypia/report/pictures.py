"""Pictures: a scan, its restoration, its scores and its masks as images in the page."""

from __future__ import annotations

import base64
import io as memory
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from atypia.report.slices import (
    VIEWS,
    Focus,
    ScanVolumes,
    View,
    box_of_interest,
    cut,
    focus_of,
    read_volumes,
    window_of,
)
from atypia.volume import Array

SCORE_COLOURS = "inferno"
FOUND, TRUE, OWN = "#f0a202", "#5cc8ff", "#ff5fb4"
"""Colours of the calibrated mask, the true lesion and the method's own mask: told apart by
colour-blind readers too, and by their form (filled, line, dotted line)."""

WIDTH, GAP, DPI = 290, 5, 100
"""Pixels across one picture and between its views."""
QUALITY = 80
ANCHOR_AT = 0.4
"""Where on the colour scale the threshold lies: the bright colours begin there."""


@dataclass(frozen=True)
class ScoreScale:
    """The colours of the scores, one scale for a whole report.

    Parameters
    ----------
    low, high
        Scores at the ends of the scale; what lies beyond takes the colour of the end.
    threshold
        The calibrated one, put at a fixed colour; None without a calibration.
    """

    low: float
    high: float
    threshold: float | None

    @classmethod
    def of(cls, threshold: float | None, scores: Sequence[float]) -> ScoreScale:
        """Choose the scale by the threshold and the subject-level scores of all scans."""
        usual = float(np.percentile(scores, 90)) if scores else 1.0
        if threshold is None:
            return cls(min(0.0, usual), max(usual, 1e-6), None)
        low = 0.0 if threshold > 0 else 2 * threshold - 1.0
        return cls(low, max(usual, 2 * threshold - low), threshold)

    def __call__(self, score: Array) -> Array:
        """Map scores to `[0, 1]`."""
        if self.threshold is None:
            return np.interp(score, (self.low, self.high), (0, 1))
        return np.interp(score, (self.low, self.threshold, self.high), (0, ANCHOR_AT, 1))

    @property
    def gradient(self) -> str:
        """The colours from low to high, for a CSS gradient."""
        stops = colormaps[SCORE_COLOURS](np.linspace(0, 1, 11))[:, :3]
        return ", ".join("#" + "".join(f"{round(255 * c):02x}" for c in stop) for stop in stops)


@dataclass(frozen=True)
class Panel:
    """One picture: three views of one thing, above each other."""

    key: str
    title: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Pictures:
    """The pictures of one scan, what they show, and how large they are."""

    panels: tuple[Panel, ...]
    focus: Focus
    width: int
    height: int


Painter = Callable[[Axes, View], None]


def draw_scan(
    name: str, place: Path, description: Mapping[str, Any], scale: ScoreScale
) -> Pictures:
    """Draw the pictures of one scan.

    Raises
    ------
    InputError
        A volume cannot be read.
    """
    volumes = read_volumes(place, description)
    focus = focus_of(volumes)
    painters = painters_of(volumes, focus, scale)
    pixels = _painted(
        [paint for _, paint in painters.values()], _layout(volumes, box_of_interest(volumes))
    )
    where = "at x {:.0f}, y {:.0f}, z {:.0f} mm".format(*focus.centre_mm)
    panels = tuple(
        Panel(
            key,
            title,
            f"{title} of {name}: axial, coronal and sagittal view {where}",
            _uri(pixels[:, i * WIDTH : (i + 1) * WIDTH]),
        )
        for i, (key, (title, _)) in enumerate(painters.items())
    )
    return Pictures(panels, focus, WIDTH, pixels.shape[0])


def _painted(painters: Sequence[Painter], boxes: Sequence[tuple[int, int, int, int]]) -> Array:
    """Give `(rows, columns, 3)` bytes: one column per painter, one view per box in it."""
    total, height = WIDTH * len(painters), boxes[-1][1] + boxes[-1][3]
    figure = Figure(figsize=(total / DPI, height / DPI), dpi=DPI, facecolor="black")
    for column, paint in enumerate(painters):
        for view, (left, top, wide, high) in zip(VIEWS, boxes, strict=True):
            x, y = (column * WIDTH + left) / total, 1 - (top + high) / height
            axes = figure.add_axes((x, y, wide / total, high / height))
            paint(axes, view)
            letters(axes, view)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def painters_of(
    volumes: ScanVolumes, focus: Focus, scale: ScoreScale
) -> dict[str, tuple[str, Painter]]:
    """Give title and painter of every picture that this scan has."""
    box = box_of_interest(volumes)
    low, high = window_of(volumes)

    def show(axes: Axes, view: View, data: Array, colours: str, ends: tuple[float, float]) -> None:
        axes.imshow(
            cut(data, view, focus, box),
            cmap=colours,
            vmin=ends[0],
            vmax=ends[1],
            origin="lower",
            extent=_extent(volumes, view, box),
            interpolation="bilinear",
            interpolation_stage="data",
        )

    def scan(axes: Axes, view: View) -> None:
        show(axes, view, volumes.image.data, "gray", (low, high))

    def restoration(axes: Axes, view: View) -> None:
        assert volumes.restoration is not None
        inside = np.where(volumes.brain.data, volumes.restoration.data, low)
        show(axes, view, inside, "gray", (low, high))

    def score(axes: Axes, view: View) -> None:
        inside = np.where(volumes.brain.data, scale(volumes.score.data), 0)
        show(axes, view, inside, SCORE_COLOURS, (0, 1))

    def masks(axes: Axes, view: View) -> None:
        scan(axes, view)
        _masks(axes, view, volumes, focus, box)

    painters: dict[str, tuple[str, Painter]] = {"scan": ("Scan", scan)}
    if volumes.restoration is not None:
        painters["restoration"] = ("Restoration", restoration)
    painters["score"] = ("Score map", score)
    if any(m is not None for m in (volumes.mask, volumes.own_mask, volumes.lesion)):
        painters["mask"] = ("What was flagged", masks)
    return painters


def letters(axes: Axes, view: View, size: float = 11) -> None:
    """Write the directions at the edges, and clear the rest of the frame."""
    axes.set_axis_off()
    for x, text, side in ((0.01, view.left, "left"), (0.99, view.right, "right")):
        axes.text(
            x, 0.5, text, color="#d8d8d8", fontsize=size, ha=side, va="center",
            transform=axes.transAxes,
        )  # fmt: skip


def _masks(
    axes: Axes,
    view: View,
    volumes: ScanVolumes,
    focus: Focus,
    box: tuple[slice, slice, slice],
) -> None:
    extent = _extent(volumes, view, box)
    if volumes.mask is not None:
        flat = cut(volumes.mask.data, view, focus, box)
        colour = np.array([int(FOUND[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        layer = np.concatenate(
            [np.broadcast_to(colour, (*flat.shape, 3)), 0.5 * flat[..., None]], axis=2
        )
        axes.imshow(layer, origin="lower", extent=extent, interpolation="nearest")
    outlines = ((volumes.own_mask, OWN, "dotted"), (volumes.lesion, TRUE, "solid"))
    for volume, colour_name, style in outlines:
        if volume is None:
            continue
        flat = cut(volume.data, view, focus, box)
        if flat.any():
            _outline(axes, flat, extent, colour_name, style)


def _outline(
    axes: Axes, flat: Array, extent: tuple[float, float, float, float], colour: str, style: str
) -> None:
    rows, columns = flat.shape
    across, up = extent[1] / columns, extent[3] / rows
    # One empty voxel around, so that an outline closes at the edge of the picture too.
    axes.contour(
        (np.arange(-1, columns + 1) + 0.5) * across,
        (np.arange(-1, rows + 1) + 0.5) * up,
        np.pad(flat.astype(float), 1),
        levels=[0.5],
        colors=[colour],
        linewidths=1.7,
        linestyles=style,
    )
    axes.set_xlim(0, extent[1])
    axes.set_ylim(0, extent[3])


def _extent(
    volumes: ScanVolumes, view: View, box: tuple[slice, slice, slice]
) -> tuple[float, float, float, float]:
    """Give the edges of a view in mm, from its lower left corner."""
    across, up = (
        (box[axis].stop - box[axis].start) * volumes.score.spacing_mm[axis] for axis in view.plane
    )
    return 0.0, across, 0.0, up


def _layout(
    volumes: ScanVolumes, box: tuple[slice, slice, slice]
) -> list[tuple[int, int, int, int]]:
    """Give left, top, width and height in pixels of every view, all at one scale."""
    sizes = [(_extent(volumes, view, box)[1], _extent(volumes, view, box)[3]) for view in VIEWS]
    pixels_per_mm = WIDTH / max(across for across, _ in sizes)
    boxes, top = [], 0
    for across, up in sizes:
        wide, high = max(1, round(across * pixels_per_mm)), max(1, round(up * pixels_per_mm))
        boxes.append(((WIDTH - wide) // 2, top, wide, high))
        top += high + GAP
    return boxes


def _uri(pixels: Array) -> str:
    """Encode `(rows, columns, 3)` bytes as a WebP data URI."""
    stream = memory.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "WEBP", quality=QUALITY, method=3)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
