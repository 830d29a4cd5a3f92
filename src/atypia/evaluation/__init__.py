"""Metrics: over the voxels of a whole cohort (`histogram`) and over subjects (`subject`)."""

from __future__ import annotations

from atypia.evaluation.histogram import RankingResult, ScoreHistogram
from atypia.evaluation.subject import (
    auroc,
    average_precision,
    bootstrap_interval,
    dice,
    fnr_at_tnr,
    fpr_at_tpr,
)

__all__ = [
    "RankingResult",
    "ScoreHistogram",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "dice",
    "fnr_at_tnr",
    "fpr_at_tpr",
]
