"""MaskRefinement: hide the brain, reconstruct it, and shrink the mask to what cannot be restored.

Source: IterMask3D (Liang et al., Medical Image Analysis 107, 2026; arXiv 2504.04911). A network
learns on healthy scans to fill in hidden parts, guided by the high-frequency image of the whole
scan. A new scan starts all hidden. Phase A lowers the hidden share of the brain step by step,
always keeping the voxels of largest error, and records the error threshold of each share: the
curve rises steeply once only abnormal voxels are left, which gives this subject's threshold.
Phase B starts again from the whole brain and hides "error above the threshold" until the mask
stops shrinking.

What differs from the reference by default, because the reference's way is at fault (each can be
set back): masks also cover the whole brain in training, as they do at the start of the search;
hidden voxels are zero and marked by a mask channel instead of random noise, so that results do
not depend on a draw; a normative prior (mean healthy brain) is an input; errors are measured in
units of their spread in healthy scans; the knee is found on a scale-free curve with a bounded fit,
and a curve without a knee means "nothing abnormal".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.prediction import Finding
from atypia.networks.unet import ResidualUNet
from atypia.preprocessing import Prepared
from atypia.scoring.frequency import REFERENCE_WAVELENGTH_MM, high_pass
from atypia.scoring.knee import first_above, slope_of
from atypia.scoring.residual import Sign, signed
from atypia.scoring.spread import healthy_spread
from atypia.training import TrainingSettings, train
from atypia.training.loop import seeded
from atypia.training.masks import random_mask
from atypia.volume import Array


class MaskRefinementSettings(DetectorSettings):
    """Settings of `MaskRefinement`."""

    presets = {
        "tiny": {
            "spacing_mm": 6.0,
            "align": "none",
            "channels": (8, 8),
            "wavelength_mm": 24.0,
            "percent_step": 10.0,
            "training": {"steps": 30, "batch_size": 1, "validate_every": 15, "learning_rate": 3e-3},
        },
        "reference_rules": {
            "prior": False,
            "fill": "noise",
            "visible_weight": 1.0,
            "loss_over": "cube",
            "full_share": 0.0,
            "near_full_share": 0.0,
            "most_blobs": 1,
            "scale_free": False,
            "gamma": 0.01,
            "score_from": "refined",
            "normalise": False,
            "most_rounds": 100,
        },
    }

    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the U-Net's levels, from half resolution downwards."""
    prior: bool = True
    """Give the network the mean healthy brain, and let it learn the deviation from it."""
    wavelength_mm: float = Field(REFERENCE_WAVELENGTH_MM, gt=0)
    """Longest wavelength (mm) of the high-frequency image; the reference's 15 index units."""
    fill: Literal["zero", "noise"] = "zero"
    """What stands in hidden voxels: zero with a mask channel, or standard normal noise."""
    full_share: float = Field(0.3, ge=0, le=1)
    """Share of training masks that hide the whole brain."""
    near_full_share: float = Field(0.2, ge=0, le=1)
    """Share of training masks that hide all but a few blobs."""
    most_blobs: int = Field(3, ge=1)
    """Largest number of blobs in a training mask."""
    loss_over: Literal["brain", "cube"] = "brain"
    """Where the squared error is averaged."""
    visible_weight: float = Field(0.1, ge=0)
    """Weight of visible voxels in the loss; hidden ones have weight one."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of the training scans kept for validation and for calibrating gamma."""
    percent_step: float = Field(1.0, gt=0, le=20)
    """Phase A: percent of the brain that leaves the mask in each step."""
    coarse_step: float | None = Field(None, gt=0, le=80)
    """The same for the first 80 percent, where the curve is flat; `percent_step` if unset."""
    gamma: float | None = Field(None, gt=0)
    """Slope of the threshold curve at which Phase A stops; calibrated on healthy scans if None."""
    healthy_share: float = Field(0.01, gt=0, lt=1)
    """Calibrated gamma: share of the brain that may be left in a healthy scan's mask."""
    scale_free: bool = True
    """Divide the curve by the median error, and bound the fit."""
    fit_limit: float = Field(10.0, gt=0)
    """Points of the curve above this are not fitted (in units of the curve)."""
    start_mask: Literal["brain", "best_threshold"] = "brain"
    """Phase B starts from the whole brain, or from Phase A's mask at the knee."""
    stop_ratio: float = Field(0.01, gt=0, lt=1)
    """Phase B ends when the mask shrinks by less than this share."""
    most_rounds: int = Field(20, ge=1)
    """Phase B ends after this many rounds in any case."""
    score_from: Literal["first_pass", "refined"] = "first_pass"
    """Error of the first reconstruction (all hidden), or of Phase B's last one."""
    normalise: bool = True
    """Divide residuals by their spread in healthy scans at each voxel, in search and score."""
    floor: float = Field(0.5, ge=0)
    """See `atypia.scoring.spread.healthy_spread`."""
    sign: Sign = "both"
    """Which deviations count in the score map; the search takes both."""
    training: TrainingSettings = TrainingSettings()
    """How the network is trained."""


