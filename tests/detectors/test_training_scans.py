"""Scans to learn from: of one contrast, or of any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atypia.cohort import Cohort
from atypia.detectors.training_scans import PreparationSettings, identified_plan
from atypia.detectors.zscore import ZScore
from atypia.errors import CohortError
from tests.phantoms import phantom_scan


def mixed() -> Cohort:
    scans = []
    for seed, modality in enumerate(["T1w", "FLAIR", "T2w"]):
        scan = phantom_scan(seed)
        scans.append(replace(scan, images={modality: scan.image()}))
    return Cohort(tuple(scans), "mixed")


def test_a_run_of_any_contrast_takes_scans_of_all() -> None:
    rough = {"spacing_mm": 6.0, "align": "none"}
    settings = PreparationSettings.make({**rough, "modality": "any"})
    plan, modality, identity = identified_plan(mixed(), settings, "x")
    assert modality == "any"
    assert plan.digest() == settings.plan_for(mixed(), "any").digest()
    one = PreparationSettings.make({**rough, "modality": "T1w"})
    with pytest.raises(CohortError, match="has FLAIR, not T1w"):
        identified_plan(mixed(), one, "x")
    first = mixed().take([0])
    assert identified_plan(first, one, "x")[1] == "T1w"
    assert identified_plan(first, PreparationSettings.make(rough), "x")[1] == "T1w"
    # What is learnt from the same scans as T1w is another run.
    assert identified_plan(first, one, "x")[2] != identified_plan(first, settings, "x")[2]
    assert identity != identified_plan(mixed().take([0, 1]), settings, "x")[2]


def test_a_model_of_any_contrast_scores_scans_of_any() -> None:
    detector = ZScore(ZScore.settings_class.tiny().but(modality="any")).fit(mixed())
    assert detector.trained_on["modality"] == "any"
    for scan in mixed():
        assert detector.score(scan) > 0
    of_one = ZScore(ZScore.settings_class.tiny()).fit(mixed().take([0]))
    with pytest.raises(CohortError, match="has FLAIR, not T1w"):
        of_one.score(mixed()[1])
