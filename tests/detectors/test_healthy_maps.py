"""Healthy maps: thresholds and clusters against a literal leave-one-out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from atypia.calibration.conformal import conformal_limit
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


DRAWS, NEW, FPR = 200, 10, 0.02
SCANS = {0.01: 99, 0.05: 39, 0.1: 29}
"""Rate -> healthy scans of a draw: the limit that the rate asks for exists."""


def random_maps(rng: np.random.Generator, count: int) -> np.ndarray:
    """Make smooth noise that is louder in some scans than in others, `(count, 9, 9, 9)`."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, 9, 9, 9)), (0, 1, 1, 1))
    return np.asarray(smooth / smooth.std() * rng.lognormal(0, 0.15, (count, 1, 1, 1)))


def thresholds(maps: np.ndarray) -> tuple[list[float], float]:
    """Give the threshold of all others for each map, and that of all maps, from one sorting."""
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(flat, axis=None)[::-1]
    falling, owner = flat.ravel()[order], order // flat.shape[1]
    few = int(3 * FPR * len(order)) + flat.shape[1]
    above = int(FPR * (len(order) - flat.shape[1]) * (1 + 1e-12))
    others = [falling[:few][owner[:few] != i][above] for i in range(len(maps))]
    return others, falling[int(FPR * len(order) * (1 + 1e-12))]


def largest_cluster(flagged: np.ndarray) -> int:
    labels, _ = ndimage.label(flagged, np.ones((3, 3, 3)))
    return int(np.bincount(labels.ravel())[1:].max(initial=0))


def test_the_thresholds_of_the_simulation_are_those_of_the_healthy_maps(tmp_path: Path) -> None:
    made = random_maps(np.random.default_rng(3), 12)
    others, everyone = thresholds(made)
    maps = HealthyMaps(tmp_path)
    whole = Volume(np.ones((9, 9, 9), bool), np.eye(4), "mask")
    for one in made:
        maps.add(Volume(one.astype(np.float32), np.eye(4), "score"), whole)
    levels = maps.levels(FPR)
    assert levels.threshold == pytest.approx(everyone, rel=1e-3)
    sizes = [largest_cluster(one > threshold) for one, threshold in zip(made, others, strict=True)]
    assert levels.largest_mm3 == pytest.approx(sizes, abs=1)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1])
def test_clusters_of_new_healthy_scans_are_found_at_no_more_than_the_promised_rate(
    rate: float,
) -> None:
    """200 draws of a calibration and new scans, thresholds and clusters from the same scans."""
    n = SCANS[rate]
    rng = np.random.default_rng(round(1000 * rate))
    found = np.zeros((DRAWS, NEW), bool)
    for draw in range(DRAWS):
        made = random_maps(rng, n + NEW)
        healthy, new = made[:n], made[n:]
        others, everyone = thresholds(healthy)
        sizes = [float(largest_cluster(m > t)) for m, t in zip(healthy, others, strict=True)]
        limit = conformal_limit(sizes, rate)
        found[draw] = [largest_cluster(one > everyone) > limit for one in new]
    # One new scan a draw: these are independent, so that their number is plainly binomial. Sizes
    # are whole voxels: ties can only make it smaller.
    assert found[:, 0].sum() <= stats.binom(DRAWS, rate).ppf(0.9995)
    assert 0 < found.mean() <= rate + 4 * np.sqrt(rate * (1 - rate) * (1 / n + 1 / NEW) / DRAWS)
