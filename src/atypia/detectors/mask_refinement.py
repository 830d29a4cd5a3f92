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

from collections.abc import Callable, Sequence
from typing import Literal, Self

import numpy as np
import pydantic
import torch
from pydantic import Field
from torch import Tensor, nn

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.brain_box import box_of
from atypia.detectors.guided_encoder import GuidedEncoder
from atypia.detectors.mask_search import MaskSearch, SearchRules, curve_details
from atypia.detectors.prediction import Finding
from atypia.detectors.restorations import finding_of
from atypia.detectors.tissue_prior import require_template, tissues_on
from atypia.detectors.training_scans import divided
from atypia.networks.iterative_mask_unet import FoldedUNet, IterativeMaskUNet
from atypia.networks.unet import ResidualUNet
from atypia.preprocessing import Prepared
from atypia.scoring.frequency import REFERENCE_WAVELENGTH_MM, high_pass, high_pass_by_index
from atypia.scoring.residual import Sign, signed
from atypia.scoring.restorations import RestorationRules
from atypia.scoring.spectrum import Features, UsualSpectrum, spectrum_of
from atypia.scoring.spread import healthy_spread
from atypia.scoring.tissue_fit import expected_scans
from atypia.training import TrainingSettings, train
from atypia.training.augmentation import Augmentation, augment
from atypia.training.loop import seeded
from atypia.training.masks import error_mask, random_mask
from atypia.volume import Array

Box = tuple[slice, slice, slice]

REFERENCE_RULES = {
    "prior": False,
    "cutoff": "index",
    "fill": "noise",
    "visible_weight": 1.0,
    "loss_over": "cube",
    "full_share": 0.0,
    "near_full_share": 0.0,
    "error_share": 0.0,
    "most_blobs": 1,
    "augmentation": {"flip_share": 0.0, "quarter_turn_share": 0.1, "corruption_share": 0.0},
    "scale_free": False,
    "gamma": 0.01,
    "phase_a": "every_step",
    "without_knee": "lowest_threshold",
    "score_from": "refined",
    "subject_score": "final_mask_ml",
    "normalise": False,
    "most_rounds": 100,
    "crop_mm": None,
}
"""What the reference's code does, bugs apart."""
TINY = 1e-12


