"""SyntheticRestoration: a network that takes synthetic anomalies out of scans and points at them.

In the manner of DISYRE (Naval Marimont et al. 2024, arXiv 2311.15453) and of DRAEM (Zavrtanik et
al. 2021, arXiv 2108.07610): healthy scans get synthetic anomalies, and one pass of a 3D network
gives the healthy scan back and tells for every voxel how likely it was changed. Anomalies are no
lesion models (`atypia.training.synthetic_anomalies`). What differs from DISYRE: one pass instead of
a schedule of degradations, and the evidence that the second output gives.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from atypia.detectors.prediction import Finding
from atypia.detectors.restorer import TINY, Restorer, RestorerSettings
from atypia.preprocessing import Prepared
from atypia.training.synthetic_anomalies import SyntheticAnomalies, corrupt
from atypia.volume import Array


class SyntheticRestorationSettings(RestorerSettings):
    """Settings of `SyntheticRestoration`."""

    presets = {"tiny": TINY}

    anomalies: SyntheticAnomalies = SyntheticAnomalies()
    """How scans are corrupted in training."""
    score_from: Literal["evidence", "residual", "both"] = "residual"
    """The network's evidence that a voxel was changed; what it has taken out, in units of the
    healthy spread; or the product of both."""


class SyntheticRestoration(Restorer):
    """One-pass restoration, learnt on synthetic anomalies."""

    method = "synthetic_restoration"
    settings_class = SyntheticRestorationSettings
    settings: SyntheticRestorationSettings
    points = True

    def _corrupted(
        self, image: Tensor, brain: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        spacing = self._working_grid().spacing_mm
        return corrupt(image, brain, spacing, self.settings.anomalies, rng)

    def _score(self, prepared: Prepared) -> Finding:
        restored, evidence = self.restore(prepared)
        finding = self._finding(prepared, restored)
        assert evidence is not None
        if self.settings.score_from == "residual":
            return finding
        # Positive, rising, and never saturated as a probability would be.
        sure: Array = np.logaddexp(0, evidence, dtype=np.float32)
        score = sure if self.settings.score_from == "evidence" else sure * np.abs(finding.score)
        return Finding(score, restored, scores=finding.scores)
