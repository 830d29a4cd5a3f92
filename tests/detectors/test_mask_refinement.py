"""Mask refinement against a literal, slow formulation of the published search, and its outcomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from atypia.detectors.mask_refinement import (
    MaskRefinement,
    MaskRefinementSettings,
    _Reconstruction,
)
from atypia.preprocessing import prepare
from tests.phantoms import phantom_cohort, phantom_scan

RULES = {
    "prior": False,
    "scale_free": False,
    "phase_a": "every_step",
    "crop_mm": None,
    "normalise": False,
    "percent_step": 1.0,
    "score_from": "refined",
    "gamma": 0.02,
    "most_rounds": 100,
}


class Blur(torch.nn.Module):
    """A fixed "network": a smooth of what is visible; enough to drive the search."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.8 * torch.nn.functional.avg_pool3d(x[:, :1], 5, 1, 2) + 0.6 * x[:, 1:2]


def searching(**values) -> tuple[MaskRefinement, object]:
    settings = MaskRefinementSettings.make({**RULES, **values}, preset="tiny")
    detector = MaskRefinement(settings)
    detector.settings = settings.but(training={"steps": 1, "validate_every": 1})
    detector.fit(phantom_cohort(range(3)))
    detector.settings = settings
    detector.network_ = Blur()
    scan = phantom_scan(50, lesion=True)
    return detector, prepare(scan, detector.plan)


def literal_search(image, brain, fine, gamma, rounds=100):
    """The published procedure in float64 on the whole cube, step by step.

    Thresholds are the k-th smallest value over all voxels (zero outside the brain), the mask is
    "error above the threshold", the curve is fitted by a tan(b t), and refinement starts again
    from the brain.
    """
    blur = Blur()

    def reconstruct(mask):
        visible = np.where(mask, 0.0, image)
        x = torch.from_numpy(np.stack([visible, fine])[None].astype(np.float32))
        return blur(x).detach().numpy()[0, 0].astype(np.float64)

    error = ((image - reconstruct(brain)) ** 2) * brain
    voxels, inside = image.size, int(brain.sum())
    curve = []
    for t in range(1, 101):
        k = max(1, voxels - round(inside * (1 - 0.01 * t)))
        threshold = np.sort(error.ravel())[k - 1]
        curve.append(threshold)
        mask = error > threshold
        if t < 100:
            error = ((image - reconstruct(mask)) ** 2) * brain
    curve = np.array(curve)
    percent = np.arange(1.0, 101.0)
    stop = next((i for i, v in enumerate(curve) if v > 10), len(curve))
    (a, b), _ = curve_fit(
        lambda t, a, b: a * np.tan(b * t),
        percent[:stop],
        curve[:stop],
        p0=(1, 0.01),
        maxfev=500_000,
    )
    fitted = a * np.tan(b * percent)
    spread = ((curve[:80] - curve[:80].mean()) ** 2).sum()
    if 1 - ((curve[:80] - fitted[:80]) ** 2).sum() / spread >= 0.85:
        slope = a * b / np.cos(b * percent) ** 2
    else:
        steps = np.diff(curve, prepend=0.0)
        slope = np.array([steps[max(0, i - 2) : i + 3].mean() for i in range(100)])
    knee = int(np.argmax(slope > gamma))
    mask = brain
    for _ in range(rounds):
        following = ((image - reconstruct(mask)) ** 2) * brain > curve[knee]
        if (mask.sum() - following.sum()) / mask.sum() < 0.01:
            return curve, knee, following
        mask = following
    raise AssertionError("did not settle")