class MaskRefinementSettings(SearchRules, DetectorSettings):
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
        "large": {
            "channels": (32, 64, 128, 256),
            "training": {"steps": 20_000, "batch_size": 4, "validate_every": 500},
        },
        "artefacts": {
            "augmentation": {"flip_share": 0.5, "corruption_share": 0.7, "corruption": 1.5},
            "subject_score": "deviation",
        },
        "reference_rules": REFERENCE_RULES,
        "reference": {
            **REFERENCE_RULES,
            "preprocessing": "itermask3d",
            "network": "reference",
            "channels": (16, 32, 64, 128, 256),
            "validation_share": 0.0,
            "training": {
                "epochs": 500,
                "batch_size": 2,
                "schedule": "drop",
                "drop_at": 0.6,
                "warmup_steps": 0,
                "clip_norm": 0.0,
                "snapshot_epochs": 20,
            },
        },
    }

    network: Literal["space_to_depth", "reference"] = "space_to_depth"
    """A small residual U-Net that works at half resolution, or the reference's own network."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the U-Net's levels, from half resolution downwards."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of the reference's network; the small one has none."""
    prior: bool = True
    """Give the network the mean healthy brain, and let it learn the deviation from it."""
    prior_from: Literal["mean", "tissues"] = "mean"
    """Where the prior comes from: the training scans' mean, or the template's tissues with the
    intensities that they have in each scan, which serves scans of any contrast."""
    cutoff: Literal["wavelength", "index"] = "wavelength"
    """The high-frequency image's cutoff: `wavelength_mm` on any grid, or the reference's 15 index
    units and its constant amplitude below, which mean the same on a cube of 192 mm only."""
    wavelength_mm: float = Field(REFERENCE_WAVELENGTH_MM, gt=0)
    """Longest wavelength (mm) of the high-frequency image; the reference's 15 index units."""
    fill: Literal["zero", "noise", "noise_once"] = "zero"
    """What stands in hidden voxels: zero with a mask channel; standard normal noise, fresh in every
    reconstruction, as published; or such noise drawn once a scan, so that nothing but the mask
    changes between reconstructions."""
    full_share: float = Field(0.3, ge=0, le=1)
    """Share of training masks that hide the whole brain."""
    near_full_share: float = Field(0.2, ge=0, le=1)
    """Share of training masks that hide all but a few blobs."""
    error_share: float = Field(0.1, ge=0, le=1)
    """Share of training masks that hide the largest errors of the network so far."""
    most_blobs: int = Field(3, ge=1)
    """Largest number of blobs in a training mask."""
    loss_over: Literal["brain", "cube"] = "brain"
    """Where the squared error is averaged."""
    visible_weight: float = Field(0.1, ge=0)
    """Weight of visible voxels in the loss; hidden ones have weight one."""
    augmentation: Augmentation = Augmentation()
    """Random changes of training scans."""
    validation_share: float = Field(0.15, ge=0, lt=1)
    """Share of the training scans kept for validation and for calibrating gamma; with 0 all scans
    train, the last weights are kept, and a calibrated gamma is optimistic."""
    score_from: Literal["first_pass", "refined"] = "first_pass"
    """Error of the first reconstruction (all hidden), or of Phase B's last one."""
    normalise: bool = True
    """Divide residuals by their spread in healthy scans at each voxel, in search and score."""
    floor: float = Field(0.5, ge=0)
    """See `atypia.scoring.spread.healthy_spread`."""
    sign: Sign = "both"
    """Which deviations count in the score map; the search takes both."""
    restorations: int = Field(1, ge=1)
    """With more than one, that many first reconstructions with noise of their own (fill "noise")
    make the score map, by `rules`; the search and its mask stay."""
    rules: RestorationRules = RestorationRules()
    """How several restorations become a score map."""
    crop_mm: float | None = Field(3.0, ge=0)
    """Networks see the brain's box with this margin; None: the whole working grid."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of reconstructions when scoring; bfloat16 pays where the processor computes in it."""
    training: TrainingSettings = TrainingSettings()
    """How the network is trained."""

    @pydantic.model_validator(mode="after")
    def _restorations_differ(self) -> Self:
        if self.restorations > 1 and self.fill != "noise":
            raise ValueError("restorations above 1 are all the same; set fill to noise")
        return self


