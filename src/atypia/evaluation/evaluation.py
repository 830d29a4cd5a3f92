"""Evaluation: what every method found in every scan, gathered into rows with their provenance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atypia.calibration import Threshold
from atypia.errors import SettingsError
from atypia.evaluation.comparisons import comparison_rows
from atypia.evaluation.froc import Froc
from atypia.evaluation.histogram import ScoreHistogram
from atypia.evaluation.intervals import auroc_over_subjects, mean_over_subjects
from atypia.evaluation.lesion_figures import (
    SIZE_EDGES_MM3,
    check_overlap,
    lesion_figures,
    size_names,
)
from atypia.evaluation.lesion_rows import lesion_wise_rows
from atypia.evaluation.masks import mask_figures
from atypia.evaluation.strata import strata_rows
from atypia.evaluation.subject import average_precision, fnr_at_tnr, fpr_at_tpr
from atypia.evaluation.table import Row
from atypia.volume import Array

OWN_MASK, CALIBRATED_MASK, ORACLE_MASK = "own", "calibrated", "oracle"
LABELLED_MASK = "labelled"
AVERAGED = ("ap", "auroc", "dice", "own_dice", "labelled_dice", "oracle_dice", "psnr", "ssim")
"""Figures of a scan whose means stand in the rows of lesions."""


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
    ssim
        Likewise, structural similarity.
    person
        Whose scan it is, by which intervals are drawn; every scan is its own subject if empty.
    sex, age
        As the cohort tells them; age in years.
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
    ssim: float | None = None
    person: str = ""
    sex: str = ""
    age: float | None = None


class Evaluation:
    """Accumulate results scan by scan; memory grows with methods and conditions, not with scans.

    Parameters
    ----------
    baselines
        Names of the methods that are marked as baselines.
    labelled
        Condition and method -> a second threshold, one that labels of other scans have chosen; its
        figures stand beside those of the calibrated one and never replace them.
    least_overlap, size_edges_mm3
        When a lesion counts as found, and strata of sizes; see
        `atypia.evaluation.lesion_figures.lesion_figures`.
    ladders
        Method -> thresholds of its FROC curve, `Calibration.ladder`, one for each of `rates`; no
        curve for a method without.
    rates
        Shares of healthy voxels above these thresholds; None for any other thresholds.

    Raises
    ------
    SettingsError
        The share is not between 0 and 1, or the edges do not rise.
    """

    def __init__(
        self,
        baselines: Iterable[str] = (),
        labelled: Mapping[tuple[str, str], Threshold] | None = None,
        *,
        least_overlap: float = 0.0,
        size_edges_mm3: Sequence[float] = SIZE_EDGES_MM3,
        ladders: Mapping[str, Sequence[float]] | None = None,
        rates: Sequence[float] | None = None,
    ) -> None:
        check_overlap(least_overlap)
        size_names(size_edges_mm3)
        self.baselines = frozenset(baselines)
        self.labelled = dict(labelled or {})
        self.least_overlap = least_overlap
        self.size_edges_mm3 = tuple(size_edges_mm3)
        self.ladders = dict(ladders or {})
        self.rates = rates
        self.scans: list[dict[str, Any]] = []
        # By condition and method: counts of lesions, and of all voxels together.
        self.froc: dict[tuple[str, str], Froc] = {}
        self.pooled: dict[tuple[str, str], ScoreHistogram] = defaultdict(ScoreHistogram)

    def add(self, result: ScanResult) -> dict[str, Any]:
        """Add one method's result on one scan; give the figures of this scan."""
        brain = result.brain
        row: dict[str, Any] = {
            "scan": result.scan,
            "condition": result.condition,
            "site": result.site,
            "person": result.person or result.scan,
            "sex": result.sex,
            "age": result.age,
            "method": result.method,
            "score": result.score,
            "scores": dict(result.scores),
            "psnr": result.psnr,
            "ssim": result.ssim,
            "p_value": result.p_value,
            "threshold": None if result.threshold is None else result.threshold.value,
            "provenance": None if result.threshold is None else result.threshold.provenance,
            "voxel_fpr": result.voxel_fpr,
            "flagged": None if result.mask is None else float(result.mask[brain].mean()),
        }
        if result.lesion is not None and result.lesion.any():
            truth = result.lesion
            # A lesion may reach out of the brain mask. There the score is the lowest one: it is
            # missed, and counts as missed, not as absent.
            region = brain | truth
            histogram = ScoreHistogram()
            lowest = min(0.0, float(result.score_map[brain].min(initial=0)))
            scores = np.where(brain, result.score_map, lowest).astype(np.float32)
            histogram.update(scores[region], truth[region])
            self.pooled[result.condition, result.method].merge(histogram)
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
            if chosen is not None:
                row["labelled_provenance"] = chosen.provenance
            row["labelled_dice"] = row["masks"].get(LABELLED_MASK, {}).get("dice")
        if result.lesion is not None or result.condition == "healthy":
            row["lesion_wise"] = self._lesion_by_lesion(result)
        self.scans.append(row)
        return row

    def merge(self, other: Evaluation) -> None:
        """Add the scans of another evaluation, e.g. of another fold.

        Raises
        ------
        SettingsError
            The baselines or the rules for lesions differ.
        """
        rules = [(e.baselines, e.least_overlap, e.size_edges_mm3) for e in (self, other)]
        if rules[0] != rules[1]:
            raise SettingsError("evaluations", "have other rules", "Merge those of one comparison")
        self.scans += other.scans
        # Models of another fold have thresholds of their own: then there is none for all voxels.
        self.labelled = {k: v for k, v in self.labelled.items() if other.labelled.get(k) == v}
        for key, histogram in other.pooled.items():
            self.pooled[key].merge(histogram)
        for key, froc in other.froc.items():
            if key in self.froc:
                self.froc[key].merge(froc)
            else:
                self.froc[key] = froc

    def precision_recall_rows(self) -> list[dict[str, Any]]:
        """Give the curve of all voxels together by condition and method."""
        rows = []
        for (condition, method), histogram in self.pooled.items():
            recall, precision = histogram.curve()
            name = self.marked(method)
            rows.append(
                {"condition": condition, "method": name, "recall": recall, "precision": precision}
            )
        return rows

    def _lesion_by_lesion(self, result: ScanResult) -> dict[str, Any]:
        """Give the figures of the masks that users get; the FROC curve takes its share."""
        brain = result.brain
        truth = np.zeros(brain.shape, bool) if result.lesion is None else result.lesion
        if result.method in self.ladders:
            key = result.condition, result.method
            if key not in self.froc:
                ladder = self.ladders[result.method]
                self.froc[key] = Froc(ladder, self.least_overlap, self.rates)
            self.froc[key].update(result.score_map, brain, truth)
        masks = {OWN_MASK: result.own_mask, CALIBRATED_MASK: result.mask}
        return {
            name: lesion_figures(
                mask & brain,
                truth,
                result.spacing_mm,
                least_overlap=self.least_overlap,
                edges_mm3=self.size_edges_mm3,
            ).to_json()
            for name, mask in masks.items()
            if mask is not None
        }

    def lesion_rows(self) -> list[dict[str, Any]]:
        """Voxel-wise figures by condition and method."""
        rows = []
        for (condition, method), histogram in self.pooled.items():
            scans = [r for r in self._of(condition, method) if "ap" in r]
            pooled = histogram.result()
            threshold, provenance = _threshold(scans)
            calibrated = None if threshold is None else histogram.dice_at(threshold)
            chosen = self.labelled.get((condition, method))
            means = {key: _mean(scans, key) for key in AVERAGED}
            rows.append(
                {
                    "condition": condition,
                    "method": self.marked(method),
                    "scans": len(scans),
                    "subjects": _subjects(scans),
                    **means,
                    "pooled_ap": pooled.average_precision,
                    "pooled_auroc": pooled.auroc,
                    "pooled_dice": calibrated,
                    "pooled_labelled_dice": chosen and histogram.dice_at(chosen.value),
                    "pooled_oracle_dice": pooled.best_dice,
                    "threshold": threshold,
                    "provenance": provenance,
                }
            )
        return rows

    def best_thresholds(self, provenance: str) -> dict[tuple[str, str], Threshold]:
        """Give the threshold of the highest pooled Dice by condition and method.

        It is exact to the bins of `ScoreHistogram`. An oracle for these scans; for others it is a
        threshold that labels have chosen, which `provenance` has to tell.
        """
        best = {key: pooled.result().best_dice_threshold for key, pooled in self.pooled.items()}
        return {key: Threshold(v, provenance) for key, v in best.items() if v is not None}

    def mask_rows(self) -> list[dict[str, Any]]:
        """Overlap and distance of every mask: the method's own, the calibrated, the oracle's."""
        rows = []
        for condition, method in self.pooled:
            scans = [r for r in self._of(condition, method) if "masks" in r]
            for mask in (OWN_MASK, CALIBRATED_MASK, LABELLED_MASK, ORACLE_MASK):
                found = [
                    r["masks"][mask] | {"person": r["person"]} for r in scans if mask in r["masks"]
                ]
                if not found:
                    continue
                rows.append(
                    {
                        "condition": condition,
                        "method": self.marked(method),
                        "mask": mask,
                        "provenance": _provenance(mask, scans),
                        "scans": len(found),
                        "subjects": _subjects(found),
                        **{name: _mean(found, name) for name in found[0] if name != "person"},
                    }
                )
        return rows

    def lesion_wise_rows(self) -> list[dict[str, Any]]:
        """Give lesion-wise figures of the masks that users get, by condition and method."""
        return lesion_wise_rows(self.scans, self.marked, self.least_overlap)

    def froc_rows(self) -> list[dict[str, Any]]:
        """Give the FROC curves by condition and method, of the methods that have a ladder."""
        return [
            {"condition": condition, "method": self.marked(method), **froc.to_json()}
            for (condition, method), froc in self.froc.items()
        ]

    def comparison_rows(self) -> list[dict[str, Any]]:
        """Compare the first method that is no baseline with all others, on the same scans."""
        methods = [method for method in self._methods() if method not in self.baselines]
        return comparison_rows(self.scans, methods[0], self.marked) if methods else []

    def detection_rows(self) -> list[dict[str, Any]]:
        """Give how every subject-level score tells abnormal scans from healthy ones."""
        rows = []
        for condition in self._conditions():
            for method in self._methods() if condition not in ("healthy", "unknown") else ():
                abnormal, healthy = self._of(condition, method), self._of("healthy", method)
                names = abnormal[0]["scores"] if abnormal and healthy else ()
                for name in names:
                    groups = [[r["scores"][name] for r in scans] for scans in (healthy, abnormal)]
                    persons = [[r["person"] for r in scans] for scans in (healthy, abnormal)]
                    rows.append(
                        {
                            "condition": condition,
                            "method": self.marked(method),
                            "score_name": name,
                            **detection_figures(groups[0], groups[1], persons),
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
                ill, well = self._of(condition, method), self._of("healthy", method)
                if not ill:
                    continue
                abnormal, healthy = [r["score"] for r in ill], [r["score"] for r in well]
                persons = [r["person"] for r in well], [r["person"] for r in ill]
                rows.append(
                    {
                        "condition": condition,
                        "method": self.marked(method),
                        "scans": len(abnormal),
                        "healthy": len(healthy),
                        "subjects": _subjects(ill),
                        "auroc": auroc_over_subjects(healthy, abnormal, *persons),
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
            threshold, provenance = _threshold(known)
            rows.append(
                {
                    "method": self.marked(method),
                    "scans": len(scans),
                    "subjects": _subjects(scans),
                    "flagged": _mean(scans, "flagged"),
                    "psnr": _mean(scans, "psnr"),
                    "ssim": _mean(scans, "ssim"),
                    "asked": known[0]["voxel_fpr"],
                    "threshold": threshold,
                    "provenance": provenance or "no calibration",
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Give everything as plain JSON values."""
        return {
            "baselines": sorted(self.baselines),
            "lesions": self.lesion_rows(),
            "masks": self.mask_rows(),
            "lesion_wise": self.lesion_wise_rows(),
            "froc": self.froc_rows(),
            "comparisons": self.comparison_rows(),
            "strata": strata_rows(self.scans, self.marked),
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

    def marked(self, method: str) -> str:
        """Give the name of a method in the tables: baselines have a star."""
        return f"{method} *" if method in self.baselines else method


def detection_figures(
    healthy: Sequence[float],
    abnormal: Sequence[float],
    persons: Sequence[Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Give AUROC with its interval, average precision, and error rates at fixed operating points.

    Parameters
    ----------
    healthy, abnormal
        Subject-level scores, at least one each.
    persons
        Whose scans they are, healthy ones first; every scan is its own subject by default.
    """
    whose = persons or [[str(i) for i in range(len(scores))] for scores in (healthy, abnormal)]
    return {
        "auroc": auroc_over_subjects(healthy, abnormal, whose[0], whose[1]),
        "average_precision": average_precision(healthy, abnormal),
        "fpr80": fpr_at_tpr(healthy, abnormal, 0.8),
        "fpr90": fpr_at_tpr(healthy, abnormal, 0.9),
        "fpr95": fpr_at_tpr(healthy, abnormal, 0.95),
        "fnr80": fnr_at_tnr(healthy, abnormal, 0.8),
        "fnr90": fnr_at_tnr(healthy, abnormal, 0.9),
    }


def _threshold(rows: Sequence[Row]) -> tuple[float | None, str | None]:
    """Give the threshold of all these scans and its provenance.

    Every fold has a threshold of its own: then there is none for all of them, and the provenance
    tells so.
    """
    told = list(dict.fromkeys((row["threshold"], row["provenance"]) for row in rows))
    if len(told) == 1:
        return told[0]
    provenances = dict.fromkeys(provenance or "no calibration" for _, provenance in told)
    return None, f"{' or '.join(provenances)}; one threshold a fold"


def _provenance(mask: str, rows: Sequence[Row]) -> str:
    """Tell where the threshold of a kind of mask came from."""
    if mask == CALIBRATED_MASK:
        return _threshold(rows)[1] or "no calibration"
    if mask == LABELLED_MASK:
        told = dict.fromkeys(r["labelled_provenance"] for r in rows if "labelled_provenance" in r)
        return " or ".join(told)
    return "oracle: these very labels" if mask == ORACLE_MASK else "the method itself"


def _mean(rows: Sequence[Row], key: str) -> dict[str, Any]:
    return mean_over_subjects((row[key] for row in rows), [row["person"] for row in rows])


def _subjects(rows: Sequence[Row]) -> int:
    return len({row["person"] for row in rows})
