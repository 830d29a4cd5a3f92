"""Evaluation: figures scan by scan and pooled, who is compared with whom, and the tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from atypia.calibration import Threshold
from atypia.evaluation import auroc, dice
from atypia.evaluation.evaluation import (
    HEALTHY_COLUMNS,
    LESION_COLUMNS,
    SUBJECT_COLUMNS,
    Evaluation,
    ScanResult,
    tables,
)
from atypia.evaluation.table import Column, cell, markdown

SHAPE = (10, 10, 10)
BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:9, 1:9, 1:9] = True
LESION = np.zeros(SHAPE, bool)
LESION[3:6, 3:6, 3:6] = True
THRESHOLD = Threshold(2.0, "healthy n=3, voxel FPR 1.00%")


def result(scan: str, condition: str, seed: int, **values: Any) -> ScanResult:
    """Make a noisy score map, two deviations higher in the lesion."""
    ill = condition not in ("healthy", "unknown")
    rng = np.random.default_rng(seed)
    score = (rng.normal(size=SHAPE) + 2 * (LESION & ill)).astype(np.float32)
    score[0] = 1000  # outside the brain: must not count
    made: dict[str, Any] = {
        "scan": scan,
        "condition": condition,
        "method": "m",
        "score": float(score[BRAIN].max()),
        "score_map": score,
        "brain": BRAIN,
        "lesion": LESION if ill else None,
        "mask": score > THRESHOLD.value,
        "threshold": THRESHOLD,
        "voxel_fpr": 0.01,
    }
    return ScanResult(**(made | values))


def full() -> Evaluation:
    evaluation = Evaluation(baselines=["base"])
    for seed in range(3):
        for method in ("m", "base"):
            evaluation.add(result(f"h{seed}", "healthy", seed, method=method))
            evaluation.add(result(f"t{seed}", "tumour", 10 + seed, method=method))
    return evaluation


def test_the_figures_of_one_scan() -> None:
    given = result("t", "tumour", 1, own_mask=LESION, p_value=0.25, site="X")
    row = Evaluation().add(given)
    inside, truth = given.score_map[BRAIN], LESION[BRAIN]
    assert given.mask is not None
    assert row["auroc"] == pytest.approx(auroc(inside[~truth], inside[truth]), abs=1e-3)
    assert row["dice"] == dice(given.mask[BRAIN], truth)
    assert row["own_dice"] == 1
    assert row["oracle_dice"] >= row["dice"]
    flagged = inside > row["oracle_threshold"]
    assert dice(flagged, truth) == pytest.approx(row["oracle_dice"])
    assert row["flagged"] == pytest.approx((inside > 2).mean())
    assert row["lesion_share"] == pytest.approx(27 / 512)
    assert row["lesion_outside"] == 0
    assert (row["p_value"], row["site"], row["voxel_fpr"]) == (0.25, "X", 0.01)
    assert (row["threshold"], row["provenance"]) == (2.0, THRESHOLD.provenance)


def test_a_lesion_outside_the_brain_mask_counts_as_missed() -> None:
    half = np.zeros(SHAPE, bool)
    half[:2, 4, 4] = True
    row = Evaluation().add(result("t", "tumour", 1, lesion=half))
    assert row["lesion_outside"] == 0.5
    assert row["lesion_share"] == pytest.approx(2 / 512)
    outside = np.zeros(SHAPE, bool)
    outside[0, 4, 4] = True
    missed = Evaluation().add(result("t", "tumour", 1, lesion=outside))
    assert missed["lesion_outside"] == 1
    assert missed["dice"] == 0
    assert missed["ap"] < 0.01


def test_lesion_rows_average_scans_and_pool_voxels() -> None:
    evaluation = full()
    row = next(r for r in evaluation.lesion_rows() if r["method"] == "m")
    scans = [s for s in evaluation.scans if (s["method"], s["condition"]) == ("m", "tumour")]
    assert (row["condition"], row["scans"]) == ("tumour", 3)
    for key in ("ap", "auroc", "dice", "oracle_dice"):
        assert row[key]["mean"] == pytest.approx(np.mean([s[key] for s in scans]))
        assert row[key]["interval"][0] <= row[key]["mean"] <= row[key]["interval"][1]
    assert row["own_dice"] == {"mean": None, "interval": None}
    given = [result("", "tumour", 10 + seed) for seed in range(3)]
    values = np.concatenate([g.score_map[BRAIN] for g in given])
    truth = np.concatenate([LESION[BRAIN]] * 3)
    assert row["pooled_dice"] == pytest.approx(dice(values > 2, truth), abs=0.01)
    assert row["pooled_oracle_dice"] >= row["pooled_dice"]
    assert row["pooled_auroc"] == pytest.approx(auroc(values[~truth], values[truth]), abs=1e-3)
    assert row["threshold"] == 2.0


def test_baselines_are_marked() -> None:
    evaluation = full()
    for rows in (evaluation.lesion_rows(), evaluation.subject_rows(), evaluation.healthy_rows()):
        assert [row["method"] for row in rows] == ["m", "base *"]


def test_subject_rows_compare_with_the_healthy_scans_alone() -> None:
    evaluation = full()
    evaluation.add(result("u", "unknown", 5, score=1e6))
    evaluation.add(result("x", "artefact", 6, score=1e6, lesion=None))
    rows = {r["condition"]: r for r in evaluation.subject_rows() if r["method"] == "m"}
    assert list(rows) == ["tumour", "artefact"]
    healthy = [r["score"] for r in evaluation._of("healthy", "m")]
    tumour = [r["score"] for r in evaluation._of("tumour", "m")]
    assert rows["tumour"]["auroc"]["mean"] == auroc(healthy, tumour)
    assert rows["tumour"]["auroc"]["interval"] is not None
    assert (rows["tumour"]["scans"], rows["tumour"]["healthy"]) == (3, 3)
    assert rows["tumour"]["score"] == pytest.approx(np.mean(tumour))
    assert rows["tumour"]["healthy_score"] == pytest.approx(np.mean(healthy))
    # One scan tells nothing about the spread.
    assert rows["artefact"]["auroc"] == {"mean": 1.0, "interval": None}


def test_healthy_rows_tell_the_false_positives_and_their_threshold() -> None:
    row = full().healthy_rows()[0]
    flagged = [(result("", "healthy", seed).score_map[BRAIN] > 2).mean() for seed in range(3)]
    assert row["flagged"]["mean"] == pytest.approx(np.mean(flagged))
    assert (row["scans"], row["asked"], row["threshold"]) == (3, 0.01, 2.0)
    assert row["provenance"] == THRESHOLD.provenance


def test_without_calibration_and_healthy_scans() -> None:
    evaluation = Evaluation()
    evaluation.add(result("t", "tumour", 1, mask=None, threshold=None, voxel_fpr=None))
    (lesions,), (subjects,), (healthy,) = (
        evaluation.lesion_rows(),
        evaluation.subject_rows(),
        evaluation.healthy_rows(),
    )
    assert lesions["pooled_dice"] is lesions["threshold"] is lesions["dice"]["mean"] is None
    assert subjects["auroc"] == {"mean": None, "interval": None}
    assert subjects["healthy_score"] is None
    assert (healthy["scans"], healthy["provenance"]) == (0, "no calibration")
    assert healthy["flagged"]["mean"] is None
    tables(evaluation.to_json())


def test_everything_is_json_and_makes_tables() -> None:
    evaluation = full()
    values = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert values["baselines"] == ["base"]
    assert len(values["scans"]) == 12
    text = tables(values)
    for columns in (LESION_COLUMNS, SUBJECT_COLUMNS, HEALTHY_COLUMNS):
        assert all(column.title in text for column in columns)
    assert "base *" in text
    assert "Oracle Dice is an upper bound" in text
    assert f"{values['lesions'][0]['ap']['mean']:.3f} [" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.12345, "0.123"),
        (3, "3"),
        ("a", "a"),
        ({"mean": 0.5, "interval": (0.25, 0.755)}, "0.500 [0.25, 0.76]"),
        ({"mean": 0.5, "interval": None}, "0.500"),
        ({"mean": None, "interval": None}, "-"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_table_is_aligned() -> None:
    columns = (Column("a", "first", ""), Column("b", "b", ""))
    lines = markdown([{"a": 1, "b": "longer"}, {"b": None}], columns).splitlines()
    assert lines == [
        "| first | b      |",
        "|-------|--------|",
        "| 1     | longer |",
        "| -     | -      |",
    ]


def test_a_threshold_that_other_labels_chose_stands_beside_the_calibrated_one() -> None:
    chosen = full().best_thresholds("labelled validation")
    assert set(chosen) == {("tumour", "m"), ("tumour", "base")}
    best = chosen["tumour", "m"]
    assert best.provenance == "labelled validation"
    plain, both = full(), Evaluation(labelled={("tumour", "m"): best})
    for seed in range(3):
        both.add(result(f"t{seed}", "tumour", 10 + seed))
    (row,) = both.lesion_rows()
    assert row["pooled_labelled_dice"] == row["pooled_oracle_dice"]  # on the scans that chose it
    assert row["threshold"] == THRESHOLD.value
    assert row["pooled_dice"] < row["pooled_labelled_dice"]
    given = result("t0", "tumour", 10)
    flagged = (given.score_map > best.value) & BRAIN
    assert both.scans[0]["labelled_dice"] == dice(flagged, LESION)
    assert [r["mask"] for r in both.mask_rows()] == ["calibrated", "labelled", "oracle"]
    (row,) = (r for r in plain.lesion_rows() if r["method"] == "m")
    assert row["pooled_labelled_dice"] is None
    assert row["labelled_dice"]["mean"] is None
