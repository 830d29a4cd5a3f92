"""Findings from several restorations of one scan, whatever method made them."""

from __future__ import annotations

import numpy as np

from atypia.detectors.prediction import Finding
from atypia.scoring.mahalanobis import WITH_NOISE
from atypia.scoring.restorations import (
    RestorationRules,
    numbers_of_restorations,
    score_of_restorations,
)
from atypia.volume import Array


def finding_of(
    image: Array,
    restorations: Array,
    brain: Array,
    rules: RestorationRules,
    noise_variance: Array | None = None,
) -> Finding:
    """Score a scan by its restorations; the restoration that is shown is their mean.

    Parameters
    ----------
    image, brain
        `(X, Y, Z)`; brain is boolean.
    restorations
        `(N, X, Y, Z)`, in the intensities of the image.
    rules
        How they become a score.
    noise_variance
        `(X, Y, Z)`, used where the rules' covariance takes one.
    """
    takes = rules.deviation == "mahalanobis" and rules.covariance in WITH_NOISE
    variance = noise_variance if takes else None
    return Finding(
        score=score_of_restorations(image, restorations, brain, rules, variance),
        restoration=np.where(brain, restorations.mean(0), 0).astype(np.float32),
        scores=numbers_of_restorations(image, restorations, brain, rules, variance),
        details={
            "restorations": len(restorations),
            "spread": float(restorations.std(0)[brain].mean()) if brain.any() else 0.0,
        },
    )
