"""Healthy maps: thresholds and clusters against a literal leave-one-out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from atypia.detectors.healthy_maps import HealthyMaps
from atypia.volume import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
RATE = 0.05


def made(count: int) -> list[tuple[Volume, Volume]]:
    rng = np.random.default_rng(2)
    maps = []
    for number in range(count):
        brain = ndimage.binary_erosion(np.ones((12, 13, 11)), iterations=1 + number % 2)
        field = ndimage.gaussian_filter(rng.normal(size=brain.shape), 1.0) * (1 + number)
        score = Volume((field * brain).astype(np.float32), AFFINE, "score")
        maps.append((score, score.with_data(brain, "mask")))
    return maps


def literal(score: Volume, brain: Volume, threshold: float) -> float:
    labels, count = ndimage.label((score.data > threshold) & brain.data, np.ones((3, 3, 3)))
    return 12.0 * max((int((labels == i).sum()) for i in range(1, count + 1)), default=0)


def test_every_scan_is_measured_at_the_threshold_of_the_others(tmp_path: Path) -> None:
    maps = made(5)
    healthy = HealthyMaps(tmp_path)
    for score, brain in maps:
        healthy.add(score, brain)
    found = healthy.levels(RATE)
    inside = [score.data[brain.data] for score, brain in maps]
    pooled = np.concatenate(inside)
    assert (pooled > found.threshold).mean() == pytest.approx(RATE, abs=2e-3)
    assert found.flagged_share == tuple(float((v > found.threshold).mean()) for v in inside)
    assert found.highest == tuple(float(v.max()) for v in inside)
    for number, (score, brain) in enumerate(maps):
        others = HealthyMaps(tmp_path / str(number))
        (tmp_path / str(number)).mkdir()
        for other, (its_score, its_brain) in enumerate(maps):
            if other != number:
                others.add(its_score, its_brain)
        threshold = others.levels(RATE).threshold
        assert found.largest_mm3[number] == pytest.approx(literal(score, brain, threshold))
    # The scan with the highest scores raises the threshold of all: its cluster is larger so.
    assert found.largest_mm3[-1] > literal(*maps[-1], found.threshold)


def test_a_single_scan_is_measured_at_its_own_threshold(tmp_path: Path) -> None:
    ((score, brain),) = made(1)
    healthy = HealthyMaps(tmp_path)
    healthy.add(score, brain)
    found = healthy.levels(RATE)
    assert found.largest_mm3 == (pytest.approx(literal(score, brain, found.threshold)),)
