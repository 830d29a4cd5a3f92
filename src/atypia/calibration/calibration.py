"""Calibration: what healthy scans score, on three levels, and what that says about another scan.

Level by level: the share of healthy voxels above the threshold; the largest flagged cluster and the
highest score of every healthy scan; the subject-level score of every healthy scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pydantic
from pydantic import Field, model_validator

from atypia import files
from atypia.calibration.conformal import (
    PValue,
    conformal_limit,
    conformal_p_value,
    scans_needed,
    too_few,
)
from atypia.calibration.strata import Described, HealthyStrata
from atypia.calibration.tail import fitted_tail, require_tail, tail_of_clusters
from atypia.errors import InputError, ModelError, SettingsError
from atypia.scoring.components import ROUNDING
from atypia.settings import Settings


@dataclass(frozen=True)
class Threshold:
    """A cut-off for scores and where it came from.

    Parameters
    ----------
    value
        A voxel is flagged when its score is above this.
    provenance
        ``"healthy n=12, ..."``, ``"labelled validation"``, or ``"oracle"`` when it was chosen
        on the very labels that it is judged by.
    """

    value: float
    provenance: str


RATES = tuple(float(rate) for rate in np.geomspace(1e-1, 1e-6, 26))
"""Shares of healthy voxels above the scores of `Calibration.ladder`."""


class Calibration(Settings):
    """What healthy scans, held out from training, score under one fitted detector.

    It can be replaced without fitting the detector again; it changes masks and p-values, never
    the score map.

    The p-values of scans and clusters are conformal: if a further healthy scan, of another person,
    is exchangeable with these, then its p-value is at most `alpha` with a probability of at most
    `alpha`. See `atypia.calibration.conformal`, and `largest_mm3` for what clusters need besides.
    """

    voxel_threshold: float
    """Score above which a share `voxel_fpr` of all healthy brain voxels lies."""
    voxel_fpr: float = Field(gt=0, lt=1)
    subject_scores: tuple[float, ...] = Field(min_length=1)
    """Subject-level score of every healthy scan."""
    flagged_share: tuple[float, ...]
    """Share of each healthy scan's brain voxels above the threshold: how far scans differ."""
    people: tuple[str, ...]
    """Digests of the subjects, for the leakage check."""
    cohort: str
    """Name of the healthy cohort."""
    detector: str
    """Digest of the fitted detector that the scores belong to."""
    smallest_mm3: float = Field(0.0, ge=0)
    """Flagged components smaller than this are dropped from masks."""
    largest_mm3: tuple[float, ...] = ()
    """Largest flagged component of every healthy scan, each at the voxel threshold of all the
    others: no scan helps to set the threshold that it is judged by, nor does a new one. With such
    thresholds the guarantee holds for clusters on the careful side: `docs/calibration.md`. Empty
    in a calibration of an older version."""
    highest_scores: tuple[float, ...] = ()
    """Highest voxel score of every healthy scan; empty in a calibration of an older version."""
    ladder: tuple[float, ...] = ()
    """Scores above which the shares `RATES` of all healthy brain voxels lie, rising; the thresholds
    of FROC curves. Empty in a calibration of an older version."""
    scan_fpr: float | None = Field(None, gt=0, lt=1)
    """Share of healthy scans in which anything may be found; None for no such control."""
    cluster_mm3: float | None = Field(None, ge=0)
    """Flagged components not larger than this are dropped from masks, for `scan_fpr`."""
    cluster_extrapolated: bool = False
    """`cluster_mm3` comes from a fitted tail, not from the healthy scans themselves."""
    extrapolate: bool = False
    """P-values below `1 / (1 + n)` are told, from fitted tails, and marked as extrapolated."""
    figures: Mapping[str, tuple[float, ...]] = {}
    """Name in `atypia.scoring.reasons.FIGURES` -> one value a healthy scan: what tells an artefact
    from a lesion. Empty in a calibration of an older version."""
    strata: HealthyStrata | None = None
    """Subject-level scores are compared within these, where there are scans enough."""

    @model_validator(mode="after")
    def _one_value_a_scan(self) -> Self:
        scans = len(self.subject_scores)
        labels = () if self.strata is None else self.strata.labels
        for values in (self.largest_mm3, self.highest_scores, labels, *self.figures.values()):
            if values and len(values) != scans:
                raise ValueError(f"{len(values)} values for {scans} scans")
        if (self.scan_fpr is None) != (self.cluster_mm3 is None):
            raise ValueError("scan_fpr and cluster_mm3 belong together")
        return self

    @property
    def threshold(self) -> Threshold:
        """The voxel threshold with its provenance."""
        return Threshold(self.voxel_threshold, self.provenance)

    @property
    def provenance(self) -> str:
        """Where threshold and smallest cluster came from, in one line."""
        told = f"healthy n={len(self.subject_scores)}, voxel FPR {self.voxel_fpr:.2%}"
        if self.scan_fpr is None:
            return told
        how = ", extrapolated" if self.cluster_extrapolated else ""
        return (
            f"{told}, scan FPR {self.scan_fpr:.2%} (clusters above {self.cluster_mm3:.4g} mm3{how})"
        )

    @property
    def lowest_p_value(self) -> float:
        """The smallest p-value without extrapolation: `1 / (1 + n)`."""
        return 1 / (1 + len(self.subject_scores))

    def p_value(self, score: float) -> float:
        """Conformal p-value of a subject-level score: `(1 + #healthy >= score) / (1 + n)`.

        Over all healthy scans, without strata or extrapolation; its smallest possible value is
        `1 / (1 + n)`.
        """
        return conformal_p_value(score, self.subject_scores)

    def subject_p_value(self, score: float, scan: Described | None = None) -> PValue:
        """Judge a subject-level score, within the stratum of its scan where that is large enough.

        Parameters
        ----------
        score
            Of the detector's `subject_score`.
        scan
            Its site, sex and age; None to compare with all healthy scans.

        Returns
        -------
        PValue
            With the healthy scans that were used, in words. Which ones they are depends on no
            score, so that the guarantee holds within a stratum as it does over all.
        """
        everyone = f"all {len(self.subject_scores)} healthy scans"
        if self.strata is None or scan is None:
            return self._judged(score, self.subject_scores, everyone)
        label = self.strata.label_of(scan)
        members = self.strata.members(label)
        if len(members) >= self.strata.least:
            scores = tuple(self.subject_scores[i] for i in members)
            return self._judged(score, scores, f"{len(scores)} healthy scans of {label}")
        if label:
            why = f"only {len(members)} of {label}"
        else:
            why = f"{', '.join(self.strata.by)}: not all known, or beyond the healthy ones"
        return self._judged(score, self.subject_scores, f"{everyone} ({why})")

    def cluster_p_value(self, size_mm3: float) -> PValue | None:
        """Tell the share of healthy scans whose largest cluster is at least as large.

        `(1 + #healthy scans with one >= size) / (1 + n)`. It is right for the largest cluster of a
        scan, and so for all its clusters at once (family-wise).

        Returns
        -------
        PValue or None
            None for a calibration of an older version, which knows no clusters.
        """
        # Stored affines are rounded: clusters of as many voxels count as equally large.
        return self._scan_wise(size_mm3 * ROUNDING, self.largest_mm3)

    def peak_p_value(self, score: float) -> PValue | None:
        """Tell the share of healthy scans whose highest voxel score is at least as high.

        Family-wise like `cluster_p_value`, but by height; it depends on no voxel threshold.
        """
        return self._scan_wise(score, self.highest_scores)

    def _scan_wise(self, value: float, healthy: tuple[float, ...]) -> PValue | None:
        if not healthy:
            return None
        return self._judged(value, healthy, f"all {len(healthy)} healthy scans")

    def _judged(self, value: float, healthy: tuple[float, ...], among: str) -> PValue:
        conformal = conformal_p_value(value, healthy)
        if self.extrapolate and value > max(healthy):
            tail = fitted_tail(healthy)
            if tail is not None and (beyond := tail.p_value(value)) < conformal:
                return PValue(beyond, among, extrapolated=True)
        return PValue(conformal, among)

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        files.write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Raises
        ------
        InputError
            There is no such file.
        ModelError
            It is damaged or of another version.
        """
        try:
            return cls.model_validate(files.read_json(path))
        except (InputError, pydantic.ValidationError) as error:
            if not Path(path).exists():
                raise
            raise ModelError(
                path, "is no calibration of this version", "Run `atypia calibrate` again"
            ) from error


def require_scans(scans: int, scan_fpr: float | None, extrapolate: bool) -> None:
    """Refuse, before anything is scored, what so few healthy scans cannot tell.

    Raises
    ------
    SettingsError
        `scan_fpr` is no rate or needs more scans, or there are too few to extrapolate.
    """
    if scan_fpr is not None and not 0 < scan_fpr < 1:
        raise SettingsError("--scan-fpr", f"{scan_fpr} is not between 0 and 1", "Give e.g. 0.05")
    if extrapolate:
        require_tail(scans, scan_fpr)
    elif scan_fpr is not None and scans < scans_needed(scan_fpr):
        raise too_few(scans, scan_fpr)


def cluster_limit(
    largest_mm3: Sequence[float], scan_fpr: float, extrapolate: bool = False
) -> tuple[float, bool]:
    """Choose the cluster size that healthy scans exceed at a rate of at most `scan_fpr`.

    Parameters
    ----------
    largest_mm3
        Largest flagged component of every healthy scan.
    scan_fpr
        Share of healthy scans in which anything may be found.
    extrapolate
        Estimate it from a fitted tail where the scans are too few to promise it.

    Returns
    -------
    float, bool
        The size in mm3, which a component must exceed, and whether it is extrapolated.

    Raises
    ------
    SettingsError, InputError
        There are too few scans.
    """
    sizes = tuple(largest_mm3)
    if not extrapolate or len(sizes) >= scans_needed(scan_fpr):
        return conformal_limit(sizes, scan_fpr), False
    return max(tail_of_clusters(sizes).limit(scan_fpr), *sizes), True
