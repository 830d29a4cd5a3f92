"""Three levels of a calibration: scans in strata, clusters, peaks; and old files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atypia.calibration import Calibration, HealthyStrata, PValue, cluster_limit, require_scans
from atypia.cohort.scan import Scan
from atypia.detectors.prediction import Prediction, apply_calibration
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.errors import SettingsError
from atypia.report import write_report
from atypia.runs.predicting import finished_scans, predict_cohort
from atypia.scoring.components import largest_mm3, only_larger
from atypia.volume import Volume
from tests.calibration.test_calibration import VALUES, calibration
from tests.phantoms import phantom_cohort

SIZES = {"largest_mm3": (0.0, 24.0, 24.0, 96.0), "highest_scores": (2.0, 3.0, 4.0, 5.0)}


def many(n: int = 60, **values: Any) -> Calibration:
    scores = np.random.default_rng(0).exponential(1, n)
    return calibration(
        subject_scores=tuple(scores),
        flagged_share=(0.0,) * n,
        largest_mm3=tuple(8 * np.ceil(20 * scores)),
        highest_scores=tuple(10 * scores),
        **values,
    )


@pytest.mark.parametrize(("size", "above"), [(8, 3), (24, 3), (24.0001, 3), (25, 1), (97, 0)])
def test_a_lesion_is_compared_with_the_largest_clusters(size: float, above: int) -> None:
    made = calibration(**SIZES)
    assert made.cluster_p_value(size) == PValue((1 + above) / 5, "all 4 healthy scans")


def test_a_peak_is_compared_with_the_highest_scores() -> None:
    found = calibration(**SIZES).peak_p_value(4.5)
    assert found is not None
    assert found.value == 2 / 5


def test_a_file_of_an_older_version_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(VALUES))
    old = Calibration.load(path)
    assert old.cluster_p_value(100) is None
    assert old.peak_p_value(100) is None
    assert old.subject_p_value(3.0).value == old.p_value(3.0) == 2 / 5
    assert old.provenance == "healthy n=4, voxel FPR 1.00%"


def test_all_of_it_comes_back_from_its_file(tmp_path: Path) -> None:
    scans = [Scan(str(i), {}, site="AB"[i % 2], age=20.0 + i) for i in range(60)]
    strata = HealthyStrata.of(scans, ("site", "age"))
    made = many(scan_fpr=0.05, cluster_mm3=96.0, extrapolate=True, strata=strata)
    made.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == made


def test_strata_are_used_where_they_are_large_enough() -> None:
    scans = [Scan(str(i), {}, site="A" if i < 40 else "B") for i in range(60)]
    made = many(strata=HealthyStrata.of(scans, ("site",), least=30))
    score = 1.0
    within = sum(s >= score for s in made.subject_scores[:40])
    found = made.subject_p_value(score, scans[0])
    assert found == PValue((1 + within) / 41, "40 healthy scans of site A")
    other = made.subject_p_value(score, scans[-1])
    assert other == PValue(made.p_value(score), "all 60 healthy scans (only 20 of site B)")
    unknown = made.subject_p_value(score, Scan("x", {}))
    assert unknown.value == made.p_value(score)
    assert unknown.among.startswith("all 60 healthy scans (site: not all known")
    assert made.subject_p_value(score).among == "all 60 healthy scans"


def test_only_what_no_healthy_scan_reaches_is_extrapolated_and_marked() -> None:
    plain, far = many(), many(extrapolate=True)
    highest = max(far.subject_scores)
    for score in (0.5, highest):
        assert far.subject_p_value(score) == plain.subject_p_value(score)
    beyond = far.subject_p_value(2 * highest)
    assert beyond.extrapolated
    assert beyond.value < far.lowest_p_value == plain.subject_p_value(2 * highest).value
    assert not plain.subject_p_value(2 * highest).extrapolated
    cluster, peak = far.cluster_p_value(1e4), far.peak_p_value(1e4)
    assert cluster is not None
    assert peak is not None
    assert cluster.extrapolated
    assert peak.extrapolated
    # Too few scans in a stratum for a tail: no estimate, the conformal value stays.
    few = calibration(extrapolate=True).subject_p_value(1e4)
    assert few == PValue(1 / 5, "all 4 healthy scans")


def test_a_cluster_limit_is_extrapolated_only_where_it_must_be() -> None:
    sizes = many().largest_mm3
    assert cluster_limit(sizes, 0.05, extrapolate=True) == cluster_limit(sizes, 0.05)
    with pytest.raises(SettingsError, match="needs at least 99 healthy scans, there are 60"):
        cluster_limit(sizes, 0.01)
    limit, extrapolated = cluster_limit(sizes, 0.01, extrapolate=True)
    assert extrapolated
    assert limit >= max(sizes)


@pytest.mark.parametrize(
    ("scans", "rate", "extrapolate", "told"),
    [
        (18, 0.05, False, "needs at least 19 healthy scans, there are 18"),
        (49, None, True, "needs at least 50 healthy scans"),
        (60, 0.001, True, "cannot be extrapolated from 60"),
        (60, 1.5, False, "not between 0 and 1"),
        (60, 0, True, "not between 0 and 1"),
    ],
)
def test_what_too_few_scans_cannot_tell(
    scans: int, rate: float | None, extrapolate: bool, told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        require_scans(scans, rate, extrapolate)


def test_provenance_tells_of_the_cluster_size() -> None:
    made = calibration(**SIZES, scan_fpr=0.2, cluster_mm3=96.0)
    told = "healthy n=4, voxel FPR 1.00%, scan FPR 20.00% (clusters above 96 mm3)"
    assert made.threshold.provenance == told
    assert "96 mm3, extrapolated)" in made.but(cluster_extrapolated=True).provenance


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"largest_mm3": (1.0,)}, "1 values for 4 scans"),
        ({"highest_scores": (1.0,) * 5}, "5 values for 4 scans"),
        ({"scan_fpr": 0.05}, "belong together"),
        ({"cluster_mm3": 5.0}, "belong together"),
    ],
)
def test_values_that_do_not_fit_each_other(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        calibration(**values)


def test_masks_keep_what_is_larger_and_lesions_get_their_p_values() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    score = np.zeros((12, 12, 12), np.float32)
    score[1, 1, 1:4] = 3  # 24 mm3
    score[6:9, 6:9, 6:9] = 5  # 216 mm3
    score_map = Volume(score, affine, "score")
    brain = score_map.with_data(np.ones(score.shape, bool), "mask")
    prediction = Prediction(Scan("x", {}), score_map, brain, 3.0)
    free = apply_calibration(prediction, calibration(**SIZES))
    assert [(round(x.size_mm3), x.p_value) for x in free.lesions] == [(216, 1 / 5), (24, 4 / 5)]
    strict = apply_calibration(prediction, calibration(**SIZES, scan_fpr=0.4, cluster_mm3=24.0))
    assert [round(x.size_mm3) for x in strict.lesions] == [216]
    assert strict.mask is not None
    assert int(strict.mask.data.sum()) == 27
    assert strict.p_value == 2 / 5
    assert strict.p_value_among == "all 4 healthy scans"
    assert not strict.p_value_extrapolated
    old = apply_calibration(prediction, calibration())
    assert [x.p_value for x in old.lesions] == [None, None]


def test_components_of_just_the_limit_go_whatever_the_rounding_of_the_affine() -> None:
    data = np.zeros((8, 8, 8), bool)
    data[1, 1, 1:4] = True
    exact = Volume(data, np.diag([2.0, 2.0, 2.0, 1.0]), "mask")
    rounded = Volume(data, np.diag([2.000002, 2.0, 2.0, 1.0]), "mask")
    limit = largest_mm3(exact)
    assert largest_mm3(rounded) > limit == pytest.approx(24)
    assert not only_larger(rounded, limit).data.any()
    assert only_larger(rounded, 0.99 * limit).data.sum() == 3
    assert largest_mm3(exact.with_data(np.zeros(data.shape, bool))) == 0


def test_what_is_extrapolated_is_marked_wherever_it_is_shown(tmp_path: Path) -> None:
    detector = ZScore(ZScoreSettings.tiny()).fit(phantom_cohort(range(4)))
    made = detector.calibrate(
        phantom_cohort(range(100, 152)), voxel_fpr=0.02, scan_fpr=0.01, extrapolate=True
    )
    assert made.cluster_extrapolated
    assert made.cluster_mm3 is not None
    assert made.cluster_mm3 >= max(made.largest_mm3)
    assert "mm3, extrapolated)" in made.provenance
    predict_cohort(detector, phantom_cohort(range(200, 201), lesion=True), tmp_path)
    ((_, told),) = finished_scans(tmp_path)
    assert told["p_value_extrapolated"]
    assert 1 / 530 <= told["p_value"] < 1 / 53
    (lesion,) = told["lesions"]
    assert lesion["extrapolated"]
    assert 1 / 530 <= lesion["p_value"] <= 0.01
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("(extrapolated)") == 3  # table of scans, facts, table of lesions
    assert "estimated by a fitted tail" in page
    assert "they are marked as extrapolated" in page
