"""Restorer: what the methods share that learn to give back the healthy scan in one pass.

A network sees healthy scans that were corrupted and learns to undo it. Of a new scan it takes out
what looks like the corruption it knows; the score is what it has taken out, in units of what it
takes out of healthy scans at that place. A method says how scans are corrupted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.brain_box import box_of
from atypia.detectors.prediction import Finding
from atypia.detectors.tissue_prior import Prior, require_template, tissues_on
from atypia.detectors.training_scans import divided
from atypia.networks.unet import ResidualUNet
from atypia.preprocessing import Prepared
from atypia.scoring.residual import Sign, signed
from atypia.scoring.spread import healthy_spread
from atypia.scoring.tissue_fit import expected_scans
from atypia.training import TrainingSettings, train
from atypia.training.contrast import random_contrast
from atypia.training.loop import seeded
from atypia.volume import Array

TINY: dict[str, Any] = {
    "spacing_mm": 6.0,
    "align": "centre",
    "channels": (8, 8),
    "training": {"steps": 20, "batch_size": 1, "validate_every": 10, "learning_rate": 3e-3},
}
"""Of the tests' preset, for every method that restores in one pass."""

MARGIN_MM = 4.0
"""What the network sees round the brain."""


class RestorerSettings(DetectorSettings):
    """Settings that the methods share."""

    channels: tuple[int, ...] = (24, 48, 96, 96)
    """Channels of the U-Net's levels, from half resolution downwards."""
    prior: Prior = "tissues"
    """What the network is told of the healthy brain: the mean of the training scans, or the
    template's tissues with the intensities that they have in the scan, or none."""
    flip_share: float = Field(0.5, ge=0, le=1)
    """Share of the training scans that are mirrored, left for right."""
    contrast_share: float = Field(0.0, ge=0, le=1)
    """Share of the training scans whose intensities are bent at random, upside down too; a mean
    prior could not follow that."""
    normalise: bool = True
    """Divide residuals by their spread in healthy scans at each voxel."""
    floor: float = Field(0.5, ge=0)
    """See `atypia.scoring.spread.healthy_spread`."""
    sign: Sign = "both"
    """Which deviations count."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the training scans kept for validation; with 0 the last weights are kept."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network when scoring; bfloat16 pays where the processor computes in it."""
    training: TrainingSettings = TrainingSettings(batch_size=1, validate_every=250)
    """How the network is trained."""

    @pydantic.model_validator(mode="after")
    def _prior_follows(self) -> RestorerSettings:
        if self.prior == "mean" and self.contrast_share:
            raise ValueError("a mean brain has one contrast; set contrast_share 0 or prior tissues")
        return self


