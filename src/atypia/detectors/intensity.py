"""Intensity: the brightest (or darkest) voxels are abnormal; learns nothing.

Source: Meissen, Kaissis, Rueckert, "Challenging current semi-supervised anomaly segmentation
methods for brain MRI", 2021 (arXiv 2109.06023): on FLAIR, thresholding the histogram-equalised
scan beats most learnt methods. It therefore stands in every table.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.prediction import Finding
from atypia.preprocessing import Prepared

DARK_LESIONS = ("T1w", "CT")
"""Modalities on which most lesions are darker than healthy tissue."""


class IntensitySettings(DetectorSettings):
    """Settings of `Intensity`."""

    presets = {"tiny": {"spacing_mm": 6.0, "align": "none"}}

    direction: Literal["auto", "bright", "dark"] = "auto"
    """Which end of the histogram is abnormal; auto: dark on T1w and CT, bright elsewhere."""


class Intensity(Detector):
    """Share of the brain's voxels that are less bright (or less dark) than this one."""

    method = "intensity"
    settings_class = IntensitySettings
    settings: IntensitySettings

    def _fit(self, training: TrainingSet) -> None:
        """Learn nothing."""

    def _score(self, prepared: Prepared) -> Finding:
        brain = prepared.brain.data
        values = prepared.image.data[brain]
        # Histogram equalisation is the rank; equal intensities share one.
        ordered = np.sort(values)
        ranks = np.searchsorted(ordered, values, side="right") / values.size
        if self._dark():
            ranks = 1 - np.searchsorted(ordered, values, side="left") / values.size
        score = np.zeros(brain.shape, dtype=np.float32)
        score[brain] = ranks
        return Finding(score)

    def _dark(self) -> bool:
        if self.settings.direction == "auto":
            return self.trained_on["modality"] in DARK_LESIONS
        return self.settings.direction == "dark"
