"""Diffusion: noise each slice, take the noise off again, and score what does not come back.

Sources: cDDPM (Behrendt et al. 2023, arXiv 2312.04215), pDDPM (MIDL 2023, arXiv 2303.03758) and
the Mahalanobis score over many restorations (arXiv 2407.12474). A U-Net learns on axial slices of
healthy scans to give the clean slice back from a noisy one, steered by the time (how noisy it is)
and, when conditioned, by what an encoder says of the clean slice. A scan is noised to one time or
several, with several noise fields, and each gives a restoration that looks healthy. How the
restorations become a score map is `atypia.scoring.restorations`.

What differs from the references by default (each can be set back): every slice and sample has its
own noise field of mean 0 and variance 1, where they share one field of another variance; nearly
empty slices are not learnt; validation is the same slices, times and noise at every visit; scores
are not scaled volume by volume, which would hide that a scan is healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.encoder_file import encoder_origin, load_encoder
from atypia.detectors.prediction import Finding
from atypia.detectors.restorations import finding_of
from atypia.detectors.training_scans import divided
from atypia.diffusion.boxes import box_masks, grid_corners, random_corners, reassemble
from atypia.diffusion.noise import NoiseKind, draw_noise
from atypia.diffusion.schedule import (
    CDDPM_TIME,
    CDDPM_TIMES,
    MAHALANOBIS_TIME,
    cosine,
    ddim_step,
    ddim_times,
    min_snr_weights,
)
from atypia.errors import SettingsError
from atypia.networks.conditioned_denoiser import ConditionedDenoiser
from atypia.networks.denoising_unet import DenoisingUNet
from atypia.networks.resnet import ResNetEncoder
from atypia.preprocessing import Prepared
from atypia.scoring.restorations import RestorationRules
from atypia.training import TrainingSettings, train
from atypia.training.loop import seeded
from atypia.training.slice_augmentation import SliceAugmentation, augmented
from atypia.training.slices import (
    even_slices,
    random_slices,
    slices_of,
    unit_volume,
    usual_range,
    volume_of,
)
from atypia.volume import Array

Predict = Callable[[Tensor, int], Tensor]
"""Noisy slices `(B, 1, H, W)` in [-1, 1] and their time -> the clean slices."""

REFERENCE: dict[str, Any] = {
    "preprocessing": "mhd",
    "intensity_range": (0.0, 1.0),
    "base": 128,
    "blocks": 3,
    "encoder_depth": 50,
    "encoder_width": 64,
    "context": 512,
    "noise": "simplex_shared",
    "least_brain": 0.0,
    "flip_share": 0.0,
    "median_size": 1,
    "healthy_residuals": 0,
    "training": {
        "epochs": 1200,
        "batch_size": 32,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "clip_norm": 0.0,
    },
}
"""What the references' code does, bugs apart."""
TINY = {
    "spacing_mm": 6.0,
    "align": "none",
    "base": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "encoder_width": 4,
    "context": 16,
    "samples": 2,
    "healthy_residuals": 1,
    "training": {"steps": 60, "batch_size": 4, "learning_rate": 3e-3, "validate_every": 30},
}


