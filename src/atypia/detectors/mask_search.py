"""The two phases of iterative mask refinement on one scan, whatever network reconstructs it.

Source: IterMask3D (arXiv 2504.04911), sections on the subject-specific threshold and on shrinking
masks, with the rules of its public code. Phase A hides ever less of the brain, always the voxels
of largest error, and notes the error threshold of each share; the knee of that curve gives the
subject's threshold. Phase B hides "error above the threshold" until the mask stops shrinking.

Errors are kept for the brain's voxels only. Phase A measures the curve at few shares first and
then, percent by percent, only round the knee: a threshold at `t` percent always comes from a
reconstruction with the mask of one step before, as when every step is taken. That mask depends on
the steps that led to it, but on the farther ones little. After a leap the errors judge wrong
voxels, so the same share is reconstructed a second time; the single steps that follow swing round
the curve of all steps, once too low and once too high, and their neighbours' mean takes that out.
Between the measured shares the curve is interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AliasChoices, Field
from torch import Tensor

from atypia.scoring.knee import CurveFit, first_above, slope_of
from atypia.settings import Settings

Restore = Callable[[Tensor], Tensor]
"""Hidden voxels `(1, 1, X, Y, Z)` boolean -> the restored scan, same shape."""

FloatArray = NDArray[np.float64]

COARSE_PERCENT = (60, 75, 85, 90, 93, 95, 97, 98, 99, 100)
"""Where Phase A measures the curve before it looks closer."""
LEAP_PERCENT = 4.0
"""Phase A leaps over more percent than this, and then reconstructs the same share twice; what it
looks at closely it reaches by single steps over less."""
SETTLED = 2
"""Reconstructions with nearly the same share hidden after which errors count as settled."""
STEADIED_BELOW = 97.0
"""From this percent on the curve itself bends too much for a mean of neighbours."""
MOST_LOOKS = 8
"""How often Phase A looks closer at the knee."""


class SearchRules(Settings):
    """The rules of both phases; names are the paper's or its code's where it has one."""

    gamma: float | None = Field(None, gt=0)
    """Slope of the threshold curve (by percent) that marks the knee; None: calibrated on healthy
    scans. The reference's code has 0.01, its documentation 0.05, for a curve of squared errors of
    z-scored intensities; both depend on how well the network is trained."""
    healthy_share: float = Field(0.01, gt=0, lt=1)
    """Calibrated gamma: share of the brain that may be left in a healthy scan's mask."""
    phase_a: Literal["coarse_to_fine", "every_step"] = "coarse_to_fine"
    """Measure the curve at few points and round its knee, or at every step as published."""
    percent_step: float = Field(1.0, gt=0, le=20)
    """Phase A: percent of the brain that leaves the mask in each step."""
    scale_free: bool = True
    """Divide errors by their median, and bound the fit: intensities may have any unit."""
    fit_function_y_limit: float = Field(
        10.0,
        gt=0,
        validation_alias=AliasChoices("fit_function_y_limit", "fit_funtion_y_limit"),
    )
    """The curve is fitted up to the first point above this squared error; all of a scale-free
    curve is fitted."""
    least_determination: float = Field(0.85, le=1)
    """With an R squared below this the fit is not used, but smoothed finite differences."""
    without_knee: Literal["nothing_abnormal", "lowest_threshold"] = "nothing_abnormal"
    """A curve that never gets steep: an empty mask, or (as published) its lowest threshold."""
    shrinking_start_mask: Literal["brain_mask", "best_threshold_mask"] = "brain_mask"
    """Phase B starts from the whole brain, or from Phase A's mask at the knee."""
    stop_ratio: float = Field(0.01, gt=0, lt=1)
    """Phase B ends when the mask shrinks by less than this share."""
    most_rounds: int = Field(20, ge=1)
    """Phase B ends after this many rounds in any case."""


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """The error threshold of each share of the brain that has left the mask.

    Parameters
    ----------
    percent
        `(T,)`, rising to 100.
    threshold
        `(T,)`, measured or interpolated.
    measured
        `(T,)` boolean.
    fit
        Slope of the curve.
    """

    percent: FloatArray
    threshold: FloatArray
    measured: NDArray[np.bool_]
    fit: CurveFit


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What the search found.

    Parameters
    ----------
    mask
        `(1, 1, X, Y, Z)` boolean, the final mask.
    restored
        `(1, 1, X, Y, Z)`, the last reconstruction.
    mean_error
        Of the last reconstruction over the brain, in the unit of the curve.
    outcome
        ``"mask refined"`` or ``"nothing abnormal"``.
    rounds, forwards
        Rounds of Phase B; reconstructions in both phases.
    curve, knee
        Phase A, and the position of its knee (None without one).
    """

    mask: Tensor
    restored: Tensor
    mean_error: float
    outcome: str
    rounds: int
    forwards: int
    curve: ThresholdCurve
    knee: int | None


class MaskSearch:
    """Both phases on one scan.

    Parameters
    ----------
    restore
        The reconstruction.
    image
        `(1, 1, X, Y, Z)`, normalised intensities.
    brain
        `(1, 1, X, Y, Z)` boolean, not empty.
    rules
        See `SearchRules`.
    spread
        `(1, 1, X, Y, Z)`, what residuals are divided by; nothing if None.
    repeatable
        The same mask gives the same reconstruction, so the first one serves Phase B again.
    """

    def __init__(
        self,
        restore: Restore,
        image: Tensor,
        brain: Tensor,
        rules: SearchRules,
        spread: Tensor | None = None,
        repeatable: bool = True,
    ) -> None:
        self.rules = rules
        self.brain = brain
        self.restore = restore
        self.repeatable = repeatable
        self.forwards = 0
        self._places = brain.flatten().nonzero()[:, 0]
        self._image = image.flatten()[self._places]
        self._spread = None if spread is None else spread.flatten()[self._places]
        step = rules.percent_step
        grid = np.arange(step, 100, step)
        self.percent = np.append(grid[grid < 100 - step / 2], 100.0)
        self._unit = 1.0
        self.first = self._restored(brain)
        first = self._errors(self.first)
        if rules.scale_free:
            self._unit = max(float(first.median()), 1e-12)
            first = first / self._unit
        # Errors when `percent[i]` has left the mask; -1: nothing has left it.
        self._errors_after: dict[int, Tensor] = {-1: first}
        # After how many reconstructions of about that share; the whole brain takes no more.
        self._settled: dict[int, int] = {-1: len(self.percent)}
        self._masks: dict[int, Tensor] = {}

    def run(self, gamma: float) -> SearchResult:
        """Run both phases.

        Parameters
        ----------
        gamma
            The slope that marks the knee.
        """
        curve = self.threshold_curve(gamma)
        knee = self.knee(curve.fit, gamma)
        if knee is None:
            nothing = torch.zeros_like(self.brain)
            error = float(self._errors(self.first).mean())
            return SearchResult(
                nothing, self.first, error, "nothing abnormal", 0, self.forwards, curve, None
            )
        start = torch.ones_like(self._places, dtype=torch.bool)
        if self.rules.shrinking_start_mask == "best_threshold_mask":
            start = self._masks[knee]
        inside, restored, rounds = self._refine(start, float(curve.threshold[knee]))
        return SearchResult(
            self._volume(inside),
            restored,
            float(self._errors(restored).mean()),
            "mask refined",
            rounds,
            self.forwards,
            curve,
            knee,
        )

    def threshold_curve(self, gamma: float | None = None) -> ThresholdCurve:
        """Phase A: the error above which exactly `100 - t` percent of the brain lies, for each t.

        Parameters
        ----------
        gamma
            The slope round which to look closer; None for the coarse curve.
        """
        last = len(self.percent) - 1
        if self.rules.phase_a == "every_step":
            measured = {index: self._measure(index) for index in range(last + 1)}
            return self._curve(measured)
        nearest = [self._step_near(percent) for percent in COARSE_PERCENT]
        measured = {index: self._measure(index) for index in sorted(set(nearest))}
        curve = self._curve(measured)
        for _ in range(MOST_LOOKS if gamma is not None else 0):
            knee = first_above(curve.fit.slope, gamma or np.inf)
            if knee is None:
                break
            # The slope at the knee rests on the fit, or on the differences round it.
            reach = (1, 1) if curve.fit.fitted is not None else (3, 2)
            window = range(max(knee - reach[0], 0), min(knee + reach[1], last) + 1)
            near = {index: self._measure(index, SETTLED) for index in window}
            if near.items() <= measured.items():
                break
            measured |= near
            curve = self._curve(measured)
        return curve

    def knee(self, fit: CurveFit, gamma: float) -> int | None:
        """Give the step at which the curve becomes steep; None when it never does."""
        step = first_above(fit.slope, gamma)
        if self.rules.without_knee == "lowest_threshold":
            return 0 if step is None else step
        # At 100 percent the mask is empty: a curve that is steep only there has no knee.
        return None if step == len(self.percent) - 1 else step

    def _step_near(self, percent: float) -> int:
        return int(np.abs(self.percent - percent).argmin())

    def _curve(self, measured: dict[int, float]) -> ThresholdCurve:
        from scipy.interpolate import PchipInterpolator

        known = sorted(measured)
        values = np.array([measured[index] for index in known])
        if self.rules.phase_a == "coarse_to_fine":
            values = _steadied(known, self.percent[known], values)
        threshold = np.empty(len(self.percent))
        if len(known) == len(self.percent):
            threshold[:] = values
        else:
            # At zero percent the threshold is the smallest error, next to nothing.
            points = np.concatenate([[0.0], self.percent[known]])
            threshold[:] = PchipInterpolator(points, np.concatenate([[0.0], values]))(self.percent)
        rules = self.rules
        fit = slope_of(
            self.percent,
            threshold,
            np.inf if rules.scale_free else rules.fit_function_y_limit,
            bounded=rules.scale_free,
            least_determination=rules.least_determination,
        )
        return ThresholdCurve(self.percent, threshold, np.isin(range(len(threshold)), known), fit)

    def _measure(self, index: int, settled: int = 0) -> float:
        """Give the threshold of one step, from errors under the mask of the step before.

        Those errors have settled for at least so many reconstructions.
        """
        before = index - 1
        self._step_to(before, settled)
        errors = self._errors_after[before]
        threshold = self._threshold(errors, float(self.percent[index]))
        if self.rules.shrinking_start_mask == "best_threshold_mask":
            self._masks[index] = errors > threshold
        return threshold

    def _step_to(self, last: int, settled: int) -> None:
        """Find the errors when `percent[last]` has left the mask."""
        if self._settled.get(last, -1) >= settled:
            return
        known = self._settled
        at = max(k for k in known if k < last and known[k] + last - k >= settled)
        errors = self._errors_after[at]
        while at < last:
            way = self.percent[last] - (self.percent[at] if at >= 0 else 0.0)
            far = way > LEAP_PERCENT and last > at + 1
            following = at + 1 if settled and not far else last
            errors = self._reconstructed(errors, following)
            if far:
                # Seen from afar, wrong voxels leave the mask: their errors are judged once more.
                errors = self._reconstructed(errors, following)
            single = following == at + 1
            known[following] = SETTLED if far else (known[at] + 1 if single else 0)
            self._errors_after[following] = errors
            at = following
        if self.rules.phase_a == "every_step":
            # Earlier errors are large and are not needed again.
            self._errors_after = {last: errors}
            self._settled = {last: known[last]}

    def _reconstructed(self, errors: Tensor, index: int) -> Tensor:
        """Hide what these errors leave at `percent[index]`, and give the errors that follow."""
        hidden = errors > self._threshold(errors, float(self.percent[index]))
        return self._errors(self._restored(self._volume(hidden)))

    def _refine(self, mask: Tensor, threshold: float) -> tuple[Tensor, Tensor, int]:
        """Phase B: shrink the mask to "error above the threshold" until it stays.

        Returns
        -------
        tuple
            The final mask over the brain's voxels, the reconstruction it follows from, rounds.
        """
        rounds = 0
        while True:
            known = self.repeatable and bool(mask.all())
            restored = self.first if known else self._restored(self._volume(mask))
            following = self._errors(restored) > threshold
            rounds += 1
            before, after = int(mask.sum()), int(following.sum())
            small = before == 0 or (before - after) / before < self.rules.stop_ratio
            if small or rounds >= self.rules.most_rounds:
                return following, restored, rounds
            mask = following

    @torch.inference_mode()
    def _restored(self, hidden: Tensor) -> Tensor:
        self.forwards += 1
        return self.restore(hidden)

    def _errors(self, restored: Tensor) -> Tensor:
        """Squared error of each brain voxel, in the unit of the curve."""
        residual = self._image - restored.flatten()[self._places]
        if self._spread is not None:
            residual = residual / self._spread
        return residual.square() / self._unit

    def _threshold(self, errors: Tensor, percent: float) -> float:
        """Give the smallest error that leaves `percent` of the brain at or below it."""
        count = len(errors)
        rank = min(count, max(1, round(count * percent / 100)))
        return float(errors.kthvalue(rank).values)

    def _volume(self, inside: Tensor) -> Tensor:
        """Put a mask over the brain's voxels back onto the grid."""
        volume = torch.zeros_like(self.brain).flatten()
        volume[self._places] = inside
        return volume.reshape(self.brain.shape)