class Restorer(Detector):
    """Restores a scan in one pass of a network that has learnt to undo corruption."""

    settings: RestorerSettings

    points = False
    """Whether the network also tells where the scan was corrupted."""

    network_: nn.Module
    prior_: Array
    spread_: Array

    @abstractmethod
    def _corrupted(
        self, image: Tensor, brain: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Corrupt a scan `(X, Y, Z)`; give it, and where it visibly differs (boolean)."""

    def _build(self) -> None:
        settings = self.settings
        if self.plan is not None and settings.prior == "tissues":
            require_template(self.plan, self.method)
        # Drawn from its own stream: the weights depend on the seed alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = ResidualUNet(
                1 + (settings.prior != "none"), 1 + self.points, settings.channels
            )
        self.network_ = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def _fit(self, training: TrainingSet) -> None:
        settings = self.settings
        if settings.prior == "mean":
            self.prior_ = training.mean()
        learning, held_out = divided(training.scans, settings.validation_share, settings.seed)
        training.note(self)
        train(
            self.network_,
            lambda network, batch, rng: self._loss(network, [learning[i] for i in batch], rng),
            len(learning),
            settings.training,
            seed=settings.seed,
            validation=(lambda network: self._validation(network, held_out)) if held_out else None,
            folder=training.folder,
            identity=training.identity,
            progress=training.progress,
        )
        self.spread_ = np.ones(training.grid.shape, dtype=np.float32)
        if settings.normalise:
            # Of scans that were not learnt from, if there are any: a network knows its own.
            healthy = held_out or learning
            residuals = (scan.image.data - self.restore(scan)[0] for scan in healthy)
            self.spread_ = healthy_spread(residuals, training.common_brain(), settings.floor)

    # -- learning ---------------------------------------------------------------------------

    def _loss(self, network: nn.Module, scans: Sequence[Prepared], rng: torch.Generator) -> Tensor:
        total = torch.zeros((), device=rng.device)
        for scan in scans:
            total = total + self._loss_of(network, scan, rng)
        return total / len(scans)

    def _validation(self, network: nn.Module, scans: Sequence[Prepared]) -> float:
        """Mean loss under corruptions that are the same in every validation."""
        device = next(network.parameters()).device
        losses = [
            float(self._loss_of(network, scan, seeded(self.settings.seed, 11, i, device=device)))
            for i, scan in enumerate(scans)
        ]
        return float(np.mean(losses))

    def _loss_of(self, network: nn.Module, scan: Prepared, rng: torch.Generator) -> Tensor:
        settings = self.settings
        image, brain = _tensors(scan, rng.device)
        prior = self._prior(rng.device)
        flip, bend = torch.rand(2, generator=rng, device=rng.device).tolist()
        if flip < settings.flip_share:
            image, brain = image.flip(0), brain.flip(0)
            prior = None if prior is None else prior.flip(2)
        box = self._box(brain)
        image, brain = image[box], brain[box]
        prior = None if prior is None else prior[(slice(None), slice(None), *box)]
        if bend < settings.contrast_share:
            image = random_contrast(image, brain, rng)
        corrupted, where = self._corrupted(image, brain, rng)
        corrupted, target = _rescaled(corrupted, image, brain)
        restored, pointed = self._restored(network, corrupted, brain, prior)
        error = (restored - target).abs()
        loss = error[brain].mean()
        if pointed is not None:
            if where.any():
                # Anomalies are few voxels: over the brain alone, to restore nothing costs least.
                loss = loss + error[where].mean()
            loss = loss + functional.binary_cross_entropy_with_logits(
                pointed[brain], where[brain].float()
            )
        return loss

    def _restored(
        self, network: nn.Module, image: Tensor, brain: Tensor, prior: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Restore `(X, Y, Z)`; give also the evidence of corruption (log odds), if it is told."""
        channels = [image[None, None]]
        if self.settings.prior == "tissues" and prior is not None:
            prior = expected_scans(image[None, None], brain[None, None], prior)
        if prior is not None:
            channels.append(prior)
        answer = network(torch.cat(channels, dim=1)).float()[0]
        return image + answer[0], answer[1] if self.points else None

    def _prior(self, device: torch.device) -> Tensor | None:
        """Give what `_restored` makes the prior channel of, on the working grid."""
        if self.settings.prior == "none":
            return None
        if self.settings.prior == "tissues":
            return tissues_on(self._working_grid()).to(device)
        return torch.from_numpy(np.asarray(self.prior_)).to(device)[None, None]

    def _box(self, brain: Tensor) -> tuple[slice, ...]:
        """Give the slices `(X, Y, Z)` that the network sees."""
        multiple = int(getattr(self.network_, "multiple", 1))
        spacing = self._working_grid().spacing_mm
        return box_of(brain[None, None], MARGIN_MM, spacing, multiple)[2:]

    # -- scoring ----------------------------------------------------------------------------

    def restore(self, prepared: Prepared) -> tuple[Array, Array | None]:
        """Restore a prepared scan.

        Returns
        -------
        tuple
            The restoration `(X, Y, Z)`, normalised intensities, zero outside the brain; and the
            evidence that a voxel is abnormal (log odds), None if the method tells none.
        """
        device = next(self.network_.parameters()).device
        image, brain = _tensors(prepared, device)
        box = self._box(brain)
        prior = self._prior(device)
        if prior is not None:
            prior = prior[(slice(None), slice(None), *box)]
        dtype = getattr(torch, self.settings.precision)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
            parts = self._restored(self.network_, image[box], brain[box], prior)
        found = []
        for part in parts:
            whole = None
            if part is not None:
                whole = np.zeros(prepared.image.shape, np.float32)
                whole[box] = part.float().cpu().numpy()
                whole[~prepared.brain.data] = 0
            found.append(whole)
        restored, pointed = found
        assert restored is not None
        return restored, pointed

    def _score(self, prepared: Prepared) -> Finding:
        restored, _ = self.restore(prepared)
        return self._finding(prepared, restored)

    def _restore_alone(self, prepared: Prepared) -> Array:
        return self.restore(prepared)[0]

    def _finding(self, prepared: Prepared, restored: Array) -> Finding:
        """Score what was taken out of a scan."""
        brain = prepared.brain.data
        residual = (prepared.image.data - restored) / self.spread_
        mean_error = (
            float(np.square(residual[brain], dtype=np.float64).mean()) if brain.any() else 0
        )
        return Finding(
            signed(residual, self.settings.sign), restored, scores={"mean_error": mean_error}
        )


def _tensors(scan: Prepared, device: torch.device) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(np.array(scan.image.data, np.float32))
    return image.to(device), torch.from_numpy(np.array(scan.brain.data)).to(device)


def _rescaled(corrupted: Tensor, clean: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise a corrupted scan as it would have been had it come so; the clean one follows."""
    inside = corrupted[brain]
    if inside.numel() < 2:
        return corrupted, clean
    mean, spread = inside.mean(), inside.std().clamp(min=1e-6)
    return (corrupted - mean) / spread * brain, (clean - mean) / spread * brain