class DiffusionSettings(DetectorSettings):
    """Settings of `Diffusion`."""

    presets = {
        "tiny": TINY,
        "small": {},
        "reference": {
            **REFERENCE,
            "samples": 1,
            "test_times": CDDPM_TIMES,
            "rules": RestorationRules.presets["cddpm_repo"],
        },
        "mahalanobis": {
            **REFERENCE,
            "samples": 10,
            "test_times": (MAHALANOBIS_TIME,),
            "rules": RestorationRules.presets["mhd_repo"],
        },
        "ddpm": {
            **REFERENCE,
            "variant": "unconditioned",
            "samples": 1,
            "test_times": (CDDPM_TIME,),
            "rules": RestorationRules.presets["cddpm_repo"],
            "training": {**REFERENCE["training"], "epochs": 1600},
        },
        "pddpm": {
            **REFERENCE,
            "variant": "patched",
            "samples": 1,
            "test_times": (CDDPM_TIME,),
            "rules": RestorationRules.presets["cddpm_repo"],
            "training": {**REFERENCE["training"], "epochs": 1600},
        },
    }

    variant: Literal["conditioned", "unconditioned", "patched"] = "conditioned"
    """cDDPM; DDPM; or pDDPM, which noises one box of a slice at a time and sees the rest clean."""
    base: int = Field(32, ge=2)
    """Channels of the U-Net at full resolution, an even number."""
    multipliers: tuple[int, ...] = (1, 2, 2)
    """Channels of the U-Net's levels, in multiples of `base`."""
    blocks: int = Field(2, ge=1)
    """Residual blocks of each level of the U-Net."""
    encoder_depth: Literal[18, 34, 50] = 18
    """Of the ResNet that encodes the clean slice."""
    encoder_width: int = Field(16, ge=1)
    """Channels of the ResNet's first stage; the published one has 64."""
    context: int = Field(128, ge=1)
    """Length of the encoder's answer."""
    encoder: Path | None = None
    """Start the encoder from the weights that `atypia fit spark` wrote: their folder."""
    intensity_range: tuple[float, float] | None = None
    """Normalised intensities that become 0 and 1; None: the training scans' usual 1st and 99th
    percentile in the brain."""
    diffusion_steps: int = Field(1000, ge=2)
    """Times of the diffusion process; the cosine schedule."""
    predicts: Literal["clean", "noise"] = "clean"
    """What the U-Net answers."""
    loss: Literal["l1", "l2"] = "l1"
    """Absolute or squared error."""
    weighting: Literal["none", "min_snr"] = "none"
    """Whether times of little noise count less (Hang et al. 2023)."""
    noise: NoiseKind = "simplex"
    """Gaussian; simplex, a field for each slice; or simplex_shared, as published: one for all."""
    box_size: int = Field(48, ge=1)
    """Patched: edge of a box in pixels."""
    box_stride: int | None = Field(None, ge=1)
    """Patched: from one tested box to the next; None for no overlap."""
    overlap: Literal["cut", "average"] = "average"
    """Patched: what holds where boxes overlap."""
    random_boxes: bool = False
    """Patched: train on boxes anywhere in the slice, not on those of the grid."""
    least_brain: float = Field(0.02, ge=0, le=1)
    """Slices with a smaller share of brain are not learnt."""
    flip_share: float = Field(0.5, ge=0, le=1)
    """Share of the training slices that are mirrored, left for right."""
    augmentation: SliceAugmentation = SliceAugmentation()
    """How often the intensities of training slices are changed."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the training scans kept for validation; with 0 the last weights are kept."""
    test_times: tuple[int, ...] = Field((CDDPM_TIMES[0], CDDPM_TIME), min_length=1)
    """Times from which a scan is restored, exact indices from 0."""
    samples: int = Field(6, ge=1)
    """Noise fields for each of these times."""
    paired_noise: bool = False
    """Draw noise fields in pairs, one the negative of the other."""
    sampler_steps: int = Field(1, ge=1)
    """Steps from a noisy slice to the restoration: one, as published, or more (DDIM)."""
    eta: float = Field(0.0, ge=0, le=1)
    """Fresh noise in each of these steps: 0 for none, 1 for as much as DDPM adds."""
    rules: RestorationRules = RestorationRules()
    """How restorations become scores."""
    healthy_residuals: int = Field(6, ge=0)
    """How many training scans are restored after training to learn each voxel's usual squared
    residual, for the covariances that take a noise variance; 0 for none."""
    slices_at_once: int = Field(16, ge=1)
    """Slices that go through the network together when scoring."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of restorations when scoring; bfloat16 pays where the processor computes in it."""
    training: TrainingSettings = TrainingSettings(
        steps=1500, batch_size=16, learning_rate=5e-4, validate_every=250
    )
    """How the network is trained; a step sees one slice of each of its scans."""