def _steadied(known: list[int], percent: FloatArray, values: FloatArray) -> FloatArray:
    """Take out the swing of single steps that follow a leap: one too low, the next too high.

    Parameters
    ----------
    known
        Steps of the curve that were measured, rising.
    percent, values
        `(len(known),)`, their shares and thresholds.

    Returns
    -------
    numpy.ndarray
        `(len(known),)`; a step between two measured neighbours has the geometric mean of itself
        (half) and of them (a quarter each), if both are near and none is at the steep end.
    """
    steadied = values.copy()
    for i in range(1, len(known) - 1):
        together = known[i + 1] - known[i - 1] == 2
        near = percent[i + 1] - percent[i - 1] <= LEAP_PERCENT
        if together and near and percent[i] < STEADIED_BELOW:
            before, here, after = values[i - 1 : i + 2]
            steadied[i] = here**0.5 * (before * after) ** 0.25
    return steadied


def curve_details(result: SearchResult, gamma: float, unit: str) -> dict[str, Any]:
    """Give the curve, its fit and what was chosen as JSON values.

    Parameters
    ----------
    result
        Of a search.
    gamma
        By which it was run.
    unit
        Of the thresholds.
    """
    curve, knee = result.curve, result.knee
    return {
        "percent": curve.percent.tolist(),
        "threshold": curve.threshold.tolist(),
        "measured": curve.measured.tolist(),
        "fitted": None if curve.fit.fitted is None else curve.fit.fitted.tolist(),
        "determination": curve.fit.determination,
        "gamma": gamma,
        "knee_percent": None if knee is None else float(curve.percent[knee]),
        "chosen": None if knee is None else float(curve.threshold[knee]),
        "unit": unit,
    }
