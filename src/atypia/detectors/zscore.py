"""ZScore: how many standard deviations a voxel lies from the mean of aligned healthy brains."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.prediction import Finding
from atypia.preprocessing import Prepared
from atypia.scoring.residual import Sign, signed
from atypia.scoring.spread import healthy_spread
from atypia.volume import Array


class ZScoreSettings(DetectorSettings):
    """Settings of `ZScore`."""

    presets = {"tiny": {"spacing_mm": 6.0, "align": "none"}}

    sign: Sign = "both"
    """Which deviations count."""
    floor: float = Field(0.5, ge=0)
    """Added to every voxel's standard deviation, in units of the brain's median one: keeps voxels
    at which few training brains differ from dominating."""


class ZScore(Detector):
    """Voxel-wise normative model: mean and standard deviation on the template grid."""

    method = "zscore"
    settings_class = ZScoreSettings
    settings: ZScoreSettings

    mean_: Array
    deviation_: Array

    def _fit(self, training: TrainingSet) -> None:
        self.mean_ = training.mean()
        residuals = (scan.image.data - self.mean_ for scan in training.scans)
        self.deviation_ = healthy_spread(residuals, training.common_brain(), self.settings.floor)

    def _score(self, prepared: Prepared) -> Finding:
        deviation = (prepared.image.data - self.mean_) / self.deviation_
        restoration = np.where(prepared.brain.data, self.mean_, 0)
        return Finding(signed(deviation, self.settings.sign), restoration)