def test_search_equals_the_literal_formulation() -> None:
    detector, prepared = searching()
    fine = _Reconstruction(detector, prepared).fine[0, 0].numpy().astype(np.float64)
    image, brain = prepared.image.data.astype(np.float64), prepared.brain.data
    curve, knee, mask = literal_search(image, brain, fine, detector.gamma_)
    found = detector._score(prepared)
    details = found.details["threshold_curve"]
    np.testing.assert_allclose(details["threshold"], curve, rtol=2e-4, atol=1e-6)
    assert details["knee_percent"] == knee + 1
    assert found.mask is not None
    assert 0 < mask.sum() < brain.sum()
    overlap = 2 * (found.mask & mask).sum() / (found.mask.sum() + mask.sum())
    assert overlap > 0.99


def test_threshold_curve_is_the_exact_percentile_of_the_first_step() -> None:
    detector, prepared = searching(percent_step=5.0)
    search = _Reconstruction(detector, prepared).search()
    curve = search.threshold_curve()
    residual = prepared.image.data - search.first[0, 0].numpy()
    error = residual[prepared.brain.data] ** 2
    assert (error > curve.threshold[0]).sum() == error.size - round(error.size * 0.05)
    assert curve.threshold.shape == (20,)
    assert curve.percent[-1] == 100


def test_scale_free_search_ignores_the_unit_of_intensity() -> None:
    detector, prepared = searching(scale_free=True, gamma=0.1)
    one = detector._score(prepared)
    scaled = type(prepared)(
        prepared.image.with_data(prepared.image.data * np.float32(4)),
        prepared.brain,
        prepared.native_brain,
        prepared.parameters,
    )
    other = detector._score(scaled)
    np.testing.assert_array_equal(one.mask, other.mask)
    knees = [f.details["threshold_curve"]["knee_percent"] for f in (one, other)]
    assert knees[0] is not None
    assert knees[0] == knees[1]


def test_no_knee_means_nothing_abnormal() -> None:
    detector, prepared = searching(scale_free=True, gamma=1e9)
    found = detector._score(prepared)
    assert found.details["outcome"] == "nothing abnormal"
    assert found.details["threshold_curve"]["chosen"] is None
    assert found.mask is not None
    assert not found.mask.any()


def test_starting_from_the_stored_mask_of_the_knee() -> None:
    detector, prepared = searching(shrinking_start_mask="best_threshold_mask")
    found = detector._score(prepared)
    assert found.details["outcome"] == "mask refined"
    assert found.mask is not None
    assert found.mask.any()


def test_refinement_is_capped() -> None:
    detector, prepared = searching(most_rounds=1)
    assert detector._score(prepared).details["rounds"] == 1


def test_calibrated_gamma_leaves_healthy_scans_nearly_empty() -> None:
    detector = MaskRefinement(MaskRefinementSettings.make({"healthy_share": 0.05}, preset="tiny"))
    detector.fit(phantom_cohort(range(8)))
    assert detector.gamma_ > 0
    shares = []
    for seed in range(20, 26):
        found = detector._score(prepare(phantom_scan(seed), detector.plan))
        details = found.details["threshold_curve"]
        shares.append(1 - (details["knee_percent"] or 100) / 100)
    assert np.median(shares) <= 0.15


def test_noise_filling_is_seeded() -> None:
    detector, prepared = searching(fill="noise")
    first, second = detector._score(prepared), detector._score(prepared)
    np.testing.assert_array_equal(first.score, second.score)
    zero, _ = searching(fill="zero")
    assert not np.array_equal(zero._score(prepared).score, first.score)


def test_score_variants_differ_and_signs_split_the_residual() -> None:
    detector, prepared = searching(normalise=True)
    detector.spread_ = np.ones_like(detector.spread_)
    both = detector._score(prepared).score
    bright = detector.but(sign="bright")._score(prepared).score
    dark = detector.but(sign="dark")._score(prepared).score
    np.testing.assert_allclose(bright + dark, both, atol=1e-6)
    first = detector.but(score_from="first_pass")._score(prepared).score
    assert not np.array_equal(first, both)


@pytest.mark.parametrize("name", ["reference_rules", "tiny"])
def test_presets_are_valid(name: str) -> None:
    assert MaskRefinementSettings.make(preset=name) != MaskRefinementSettings()
