"""Evaluation: figures scan by scan and pooled, who is compared with whom, and the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from atypia.calibration import Threshold
from atypia.errors import InputError, SettingsError
from atypia.evaluation import auroc, dice
from atypia.evaluation.evaluation import Evaluation, ScanResult, detection_figures
from atypia.evaluation.masks import hausdorff_95
from atypia.evaluation.result_tables import (
    HEALTHY_COLUMNS,
    LESION_COLUMNS,
    LESION_WISE_COLUMNS,
    SUBJECT_COLUMNS,
    tables,
)
from atypia.evaluation.storing import load_evaluation, save_evaluation
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


def test_outside_the_brain_mask_the_score_is_the_lowest_whatever_its_sign() -> None:
    # Whole numbers keep their order and their ties under a shift, and have bins of their own.
    rng = np.random.default_rng(0)
    half = np.zeros(SHAPE, bool)
    half[:2, 3:6, 3:6] = True
    score = (rng.integers(-19, -8, SHAPE) + 5 * half).astype(np.float32)
    score[~BRAIN] = 1000
    assert (half & ~BRAIN).sum() == (half & BRAIN).sum()
    assert score[half & BRAIN].min() > score[BRAIN].min()  # the missed ones are last, alone
    rows = [
        Evaluation().add(result("t", "tumour", 0, score_map=score + shift, lesion=half))
        for shift in (0, 20)
    ]
    assert rows[0]["ap"] == rows[1]["ap"] < 0.7
    assert rows[0]["lesion_outside"] == 0.5


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


def test_folds_have_no_common_threshold() -> None:
    whole = full()
    other = Evaluation(baselines=["base"])
    for condition in ("healthy", "tumour"):
        other.add(result("x", condition, 7, threshold=Threshold(1.5, "healthy n=4")))
    whole.merge(other)
    told = f"{THRESHOLD.provenance} or healthy n=4; one threshold a fold"
    for rows in (whole.healthy_rows(), whole.lesion_rows()):
        found = {row["method"]: (row["threshold"], row["provenance"]) for row in rows}
        assert found == {"m": (None, told), "base *": (2.0, THRESHOLD.provenance)}


def test_stored_results_are_read_as_they_were(tmp_path: Path) -> None:
    whole = Evaluation(
        ["base"],
        {("tumour", "m"): Threshold(1.0, "labelled validation n=3")},
        ladders={"m": (1.0, 2.0)},
        rates=(0.1, 0.01),
    )
    whole.add(result("t", "tumour", 1))
    whole.add(result("h", "healthy", 2))
    whole.merge(full())
    assert not whole.labelled  # the other one has none
    whole.labelled = {("tumour", "m"): Threshold(1.0, "labelled validation n=3")}
    save_evaluation(whole, tmp_path / "results.json")
    again = load_evaluation(tmp_path / "results.json")
    assert json.dumps(again.to_json()) == json.dumps(whole.to_json())


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept.pop("baselines"),
        lambda kept: kept.pop("scans"),
        lambda kept: kept.pop("pooled"),
        lambda kept: kept["froc"].append(["tumour", "m", {"thresholds": [1.0]}]),
        lambda kept: kept["froc"].append(["tumour", "m", {"thresholds": []}]),
        lambda kept: kept["scans"].clear(),
        lambda kept: kept["scans"][0].pop("method"),
        lambda kept: kept["scans"].append(3),
        lambda kept: kept.update(scans=None),
        lambda kept: kept["pooled"].append(["stroke", "m"]),
        lambda kept: kept["pooled"].pop(),
        lambda kept: kept["pooled"][0].pop(),
    ],
)
def test_damaged_results_are_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "results.json"
    save_evaluation(full(), path)
    kept = json.loads(path.read_text())
    damage(kept)
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="results.json: is damaged"):
        load_evaluation(path)


@pytest.mark.parametrize("wrong", ["[]", "3", "{", ""])
def test_other_json_is_no_result(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "results.json"
    save_evaluation(full(), path)
    path.write_text(wrong)
    with pytest.raises(InputError):
        load_evaluation(path)


def test_damaged_counts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save_evaluation(full(), path)
    counts = path.with_suffix(".npz")
    whole = counts.read_bytes()
    flipped = bytearray(whole)
    flipped[60:90] = bytes(30)
    for wrong in (b"", whole[:100], b"no archive", bytes(flipped)):
        counts.write_bytes(wrong)
        with pytest.raises(InputError, match="damaged"):
            load_evaluation(path)
    for wrong_shape in (np.zeros(3), np.zeros((3, 2)), np.full((3, 1), 1 << 40)):
        np.savez(counts, **{"0": wrong_shape, "1": wrong_shape})
        with pytest.raises(InputError, match="damaged"):
            load_evaluation(path)
    counts.unlink()
    with pytest.raises(InputError, match="damaged"):
        load_evaluation(path)


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
    # Nothing was restored, no method made a mask of its own and no labels chose a threshold:
    # columns without a value are left out.
    empty = {"own Dice", "labelled Dice", "pooled labelled Dice", "PSNR", "SSIM"}
    for columns in (LESION_COLUMNS, LESION_WISE_COLUMNS, SUBJECT_COLUMNS, HEALTHY_COLUMNS):
        for column in columns:
            assert (f" {column.title} " in text) == (column.title not in empty), column.title
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


def test_lesions_one_by_one_stand_in_their_own_table() -> None:
    evaluation = full()
    evaluation.add(result("t9", "tumour", 19, own_mask=LESION))
    evaluation.add(result("u", "unknown", 5))
    rows = {(r["condition"], r["method"], r["mask"]): r for r in evaluation.lesion_wise_rows()}
    # Who knows nothing of a scan's lesions cannot call a component false.
    assert list(rows) == [
        ("healthy", "m", "calibrated"), ("healthy", "base *", "calibrated"),
        ("tumour", "m", "calibrated"), ("tumour", "base *", "calibrated"), ("tumour", "m", "own"),
    ]  # fmt: skip
    row = rows["tumour", "m", "calibrated"]
    seeds = (10, 11, 12, 19)
    masks = [(result("", "tumour", seed).score_map > 2) & BRAIN for seed in seeds]
    labelled = [ndimage.label(mask, np.ones((3, 3, 3))) for mask in masks]
    true = [
        np.unique(labels[LESION & mask]).size
        for (labels, _), mask in zip(labelled, masks, strict=True)
    ]
    false = [count - hit for (_, count), hit in zip(labelled, true, strict=True)]
    assert (row["scans"], row["subjects"], row["lesions"], row["detected"]) == (4, 4, 4, 4)
    assert row["components"] == sum(true) + sum(false)
    assert row["recall"]["mean"] == 1
    assert row["precision"]["mean"] == pytest.approx(sum(true) / (sum(true) + sum(false)))
    assert row["false_positives"]["mean"] == np.mean(false) > 0
    assert row["hd95_mm"]["mean"] == pytest.approx(
        np.mean([hausdorff_95(mask, LESION, (1.0, 1.0, 1.0)) for mask in masks])
    )
    assert row["least_overlap"] == 0
    own = rows["tumour", "m", "own"]
    assert (own["f1"]["mean"], own["hd95_mm"]["mean"], own["scans"]) == (1, 0, 1)
    healthy = rows["healthy", "m", "calibrated"]
    assert (healthy["lesions"], healthy["recall"]["mean"]) == (0, None)
    assert healthy["precision"]["mean"] == 0
    assert healthy["hd95_mm"]["mean"] is None
    shown = tables(evaluation.to_json())
    assert "Lesions one by one" in shown
    assert "FP per scan" in shown


def test_a_lesion_outside_the_brain_mask_is_not_found() -> None:
    outside = np.zeros(SHAPE, bool)
    outside[0, 4, 4] = True
    row = Evaluation().add(result("t", "tumour", 1, lesion=outside | LESION))
    assert row["lesion_wise"]["calibrated"]["lesions"] == 2
    assert row["lesion_wise"]["calibrated"]["detected"] == 1
    strict = Evaluation(least_overlap=1.0)
    assert strict.add(result("t", "tumour", 1))["lesion_wise"]["calibrated"]["detected"] == 0
    empty = np.zeros(SHAPE, bool)
    known = Evaluation().add(result("x", "artefact", 1, lesion=empty))
    assert known["lesion_wise"]["calibrated"]["recall"] is None
    with pytest.raises(SettingsError, match="do not rise"):
        Evaluation(size_edges_mm3=(5.0, 1.0))


def test_old_results_without_the_new_rows_are_shown() -> None:
    values = full().to_json()
    for key in ("lesion_wise", "froc", "comparisons", "strata"):
        del values[key]
    assert "Lesions one by one" not in tables(values)


def test_only_numbers_are_kept_of_a_scan() -> None:
    evaluation = full()

    def arrays(value: Any) -> bool:
        if isinstance(value, dict):
            return any(arrays(one) for one in value.values())
        return isinstance(value, np.ndarray)

    assert not any(arrays(row) for row in evaluation.scans)


def test_froc_curves_of_the_methods_with_a_ladder() -> None:
    evaluation = Evaluation(ladders={"m": (1.0, 2.0, 3.0)})
    for seed in range(2):
        for method in ("m", "base"):
            evaluation.add(result(f"h{seed}", "healthy", seed, method=method))
            evaluation.add(result(f"t{seed}", "tumour", 10 + seed, method=method))
    healthy, tumour = evaluation.froc_rows()
    assert (healthy["condition"], healthy["recall"]) == ("healthy", None)
    assert (tumour["method"], tumour["scans"], tumour["lesions"]) == ("m", 2, 2)
    at_two = evaluation.lesion_wise_rows()
    row = next(r for r in at_two if (r["condition"], r["method"]) == ("tumour", "m"))
    assert tumour["false_positives"][1] == row["false_positives"]["mean"]
    assert full().froc_rows() == []


def test_methods_are_compared_on_the_same_scans() -> None:
    evaluation = Evaluation(baselines=["base"])
    for seed in range(6):
        evaluation.add(result(f"t{seed}", "tumour", seed, method="base", mask=LESION[::-1]))
        evaluation.add(result(f"t{seed}", "tumour", seed))
    ap, overlap = evaluation.comparison_rows()
    assert (ap["figure"], ap["difference"], ap["permutation_p"]) == ("ap", 0, 1)
    assert (overlap["figure"], overlap["method"], overlap["other"]) == ("dice", "m", "base *")
    means = {r["method"]: r["dice"]["mean"] for r in evaluation.lesion_rows()}
    assert overlap["difference"] == pytest.approx(means["m"] - means["base *"])
    assert overlap["permutation_p"] == overlap["permutation_p_holm"] == 2 / 64
    assert overlap["interval_by"] == "bca"
    assert Evaluation(baselines=["m"]).comparison_rows() == []


def test_intervals_are_over_persons_and_tell_how_they_were_made() -> None:
    evaluation = Evaluation()
    for seed in range(6):
        for visit in range(2):
            scan = f"t{seed}-{visit}"
            evaluation.add(result(scan, "tumour", 10 * seed + visit, person=f"p{seed}"))
    (row,) = evaluation.lesion_rows()
    assert (row["scans"], row["subjects"]) == (12, 6)
    assert row["dice"]["interval_by"] == "bca"
    (few,) = (r for r in full().lesion_rows() if r["method"] == "m")
    assert (few["subjects"], few["dice"]["interval_by"]) == (3, "percentile")


def test_healthy_rows_tell_how_well_healthy_tissue_is_restored() -> None:
    evaluation = Evaluation()
    for seed in range(2):
        evaluation.add(result(f"h{seed}", "healthy", seed, psnr=20.0 + seed, ssim=0.5 + seed / 4))
    (row,) = evaluation.healthy_rows()
    assert (row["psnr"]["mean"], row["ssim"]["mean"]) == (20.5, 0.625)


def test_strata_by_what_the_scans_tell() -> None:
    evaluation = Evaluation()
    for seed, (sex, age, site) in enumerate([("F", 30, "X"), ("M", 70, "X"), ("F", 75, "Y")]):
        evaluation.add(result(f"t{seed}", "tumour", seed, sex=sex, age=age, site=site))
    rows = evaluation.to_json()["strata"]
    assert [(r["by"], r["stratum"], r["scans"]) for r in rows if r["by"] != "size"] == [
        ("site", "X", 2), ("site", "Y", 1), ("sex", "F", 2), ("sex", "M", 1),
        ("age", "20 to 40 years", 1), ("age", "60 to 80 years", 2),
    ]  # fmt: skip
    sizes = [r for r in rows if r["by"] == "size"]
    assert [(r["stratum"], r["lesions"]) for r in sizes[:2]] == [
        ("under 100 mm3", 3), ("100 to 1000 mm3", 0)
    ]  # fmt: skip


def test_subject_scores_are_told_at_three_operating_points() -> None:
    found = detection_figures([0.0, 1.0, 2.0, 3.0], [0.5] + [4.0] * 18)
    assert (found["fpr80"], found["fpr90"], found["fpr95"]) == (0, 0, 0.75)