class MaskRefinement(Detector):
    """Iterative spatial mask refinement with high-frequency guidance (IterMask3D)."""

    method = "mask_refinement"
    settings_class = MaskRefinementSettings
    settings: MaskRefinementSettings

    network_: nn.Module
    prior_: Array
    gamma_: float
    spread_: Array

    def _build(self) -> None:
        inputs = 3 + self.settings.prior
        # Drawn from its own stream: the weights depend on the seed alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = ResidualUNet(inputs, 1, self.settings.channels)
        self.network_ = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def _fit(self, training: TrainingSet) -> None:
        settings = self.settings
        self.prior_ = training.mean()
        order = np.random.default_rng([settings.seed, 7]).permutation(len(training.scans))
        kept = max(1, round(settings.validation_share * len(order)))
        # A single scan has to serve for both; its gamma is then optimistic.
        held_out = [training.scans[i] for i in order[:kept]]
        learning = [training.scans[i] for i in order[kept:]] or held_out
        train(
            self.network_,
            lambda network, batch, rng: self._loss(network, [learning[i] for i in batch], rng),
            len(learning),
            settings.training,
            seed=settings.seed,
            validation=lambda network: self._validation(network, held_out),
            folder=training.folder,
            identity=training.identity,
            progress=training.progress,
        )
        self.spread_ = np.ones(training.grid.shape, dtype=np.float32)
        residuals = (_Search(self, scan).residual() for scan in training.scans)
        self.spread_ = healthy_spread(residuals, training.common_brain(), settings.floor)
        self.gamma_ = settings.gamma or self._calibrated_gamma(held_out)

    # -- learning ---------------------------------------------------------------------------

    def _loss(self, network: nn.Module, scans: Sequence[Prepared], rng: torch.Generator) -> Tensor:
        settings = self.settings
        image, brain = _batch(scans, rng.device)
        spacing = scans[0].image.spacing_mm
        hidden = torch.stack(
            [
                random_mask(
                    one[0],
                    spacing,
                    rng,
                    settings.full_share,
                    settings.near_full_share,
                    settings.most_blobs,
                )[None]
                for one in brain
            ]
        )
        restored = self._restore(network, image, hidden, self._guide(image, spacing), rng)
        weight = torch.where(hidden, 1.0, settings.visible_weight)
        if settings.loss_over == "brain":
            weight = weight * brain
        return (weight * (restored - image) ** 2).sum() / weight.sum()

    def _validation(self, network: nn.Module, scans: Sequence[Prepared]) -> float:
        """Mean squared error in the brain when all of it is hidden, and when blobs are."""
        total = 0.0
        device = next(network.parameters()).device
        for index, scan in enumerate(scans):
            image, brain = _batch([scan], device)
            guide = self._guide(image, scan.image.spacing_mm)
            rng = seeded(self.settings.seed, 11, index, device=device)
            blobs = random_mask(brain[0, 0], scan.image.spacing_mm, rng, most_blobs=3)[None, None]
            for hidden in (brain, blobs):
                restored = self._restore(network, image, hidden, guide, rng)
                total += float(((restored - image) ** 2)[brain].mean())
        return total / (2 * len(scans))

    def _guide(
        self, image: Tensor, spacing_mm: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Give the high-frequency image, and the coarse prior (zero without a prior)."""
        wavelength = self.settings.wavelength_mm
        fine = high_pass(image, spacing_mm, wavelength)
        if not self.settings.prior:
            return fine, torch.zeros_like(image[:1])
        prior = torch.from_numpy(np.asarray(self.prior_)).to(image.device)[None, None]
        return fine, prior - high_pass(prior, spacing_mm, wavelength)

    def _restore(
        self,
        network: nn.Module,
        image: Tensor,
        hidden: Tensor,
        guide: tuple[Tensor, Tensor],
        rng: torch.Generator,
    ) -> Tensor:
        """Reconstruct `(B, 1, X, Y, Z)` from what is visible and the guide."""
        fine, coarse = guide
        coarse = coarse.expand_as(image)
        filling = torch.zeros_like(image)
        if self.settings.fill == "noise":
            filling = torch.randn(image.shape, generator=rng, device=image.device)
        channels = [torch.where(hidden, filling, image), fine, hidden.float()]
        if self.settings.prior:
            channels.append(coarse)
        answer: Tensor = network(torch.cat(channels, dim=1)).float()
        # With a prior, start from the restoration without a network; it learns the correction.
        return coarse + fine + answer if self.settings.prior else answer

    # -- scoring ----------------------------------------------------------------------------

    def _score(self, prepared: Prepared) -> Finding:
        search = _Search(self, prepared)
        curve, masks = search.threshold_curve()
        knee = search.knee(curve, self.gamma_)
        outcome = "nothing abnormal" if knee is None else "mask refined"
        final, mask, rounds = search.first, torch.zeros_like(search.brain), 0
        if knee is not None:
            start = masks[knee] if masks else search.brain
            final, mask, rounds = search.refine(start, float(curve[knee]))
        chosen = search.first if self.settings.score_from == "first_pass" else final
        return Finding(
            score=self._as_score((search.image - chosen)[0, 0].cpu().numpy()),
            restoration=chosen[0, 0].cpu().numpy(),
            mask=mask[0, 0].cpu().numpy(),
            details={
                "outcome": outcome,
                "rounds": rounds,
                "threshold_curve": search.curve_details(curve, knee, self.gamma_),
            },
        )

    def _score_alone(self, prepared: Prepared) -> Array:
        if self.settings.score_from == "refined":
            return self._score(prepared).score
        return self._as_score(_Search(self, prepared).residual())

    def _as_score(self, residual: Array) -> Array:
        if self.settings.normalise:
            residual = residual / self.spread_
        return signed(residual, self.settings.sign)

    def _calibrated_gamma(self, healthy: Sequence[Prepared]) -> float:
        """Choose gamma so that typical healthy scans keep at most `healthy_share` in the mask."""
        last_percent = 100 * (1 - self.settings.healthy_share)
        steepest = []
        for scan in healthy:
            search = _Search(self, scan)
            curve, _ = search.threshold_curve()
            slope = search.slope(curve).slope
            steepest.append(float(slope[search.percent <= last_percent].max(initial=0.0)))
        return max(float(np.median(steepest)), 1e-9)


class _Search:
    """The two phases on one scan."""

    def __init__(self, detector: MaskRefinement, prepared: Prepared) -> None:
        self.settings = detector.settings
        self.detector = detector
        self.device = next(detector.network_.parameters()).device
        self.image, self.brain = _batch([prepared], self.device)
        self.guide = detector._guide(self.image, prepared.image.spacing_mm)
        # Seeded by the setting alone: a scan's result does not depend on its neighbours.
        self.rng = seeded(self.settings.seed, 13, device=self.device)
        step = self.settings.percent_step
        coarse = self.settings.coarse_step or step
        early, late = np.arange(coarse, 80, coarse), np.arange(80, 100, step)
        if coarse == step:
            early, late = np.arange(step, 100, step), np.array([])
        self.percent = np.concatenate([early, late, [100.0]])
        self.scale: Tensor | float = 1.0
        if self.settings.normalise:
            spread = torch.from_numpy(np.asarray(detector.spread_))
            self.scale = spread.to(self.device).square()[None, None]
        self.unit = 1.0
        self.first = self.reconstruct(self.brain)
        if self.settings.scale_free:
            self.unit = max(float(self.error(self.first)[self.brain].median()), 1e-12)

    @torch.inference_mode()
    def reconstruct(self, hidden: Tensor) -> Tensor:
        """Reconstruct the scan with a mask hidden."""
        detector = self.detector
        return detector._restore(detector.network_, self.image, hidden, self.guide, self.rng)

    def residual(self) -> Array:
        """Scan minus its first reconstruction, `(X, Y, Z)`."""
        return np.asarray((self.image - self.first)[0, 0].cpu().numpy())

    def error(self, restored: Tensor) -> Tensor:
        """Squared error; over the healthy spread's square, and over its own first median."""
        return (self.image - restored) ** 2 / self.scale / self.unit

    def threshold_curve(self) -> tuple[Array, list[Tensor]]:
        """Phase A: the error above which exactly `100 - t` percent of the brain lies, for each t.

        Returns
        -------
        tuple
            The curve `(T,)`, and the mask of each step (none unless Phase B starts from one).
        """
        error = self.error(self.first)
        count = int(self.brain.sum())
        curve, masks = [], []
        for percent in self.percent:
            inside = error[self.brain]
            rank = min(count, max(1, round(count * percent / 100)))
            threshold = float(inside.kthvalue(rank).values)
            mask = (error > threshold) & self.brain
            curve.append(threshold)
            if self.settings.start_mask == "best_threshold":
                masks.append(mask)
            if percent < 100:
                error = self.error(self.reconstruct(mask))
        return np.array(curve), masks

    def slope(self, curve: Array) -> Any:
        """Slope of the curve by percent; see `atypia.scoring.knee`."""
        limit = np.inf if self.settings.scale_free else self.settings.fit_limit
        return slope_of(self.percent, curve, limit, bounded=self.settings.scale_free)

    def knee(self, curve: Array, gamma: float) -> int | None:
        """Give the step at which the curve becomes steep; None when it never does."""
        step = first_above(self.slope(curve).slope, gamma)
        # At 100 percent the mask is empty: a curve that is steep only there has no knee.
        return None if step is None or step == len(self.percent) - 1 else step

    def refine(self, start: Tensor, threshold: float) -> tuple[Tensor, Tensor, int]:
        """Phase B: shrink the mask to "error above the threshold" until it stays.

        Returns
        -------
        tuple
            Last reconstruction, the mask that follows from it, number of rounds.
        """
        mask, rounds = start, 0
        while True:
            rounds += 1
            restored = self.reconstruct(mask)
            following = (self.error(restored) > threshold) & self.brain
            before, after = int(mask.sum()), int(following.sum())
            small = before == 0 or (before - after) / before < self.settings.stop_ratio
            if small or rounds >= self.settings.most_rounds:
                return restored, following, rounds
            mask = following

    def curve_details(self, curve: Array, knee: int | None, gamma: float) -> dict[str, Any]:
        """Give the curve and its fit as JSON values."""
        fit = self.slope(curve)
        return {
            "percent": self.percent.tolist(),
            "threshold": curve.tolist(),
            "fitted": None if fit.fitted is None else fit.fitted.tolist(),
            "determination": fit.determination,
            "gamma": gamma,
            "knee_percent": None if knee is None else float(self.percent[knee]),
            "chosen": None if knee is None else float(curve[knee]),
            "unit": "median error" if self.settings.scale_free else "normalised intensity squared",
        }


def _batch(scans: Sequence[Prepared], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack images and brain masks as `(B, 1, X, Y, Z)` on a device."""
    image = np.stack([scan.image.data[None] for scan in scans])
    brain = np.stack([scan.brain.data[None] for scan in scans])
    return torch.from_numpy(image).to(device), torch.from_numpy(brain).to(device)
