"""FROC: lesions found against false components a scan over thresholds, streamed scan by scan.

Source: Chakraborty & Winter 1990 (doi:10.1148/radiology.174.3.2305073), with the lesions and
components of `atypia.evaluation.lesion_figures`. The thresholds are fixed beforehand, so that each
scan leaves two counts a threshold and nothing else. They are those above which given shares of
healthy voxels lie, of scans that are not tested: `Calibration.ladder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError
from atypia.evaluation.histogram import LARGEST_SCORE
from atypia.evaluation.lesion_figures import Mask, check_overlap, components, needed_voxels

FALSE_POSITIVES = (1.0, 2.0, 4.0)
"""False components a scan at which the recall is told."""


class Froc:
    """Accumulator of lesions and false components: `update`, `merge`, then `points`.

    Parameters
    ----------
    thresholds
        Fixed ladder; a voxel is flagged strictly above. Compared in float32, as everywhere.
    least_overlap
        As of `atypia.evaluation.lesion_figures.lesion_figures`.
    rates
        Share of healthy voxels above each threshold. Models of several folds have thresholds of
        their own; by equal rates their curves are merged step by step.

    Raises
    ------
    SettingsError
        There is no threshold or one is not finite, there are not as many rates, or the share is
        not between 0 and 1.
    """

    def __init__(
        self,
        thresholds: ArrayLike,
        least_overlap: float = 0.0,
        rates: Sequence[float] | None = None,
    ) -> None:
        ladder = np.asarray(thresholds, dtype=np.float64).ravel()
        if not ladder.size or not (np.abs(ladder) <= LARGEST_SCORE).all():
            raise SettingsError("thresholds", "are none or not finite", "Give a few numbers")
        if rates is not None and len(rates) != ladder.size:
            raise SettingsError("rates", "are not as many as thresholds", "Give one each")
        check_overlap(least_overlap)
        rising = np.argsort(ladder, kind="stable")
        self.thresholds: NDArray[np.float32] = ladder[rising].astype(np.float32)
        self.rates = None if rates is None else tuple(float(rates[i]) for i in rising)
        self.least_overlap = least_overlap
        self.scans = self.lesions = 0
        self._detected = np.zeros(self.thresholds.size, np.int64)
        self._false = np.zeros(self.thresholds.size, np.int64)

    def update(self, score_map: ArrayLike, brain: Mask, truth: Mask | None = None) -> None:
        """Add one scan.

        Parameters
        ----------
        score_map
            `(X, Y, Z)`, higher = more abnormal.
        brain
            `(X, Y, Z)` boolean; nothing is flagged outside. Lesions outside are missed.
        truth
            `(X, Y, Z)` boolean; None for a healthy scan.

        Raises
        ------
        InputError
            Shapes differ, or a score in the brain is NaN or infinite. Nothing was added then.
        """
        scores = np.asarray(score_map, dtype=np.float32)
        lesion = np.zeros(brain.shape, bool) if truth is None else truth
        if scores.ndim != 3 or not scores.shape == brain.shape == lesion.shape:
            problem = f"shapes {scores.shape}, {brain.shape} and {lesion.shape} differ"
            raise InputError("score map", problem, "Align score map, brain and truth")
        if not np.isfinite(scores[brain]).all():
            raise InputError("score map", "holds NaN or infinite values", "Mend the scores")
        scores = np.where(brain, scores, np.float32(-np.inf))
        self._count_lesions(scores, lesion)
        self._count_false(scores, lesion)
        self.scans += 1

    def merge(self, other: Froc) -> None:
        """Add what another accumulator of the same ladder (rates, or thresholds) has counted.

        Raises
        ------
        SettingsError
            The ladders or the shares of overlap differ.
        """
        same = self.rates == other.rates and (
            self.rates is not None or np.array_equal(self.thresholds, other.thresholds)
        )
        if not same or self.least_overlap != other.least_overlap:
            raise SettingsError("thresholds", "differ", "Merge accumulators of one ladder")
        self.scans += other.scans
        self.lesions += other.lesions
        self._detected += other._detected
        self._false += other._false

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None] | None:
        """Give the curve, by rising threshold.

        Returns
        -------
        tuple of arrays, or None
            False components a scan and lesion recall, each `(T,)`, at `thresholds`; no recall
            without a true lesion; None without a scan.
        """
        if not self.scans:
            return None
        recall = self._detected / self.lesions if self.lesions else None
        return self._false / self.scans, recall

    def recall_at(self, false_positives: float) -> float | None:
        """Give the lesion recall that so many false components a scan allow.

        The threshold falls from the highest one until a step of the ladder has more of them; steps
        are not interpolated. What lies behind does not count, though there the false components
        become few again: they grow together, at last into one that holds everything.

        Returns
        -------
        float or None
            0.0 when even the highest threshold has more; None without a true lesion.
        """
        points = self.points()
        if points is None or points[1] is None:
            return None
        falling, recall = points[0][::-1], points[1][::-1]
        too_many = np.flatnonzero(falling > false_positives)
        steps = int(too_many[0]) if too_many.size else falling.size
        return float(recall[steps - 1]) if steps else 0.0

    def to_counts(self) -> dict[str, Any]:
        """Give all that was counted as plain JSON values, for `from_counts`."""
        return {
            "thresholds": self.thresholds.tolist(),
            "rates": self.rates,
            "least_overlap": self.least_overlap,
            "scans": self.scans,
            "lesions": self.lesions,
            "detected": self._detected.tolist(),
            "false": self._false.tolist(),
        }

    @classmethod
    def from_counts(cls, counts: dict[str, Any]) -> Froc:
        """Make an accumulator of what `to_counts` gave.

        Raises
        ------
        SettingsError
            As of the class.
        ValueError, TypeError, KeyError
            It is something else.
        """
        froc = cls(counts["thresholds"], counts["least_overlap"], counts["rates"])
        froc.scans, froc.lesions = int(counts["scans"]), int(counts["lesions"])
        froc._detected += np.asarray(counts["detected"], np.int64)
        froc._false += np.asarray(counts["false"], np.int64)
        return froc

    def to_json(self) -> dict[str, Any]:
        """Give the curve and its summary as plain JSON values."""
        points = self.points()
        false, recall = (None, None) if points is None else points
        return {
            "scans": self.scans,
            "lesions": self.lesions,
            "rates": None if self.rates is None else list(self.rates),
            "thresholds": self.thresholds.tolist(),
            "false_positives": None if false is None else false.tolist(),
            "recall": None if recall is None else recall.tolist(),
            "recall_at": {f"{asked:g}": self.recall_at(asked) for asked in FALSE_POSITIVES},
        }

    def _count_lesions(self, scores: NDArray[np.float32], truth: Mask) -> None:
        labels, count = components(truth)
        inside = labels[truth]
        order = np.lexsort((-scores[truth], inside))
        falling = scores[truth][order]
        sizes = np.bincount(inside, minlength=count + 1)[1:]
        first = np.cumsum(sizes) - sizes
        # A lesion is detected below the score of the last voxel that it needs: no labelling.
        last = falling[first + needed_voxels(sizes, self.least_overlap) - 1]
        self._detected += (last[:, None] > self.thresholds).sum(0)
        self.lesions += count

    def _count_false(self, scores: NDArray[np.float32], truth: Mask) -> None:
        for number, threshold in enumerate(self.thresholds):
            mask = scores > threshold
            if not mask.any():
                return
            # The higher the threshold, the smaller the box in which anything is left.
            box = tuple(
                slice(int(places[0]), int(places[-1]) + 1)
                for places in (
                    np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))
                )
            )
            scores, truth, mask = scores[box], truth[box], mask[box]
            labels, count = components(mask)
            self._false[number] += count - np.unique(labels[truth & mask]).size
