"""The baselines against literal formulations."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.detectors.intensity import Intensity, IntensitySettings
from atypia.detectors.prior_residual import PriorResidual, PriorResidualSettings
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.preprocessing import prepare
from tests.phantoms import phantom_cohort, phantom_scan


def prepared_and(detector):
    detector.fit(phantom_cohort(range(5)))
    return detector, prepare(phantom_scan(30, lesion=True), detector.plan)


@pytest.mark.parametrize(("direction", "flip"), [("bright", 1), ("dark", -1)])
def test_intensity_is_the_share_of_less_extreme_voxels(direction: str, flip: int) -> None:
    settings = IntensitySettings.make({"direction": direction}, preset="tiny")
    detector, prepared = prepared_and(Intensity(settings))
    score = detector._score(prepared).score
    inside = prepared.brain.data
    values = flip * prepared.image.data[inside].astype(np.float64)
    literal = np.array([(values <= value).mean() for value in values])
    np.testing.assert_allclose(score[inside], literal, atol=1e-6)


def test_intensity_chooses_its_direction_by_modality() -> None:
    detector = Intensity(IntensitySettings.tiny()).fit(phantom_cohort(range(2)))
    assert not detector._dark()
    detector.trained_on["modality"] = "T1w"
    assert detector._dark()


def test_zscore_is_the_deviation_in_units_of_the_spread() -> None:
    detector, prepared = prepared_and(ZScore(ZScoreSettings.make({"floor": 0.25}, preset="tiny")))
    stack = np.stack(
        [prepare(scan, detector.plan).image.data for scan in phantom_cohort(range(5))]
    ).astype(np.float64)
    brains = np.stack([prepare(s, detector.plan).brain.data for s in phantom_cohort(range(5))])
    spread = stack.std(axis=0)
    spread = spread + 0.25 * np.median(spread[brains.mean(0) >= 0.5])
    literal = np.abs(prepared.image.data - stack.mean(axis=0)) / spread
    inside = prepared.brain.data
    found = detector._score(prepared).score[inside]
    np.testing.assert_allclose(found, literal[inside], rtol=2e-3, atol=1e-3)


def test_prior_residual_sees_only_coarse_deviations() -> None:
    settings = PriorResidualSettings.make({"wavelength_mm": 40.0}, preset="tiny")
    detector, prepared = prepared_and(PriorResidual(settings))
    found = detector._score(prepared)
    checker = np.indices(prepared.image.shape).sum(0) % 2 * np.float32(0.5) - np.float32(0.25)
    speckled = type(prepared)(
        prepared.image.with_data(prepared.image.data + checker),
        prepared.brain,
        prepared.native_brain,
        prepared.parameters,
    )
    np.testing.assert_allclose(detector._score(speckled).score, found.score, atol=0.02)
    lesion = phantom_scan(30, lesion=True).lesion()
    assert lesion is not None
