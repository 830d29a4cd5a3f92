"""ScoreHistogram: voxel-wise ranking metrics of a whole cohort, streamed in 16 MB.

A score's float32 bit pattern, with its sign bits flipped, is an integer that sorts like the score.
Its upper 20 bits (sign, exponent and 11 bits of mantissa) are the bin. Bins are therefore at most
0.05 % wide relative to the score, need no range known beforehand, and suit light- and heavy-tailed,
positive and negative scores alike. Scores of one bin count as equal, and equal scores are treated
as scikit-learn treats them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError, SettingsError

Among = Literal["negative", "all"]
"""The voxels that are counted: those outside the lesions, or all of them."""

BIN_BITS = 20
"""Upper bits of the key that make the bin: 2 tables of 2^20 int64 are 16 MB."""

LARGEST_SCORE = 3.4e38
"""Just inside float32, so that a finite threshold lies below the lowest bin."""

_SHIFT = 32 - BIN_BITS
_BINS = 1 << BIN_BITS
_SIGN = np.uint32(0x80000000)
_ZERO_KEY = 0x80000000
# Voxels at a time: few enough for their keys to stay in the cache.
_PIECE = 1 << 16


@dataclass(frozen=True)
class RankingResult:
    """How well scores rank lesion voxels above the others; None where either class is empty.

    Parameters
    ----------
    average_precision
        Sum over thresholds of (R_k - R_{k-1}) P_k, without interpolation.
    auroc
        Area under the ROC curve; pairs of equal scores count half.
    best_dice
        Largest Dice over all thresholds. An oracle: the threshold is chosen on the labels, so the
        figure is an upper bound and not what a user would get.
    best_dice_threshold
        The oracle's threshold; voxels with a score strictly above it are flagged.
    positives, negatives
        Number of voxels inside and outside the lesions.
    tied_pairs
        Share of (positive, negative) pairs in one bin. The AUROC of the unbinned scores differs by
        at most half of it; a large share tells that the scores are coarse, or crowd around a
        number far from zero and should have it subtracted.
    """

    average_precision: float | None
    auroc: float | None
    best_dice: float | None
    best_dice_threshold: float | None
    positives: int
    negatives: int
    tied_pairs: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the figures as plain JSON values."""
        return dict(vars(self))


