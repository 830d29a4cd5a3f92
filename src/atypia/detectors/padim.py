"""PaDiM: one Gaussian of healthy features at each place of the template.

Source: PaDiM (Defard et al. 2020, arXiv 2011.08785), in 3D. The score is the Mahalanobis distance
from the mean of the place. Few scans stand behind each Gaussian: neighbouring places are pooled,
and covariances shrunk (`atypia.scoring.shrinkage`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from atypia.detectors.base import TrainingSet
from atypia.detectors.patch_detector import TINY, PatchDetector, PatchSettings
from atypia.features.patch_features import Patches, Reduction
from atypia.preprocessing import Prepared
from atypia.scoring.gaussian_field import GaussianField, fit_gaussian_field, mahalanobis
from atypia.volume import Array


class PadimSettings(PatchSettings):
    """Settings of `Padim`."""

    presets = {
        "tiny": {**TINY, "pooled_steps": 1},
        "small": {},
        "published": {
            "reduction": "random",
            "dimension": 100,
            "pooled_steps": 0,
            "shrinkage": "floor",
        },
    }

    reduction: Reduction = "pca"
    dimension: int = Field(24, ge=1)
    shrinkage: Literal["ledoit_wolf", "oas", "floor"] = "oas"
    """Of the covariances: by Ledoit and Wolf, by oracle approximation, or 0.01 added to every
    variance, as published."""
    pooled_steps: int = Field(1, ge=0)
    """Patches in this many steps to each side share their samples."""


class Padim(PatchDetector):
    """A Gaussian at each place (PaDiM in 3D)."""

    method = "padim"
    settings_class = PadimSettings
    settings: PadimSettings

    numbers_: Array
    mean_: Array
    factor_: Array

    def _learn(
        self, learning: Sequence[Prepared], held_out: Sequence[Prepared], training: TrainingSet
    ) -> None:
        settings = self.settings
        scans = [self._patches(scan) for scan in learning]
        grid = scans[0].grid
        counted = np.bincount(np.concatenate([s.numbers for s in scans]), minlength=grid.count)
        self.numbers_ = np.flatnonzero(counted >= min(2, len(scans)))
        place = np.full(grid.count, -1)
        place[self.numbers_] = np.arange(len(self.numbers_))
        shape = (len(scans), len(self.numbers_))
        vectors = np.zeros((*shape, self.features_.length), np.float32)
        present = np.zeros(shape, bool)
        for row, patches in enumerate(scans):
            column = place[patches.numbers]
            vectors[row, column[column >= 0]] = patches.vectors[column >= 0]
            present[row, column[column >= 0]] = True
        field = fit_gaussian_field(
            vectors,
            present,
            0.0 if settings.shrinkage == "floor" else settings.shrinkage,
            neighbours=self._neighbours(place.reshape(grid.counts)),
            floor=0.01 if settings.shrinkage == "floor" else 1e-4,
        )
        self.mean_, self.factor_ = field.mean, field.factor

    def _judge(self, patches: Patches) -> Array:
        # A patch where no training scan had brain is judged by the nearest place that has one.
        known = np.zeros(patches.grid.counts, bool)
        known.ravel()[self.numbers_] = True
        place = np.zeros(patches.grid.counts, np.int64)
        place.ravel()[self.numbers_] = np.arange(len(self.numbers_))
        nearest = ndimage.distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        numbers = place[tuple(nearest)].ravel()[patches.numbers]
        field = GaussianField(self.mean_, self.factor_)
        return np.asarray(mahalanobis(field, patches.vectors, numbers))

    def _neighbours(self, place: Array) -> Array:
        """Give the places that share their samples, `(L, K)`, -1 for none."""
        steps = self.settings.pooled_steps
        around = np.pad(place, steps, constant_values=-1)
        size = 2 * steps + 1
        windows = np.lib.stride_tricks.sliding_window_view(around, (size,) * 3)
        found = windows.reshape(place.size, -1)[self.numbers_]
        # A place's own samples count anyway.
        return np.delete(found, found.shape[1] // 2, axis=1)
