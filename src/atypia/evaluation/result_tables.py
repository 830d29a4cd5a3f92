"""Tables of an evaluation: their columns and what each means, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atypia.evaluation.froc import FALSE_POSITIVES
from atypia.evaluation.table import Column, Row, filled, markdown

ORACLE = "oracle: the best threshold for these very labels"
LABELLED = "threshold of the highest pooled Dice on labelled validation scans of that condition"
OWN = "the method's own label-free mask"

LESION_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled."),
    Column("method", "method", "Baselines are marked with *."),
    Column("scans", "scans", "Number of scans with that lesion."),
    Column("ap", "AP", "Voxel-wise average precision in the brain, mean over scans [95 % CI]."),
    Column("auroc", "AUROC", "Voxel-wise area under the ROC curve in the brain, mean over scans."),
    Column("dice", "Dice", "At the calibrated threshold, mean over scans [95 % CI]."),
    Column("own_dice", "own Dice", f"Dice of {OWN}; few methods make one."),
    Column("labelled_dice", "labelled Dice", f"At the {LABELLED}."),
    Column("oracle_dice", "oracle Dice", f"Upper bound; {ORACLE}, chosen scan by scan."),
    Column("psnr", "PSNR", "Of the restoration in the healthy brain, dB; peak: brightest voxel."),
    Column("ssim", "SSIM", "Of the restoration in the healthy brain, structural similarity."),
    Column("pooled_ap", "pooled AP", "All voxels of these scans together."),
    Column("pooled_dice", "pooled Dice", "Same, at the calibrated threshold."),
    Column("pooled_labelled_dice", "pooled labelled Dice", f"Same, at the {LABELLED}."),
    Column("pooled_oracle_dice", "pooled oracle Dice", f"Same; {ORACLE}, one for all scans."),
)
MASK_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled."),
    Column("method", "method", "Baselines are marked with *."),
    Column("mask", "mask", "Where the mask comes from; the oracle's needs these very labels."),
    Column("scans", "scans", "Number of scans with that lesion."),
    Column("dice", "Dice", "Mean over scans [95 % CI]."),
    Column("iou", "IoU", "Intersection over union."),
    Column("sensitivity", "sensitivity", "Share of the lesion that is found."),
    Column("precision", "precision", "Share of the mask that is lesion; of scans with a mask."),
    Column("assd_mm", "ASSD mm", "Average symmetric surface distance; of scans with a mask."),
    Column("hd95_mm", "HD95 mm", "95th percentile of the Hausdorff distance; likewise."),
    Column("provenance", "provenance", "Where the threshold came from."),
)
LESION_WISE_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled; healthy scans have no lesion."),
    Column("method", "method", "Baselines are marked with *."),
    Column("mask", "mask", "Where the mask comes from."),
    Column("scans", "scans", "Number of scans."),
    Column("lesions", "lesions", "Number of true lesions: connected components of the truth."),
    Column("recall", "found", "Share of all these lesions that the mask touches [95 % CI]."),
    Column("precision", "precision", "Share of all the mask's components that touch a lesion."),
    Column("f1", "F1", "Harmonic mean of the two."),
    Column("false_positives", "FP per scan", "Components that touch no lesion, mean over scans."),
    Column("hd95_mm", "HD95 mm", "95th percentile of the Hausdorff distance, mean over scans."),
)
FROC_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled."),
    Column("method", "method", "Baselines are marked with *."),
    Column("lesions", "lesions", "Number of true lesions: connected components of the truth."),
    *(
        Column(f"at {rate:g}", f"found at {rate:g} FP", "Share of the lesions that is found when "
               f"the scans have {rate:g} false components on average (FROC).")
        for rate in FALSE_POSITIVES
    ),
)  # fmt: skip
DETECTION_COLUMNS = (
    Column("condition", "condition", "Abnormal scans, against the healthy ones."),
    Column("method", "method", "Baselines are marked with *."),
    Column("score_name", "score", "Which subject-level score ranks the scans."),
    Column("auroc", "AUROC", "Do abnormal scans score above healthy ones? [95 % CI]"),
    Column("average_precision", "AUPRC", "Depends on the share of abnormal scans."),
    Column("fpr80", "FPR80", "Healthy scans flagged when 80 % of the abnormal ones must be found."),
    Column("fpr90", "FPR90", "The same for 90 %."),
    Column("fpr95", "FPR95", "The same for 95 %."),
    Column("fnr80", "FNR80", "Abnormal scans missed when 80 % of the healthy ones must pass."),
    Column("fnr90", "FNR90", "The same for 90 %."),
)
SUBJECT_COLUMNS = (
    Column("condition", "condition", "Abnormal scans, against the healthy ones."),
    Column("method", "method", "Baselines are marked with *."),
    Column("scans", "scans", "Number of abnormal scans."),
    Column("healthy", "healthy", "Number of healthy scans compared with."),
    Column("auroc", "scan AUROC", "Do abnormal scans score above healthy ones? [95 % CI]"),
    Column("score", "mean score", "Mean subject-level score of the abnormal scans."),
    Column("healthy_score", "healthy score", "Mean subject-level score of the healthy scans."),
)
HEALTHY_COLUMNS = (
    Column("method", "method", "Baselines are marked with *."),
    Column("scans", "scans", "Number of healthy test scans."),
    Column("flagged", "flagged", "Share of their brain voxels above the calibrated threshold."),
    Column("asked", "asked for", "The share that the calibration was set to."),
    Column("psnr", "PSNR", "Of the restoration in the brain, dB; peak: brightest voxel."),
    Column("ssim", "SSIM", "Of the restoration in the brain, structural similarity."),
    Column("threshold", "threshold", "Its value."),
    Column("provenance", "provenance", "Where the threshold came from."),
)


SIZE_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled; healthy scans have no lesion."),
    Column("stratum", "size", "Of true lesions for found, of the mask's components for the rest."),
    Column("method", "method", "Baselines are marked with *."),
    Column("lesions", "lesions", "Number of true lesions of that size."),
    Column("recall", "found", "Share of these lesions that the calibrated mask touches [95 % CI]."),
    Column("precision", "precision", "Share of components of that size that touch a lesion."),
    Column("false_positives", "FP per scan", "Components of that size that touch no lesion."),
)
STRATA_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled."),
    Column("stratum", "stratum", "Which scans."),
    Column("method", "method", "Baselines are marked with *."),
    Column("scans", "scans", "Number of scans in that stratum."),
    Column("ap", "AP", "Voxel-wise average precision, mean over scans [95 % CI]."),
    Column("dice", "Dice", "At the calibrated threshold, mean over scans."),
    Column("flagged", "flagged", "Share of the brain's voxels above the calibrated threshold."),
    Column("score", "score", "Subject-level score, mean over scans."),
)


def strata_parts(
    evaluation: Mapping[str, Any],
) -> list[tuple[str, list[Row], Sequence[Column]]]:
    """Give title, rows and columns of the tables by lesion size, and by site, sex and age."""
    rows: Sequence[Row] = evaluation.get("strata", ())
    sizes = [r for r in rows if r["by"] == "size" and r["mask"] == "calibrated"]
    # A size that no lesion and no component has tells nothing.
    sizes = [r for r in sizes if r["lesions"] or r["components"]]
    parts: list[tuple[str, list[Row], Sequence[Column]]] = []
    if sizes:
        parts.append(("Lesions by size, calibrated masks", _by_stratum(sizes), SIZE_COLUMNS))
    for kind in ("site", "sex", "age"):
        there = [row for row in rows if row["by"] == kind]
        if there:
            parts.append((f"Scans by {kind}", _by_stratum(there), STRATA_COLUMNS))
    return parts


def _by_stratum(rows: Sequence[Row]) -> list[Row]:
    """Put the methods of one stratum under each other."""
    places = [list(dict.fromkeys(r[key] for r in rows)) for key in ("condition", "stratum")]
    return sorted(
        rows, key=lambda r: (places[0].index(r["condition"]), places[1].index(r["stratum"]))
    )


def tables(evaluation: dict[str, Any]) -> str:
    """Give the tables of an evaluation (as JSON values) in Markdown, each with its heading."""
    parts: list[tuple[str, Sequence[Row], Sequence[Column]]] = [
        ("Lesions, voxel by voxel", evaluation["lesions"], LESION_COLUMNS),
        ("Masks", evaluation["masks"], MASK_COLUMNS),
        ("Lesions one by one", evaluation.get("lesion_wise", ()), LESION_WISE_COLUMNS),
        ("Lesions found by false components", froc_table_rows(evaluation), FROC_COLUMNS),
        ("Scans, abnormal against healthy", evaluation["subjects"], SUBJECT_COLUMNS),
        ("Scans by every score of the method", _main(evaluation), DETECTION_COLUMNS),
        ("Healthy test scans and thresholds", evaluation["healthy"], HEALTHY_COLUMNS),
    ]
    shown = [
        f"{title}\n\n{markdown(rows, filled(rows, columns))}"
        for title, rows, columns in parts
        if rows
    ]
    shown.append("* baseline. Oracle Dice is an upper bound that no user can reach without labels.")
    return "\n\n".join(shown)


def froc_table_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give what every FROC curve with true lesions tells at fixed numbers of false components."""
    return [
        {**row, **{f"at {rate}": recall for rate, recall in row["recall_at"].items()}}
        for row in evaluation.get("froc", ())
        if row["lesions"]
    ]


def _main(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Leave the baselines' rows out: they have no scores of their own."""
    return [row for row in evaluation["detection"] if not row["method"].endswith("*")]
