"""What a new calibration changes: threshold, share of healthy voxels flagged, p-values."""

from __future__ import annotations

from statistics import median

import numpy as np

from atypia.calibration.calibration import RATES, Calibration


def rate_at(calibration: Calibration, threshold: float) -> float:
    """Tell which share of a calibration's healthy voxels lies above a threshold.

    Read off its ladder, linearly in the logarithm of the share; beyond the ladder its end.

    Parameters
    ----------
    calibration
        With a ladder.
    threshold
        A score.
    """
    shares = np.interp(threshold, calibration.ladder, np.log(RATES))
    return float(np.exp(shares))


def change_told(before: Calibration, after: Calibration) -> str:
    """Say in words what a calibration changes against the one that it replaces.

    Parameters
    ----------
    before, after
        Of one detector. The healthy scans of `after` are judged by `before` as new ones.
    """
    scores = after.subject_scores
    low = sum(before.p_value(score) <= 0.05 for score in scores)
    lines = [
        "What changes for scans like these:",
        f"  threshold    {before.voxel_threshold:.4g} ({before.provenance})"
        f" -> {after.voxel_threshold:.4g} ({after.provenance})",
    ]
    if after.ladder:
        lines.append(
            f"  flagged      {rate_at(after, before.voxel_threshold):.2%} of their healthy voxels"
            f" -> {after.voxel_fpr:.2%}"
        )
    lines += [
        f"  p <= 0.05    {low} of {len(scores)} of these healthy scans before; 5 % of new ones"
        " like them from now on",
        f"  score        median {median(before.subject_scores):.4g} of the healthy scans before,"
        f" {median(scores):.4g} of these",
    ]
    return "\n".join(lines)
