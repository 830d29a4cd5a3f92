"""PriorResidual: what mask refinement finds before any network has learnt anything.

The restoration is the scan's own high-frequency image plus the coarse intensities of the mean
healthy brain. `mask_refinement` with a prior starts from this restoration, so the difference
between both in a table is what its network has earned.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.prediction import Finding
from atypia.preprocessing import Prepared
from atypia.scoring.frequency import REFERENCE_WAVELENGTH_MM, high_pass
from atypia.scoring.residual import Sign, signed
from atypia.scoring.spread import healthy_spread
from atypia.volume import Array


class PriorResidualSettings(DetectorSettings):
    """Settings of `PriorResidual`."""

    presets = {"tiny": {"spacing_mm": 6.0, "align": "none", "wavelength_mm": 24.0}}

    wavelength_mm: float = Field(REFERENCE_WAVELENGTH_MM, gt=0)
    """Longest wavelength of the high-frequency image."""
    floor: float = Field(0.5, ge=0)
    """See `atypia.scoring.spread.healthy_spread`."""
    sign: Sign = "both"
    """Which deviations count."""


class PriorResidual(Detector):
    """Coarse deviation from the mean of aligned healthy brains, in units of its healthy spread."""

    method = "prior_residual"
    settings_class = PriorResidualSettings
    settings: PriorResidualSettings

    mean_: Array
    spread_: Array

    def _fit(self, training: TrainingSet) -> None:
        self.mean_ = training.mean()
        residuals = (scan.image.data - self._restored(scan) for scan in training.scans)
        self.spread_ = healthy_spread(residuals, training.common_brain(), self.settings.floor)

    def _score(self, prepared: Prepared) -> Finding:
        restored = self._restored(prepared)
        residual = (prepared.image.data - restored) / self.spread_
        return Finding(signed(residual, self.settings.sign), restored)

    def _restored(self, prepared: Prepared) -> Array:
        image = torch.from_numpy(np.array(prepared.image.data))
        prior = torch.from_numpy(self.mean_)
        spacing, wavelength = prepared.image.spacing_mm, self.settings.wavelength_mm
        coarse = prior - high_pass(prior, spacing, wavelength)
        return np.asarray((high_pass(image, spacing, wavelength) + coarse).numpy())
