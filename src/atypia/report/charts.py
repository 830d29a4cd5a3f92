"""Charts: small inline SVG drawings that follow the page's colours, light, dark and in print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from atypia.volume import Array

LABELS, WIDTH = 164, 490
LONGEST = 25
"""Room for row names, the width of a chart with rows, and the letters that fit the room."""


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
"""Of curves; colour-blind people can tell them apart (Okabe and Ito)."""
DASHES = ("none", "6 3", "2 3")


@dataclass(frozen=True)
class Dot:
    """One scan in the strip plot: its score, its name and where its card is."""

    value: float
    name: str
    anchor: str = ""


@dataclass(frozen=True)
class Interval:
    """One method's figure with its confidence interval."""

    group: str
    name: str
    value: float
    ends: tuple[float, float] | None
    main: bool


@dataclass(frozen=True)
class _Scale:
    """Values to positions along one direction."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        low, high = min(values), max(values)
        room = 0.04 * (high - low) or 0.5
        return cls(low if low == 0 else low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        ticks = MaxNLocator(5).tick_values(self.low, self.high)
        return [float(t) for t in ticks if self.low <= t <= self.high]


def strip(
    rows: Mapping[str, Sequence[Dot]],
    reference: Sequence[float],
    unit: str,
    label: str = "Subject-level score of every scan by condition",
) -> Markup:
    """Draw every scan's score by condition, above the healthy scores of the calibration.

    Parameters
    ----------
    rows
        Condition -> its scans.
    reference
        Scores of the healthy calibration scans, empty without a calibration.
    unit
        Name of the axis.
    label
        What the chart shows, for readers who cannot see it.
    """
    shown = {"calibration": [Dot(v, "healthy calibration scan") for v in reference]} | dict(rows)
    shown = {name: dots for name, dots in shown.items() if dots}
    values = [dot.value for dots in shown.values() for dot in dots]
    step, top = 42, 6
    bottom = top + step * len(shown)
    across = _Scale.over(values, LABELS, WIDTH - 12)
    parts = _axis(across, top, bottom, unit)
    if reference:
        left, right = across(min(reference)), across(max(reference))
        parts.append(
            f'<rect class="band" x="{left}" y="{top}" width="{max(right - left, 1):.1f}" '
            f'height="{bottom - top}"/>'
        )
    for number, (name, dots) in enumerate(shown.items()):
        middle = top + step * (number + 0.5)
        kind = "reference" if name == "calibration" else "plain" if name == "healthy" else "main"
        parts.append(
            _text(
                LABELS - 10, middle + 4, f"{_plain(name, LONGEST - 4)} ({len(dots)})", "end", "row"
            )
        )
        for i, dot in enumerate(dots):
            # Spread by order, not by chance: the same page comes out every time.
            y = middle + step * 0.3 * (2 * ((i * 0.618) % 1) - 1)
            circle = (
                f'<circle class="{kind}" cx="{across(dot.value)}" cy="{y:.1f}" r="4.5">'
                f"<title>{escape(dot.name)}: {dot.value:.3g}</title></circle>"
            )
            parts.append(f'<a href="#{dot.anchor}">{circle}</a>' if dot.anchor else circle)
    return _svg(parts, WIDTH, bottom + 40, label)


def intervals(rows: Sequence[Interval], unit: str) -> Markup:
    """Draw one figure of every method by condition, with confidence intervals."""
    step, gap, y = 20, 12, 4.0
    ends = [e for row in rows for e in (row.ends or ())]
    across = _Scale.over([0.0, *(row.value for row in rows), *ends], LABELS, WIDTH - 46)
    marks: list[str] = []
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            y += gap if marks else 0
            marks.append(_text(0, y + 14, _plain(group), "start", "group"))
            y += step
        kind = "main" if row.main else "reference"
        middle = y + step / 2
        marks.append(_text(LABELS - 10, middle + 4, row.name, "end", "row"))
        if row.ends is not None:
            marks.append(
                f'<line class="{kind}" x1="{across(row.ends[0])}" x2="{across(row.ends[1])}" '
                f'y1="{middle}" y2="{middle}"/>'
            )
        marks.append(f'<circle class="{kind}" cx="{across(row.value)}" cy="{middle}" r="4.5"/>')
        marks.append(_text(WIDTH, middle + 4, f"{row.value:.2f}", "end", "value"))
        y += step
    parts = _axis(across, 4, y, unit) + marks
    return _svg(parts, WIDTH, y + 40, f"{unit} by condition and method")


def threshold_curve(curve: Mapping[str, Any]) -> Markup:
    """Draw a threshold curve, its fit and the knee that was chosen."""
    width, height, left, bottom = 320, 190, 44, 150
    percent, threshold = np.asarray(curve["percent"]), np.asarray(curve["threshold"])
    fitted = None if curve["fitted"] is None else np.asarray(curve["fitted"])
    across = _Scale(0.0, 100.0, left, width - 14)
    # The last step leaves the largest single error, far above all others: it may run out of the
    # chart, so that the knee can be seen.
    chosen = curve["chosen"] if curve["chosen"] is not None else np.percentile(threshold, 90)
    up = _Scale.over([0.0, min(3.0 * float(chosen), float(threshold.max()))], bottom, 8)
    parts = _axis(across, 8, bottom, "% of the brain left out of the mask")
    for tick in up.ticks:
        parts.append(_text(left - 6, up(tick) + 4, f"{tick:g}", "end", "tick"))
    parts.append(_text(left + 6, 16, f"error threshold ({curve['unit']})", "start", "tick"))
    lines = _line(percent, threshold, across, up, "curve")
    if fitted is not None:
        lines += _line(percent, fitted, across, up, "fit")
        parts.append(_text(left + 6, 48, "dashed: fit", "start", "tick"))
    # An inner SVG clips what it holds without an id, which would have to be unique on the page.
    parts.append(
        f'<svg x="0" y="8" width="{width}" height="{bottom - 8}" '
        f'viewBox="0 8 {width} {bottom - 8}">{lines}</svg>'
    )
    told = "no knee: nothing abnormal"
    if curve["knee_percent"] is not None:
        x, y = across(curve["knee_percent"]), up(curve["chosen"])
        told = f"knee at {curve['knee_percent']:g} %"
        parts.append(f'<line class="knee" x1="{x}" x2="{x}" y1="{bottom}" y2="{y}"/>')
        parts.append(f'<circle class="knee" cx="{x}" cy="{y}" r="5"><title>{told}</title></circle>')
    parts.append(_text(left + 6, 32, told, "start", "told"))
    return _svg(parts, width, height, f"Threshold curve, {told}")


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    most: float = 1.0,
) -> Markup:
    """Draw several curves of values up to 1 with a legend, told apart by colour and by dashes.

    Parameters
    ----------
    lines
        Name -> places and values.
    x, y
        What they are.
    most
        Where the horizontal axis, which starts at 0, ends.
    """
    left, bottom, right = 44, 250, 330
    across, up = _Scale(0.0, most, left, right), _Scale(0.0, 1.0, bottom, 10)
    parts = _axis(across, 10, bottom, x)
    for tick in up.ticks:
        parts.append(_text(left - 6, up(tick) + 4, f"{tick:g}", "end", "tick"))
    parts.append(_text(left + 6, bottom - 8, y, "start", "unit"))
    for place, (name, (values, others)) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        dashes = DASHES[place // len(COLOURS) % len(DASHES)]
        told = f'style="stroke:{colour};stroke-dasharray:{dashes}"'
        points = " ".join(
            f"{across(float(a))},{up(float(b))}" for a, b in zip(values, others, strict=True)
        )
        parts.append(f'<polyline {told} points="{points}"><title>{escape(name)}</title></polyline>')
        height = 20 + 18 * place
        parts.append(
            f'<line {told} stroke-width="2.5" x1="{right + 14}" x2="{right + 36}" '
            f'y1="{height}" y2="{height}"/>'
        )
        parts.append(_text(right + 42, height + 4, _plain(name), "start", "tick"))
    return _svg(parts, 560, max(290, 30 + 18 * len(lines)), f"{y} by {x}: {', '.join(lines)}")


def histogram(edges: Array, shares: Array, usual: tuple[Array, Array], unit: str) -> Markup:
    """Draw one scan's histogram over the range of the cohort's.

    Parameters
    ----------
    edges
        Of the bins.
    shares
        Of the scan's voxels in each bin.
    usual
        The low and the high end of what the other scans have in each bin.
    unit
        Name of the axis.
    """
    width, height, left, bottom = 320, 170, 10, 130
    middles = (edges[:-1] + edges[1:]) / 2
    across = _Scale(float(middles[0]), float(middles[-1]), left, width - 10)
    top = max(float(shares.max()), float(usual[1].max())) or 1.0
    up = _Scale(0.0, top * 1.05, bottom, 8)
    parts = _axis(across, 8, bottom, unit)
    there = [*zip(middles, usual[1], strict=True)]
    back = [*zip(middles[::-1], usual[0][::-1], strict=True)]
    points = " ".join(f"{across(float(x))},{up(float(y))}" for x, y in there + back)
    parts.append(f'<polygon class="range" points="{points}"/>')
    parts.append(_line(middles, shares, across, up, "curve"))
    return _svg(parts, width, height, "Histogram of intensities, with the range of the cohort")


def _axis(across: _Scale, top: float, bottom: float, unit: str) -> list[str]:
    parts = []
    for tick in across.ticks:
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", "middle", "tick"))
    parts.append(_text((across.start + across.end) / 2, bottom + 34, unit, "middle", "unit"))
    return parts


def _line(x: Any, y: Any, across: _Scale, up: _Scale, kind: str) -> str:
    points = " ".join(f"{across(float(a))},{up(float(b))}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def _plain(name: str, longest: int = LONGEST) -> str:
    plain = name.replace("_", " ")
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(parts: Sequence[str], width: float, height: float, label: str) -> Markup:
    return Markup(
        f'<svg class="chart" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
    )
