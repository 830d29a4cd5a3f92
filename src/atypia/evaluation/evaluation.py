"""Evaluation: what every method found in every scan, gathered into rows with their provenance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atypia.calibration import Threshold
from atypia.evaluation.histogram import ScoreHistogram
from atypia.evaluation.masks import mask_figures
from atypia.evaluation.subject import (
    auroc,
    average_precision,
    bootstrap_interval,
    fnr_at_tnr,
    fpr_at_tpr,
)
from atypia.evaluation.table import Column, Row, markdown
from atypia.volume import Array

ORACLE = "oracle: the best threshold for these very labels"
OWN = "the method's own label-free mask"
OWN_MASK, CALIBRATED_MASK, ORACLE_MASK = "own", "calibrated", "oracle"
LABELLED_MASK = "labelled"

LESION_COLUMNS = (
    Column("condition", "condition", "What was planted or labelled."),
    Column("method", "method", "Baselines are marked with *."),
    Column("scans", "scans", "Number of scans with that lesion."),
    Column("ap", "AP", "Voxel-wise average precision in the brain, mean over scans [95 % CI]."),
    Column("auroc", "AUROC", "Voxel-wise area under the ROC curve in the brain, mean over scans."),
    Column("dice", "Dice", "At the calibrated threshold, mean over scans [95 % CI]."),
    Column("own_dice", "own Dice", f"Dice of {OWN}; few methods make one."),
    Column("oracle_dice", "oracle Dice", f"Upper bound; {ORACLE}, chosen scan by scan."),
    Column("psnr", "PSNR", "Of the restoration in the healthy brain, dB; peak: brightest voxel."),
    Column("pooled_ap", "pooled AP", "All voxels of these scans together."),
    Column("pooled_dice", "pooled Dice", "Same, at the calibrated threshold."),
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
)
DETECTION_COLUMNS = (
    Column("condition", "condition", "Abnormal scans, against the healthy ones."),
    Column("method", "method", "Baselines are marked with *."),
    Column("score_name", "score", "Which subject-level score ranks the scans."),
    Column("auroc", "AUROC", "Do abnormal scans score above healthy ones? [95 % CI]"),
    Column("average_precision", "AUPRC", "Depends on the share of abnormal scans."),
    Column("fpr80", "FPR80", "Healthy scans flagged when 80 % of the abnormal ones must be found."),
    Column("fpr90", "FPR90", "The same for 90 %."),
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
    Column("threshold", "threshold", "Its value."),
    Column("provenance", "provenance", "Where the threshold came from."),
)


@dataclass(frozen=True, eq=False)
class ScanResult:
    """What one method said about one scan.

    Parameters
    ----------
    scan, condition, site
        Which scan; condition is ``"healthy"``, a lesion's or artefact's name, or ``"unknown"``.
    method
        Name in the tables.
    score
        Subject-level score.
    score_map, brain
        `(X, Y, Z)`.
    lesion, mask, own_mask
        `(X, Y, Z)` boolean, None where there is none.
    threshold, voxel_fpr
        By which `mask` was made.
    p_value
        Of the subject-level score.
    spacing_mm
        Voxel size.
    scores
        All subject-level scores by name.
    psnr
        Of the restoration in healthy brain, dB; None without a restoration.
    """

    scan: str
    condition: str
    method: str
    score: float
    score_map: Array
    brain: Array
    lesion: Array | None = None
    mask: Array | None = None
    own_mask: Array | None = None
    threshold: Threshold | None = None
    voxel_fpr: float | None = None
    p_value: float | None = None
    site: str = ""
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scores: Mapping[str, float] = field(default_factory=dict)
    psnr: float | None = None


class Evaluation:
    """Accumulate results scan by scan; memory grows with methods and conditions, not with scans.

    Parameters
    ----------
    baselines
        Names of the methods that are marked as baselines.
    labelled
        Condition and method -> a second threshold, one that labels of other scans have chosen; its
        figures stand beside those of the calibrated one and never replace them.
    """

    def __init__(
        self,
        baselines: Iterable[str] = (),
        labelled: Mapping[tuple[str, str], Threshold] | None = None,
    ) -> None:
        self.baselines = frozenset(baselines)
        self.labelled = dict(labelled or {})
        self.scans: list[dict[str, Any]] = []
        self._pooled: dict[tuple[str, str], ScoreHistogram] = defaultdict(ScoreHistogram)

    def add(self, result: ScanResult) -> dict[str, Any]:
        """Add one method's result on one scan; give the figures of this scan."""
        brain = result.brain
        row: dict[str, Any] = {
            "scan": result.scan,
            "condition": result.condition,
            "site": result.site,
            "method": result.method,
            "score": result.score,
            "scores": dict(result.scores),
            "psnr": result.psnr,
            "p_value": result.p_value,
            "threshold": None if result.threshold is None else result.threshold.value,
            "provenance": None if result.threshold is None else result.threshold.provenance,
            "voxel_fpr": result.voxel_fpr,
            "flagged": None if result.mask is None else float(result.mask[brain].mean()),
        }
        if result.lesion is not None and result.lesion.any():
            truth = result.lesion
            # A lesion may reach out of the brain mask. There the score is zero: it is missed, and
            # counts as missed, not as absent.
            region = brain | truth
            histogram = ScoreHistogram()
            scores = np.where(brain, result.score_map, 0)
            histogram.update(scores[region], truth[region])
            self._pooled[result.condition, result.method].merge(histogram)
            ranking = histogram.result()
            row |= {
                "lesion_share": float(truth.sum() / brain.sum()),
                "lesion_outside": float((truth & ~brain).sum() / truth.sum()),
                "ap": ranking.average_precision,
                "auroc": ranking.auroc,
                "oracle_dice": ranking.best_dice,
                "oracle_threshold": ranking.best_dice_threshold,
            }
            chosen = self.labelled.get((result.condition, result.method))
            masks = {
                OWN_MASK: result.own_mask,
                CALIBRATED_MASK: result.mask,
                LABELLED_MASK: None if chosen is None else scores > chosen.value,
                ORACLE_MASK: scores > (ranking.best_dice_threshold or np.inf),
            }
            row["masks"] = {
                name: mask_figures(mask & brain, truth, result.spacing_mm).to_json()
                for name, mask in masks.items()
                if mask is not None
            }
            row["dice"] = row["masks"].get(CALIBRATED_MASK, {}).get("dice")
            row["own_dice"] = row["masks"].get(OWN_MASK, {}).get("dice")
            row["labelled_dice"] = row["masks"].get(LABELLED_MASK, {}).get("dice")
        self.scans.append(row)
        return row

    def lesion_rows(self) -> list[dict[str, Any]]:
        """Voxel-wise figures by condition and method."""
        rows = []
        for (condition, method), histogram in self._pooled.items():
            scans = [r for r in self._of(condition, method) if "ap" in r]
            pooled = histogram.result()
            threshold = scans[0]["threshold"]
            calibrated = None if threshold is None else histogram.dice_at(threshold)
            chosen = self.labelled.get((condition, method))
            means = {
                k: _mean(r[k] for r in scans)
                for k in ("ap", "auroc", "dice", "own_dice", "labelled_dice", "oracle_dice", "psnr")
            }
            rows.append(
                {
                    "condition": condition,
                    "method": self._marked(method),
                    "scans": len(scans),
                    **means,
                    "pooled_ap": pooled.average_precision,
                    "pooled_auroc": pooled.auroc,
                    "pooled_dice": calibrated,
                    "pooled_labelled_dice": chosen and histogram.dice_at(chosen.value),
                    "pooled_oracle_dice": pooled.best_dice,
                    "threshold": threshold,
                    "provenance": scans[0]["provenance"],
                }
            )
        return rows

    def best_thresholds(self, provenance: str) -> dict[tuple[str, str], Threshold]:
        """Give the threshold of the highest pooled Dice by condition and method.

        It is exact to the bins of `ScoreHistogram`. An oracle for these scans; for others it is a
        threshold that labels have chosen, which `provenance` has to tell.
        """
        best = {key: pooled.result().best_dice_threshold for key, pooled in self._pooled.items()}
        return {key: Threshold(v, provenance) for key, v in best.items() if v is not None}

    def mask_rows(self) -> list[dict[str, Any]]:
        """Overlap and distance of every mask: the method's own, the calibrated, the oracle's."""
        rows = []
        for condition, method in self._pooled:
            scans = [r["masks"] for r in self._of(condition, method) if "masks" in r]
            for mask in (OWN_MASK, CALIBRATED_MASK, LABELLED_MASK, ORACLE_MASK):
                found = [masks[mask] for masks in scans if mask in masks]
                if not found:
                    continue
                rows.append(
                    {
                        "condition": condition,
                        "method": self._marked(method),
                        "mask": mask,
                        "scans": len(found),
                        **{name: _mean(one[name] for one in found) for name in found[0]},
                    }
                )
        return rows

    def detection_rows(self) -> list[dict[str, Any]]:
        """Give how every subject-level score tells abnormal scans from healthy ones."""
        rows = []
        for condition in self._conditions():
            for method in self._methods() if condition not in ("healthy", "unknown") else ():
                abnormal, healthy = self._of(condition, method), self._of("healthy", method)
                names = abnormal[0]["scores"] if abnormal and healthy else ()
                for name in names:
                    groups = [[r["scores"][name] for r in rows] for rows in (healthy, abnormal)]
                    rows.append(
                        {
                            "condition": condition,
                            "method": self._marked(method),
                            "score_name": name,
                            **detection_figures(*groups),
                        }
                    )
        return rows

    def subject_rows(self) -> list[dict[str, Any]]:
        """Give subject-level figures by condition and method: abnormal against healthy scans."""
        rows = []
        for condition in self._conditions():
            if condition in ("healthy", "unknown"):
                continue
            for method in self._methods():
                abnormal = [r["score"] for r in self._of(condition, method)]
                healthy = [r["score"] for r in self._of("healthy", method)]
                if not abnormal:
                    continue
                area = auroc(healthy, abnormal)
                interval = (
                    None
                    if area is None
                    else bootstrap_interval(healthy, abnormal, statistic=auroc, seed=0)
                )
                rows.append(
                    {
                        "condition": condition,
                        "method": self._marked(method),
                        "scans": len(abnormal),
                        "healthy": len(healthy),
                        "auroc": {"mean": area, "interval": interval},
                        "score": float(np.mean(abnormal)),
                        "healthy_score": float(np.mean(healthy)) if healthy else None,
                    }
                )
        return rows

    def healthy_rows(self) -> list[dict[str, Any]]:
        """Give false positives on healthy test scans, with every threshold's provenance."""
        rows = []
        for method in self._methods():
            scans = self._of("healthy", method)
            known = scans or [r for r in self.scans if r["method"] == method]
            rows.append(
                {
                    "method": self._marked(method),
                    "scans": len(scans),
                    "flagged": _mean(r["flagged"] for r in scans),
                    "asked": known[0]["voxel_fpr"],
                    "threshold": known[0]["threshold"],
                    "provenance": known[0]["provenance"] or "no calibration",
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Give everything as plain JSON values."""
        return {
            "baselines": sorted(self.baselines),
            "lesions": self.lesion_rows(),
            "masks": self.mask_rows(),
            "detection": self.detection_rows(),
            "subjects": self.subject_rows(),
            "healthy": self.healthy_rows(),
            "scans": self.scans,
        }

    def _of(self, condition: str, method: str) -> list[dict[str, Any]]:
        return [r for r in self.scans if (r["condition"], r["method"]) == (condition, method)]

    def _conditions(self) -> list[str]:
        return list(dict.fromkeys(row["condition"] for row in self.scans))

    def _methods(self) -> list[str]:
        return list(dict.fromkeys(row["method"] for row in self.scans))

    def _marked(self, method: str) -> str:
        return f"{method} *" if method in self.baselines else method


def tables(evaluation: dict[str, Any]) -> str:
    """Give the tables of an evaluation (as JSON values) in Markdown, each with its heading."""
    parts: list[tuple[str, Sequence[Row], Sequence[Column]]] = [
        ("Lesions, voxel by voxel", evaluation["lesions"], LESION_COLUMNS),
        ("Masks", evaluation["masks"], MASK_COLUMNS),
        ("Scans, abnormal against healthy", evaluation["subjects"], SUBJECT_COLUMNS),
        ("Scans by every score of the method", _main(evaluation), DETECTION_COLUMNS),
        ("Healthy test scans and thresholds", evaluation["healthy"], HEALTHY_COLUMNS),
    ]
    shown = [f"{title}\n\n{markdown(rows, columns)}" for title, rows, columns in parts if rows]
    shown.append("* baseline. Oracle Dice is an upper bound that no user can reach without labels.")
    return "\n\n".join(shown)


def detection_figures(healthy: Sequence[float], abnormal: Sequence[float]) -> dict[str, Any]:
    """Give AUROC with its interval, average precision, and error rates at fixed operating points.

    Parameters
    ----------
    healthy, abnormal
        Subject-level scores, at least one each.
    """
    return {
        "auroc": {
            "mean": auroc(healthy, abnormal),
            "interval": bootstrap_interval(healthy, abnormal, statistic=auroc, seed=0),
        },
        "average_precision": average_precision(healthy, abnormal),
        "fpr80": fpr_at_tpr(healthy, abnormal, 0.8),
        "fpr90": fpr_at_tpr(healthy, abnormal, 0.9),
        "fnr80": fnr_at_tnr(healthy, abnormal, 0.8),
        "fnr90": fnr_at_tnr(healthy, abnormal, 0.9),
    }


def _main(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Leave the baselines' rows out: they have no scores of their own."""
    return [row for row in evaluation["detection"] if not row["method"].endswith("*")]


def _mean(values: Iterable[float | None]) -> dict[str, Any]:
    there = [value for value in values if value is not None]
    if not there:
        return {"mean": None, "interval": None}
    return {"mean": float(np.mean(there)), "interval": bootstrap_interval(there, seed=0)}