class MaskRefinement(Detector):
    """Iterative spatial mask refinement with high-frequency guidance (IterMask3D)."""

    method = "mask_refinement"
    settings_class = MaskRefinementSettings
    settings: MaskRefinementSettings

    network_: nn.Module
    prior_: Array
    gamma_: float
    spread_: Array
    spectrum_centre_: Array
    spectrum_spread_: Array
    spectrum_correlation_: Array

    def _build(self) -> None:
        settings = self.settings
        if self.plan is not None and self._fits_tissues:
            require_template(self.plan, self.method)
        # Image, high-frequency image; with zeros a channel must tell what is hidden.
        inputs = 2 + (settings.fill == "zero") + settings.prior
        # Drawn from its own stream: the weights depend on the seed alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            if settings.network == "reference":
                network: nn.Module = IterativeMaskUNet(
                    inputs, 1, settings.channels, settings.dropout
                )
            else:
                network = ResidualUNet(inputs, 1, settings.channels)
        self.network_ = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def encoder(self) -> GuidedEncoder:
        """Give the encoder of the U-Net, for scans of which nothing is hidden."""
        grid, settings = self._working_grid(), self.settings
        known = self._fits_tissues or hasattr(self, "prior_")
        prior = self._prior(torch.device("cpu")) if known else torch.zeros((1, 1, *grid.shape))
        return GuidedEncoder(
            self.network_,  # type: ignore[arg-type]
            prior,
            lambda image, prior: self._guide(image, prior, grid.spacing_mm),
            masked=settings.fill == "zero",
            guided=settings.prior,
        )

    def _fit(self, training: TrainingSet) -> None:
        settings = self.settings
        if not self._fits_tissues:
            self.prior_ = training.mean()
        # A single scan has to serve for both; its gamma is then optimistic.
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
            residuals = (_Reconstruction(self, scan).residual() for scan in training.scans)
            brain = training.common_brain()
            self.spread_ = healthy_spread(residuals, brain, settings.floor)
        self.gamma_ = settings.gamma or self._calibrated_gamma(held_out or learning)
        spectra = [
            _spectrum(scan, _Reconstruction(self, scan).residual()) for scan in training.scans
        ]
        self._keep_spectrum(UsualSpectrum.learn(np.array(spectra)))

    def _keep_spectrum(self, usual: UsualSpectrum) -> None:
        self.spectrum_centre_, self.spectrum_spread_ = usual.centre, usual.spread
        self.spectrum_correlation_ = usual.correlation

    # -- learning ---------------------------------------------------------------------------

    def _loss(self, network: nn.Module, scans: Sequence[Prepared], rng: torch.Generator) -> Tensor:
        settings = self.settings
        spacing = scans[0].image.spacing_mm
        target, brain = _batch(scans, rng.device)
        prior = self._prior(rng.device)
        target, brain, prior, corruption = augment(settings.augmentation, target, brain, prior, rng)
        image, target = _corrupted(target, corruption, brain)
        fine, coarse = self._guide(image, prior, spacing)
        if settings.loss_over == "brain" and settings.crop_mm is not None:
            # What lies outside of the brains earns nothing and costs time.
            box = box_of(brain, settings.crop_mm, spacing, self._multiple())
            image, brain, target = image[box], brain[box], target[box]
            fine, coarse = fine[box], coarse[box]
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
        chosen = torch.rand(len(scans), generator=rng, device=rng.device) < settings.error_share
        if bool(chosen.any()):
            with torch.no_grad():
                filling = self._filling(image, rng)
                errors = self._restore(network, image, brain, fine, coarse, filling) - image
            for index in chosen.nonzero()[:, 0].tolist():
                hidden[index, 0] = error_mask(errors[index, 0].square(), brain[index, 0], rng)
        filling = self._filling(image, rng)
        restored = self._restore(network, image, hidden, fine, coarse, filling)
        weight = torch.where(hidden, 1.0, settings.visible_weight)
        if settings.loss_over == "brain":
            weight = weight * brain
        return (weight * (restored - target) ** 2).sum() / weight.sum()

    def _validation(self, network: nn.Module, scans: Sequence[Prepared]) -> float:
        """Mean squared error in the brain when all of it is hidden, and when blobs are."""
        total = 0.0
        device = next(network.parameters()).device
        for index, scan in enumerate(scans):
            image, brain = _batch([scan], device)
            spacing = scan.image.spacing_mm
            fine, coarse = self._guide(image, self._prior(device), spacing)
            rng = seeded(self.settings.seed, 11, index, device=device)
            blobs = random_mask(brain[0, 0], spacing, rng, most_blobs=3)[None, None]
            for hidden in (brain, blobs):
                filling = self._filling(image, rng)
                restored = self._restore(network, image, hidden, fine, coarse, filling)
                total += float(((restored - image) ** 2)[brain].mean())
        return total / (2 * len(scans))

    @property
    def _fits_tissues(self) -> bool:
        return self.settings.prior and self.settings.prior_from == "tissues"

    def _multiple(self) -> int:
        """By how many voxels a scan may be shifted without changing the network's answer."""
        return int(getattr(self.network_, "multiple", 1))

    def _prior(self, device: torch.device) -> Tensor:
        """Give the mean healthy brain `(1, 1, X, Y, Z)`, or the tissues `(1, T, X, Y, Z)`."""
        if self._fits_tissues:
            return tissues_on(self._working_grid()).to(device)
        return torch.from_numpy(np.asarray(self.prior_)).to(device)[None, None]

    def _guide(
        self, image: Tensor, prior: Tensor, spacing_mm: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Give the high-frequency image, and the coarse prior (zero without a prior)."""
        settings = self.settings
        if settings.cutoff == "index":
            fine = high_pass_by_index(image)
        else:
            fine = high_pass(image, spacing_mm, settings.wavelength_mm)
        if not settings.prior:
            return fine, torch.zeros_like(image)
        if self._fits_tissues:
            prior = expected_scans(image, image != 0, prior)
        coarse = prior - high_pass(prior, spacing_mm, settings.wavelength_mm)
        return fine, coarse.expand_as(image)

    def _restore(
        self,
        network: Callable[[Tensor], Tensor],
        image: Tensor,
        hidden: Tensor,
        fine: Tensor,
        coarse: Tensor,
        filling: Tensor,
    ) -> Tensor:
        """Reconstruct `(B, 1, X, Y, Z)` from what is visible and the guide."""
        channels = [torch.where(hidden, filling, image), fine]
        if self.settings.fill == "zero":
            channels.append(hidden.float())
        if self.settings.prior:
            channels.append(coarse)
        answer: Tensor = network(torch.cat(channels, dim=1)).float()
        # With a prior, start from the restoration without a network; it learns the correction.
        return coarse + fine + answer if self.settings.prior else answer

    def _filling(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Draw what stands in hidden voxels, shaped as the image."""
        if self.settings.fill == "zero":
            return torch.zeros_like(image)
        return torch.randn(image.shape, generator=rng, device=image.device)

    # -- scoring ----------------------------------------------------------------------------

    def _score(self, prepared: Prepared) -> Finding:
        reconstruction = _Reconstruction(self, prepared)
        search = reconstruction.search()
        result = search.run(self.gamma_)
        chosen = search.first if self.settings.score_from == "first_pass" else result.restored
        return self._finding(
            reconstruction,
            chosen,
            mask=reconstruction.on_grid(result.mask),
            details={
                "outcome": result.outcome,
                "rounds": result.rounds,
                "forwards": result.forwards,
                "threshold_curve": curve_details(result, self.gamma_, self._unit()),
            },
        )

    def _score_alone(self, prepared: Prepared) -> Finding:
        simple = not self.settings.subject_score.startswith("final_mask")
        if self.settings.score_from == "refined" or not simple:
            return self._score(prepared)
        reconstruction = _Reconstruction(self, prepared)
        return self._finding(reconstruction, reconstruction.restore(reconstruction.brain))

    def _restore_alone(self, prepared: Prepared) -> Array:
        reconstruction = _Reconstruction(self, prepared)
        return reconstruction.on_grid(reconstruction.restore(reconstruction.brain))

    def _fine_error(self, residual: Array, prepared: Prepared) -> float:
        """Mean square of the residual's high-frequency part: what was not restored as it was."""
        brain = prepared.brain.data
        image = torch.from_numpy(np.where(brain, residual, 0).astype(np.float32))
        fine = high_pass(image, prepared.image.spacing_mm, self.settings.wavelength_mm).numpy()
        return float(np.square(fine[brain], dtype=np.float64).mean())

    def _finding(
        self,
        reconstruction: _Reconstruction,
        restored: Tensor,
        mask: Array | None = None,
        details: dict[str, object] | None = None,
    ) -> Finding:
        prepared = reconstruction.prepared
        brain = prepared.brain.data
        residual = reconstruction.on_grid(reconstruction.image - restored)
        fine_error = self._fine_error(residual, prepared)
        usual = UsualSpectrum(
            self.spectrum_centre_, self.spectrum_spread_, self.spectrum_correlation_
        )
        deviation = usual.distance(_spectrum(prepared, residual))
        if self.settings.normalise:
            residual = residual / self.spread_
        mean_error = float(np.square(residual[brain], dtype=np.float64).mean())
        errors = {"mean_error": max(mean_error, TINY), "fine_error": max(fine_error, TINY)}
        score = signed(residual, self.settings.sign)
        if self.settings.restorations > 1:
            stack = self.restorations(reconstruction)
            score = finding_of(prepared.image.data, stack, brain, self.settings.rules).score
        return Finding(
            score=score,
            restoration=reconstruction.on_grid(restored),
            mask=mask,
            scores={**errors, "deviation": deviation},
            details=details or {},
        )

    def restorations(self, reconstruction: _Reconstruction) -> Array:
        """Reconstruct a scan with all of its brain hidden, by noise of its own each time.

        Returns
        -------
        numpy.ndarray
            `(N, X, Y, Z)` in normalised intensities.
        """
        every = range(self.settings.restorations)
        hidden = reconstruction.brain
        return np.stack([reconstruction.on_grid(reconstruction.restore(hidden)) for _ in every])

    def _unit(self) -> str:
        if self.settings.scale_free:
            return "median error"
        return "healthy spread squared" if self.settings.normalise else "intensity squared"

    def _calibrated_gamma(self, healthy: Sequence[Prepared]) -> float:
        """Choose gamma so that typical healthy scans keep at most `healthy_share` in the mask."""
        last_percent = 100 * (1 - self.settings.healthy_share)
        steepest = []
        for scan in healthy:
            curve = _Reconstruction(self, scan).search().threshold_curve()
            early = curve.percent <= last_percent
            steepest.append(float(curve.fit.slope[early].max(initial=0.0)))
        return max(float(np.median(steepest)), 1e-9)


class _Reconstruction:
    """One scan in the network's box, ready to be reconstructed under any mask."""

    def __init__(self, detector: MaskRefinement, prepared: Prepared) -> None:
        self.detector, self.prepared = detector, prepared
        settings, network = detector.settings, detector.network_
        self.device = next(network.parameters()).device
        self.dtype = getattr(torch, settings.precision)
        image, brain = _batch([prepared], self.device)
        spacing = prepared.image.spacing_mm
        fine, coarse = detector._guide(image, detector._prior(self.device), spacing)
        self.box: tuple[slice, ...] = (slice(None),) * 5
        if settings.crop_mm is not None:
            self.box = box_of(brain, settings.crop_mm, spacing, detector._multiple())
        self.image, self.brain = image[self.box], brain[self.box]
        self.network: Callable[[Tensor], Tensor] = network
        if isinstance(network, IterativeMaskUNet):
            self.network = FoldedUNet(network, self.brain[0, 0])
        self.fine, self.coarse = fine[self.box], coarse[self.box]
        # Seeded by the setting alone: a scan's result does not depend on its neighbours.
        self.rng = seeded(settings.seed, 13, device=self.device)
        self.filling: Tensor | None = None
        if settings.fill == "noise_once":
            self.filling = detector._filling(image, self.rng)[self.box]

    @torch.inference_mode()
    def restore(self, hidden: Tensor) -> Tensor:
        """Reconstruct the scan with a mask hidden, both `(1, 1, X, Y, Z)` in the box."""
        detector, filling = self.detector, self.filling
        if filling is None:
            filling = detector._filling(self.image, self.rng)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return detector._restore(
                self.network, self.image, hidden, self.fine, self.coarse, filling
            )

    def search(self) -> MaskSearch:
        """Prepare the search; it makes the first reconstruction."""
        spread = None
        if self.detector.settings.normalise:
            spread = torch.from_numpy(np.asarray(self.detector.spread_)).to(self.device)
            spread = spread[None, None][self.box]
        settings = self.detector.settings
        repeatable = settings.fill != "noise" or settings.phase_a == "coarse_to_fine"
        return MaskSearch(self.restore, self.image, self.brain, settings, spread, repeatable)

    def residual(self) -> Array:
        """Scan minus its first reconstruction, on the working grid."""
        return self.on_grid(self.image - self.restore(self.brain))

    def on_grid(self, values: Tensor) -> Array:
        """Put values of the box onto the working grid `(X, Y, Z)`, zero elsewhere."""
        grid = np.zeros(self.prepared.image.shape, dtype=values[:0].cpu().numpy().dtype)
        grid[self.box[2:]] = values[0, 0].cpu().numpy()
        return grid


def _spectrum(prepared: Prepared, residual: Array) -> Features:
    image, brain = prepared.image, prepared.brain.data
    return spectrum_of(image.data, brain, image.spacing_mm, residual)


def _corrupted(clean: Tensor, corruption: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Add a corruption, and scale to unit spread as preprocessing would have done after it.

    Returns
    -------
    tuple
        The corrupted scan and, on the same scale, the clean one.
    """
    image = clean + corruption * brain
    if not bool(corruption.any()):
        return image, clean
    count = brain.sum((1, 2, 3, 4), keepdim=True).clamp(min=1)
    spreads = [
        (((x * brain) ** 2).sum((1, 2, 3, 4), keepdim=True) / count).sqrt() for x in (clean, image)
    ]
    scale = spreads[0] / spreads[1].clamp(min=1e-6)
    return image * scale, clean * scale


def _batch(scans: Sequence[Prepared], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack images and brain masks as `(B, 1, X, Y, Z)` on a device."""
    image = np.stack([scan.image.data[None] for scan in scans])
    brain = np.stack([scan.brain.data[None] for scan in scans])
    return torch.from_numpy(image).to(device), torch.from_numpy(brain).to(device)
