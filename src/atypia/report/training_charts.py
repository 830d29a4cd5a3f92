"""Charts of a training: a figure over its steps, thinned so that every peak stays in sight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import LogLocator, MaxNLocator

from atypia.report import charts
from atypia.volume import Array

MOST_POINTS = 600
"""Of a line; a chart is about as many pixels wide."""
WINDOWS = 30
"""The running mean is over one of so many parts of the steps."""
STEEP = 10.0
"""A figure whose largest value is this many times its smallest one gets a logarithmic axis."""
WIDE, HIGH = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 68, 490, 12, 226


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart.

    Parameters
    ----------
    name
        What it shows, for its title.
    kind
        How it looks: raw, smooth, held (with a dot at every point) or plain.
    steps, values
        Its points.
    """

    name: str
    kind: str
    steps: Sequence[float]
    values: Sequence[float]


def history(
    lines: Sequence[Line],
    unit: str,
    *,
    end: int,
    best: tuple[int, float] | None = None,
    logarithmic: bool = False,
) -> Markup:
    """Draw figures over the steps of a training.

    Parameters
    ----------
    lines
        The first is drawn first; values that are not finite are left out.
    unit
        Name of the figure.
    end
        The last step of the axis.
    best
        Step and value to mark, such as those of the weights that are kept.
    logarithmic
        Draw logarithms; every value must be above 0.
    """
    shown = [_finite(line) for line in lines]
    values = np.concatenate([np.asarray(line.values, dtype=float) for line in shown])
    if not values.size:
        return Markup("")
    up = _Axis.over(float(values.min()), float(values.max()), logarithmic)
    parts = []
    for tick in up.ticks:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(charts._text(LEFT - 7, y + 4, f"{tick:.4g}", "end", "tick"))
    for step in _ticks(0, end):
        parts.append(
            charts._text(_across(step, end), BOTTOM + 18, f"{step:,.0f}", "middle", "tick")
        )
    parts.append(charts._text((LEFT + RIGHT) / 2, BOTTOM + 36, "step", "middle", "unit"))
    if best is not None:
        x = _across(best[0], end)
        parts.append(f'<line class="knee" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>')
    for line in shown:
        parts.append(_drawn(line, up, end))
    if best is not None:
        told = f"best validation {best[1]:.4g} at step {best[0]}"
        parts.append(
            f'<circle class="best" cx="{_across(best[0], end)}" cy="{up(best[1])}" r="6">'
            f"<title>{told}</title></circle>"
        )
    return charts._svg(parts, WIDE, HIGH, _told(shown, unit, logarithmic))


def smooth(values: Sequence[float]) -> Array:
    """Give the running mean over a thirtieth of the values, centred; over fewer at either end."""
    data = np.asarray(values, dtype=float)
    half = max(1, len(data) // (2 * WINDOWS))
    sums = np.concatenate([[0.0], np.cumsum(data)])
    places = np.arange(len(data))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(data))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[Array, Array]:
    """Leave the smallest and the largest value of every stretch, in the order they came."""
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if len(y) <= MOST_POINTS:
        return x, y
    kept: list[int] = []
    for part in np.array_split(np.arange(len(y)), MOST_POINTS // 2):
        ends = {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
        kept += sorted(ends)
    return x[kept], y[kept]


def is_steep(values: Sequence[float]) -> bool:
    """Tell whether a figure is better drawn by its logarithm."""
    data = np.asarray(values, dtype=float)
    data = data[np.isfinite(data)]
    return bool(data.size and data.min() > 0 and data.max() / data.min() >= STEEP)


@dataclass(frozen=True)
class _Axis:
    """Values to heights, of themselves or of their logarithms."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, low: float, high: float, logarithmic: bool) -> _Axis:
        if logarithmic:
            low, high = math.log10(low), math.log10(high)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        bottom = low - room
        # A figure that is never negative gets no axis below 0.
        if not logarithmic and low >= 0 > bottom:
            bottom = 0.0
        return cls(bottom, high + room, logarithmic)

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.logarithmic else value
        share = (place - self.low) / (self.high - self.low)
        return round(BOTTOM + share * (TOP - BOTTOM), 1)

    @property
    def ticks(self) -> list[float]:
        if not self.logarithmic:
            return _ticks(self.low, self.high)
        subdivided = (1.0, 2.0, 5.0) if self.high - self.low < 2 else (1.0,)
        low, high = 10**self.low, 10**self.high
        found = LogLocator(subs=subdivided, numticks=20).tick_values(low, high)
        return [float(t) for t in found if low <= t <= high]


def _ticks(low: float, high: float) -> list[float]:
    found = MaxNLocator(5, integer=high - low > 5).tick_values(low, high)
    return [float(t) for t in found if low <= t <= high]


def _across(step: float, end: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * step / max(end, 1), 1)


def _finite(line: Line) -> Line:
    good = [(s, v) for s, v in zip(line.steps, line.values, strict=True) if math.isfinite(v)]
    return Line(line.name, line.kind, [s for s, _ in good], [v for _, v in good])


def _drawn(line: Line, up: _Axis, end: int) -> str:
    steps, values = thinned(line.steps, line.values)
    places = [(_across(float(s), end), up(float(v))) for s, v in zip(steps, values, strict=True)]
    points = " ".join(f"{x},{y}" for x, y in places)
    text = (
        f'<polyline class="{line.kind}" points="{points}"><title>{escape(line.name)}</title>'
        "</polyline>"
    )
    if line.kind == "held" or len(places) == 1:
        for (x, y), step, value in zip(places, steps, values, strict=True):
            told = f"{line.name}: {value:.4g} at step {step:.0f}"
            text += (
                f'<circle class="{line.kind}" cx="{x}" cy="{y}" r="3">'
                f"<title>{escape(told)}</title></circle>"
            )
    return text


def _told(lines: Sequence[Line], unit: str, logarithmic: bool) -> str:
    """Say what a chart shows to readers who cannot see it."""
    ends = [
        f"{line.name} from {line.values[0]:.3g} to {line.values[-1]:.3g}"
        for line in lines
        if len(line.values) and line.kind != "raw"
    ]
    return f"{unit} by step{', logarithmic' if logarithmic else ''}: {'; '.join(ends)}"
