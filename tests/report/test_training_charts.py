"""Charts of a training: peaks stay, means are means, logarithms where they help."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from atypia.report.training_charts import MOST_POINTS, Line, history, is_steep, smooth, thinned


def heights(svg: str, kind: str) -> list[float]:
    points = re.search(rf'<polyline class="{kind}" points="([^"]*)"', svg)
    assert points is not None
    return [float(p.split(",")[1]) for p in points[1].split()]


def test_the_running_mean_equals_its_slow_formulation() -> None:
    values = np.random.default_rng(0).normal(size=137)
    half = 137 // 60
    slow = [values[max(0, i - half) : i + half + 1].mean() for i in range(137)]
    np.testing.assert_allclose(smooth(list(values)), slow, atol=1e-12)


def test_a_single_peak_of_a_long_log_stays_in_sight_and_in_its_place() -> None:
    values = np.zeros(50_000)
    values[31_234], values[31_235] = 7.0, -3.0
    steps, kept = thinned(range(1, 50_001), values)
    assert len(kept) <= MOST_POINTS
    assert steps[kept.argmax()] == 31_235
    assert steps[kept.argmin()] == 31_236
    assert (np.diff(steps) > 0).all()


def test_a_short_log_is_drawn_as_it_is() -> None:
    steps, kept = thinned([1, 2, 3], [3.0, 1.0, 2.0])
    assert kept.tolist() == [3.0, 1.0, 2.0]
    assert steps.tolist() == [1, 2, 3]


def test_equal_ratios_are_equal_heights_on_a_logarithmic_axis() -> None:
    line = Line("loss", "smooth", [1, 2, 3], [100.0, 10.0, 1.0])
    first, second, third = heights(history([line], "loss", end=3, logarithmic=True), "smooth")
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert first < second  # a larger value is higher up
    first, second, third = heights(history([line], "loss", end=3), "smooth")
    assert second - first > 5 * (third - second)


@pytest.mark.parametrize(
    ("values", "steep"),
    [([1, 10], True), ([1, 9], False), ([0, 9], False), ([-1, 90], False), ([], False)],
)
def test_only_a_steep_positive_figure_is_drawn_by_its_logarithm(
    values: list[float], steep: bool
) -> None:
    assert is_steep(values) is steep


def test_a_chart_is_well_formed_and_tells_what_it_shows() -> None:
    lines = [
        Line("raw <b>", "raw", [1, 2, 3], [1.0, float("nan"), 3.0]),
        Line("validation", "held", [2, 3], [2.0, 1.5]),
    ]
    svg = str(history(lines, "loss", end=10, best=(3, 1.5)))
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert "validation from 2 to 1.5" in root.attrib["aria-label"]
    assert "nan" not in svg
    assert "best validation 1.5 at step 3" in svg


def test_one_step_or_a_constant_can_be_drawn() -> None:
    for values in ([0.5], [0.5, 0.5], [0.0, 0.0]):
        line = Line("x", "plain", range(1, len(values) + 1), values)
        assert "<polyline" in history([line], "x", end=len(values))
    assert history([Line("x", "plain", [], [])], "x", end=1) == ""
