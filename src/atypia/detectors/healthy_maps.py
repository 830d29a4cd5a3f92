"""Healthy maps: score maps of a calibration, pooled for the voxel threshold, kept for clusters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atypia.calibration import RATES
from atypia.evaluation.histogram import ScoreHistogram
from atypia.progress import Progress, silent, track
from atypia.scoring.components import largest_mm3
from atypia.volume import Array, Volume


@dataclass(frozen=True)
class HealthyLevels:
    """What healthy maps give a calibration, one value a scan but for the threshold.

    Parameters
    ----------
    threshold
        Score above which the asked share of all healthy brain voxels lies.
    flagged_share
        Share of the brain's voxels above it.
    largest_mm3
        Largest flagged component, at the threshold of all other scans.
    highest
        Highest voxel score.
    ladder
        Scores above which the shares `atypia.calibration.RATES` of all healthy voxels lie.
    """

    threshold: float
    flagged_share: tuple[float, ...]
    largest_mm3: tuple[float, ...]
    highest: tuple[float, ...]
    ladder: tuple[float, ...]


class HealthyMaps:
    """Collects healthy score maps; what lies in the brain is kept in a folder, not in memory.

    Parameters
    ----------
    folder
        A temporary one of the caller's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pooled = ScoreHistogram()
        self._affines: list[Array] = []

    def add(self, score_map: Volume, brain: Volume) -> None:
        """Add one scan's map, native like its brain mask."""
        values = score_map.data[brain.data]
        self._pooled.update(values)
        np.savez(self._path(len(self._affines)), values=values, brain=brain.data)
        self._affines.append(score_map.affine)

    def levels(self, voxel_fpr: float, progress: Progress = silent) -> HealthyLevels:
        """Give threshold, flagged shares, largest clusters and highest scores.

        A scan's own voxels raise the threshold of all: at that, its clusters would be smaller than
        those of a new healthy scan, and p-values too small. So each is measured at the threshold
        of the others. The new scan itself has no part in any of these thresholds. With it the
        guarantee would be exact; without it the p-value of a scan with more than a share
        `voxel_fpr` of its voxels above them is as large or larger, since its voxels could only
        raise them and so make the healthy clusters smaller. A single scan is measured at its own.
        """
        threshold = self._pooled.quantile(1 - voxel_fpr)
        shares, largest, highest = [], [], []
        for number in track(range(len(self._affines)), "clusters", progress):
            with np.load(self._path(number)) as arrays:
                values, brain = arrays["values"], arrays["brain"]
            shares.append(float((values > threshold).mean()))
            highest.append(float(values.max()))
            flagged = np.zeros(brain.shape, bool)
            flagged[brain] = values > self._threshold_of_others(values, voxel_fpr)
            largest.append(largest_mm3(Volume(flagged, self._affines[number], "mask")))
        ladder = self._pooled.quantiles([1 - rate for rate in RATES])
        return HealthyLevels(threshold, tuple(shares), tuple(largest), tuple(highest), ladder)

    def _threshold_of_others(self, values: Array, voxel_fpr: float) -> float:
        if len(self._affines) == 1:
            return self._pooled.quantile(1 - voxel_fpr)
        own, others = ScoreHistogram(), ScoreHistogram()
        own.update(values)
        others._all = self._pooled._all - own._all
        return others.quantile(1 - voxel_fpr)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.npz"
