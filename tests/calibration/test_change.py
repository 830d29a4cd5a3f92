"""What a new calibration changes, in figures that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.calibration import RATES, Calibration
from atypia.calibration.change import change_told, rate_at


def calibration(threshold: float, scores: tuple[float, ...], **more: object) -> Calibration:
    told = {
        "voxel_threshold": threshold,
        "voxel_fpr": 0.005,
        "subject_scores": scores,
        "flagged_share": tuple(0.005 for _ in scores),
        "people": ("a",),
        "cohort": "healthy",
        "detector": "d",
    }
    return Calibration.model_validate(told | more)


def test_the_share_above_a_threshold_is_read_off_the_ladder() -> None:
    # Exponential scores: the share above x is exp(-x), so a rate lies at -log(rate).
    ladder = tuple(float(-np.log(rate)) for rate in RATES)
    one = calibration(1.0, (1.0,), ladder=ladder)
    for score in (3.0, 5.5, 9.0):
        assert rate_at(one, score) == pytest.approx(np.exp(-score), rel=1e-6)
    assert rate_at(one, 100.0) == pytest.approx(RATES[-1])


def test_the_change_is_told() -> None:
    ladder = tuple(float(-np.log(rate)) for rate in RATES)
    before = calibration(4.0, tuple(float(i) for i in range(40)))
    after = calibration(5.0, (38.5, 39.5, 100.0, 1.0), ladder=ladder)
    told = change_told(before, after)
    assert "4 (healthy n=40" in told
    assert "-> 5 (healthy n=4" in told
    assert f"{np.exp(-4.0):.2%} of their healthy voxels -> 0.50%" in told
    # (1 + #healthy at least as high) / 41: 38.5 has one above (p = .049), the next two none.
    assert "3 of 4 of these healthy scans before" in told
    assert "median 19.5 of the healthy scans before, 39 of these" in told