class ScoreHistogram:
    """Accumulator of scores and labels: `update`, `merge` across workers, `result`.

    A voxel is flagged when its score lies strictly above the threshold. Every threshold that this
    class gives is a float32 at the edge of a bin, for which `scores > threshold` counts exactly
    what is reported here. A threshold of the caller's own is moved up to the end of its bin, at
    most 0.05 % of its value.
    """

    def __init__(self) -> None:
        self._all: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self._positive: NDArray[np.int64] = np.zeros(_BINS, np.int64)

    def update(self, scores: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Add the scores of one scan, or of any part of it.

        Parameters
        ----------
        scores
            Real numbers of any shape; they are read as float32.
        labels
            Same shape, True (or non-zero) inside a lesion. None for a healthy scan.

        Raises
        ------
        InputError
            A score is NaN, infinite or beyond 3.4e38, or the shapes differ. Nothing was added then.
        """
        values = _checked_scores(np.asarray(scores))
        truth = None if labels is None else np.asarray(labels)
        if truth is not None and truth.shape != values.shape:
            raise InputError(
                "labels", f"shape {truth.shape} is not the scores' {values.shape}", "Align them"
            )
        # Images from NIfTI lie in Fortran order, in which a C-order ravel would be a slow copy.
        fortran = values.flags.f_contiguous and (truth is None or truth.flags.f_contiguous)
        flat = values.ravel(order="F" if fortran else "C")
        flags = None if truth is None else truth.ravel(order="F" if fortran else "C")
        for start in range(0, flat.size, _PIECE):
            piece = slice(start, start + _PIECE)
            # `add.at` on native integers is as fast as bincount and needs no table for each call.
            bins = (_keys(flat[piece]) >> np.uint32(_SHIFT)).astype(np.intp)
            np.add.at(self._all, bins, 1)
            if flags is not None:
                np.add.at(self._positive, bins[flags[piece].astype(bool, copy=False)], 1)

    def merge(self, other: ScoreHistogram) -> None:
        """Add what another histogram has counted."""
        self._all += other._all
        self._positive += other._positive

    def to_array(self) -> NDArray[np.int64]:
        """Give what was counted, to store it: bin, all and positive voxels, int64 `(3, N)`."""
        occupied = np.flatnonzero(self._all)
        return np.stack([occupied, self._all[occupied], self._positive[occupied]])

    @classmethod
    def from_array(cls, counts: NDArray[np.int64]) -> ScoreHistogram:
        """Make a histogram of what `to_array` gave."""
        histogram = cls()
        histogram._all[counts[0]] = counts[1]
        histogram._positive[counts[0]] = counts[2]
        return histogram

    def curve(self, points: int = 200) -> tuple[list[float], list[float]]:
        """Give recall and precision by falling threshold, at most so many points of them.

        Empty where either class is.
        """
        occupied = np.flatnonzero(self._all)[::-1]
        found, flagged = np.cumsum(self._positive[occupied]), np.cumsum(self._all[occupied])
        if not len(occupied) or not found[-1] or found[-1] == flagged[-1]:
            return [], []
        recall = found / found[-1]
        kept = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1, points)))
        return recall[kept].tolist(), (found / flagged)[kept].tolist()

    def result(self) -> RankingResult:
        """Rank: the metrics over everything that was added so far."""
        occupied = np.flatnonzero(self._all)[::-1]
        positive = self._positive[occupied]
        negative = self._all[occupied] - positive
        positives, negatives = int(positive.sum()), int(negative.sum())
        if not positives or not negatives:
            return RankingResult(None, None, None, None, positives, negatives)
        tp, flagged = np.cumsum(positive), np.cumsum(positive + negative)
        precision = tp / flagged
        # Floats, because a product of two counts of a large cohort overflows int64.
        pairs = float(positives) * float(negatives)
        above = (tp - positive).astype(np.float64)
        dice = 2.0 * tp / (flagged + positives)
        best = int(np.argmax(dice))
        return RankingResult(
            average_precision=float(positive @ precision) / positives,
            auroc=float(negative @ (above + 0.5 * positive)) / pairs,
            best_dice=float(dice[best]),
            best_dice_threshold=_upper_edge(int(occupied[best]) - 1),
            positives=positives,
            negatives=negatives,
            tied_pairs=float(negative @ positive.astype(np.float64)) / pairs,
        )

    def quantile(self, q: float, among: Among = "negative") -> float:
        """Give the smallest threshold above which a share of at most `1 - q` lies.

        Parameters
        ----------
        q
            Between 0 and 1, e.g. 0.99 for a voxel-wise false-positive rate of at most 1 %.
        among
            The voxels whose share is meant.

        Raises
        ------
        SettingsError
            `q` lies outside 0 to 1.
        InputError
            There is no such voxel.
        """
        return self.quantiles((q,), among)[0]

    def quantiles(self, shares: Sequence[float], among: Among = "negative") -> tuple[float, ...]:
        """Give `quantile` for each of several shares, in one pass."""
        for q in shares:
            if not 0.0 <= q <= 1.0:
                raise SettingsError("q", f"{q} is not between 0 and 1", "Give a share, e.g. 0.99")
        counts = self._counts(among)
        occupied = np.flatnonzero(counts)
        up_to = np.cumsum(counts[occupied])
        # The subtracted part keeps 0.95 * 20 = 19.000000000000004 from asking for 20 of 20.
        needed = [math.ceil(q * int(up_to[-1]) * (1 - 1e-12)) for q in shares]
        return tuple(_upper_edge(int(occupied[np.searchsorted(up_to, n)])) for n in needed)

    def share_above(self, threshold: float, among: Among = "negative") -> float:
        """Give the share of voxels with a score strictly above the threshold.

        Raises
        ------
        InputError
            There is no such voxel.
        """
        counts = self._counts(among)
        return float(counts[_bin_of(threshold) + 1 :].sum() / counts.sum())

    def counts_at(self, threshold: float) -> tuple[int, int, int, int]:
        """Give the voxel counts (tp, fp, fn, tn) when scores above the threshold are flagged."""
        first = _bin_of(threshold) + 1
        tp, positives = int(self._positive[first:].sum()), int(self._positive.sum())
        flagged, total = int(self._all[first:].sum()), int(self._all.sum())
        fp = flagged - tp
        return tp, fp, positives - tp, total - positives - fp

    def dice_at(self, threshold: float) -> float:
        """Give the Dice of all voxels at the threshold; 1.0 when none is positive nor flagged."""
        tp, fp, fn, _ = self.counts_at(threshold)
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0

    def _counts(self, among: Among) -> NDArray[np.int64]:
        counts = self._all if among == "all" else self._all - self._positive
        if not counts.any():
            kind = "" if among == "all" else "negative "
            raise InputError("histogram", f"holds no {kind}voxel", "Add scores with update first")
        return counts


def _checked_scores(scores: NDArray[Any]) -> NDArray[Any]:
    if scores.dtype.kind not in "buif":
        raise InputError("scores", f"are {scores.dtype}, not real numbers", "Give float32")
    if scores.size:
        # Minimum and maximum pass NaN on, and need no array of flags as large as the scores.
        low, high = float(scores.min()), float(scores.max())
        if not (low >= -LARGEST_SCORE and high <= LARGEST_SCORE):
            raise InputError(
                "scores", f"hold NaN, infinite or huge values ({low} to {high})", "Mend the scores"
            )
    return scores


def _keys(scores: NDArray[Any]) -> NDArray[np.uint32]:
    """Map scores to integers that sort like them: negative ones inverted, others above them."""
    # Adding zero makes a copy and turns -0.0 into 0.0, which equals it but has other bits.
    bits = (scores.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)
    flip = (bits.view(np.int32) >> np.int32(31)).view(np.uint32)
    flip |= _SIGN
    flip ^= bits
    return flip


def _bin_of(threshold: float) -> int:
    """Give the bin in which the threshold lies; -1 or the last one beyond the range of scores."""
    if math.isnan(threshold):
        raise SettingsError("threshold", "is not a number", "Give a number")
    if abs(threshold) > LARGEST_SCORE:
        return -1 if threshold < 0 else _BINS - 1
    # Rounded to the nearest float32, as numpy does in `scores > threshold`.
    return int(_keys(np.array([threshold], np.float32))[0]) >> _SHIFT


def _upper_edge(index: int) -> float:
    """Give the largest float32 of a bin, above which lie exactly the bins after it."""
    key = ((index + 1) << _SHIFT) - 1
    # This key would be -0.0, which equals 0.0 of the next bin: step below it.
    key -= key == _ZERO_KEY - 1
    bits = key ^ 0x80000000 if key >= _ZERO_KEY else key ^ 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])