class Diffusion(Detector):
    """Diffusion models of healthy slices, and scores over many restorations (cDDPM, pDDPM, MHD)."""

    method = "diffusion"
    settings_class = DiffusionSettings
    settings: DiffusionSettings

    network_: ConditionedDenoiser
    range_: Array
    noise_variance_: Array

    def _build(self) -> None:
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            conditioned = settings.variant == "conditioned"
            denoiser = DenoisingUNet(
                base=settings.base,
                multipliers=settings.multipliers,
                blocks=settings.blocks,
                context_dim=settings.context if conditioned else None,
            )
            encoder = None
            if conditioned:
                encoder = ResNetEncoder(
                    settings.encoder_depth, 1, settings.context, settings.encoder_width
                )
            self.network_ = ConditionedDenoiser(denoiser, encoder)

    def encoder(self) -> ResNetEncoder | None:
        """Give the encoder of slices; None unless the variant is conditioned."""
        return self.network_.encoder

    def _learnt_before(self) -> tuple[list[str], list[str]]:
        return encoder_origin(self.settings.encoder) if self.settings.encoder else ([], [])

    def _fit(self, training: TrainingSet) -> None:
        settings = self.settings
        if settings.variant == "conditioned" and settings.training.batch_size < 2:
            raise SettingsError(
                "training.batch_size 1",
                "is too small for the encoder, which normalises over the batch",
                "Use 2 or more",
            )
        if settings.encoder is not None:
            load_encoder(settings.encoder, self.network_.encoder)
        learning, held_out = divided(training.scans, settings.validation_share, settings.seed)
        self.range_ = np.array(settings.intensity_range or usual_range(learning))
        self.noise_variance_ = np.zeros((1, 1, 1), dtype=np.float32)
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
        healthy = (held_out + learning)[: settings.healthy_residuals]
        if healthy:
            squares = [
                np.square(self._unit(scan) - self.restorations(scan).mean(0)) for scan in healthy
            ]
            self.noise_variance_ = np.asarray(np.mean(squares, axis=0), dtype=np.float32)

    # -- learning ---------------------------------------------------------------------------

    def _loss(
        self, network: torch.nn.Module, scans: Sequence[Prepared], rng: torch.Generator
    ) -> Tensor:
        settings = self.settings
        clean = random_slices(scans, self._bounds(), settings.least_brain, rng)
        draws = torch.rand(len(clean), generator=rng, device=rng.device)
        mirrored = (draws < settings.flip_share)[:, None, None, None]
        clean = torch.where(mirrored, clean.flip(-2), clean)
        clean = augmented(clean, settings.augmentation, rng)
        times = torch.randint(
            settings.diffusion_steps, (len(clean),), generator=rng, device=rng.device
        )
        return self._error(network, clean, times, rng)

    def _error(
        self, network: torch.nn.Module, clean: Tensor, times: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Mean error of the network's answers for slices `(B, 1, H, W)` in [0, 1]."""
        settings = self.settings
        schedule = cosine(settings.diffusion_steps)
        image = 2 * clean - 1
        noise = draw_noise(settings.noise, _shape(image), rng)
        noisy = schedule.add_noise(image, noise, times)
        inside: Tensor | None = None
        if settings.variant == "patched":
            inside = self._training_boxes(clean, rng)
            noisy = torch.where(inside, noisy, image)
        answer = network(noisy, times, clean)
        target = image if settings.predicts == "clean" else noise
        error = functional.l1_loss if settings.loss == "l1" else functional.mse_loss
        errors = error(answer, target, reduction="none")
        if inside is not None:
            errors = errors * inside
        if settings.weighting == "min_snr":
            weights = min_snr_weights(schedule, times, settings.predicts)
            errors = errors * weights[:, None, None, None]
        return errors.mean()

    def _training_boxes(self, clean: Tensor, rng: torch.Generator) -> Tensor:
        count, _, height, width = clean.shape
        size = self.settings.box_size
        if self.settings.random_boxes:
            corners = random_corners(count, height, width, size, rng)
        else:
            grid = grid_corners(height, width, size, self.settings.box_stride).to(clean.device)
            chosen = torch.randint(len(grid), (count,), generator=rng, device=rng.device)
            corners = grid[chosen]
        return box_masks(corners, size, height, width)

    def _validation(self, network: torch.nn.Module, scans: Sequence[Prepared]) -> float:
        """Mean error at the times of the test, of a few slices, with the same noise each time."""
        device = next(network.parameters()).device
        total = []
        for index, scan in enumerate(scans):
            clean = even_slices(scan, self._bounds(), self.settings.least_brain, 4).to(device)
            for time in self.settings.test_times:
                rng = seeded(self.settings.seed, 11, index, time, device=device)
                times = torch.full((len(clean),), time, device=device)
                total.append(float(self._error(network, clean, times, rng)))
        return float(np.mean(total))

    # -- restoring --------------------------------------------------------------------------

    @torch.inference_mode()
    def restorations(self, prepared: Prepared) -> Array:
        """Restore a scan from each test time with each noise field.

        Parameters
        ----------
        prepared
            On the working grid.

        Returns
        -------
        numpy.ndarray
            float32 `(N, X, Y, Z)` in [0, 1] as `intensity_range` has it; zero outside the brain.
        """
        settings, network = self.settings, self.network_
        device = next(network.parameters()).device
        unit = self._unit(prepared)
        places = np.flatnonzero(prepared.brain.data.any(axis=(0, 1)))
        count = len(settings.test_times) * settings.samples
        restored = np.zeros((count, *unit.shape), dtype=np.float32)
        if not len(places):
            return restored
        clean = slices_of(unit)[places].to(device)
        chunks = torch.arange(len(clean)).split(settings.slices_at_once)
        lower = getattr(torch, settings.precision)
        # Seeded by the setting alone: a scan's result does not depend on its neighbours.
        rng = seeded(settings.seed, 13, device=device)
        with torch.autocast(device.type, lower, enabled=lower != torch.float32):
            contexts = [network.context(clean[chunk]) for chunk in chunks]
            samples = [
                (time, noise) for time in settings.test_times for noise in self._draw(clean, rng)
            ]
            for index, (time, noise) in enumerate(samples):
                parts = [
                    self._restored(clean[chunk], noise[chunk], time, context, rng)
                    for chunk, context in zip(chunks, contexts, strict=True)
                ]
                restored[index][..., places] = volume_of(torch.cat(parts))
        return restored * prepared.brain.data

    def _draw(self, clean: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
        """Draw the noise of one time's samples, each shaped as the slices."""
        settings = self.settings
        previous: Tensor | None = None
        for _ in range(settings.samples):
            if settings.paired_noise and previous is not None:
                yield -previous
                previous = None
            else:
                previous = draw_noise(settings.noise, _shape(clean), rng)
                yield previous

    def _restored(
        self, clean: Tensor, noise: Tensor, time: int, context: Tensor | None, rng: torch.Generator
    ) -> Tensor:
        """Restore slices `(B, 1, H, W)` in [0, 1] from one time and one noise field each."""
        settings = self.settings
        image = 2 * clean - 1
        predict = partial(self._predict, context=context)
        if settings.variant != "patched":
            answer = self._sampled(image, noise, time, predict, None, rng)
        else:
            height, width = clean.shape[-2:]
            corners = grid_corners(height, width, settings.box_size, settings.box_stride)
            masks = box_masks(corners, settings.box_size, height, width).to(clean.device)
            boxes = (self._sampled(image, noise, time, predict, mask[None], rng) for mask in masks)
            answer = reassemble(boxes, corners, settings.box_size, settings.overlap)
        return (answer.float() + 1) / 2

    def _sampled(
        self,
        image: Tensor,
        noise: Tensor,
        time: int,
        predict: Predict,
        inside: Tensor | None,
        rng: torch.Generator,
    ) -> Tensor:
        """Noise slices, or their boxes, and go back step by step."""
        settings = self.settings
        schedule = cosine(settings.diffusion_steps)
        noisy = schedule.add_noise(image, noise, time)
        visited = (*ddim_times(time, settings.sampler_steps), -1)
        for now, following in pairwise(visited):
            if inside is not None:
                noisy = torch.where(inside, noisy, image)
            clean = predict(noisy, now)
            fresh = draw_noise(settings.noise, _shape(noisy), rng) if settings.eta else None
            noisy = ddim_step(schedule, noisy, clean, now, following, settings.eta, fresh)
        return noisy

    def _predict(self, noisy: Tensor, time: int, context: Tensor | None) -> Tensor:
        embedding = self.network_.embedding(time, context)
        answer = self.network_.denoiser.forward_with(noisy, embedding).float()
        if self.settings.predicts == "clean":
            return answer
        return cosine(self.settings.diffusion_steps).clean_of(noisy, answer, time)

    # -- scoring ----------------------------------------------------------------------------

    def _score(self, prepared: Prepared) -> Finding:
        variance = self.noise_variance_ if self.noise_variance_.any() else None
        restored = self.restorations(prepared)
        brain, rules = prepared.brain.data, self.settings.rules
        finding = finding_of(self._unit(prepared), restored, brain, rules, variance)
        assert finding.restoration is not None
        low, high = self._bounds()
        return replace(
            finding, restoration=np.where(brain, finding.restoration * (high - low) + low, 0)
        )

    def _restore_alone(self, prepared: Prepared) -> Array | None:
        return self._score(prepared).restoration

    def _bounds(self) -> tuple[float, float]:
        return float(self.range_[0]), float(self.range_[1])

    def _unit(self, prepared: Prepared) -> Array:
        return unit_volume(prepared, self._bounds())


def _shape(slices: Tensor) -> tuple[int, int, int, int]:
    batch, channels, height, width = slices.shape
    return batch, channels, height, width
