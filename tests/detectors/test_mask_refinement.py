"""Mask refinement against a literal, slow formulation of the published search, and its outcomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atypia.detectors.mask_refinement import (
    MaskRefinement,
    MaskRefinementSettings,
    _Reconstruction,
)
from atypia.detectors.tissue_prior import tissues_on
from atypia.errors import SettingsError
from atypia.preprocessing import prepare
from atypia.scoring.frequency import high_pass
from atypia.scoring.tissue_fit import fit_tissues
from tests.oracles.itermask3d import literal_high_pass, literal_search
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


def test_search_equals_the_literal_formulation() -> None:
    detector, prepared = searching()
    fine = _Reconstruction(detector, prepared).fine[0, 0]
    image, brain = torch.tensor(prepared.image.data), torch.tensor(prepared.brain.data)
    literal = literal_search(Blur(), image, fine, brain.float(), detector.gamma_)
    found = detector._score(prepared)
    details = found.details["threshold_curve"]
    np.testing.assert_allclose(details["threshold"], literal.curve, rtol=2e-4, atol=1e-6)
    assert details["knee_percent"] == literal.knee + 1
    assert found.mask is not None
    assert 0 < found.mask.sum() < brain.sum()
    np.testing.assert_array_equal(found.mask, literal.mask)
    error = ((image.numpy() - literal.restored) ** 2)[prepared.brain.data].mean()
    assert found.scores["mean_error"] == pytest.approx(error, rel=1e-4)


def test_scale_free_search_ignores_the_unit_of_intensity() -> None:
    detector, prepared = searching(scale_free=True, gamma=0.5)
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


def test_the_box_of_the_brain_is_all_that_is_computed() -> None:
    detector, prepared = searching(crop_mm=6.0)
    reconstruction = _Reconstruction(detector, prepared)
    assert reconstruction.image.numel() < prepared.image.data.size
    whole, _ = searching()
    cropped, full = (d._score(prepared).mask for d in (detector, whole))
    assert cropped is not None
    assert full is not None
    assert 2 * (cropped & full).sum() / (cropped.sum() + full.sum()) > 0.98


def test_preset_of_the_reference_is_its_network_and_its_rules() -> None:
    settings = MaskRefinementSettings.make(preset="reference")
    detector = MaskRefinement(settings)
    detector._build()
    assert sum(p.numel() for p in detector.network_.parameters()) == 8_902_626
    assert settings.gamma == 0.01
    assert settings.training.epochs == 500
    assert not settings.prior
    assert not settings.scale_free


def test_reference_cutoff_is_the_published_frequency_masking() -> None:
    detector, prepared = searching(cutoff="index")
    fine = _Reconstruction(detector, prepared).fine[0, 0].numpy()
    expected = literal_high_pass(prepared.image.data.astype(np.float64))
    np.testing.assert_allclose(fine, expected, atol=1e-4)


def test_own_subject_scores() -> None:
    detector, _ = searching(subject_score="final_mask_ml")
    scan = phantom_scan(50, lesion=True)
    prediction = detector.predict(scan)
    assert prediction.score == prediction.scores["final_mask_ml"] > 0
    assert prediction.own_mask is not None
    voxel_ml = prediction.own_mask.geometry.voxel_volume_mm3 / 1000
    expected = prediction.own_mask.data.sum() * voxel_ml
    assert prediction.score == pytest.approx(expected, rel=0.05)
    assert prediction.scores["final_mask_share"] == pytest.approx(
        prediction.own_mask.data.sum() / prediction.brain.data.sum(), rel=0.05
    )
    assert detector.score(scan) == prediction.score


def test_an_unknown_subject_score_names_the_known_ones() -> None:
    detector, _ = searching(subject_score="final_mask_size")
    with pytest.raises(SettingsError, match="final_mask_ml"):
        detector.score(phantom_scan(51))


@pytest.mark.parametrize(
    "values", [{"network": "reference", "channels": (4, 8)}, {"channels": (8, 8)}]
)
def test_error_masks_corruption_and_reference_network_train(values: dict) -> None:
    settings = MaskRefinementSettings.make(
        {
            **values,
            "error_share": 1.0,
            "augmentation": {"corruption_share": 1.0, "quarter_turn_share": 0.5},
            "training": {"steps": 2, "batch_size": 2},
        },
        preset="tiny",
    )
    detector = MaskRefinement(settings).fit(phantom_cohort(range(3)))
    assert np.isfinite(detector.score(phantom_scan(50)))
    prepared = prepare(phantom_scan(50), detector.plan)
    full = detector._score(prepared).score[prepared.brain.data]
    short = detector.but(precision="bfloat16")._score(prepared).score[prepared.brain.data]
    assert not np.array_equal(full, short)
    assert np.corrcoef(full, short)[0, 1] > 0.999


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


def test_several_restorations_are_scored_together() -> None:
    from atypia.scoring.restorations import RestorationRules, score_of_restorations

    values = {"fill": "noise", "restorations": 3, "training": {"steps": 2, "validate_every": 1}}
    detector = MaskRefinement(MaskRefinementSettings.make(values, preset="tiny"))
    detector.fit(phantom_cohort(range(3)))
    prepared = prepare(phantom_scan(50, lesion=True), detector.plan)
    stack = detector.restorations(_Reconstruction(detector, prepared))
    assert stack.shape == (3, *prepared.image.shape)
    assert np.abs(stack[0] - stack[1]).max() > 0
    finding = detector._score_alone(prepared)
    again = detector._score_alone(prepared)
    np.testing.assert_array_equal(finding.score, again.score)
    rules = RestorationRules()
    reconstruction = _Reconstruction(detector, prepared)
    reconstruction.restore(reconstruction.brain)  # the one that is shown comes first
    expected = score_of_restorations(
        prepared.image.data, detector.restorations(reconstruction), prepared.brain.data, rules
    )
    np.testing.assert_allclose(finding.score, expected, rtol=1e-5)


def test_restorations_that_would_all_be_the_same_are_refused() -> None:
    with pytest.raises(SettingsError, match="fill"):
        MaskRefinementSettings.make({"restorations": 2})


def of_tissues(**values) -> MaskRefinement:
    few = {"prior_from": "tissues", "align": "centre", "training": {"steps": 3, "batch_size": 2}}
    settings = MaskRefinementSettings.make({**few, **values}, preset="tiny")
    return MaskRefinement(settings).fit(phantom_cohort(range(3)))


def test_the_prior_of_tissues_is_the_coarse_part_of_the_scans_own_fit() -> None:
    detector = of_tissues(augmentation={"flip_share": 1.0})
    assert not hasattr(detector, "prior_")
    prepared = detector._prepared(phantom_scan(50, lesion=True), None)[1]
    reconstruction = _Reconstruction(detector, prepared)
    image = torch.from_numpy(np.array(prepared.image.data))
    brain = torch.from_numpy(np.array(prepared.brain.data))
    expected, _ = fit_tissues(image, brain, tissues_on(prepared.image.geometry)[0])
    fine = high_pass(expected[None, None], prepared.image.spacing_mm, 24.0)
    coarse = (expected[None, None] - fine)[reconstruction.box]
    torch.testing.assert_close(reconstruction.coarse, coarse)
    maps = detector.encoder().features(image[None, None])
    assert maps[0].shape[1] == 8
    assert all(torch.isfinite(found).all() for found in maps)
    assert np.isfinite(detector._score(prepared).score).all()


def test_a_prior_of_tissues_follows_each_scan_of_a_batch() -> None:
    detector = of_tissues()
    scans = [detector._prepared(phantom_scan(seed), None)[1] for seed in (50, 51)]
    images = [torch.from_numpy(np.array(scan.image.data))[None, None] for scan in scans]
    images[1] = -images[1]
    prior = detector._prior(torch.device("cpu"))
    together = detector._guide(torch.cat(images), prior, (6.0, 6.0, 6.0))[1]
    for index, image in enumerate(images):
        alone = detector._guide(image, prior, (6.0, 6.0, 6.0))[1]
        torch.testing.assert_close(together[index : index + 1], alone)
    # It is upside down where the scan is.
    turned = detector._guide(-images[0], prior, (6.0, 6.0, 6.0))[1]
    torch.testing.assert_close(turned, -together[:1], rtol=1e-3, atol=1e-4)


def test_a_prior_of_tissues_needs_the_template() -> None:
    with pytest.raises(SettingsError, match=r"MNI152.*--align"):
        of_tissues(align="none")
    without = MaskRefinementSettings.make({"prior": False, "prior_from": "tissues"}, preset="tiny")
    MaskRefinement(without.but(training={"steps": 1})).fit(phantom_cohort(range(2)))
