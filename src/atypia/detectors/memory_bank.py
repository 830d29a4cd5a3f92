"""Memory bank: a patch is as abnormal as it is far from the nearest healthy one near its place.

Source: PatchCore (Roth et al. 2022, arXiv 2106.08265), in 3D. A greedy coreset of the healthy
patches' features is remembered; the score is the distance to the nearest of them, exactly. Brains
are aligned: by default only healthy patches of the same region count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from atypia.detectors.base import TrainingSet
from atypia.detectors.patch_detector import TINY, PatchDetector, PatchSettings
from atypia.features.patch_features import Patches, Reduction
from atypia.preprocessing import Prepared
from atypia.scoring.coreset import greedy_coreset
from atypia.scoring.neighbours import density_weights, nearest, nearest_near
from atypia.volume import Array


class MemoryBankSettings(PatchSettings):
    """Settings of `MemoryBank`."""

    presets = {
        "tiny": {**TINY, "candidates": 500, "bank_share": 0.2, "radius_mm": 30.0},
        "small": {},
        "published": {
            "radius_mm": None,
            "place_weight": 0.0,
            "reweighted": True,
            "bank_share": 0.01,
            "neighbours": 1,
        },
    }

    reduction: Reduction = "pca"
    candidates: int = Field(100_000, ge=1)
    """Healthy patches that the coreset is chosen from; more are left out by chance."""
    bank_share: float = Field(0.1, gt=0, le=1)
    """Share of them that is remembered."""
    neighbours: int = Field(3, ge=1)
    """The score is the mean distance to so many nearest healthy patches."""
    radius_mm: float | None = Field(15.0, gt=0)
    """Only healthy patches within this distance on the template count; none: all do."""
    place_weight: float = Field(0.3, ge=0)
    """When the coreset is chosen: how far apart, in units of features' spread, two patches count
    that are one radius apart and look alike."""
    reweighted: bool = False
    """Multiply by PatchCore's weight, which is small where healthy patches are sparse (with one
    neighbour and no radius)."""


class MemoryBank(PatchDetector):
    """Nearest healthy patches (PatchCore in 3D)."""

    method = "memory_bank"
    settings_class = MemoryBankSettings
    settings: MemoryBankSettings
    free_settings = PatchDetector.free_settings | {"neighbours", "radius_mm", "reweighted"}

    bank_: Array
    places_: Array

    def _learn(
        self, learning: Sequence[Prepared], held_out: Sequence[Prepared], training: TrainingSet
    ) -> None:
        settings = self.settings
        vectors, places = self.sample(learning, settings.candidates)
        known = vectors
        if settings.radius_mm is not None and settings.place_weight:
            weight = settings.place_weight * vectors.shape[1] ** 0.5 / settings.radius_mm
            known = np.concatenate([vectors, places * weight], axis=1).astype(np.float32)
        count = max(settings.neighbours, round(settings.bank_share * len(vectors)))
        chosen = greedy_coreset(
            known, min(count, len(vectors)), settings.seed, progress=training.progress
        )
        self.bank_, self.places_ = vectors[chosen], places[chosen]

    def _judge(self, patches: Patches) -> Array:
        settings = self.settings
        k = min(settings.neighbours, len(self.bank_))
        if settings.radius_mm is None:
            distances, found = nearest(patches.vectors, self.bank_, k, settings.megabytes)
        else:
            distances, found = nearest_near(
                patches.vectors,
                self.places_mm(patches),
                self.bank_,
                self.places_,
                settings.radius_mm,
                k,
                settings.megabytes,
            )
        score = distances.mean(axis=1)
        if settings.reweighted:
            score = score * density_weights(patches.vectors, found[:, 0], self.bank_)
        return np.asarray(score, np.float32)
