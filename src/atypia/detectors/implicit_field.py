"""Implicit field: a decoder says which intensity each position of a healthy brain should have.

Source: IFL (Naval Marimont and Tarroni 2021, arXiv 2106.05214). Healthy scans become maps of
intensity classes. A decoder learns, with a code for each training subject, how likely each class is
at each position (`atypia.networks.implicit_decoder`). For a new scan only a code is fitted
(`atypia.detectors.code_fit`), which can explain healthy brains only. As published, the score of a
voxel is the negative logarithm of the probability of the class that is there.

What differs from the reference by default (each can be set back): one convention of coordinates,
in millimetres, for training, fit and decoding; voxels are drawn in and round the brain, not from a
cube that is mostly background; background is a class of its own; a prior on the code at test time,
and a fit that leaves out what it explains worst; the score is how far the intensity lies from the
expected one, because classes have an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pydantic
import torch
from pydantic import Field
from torch import Tensor, nn

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.code_fit import (
    CodeFitRules,
    CodePrior,
    FittedCodes,
    Observation,
    cross_entropy,
    fit_codes,
    soft_targets,
)
from atypia.detectors.prediction import Finding
from atypia.networks.implicit_decoder import FixedDecoder, ImplicitDecoder
from atypia.preprocessing import Prepared
from atypia.preprocessing.classes import Quantise
from atypia.preprocessing.step import State
from atypia.scoring.smooth import guided_in_brain, least_then_mean, mean_in_brain
from atypia.training import TrainingSettings, train
from atypia.volume import Array, Geometry, Volume

REFERENCE: dict[str, Any] = {
    "preprocessing": "ifl",
    "width": 512,
    "depth": 8,
    "skip": 4,
    "code_length": 256,
    "octaves": 10,
    "dropout": 0.2,
    "beyond": False,
    "background": "lowest",
    "coordinates": "published",
    "sampled": "cube",
    "points": 16_384,
    "code_weight": 1e-4,
    "code_ramp_epochs": 100,
    "fit_steps": (501, 101),
    "fit_points": (10_000, 50_000),
    "fit_rate": 1e-3,
    "fit_schedule": "constant",
    "fit_start": "random",
    "prior_weight": 0.0,
    "bound_at_test": False,
    "trim_share": 0.0,
    "plateau": 0.0,
    "score_from": "likelihood",
    "smoothing": "fading",
    "least_size": 3,
    "mean_mm": 15 * 1.3125,
    "median_size": 1,
    "training": {
        "epochs": 2001,
        "batch_size": 6,
        "learning_rate": 5e-4,
        "schedule": "halve",
        "warmup_steps": 0,
        "clip_norm": 0.0,
        "snapshot_epochs": 1000,
    },
}
"""What the reference does, bugs apart."""


class ImplicitFieldSettings(CodeFitRules, DetectorSettings):
    """Settings of `ImplicitField`."""

    presets = {
        "tiny": {
            "spacing_mm": 6.0,
            "align": "none",
            "classes": 6,
            "width": 96,
            "depth": 4,
            "skip": 2,
            "code_length": 16,
            "octaves": 5,
            "dropout": 0.0,
            "points": 1024,
            "fit_steps": (60,),
            "fit_points": (1024,),
            "training": {"steps": 150, "batch_size": 3, "learning_rate": 3e-3},
        },
        "small": {},
        "reference": REFERENCE,
    }

    classes: int = Field(10, ge=2, le=100)
    """Intensity classes of the brain; k-means of the training scans finds them, unless the
    preprocessing has made classes already (as `ifl` does)."""
    beyond: bool = True
    """Two classes more, for what is darker and brighter than the training scans: their centres lie
    a mean gap beyond the others. Not where the preprocessing has made classes."""
    background: Literal["own", "lowest"] = "own"
    """What lies outside the brain is a class of its own, or (published) the darkest one."""
    coordinates: Literal["millimetres", "published"] = "millimetres"
    """Positions by millimetres from the middle of the working grid; or by index, in which the
    reference decodes with another step than it learns with."""
    width: int = Field(256, ge=8)
    """Features of a hidden layer."""
    depth: int = Field(6, ge=2)
    """Hidden layers; the reference's networks of 512 have 8."""
    skip: int = Field(3, ge=1)
    """The hidden layer (from 0) that sees position and code again."""
    code_length: int = Field(64, ge=1)
    """Length of a subject's code."""
    octaves: int = Field(7, ge=1)
    """Frequencies of the positional encoding: pi to 2^(octaves - 1) pi over half the grid."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of hidden features that training drops."""
    weight_normalisation: bool = True
    """Of the hidden layers."""
    code_spread: float = Field(1.0, gt=0)
    """Norm that random codes have at the start, about."""
    code_bound: float = Field(1.0, gt=0)
    """Largest norm of a code."""
    code_weight: float = Field(1e-4, ge=0)
    """Weight of a code's norm beside the cross-entropy."""
    code_ramp_epochs: int = Field(10, ge=0)
    """Passes over the scans in which this weight rises from zero."""
    code_rate: float = Field(2.0, gt=0)
    """Learning rate of codes, in multiples of the network's."""
    class_width: float = Field(0.0, ge=0)
    """0: only the class itself is right. More: near classes are nearly right, by a Gaussian of so
    many classes."""
    sampled: Literal["brain", "cube"] = "brain"
    """Where voxels are drawn in training and fit: in and round the brain, or anywhere."""
    margin_mm: float = Field(6.0, ge=0)
    """How far round the brain voxels are drawn."""
    points: int = Field(4096, ge=1)
    """Voxels of each scan in a training step."""
    score_from: Literal["distance", "likelihood", "surprise"] = "distance"
    """Distance of the intensity from the expected one in standard deviations of the answer, which
    knows that classes have an order; the negative log likelihood of the observed class, as
    published; or that minus its expected value, the entropy of the answer."""
    least_variance: float = Field(0.8, gt=0)
    """Added to the answer's variance in that distance, in mean gaps between classes, squared."""
    smoothing: Literal["fading", "brain", "edges", "none"] = "fading"
    """Of the score map: a minimum, which takes thin edges away, and a mean that fades where the
    brain ends, as published; a mean over the brain; one that keeps the scan's edges."""
    least_size: int = Field(3, ge=1)
    """Edge of the minimum's cube in voxels, odd; fading only."""
    mean_mm: float = Field(15.0, gt=0)
    """Edge of the mean's cube, rounded to an odd number of voxels."""
    training: TrainingSettings = TrainingSettings(
        steps=1000, batch_size=4, learning_rate=2e-3, validate_every=1_000_000
    )
    """How decoder and codes are trained."""

    @pydantic.model_validator(mode="after")
    def _shape(self) -> Self:
        inputs = self.code_length + 6 * self.octaves
        if not self.skip < self.depth:
            raise ValueError(f"skip {self.skip} must be below depth {self.depth}")
        if self.width <= inputs:
            raise ValueError(f"width must be above code_length + 6 octaves, which is {inputs}")
        return self


class ImplicitField(Detector):
    """Implicit field learning: an auto-decoder over coordinates (IFL)."""

    method = "implicit_field"
    settings_class = ImplicitFieldSettings
    settings: ImplicitFieldSettings

    network_: ImplicitDecoder
    codes_: Array
    centres_: Array

    def _build(self) -> None:
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network_ = ImplicitDecoder(
                self._class_count(),
                settings.code_length,
                settings.width,
                settings.depth,
                settings.skip,
                settings.octaves,
                settings.dropout,
                settings.weight_normalisation,
            )

    def _fit(self, training: TrainingSet) -> None:
        settings = self.settings
        planned = self._planned_classes()
        if planned is not None:
            self.centres_ = np.array(planned.centres)
        else:
            learner = Quantise(centres=(), count=settings.classes)
            gathered = [learner.gather(State(s.image, s.brain)) for s in training.scans]
            self.centres_ = np.array(learner.learnt(gathered).centres)
            if settings.beyond:
                gap = np.diff(self.centres_).mean()
                lowest, highest = self.centres_[0] - gap, self.centres_[-1] + gap
                self.centres_ = np.array([lowest, *self.centres_, highest])
        maps = [self._classes(scan) for scan in training.scans]
        region = self._region(np.any([scan.brain.data for scan in training.scans], axis=0))
        points = self.positions(training.grid).reshape(-1, 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed + 1)
            together = _AutoDecoder(self.network_, len(maps), settings)
        epoch = max(1, len(maps) // settings.training.batch_size)
        ramp = settings.code_ramp_epochs * epoch
        training.note(self)
        train(
            together,
            lambda network, batch, rng: self._loss(network, batch, maps, region, points, ramp, rng),
            len(maps),
            settings.training,
            seed=settings.seed,
            rates={"codes": settings.code_rate},
            folder=training.folder,
            identity=training.identity,
            progress=training.progress,
        )
        self.codes_ = together.bounded().numpy()

    # -- learning ---------------------------------------------------------------------------

    def _loss(
        self,
        network: nn.Module,
        batch: Sequence[int],
        maps: Sequence[Array],
        region: Array,
        points: Array,
        ramp: int,
        rng: torch.Generator,
    ) -> Tensor:
        """Mean cross-entropy of drawn voxels, and the norm of the codes."""
        settings, device = self.settings, rng.device
        draws = torch.randint(
            len(region), (len(batch), settings.points), generator=rng, device=device
        )
        places = region[draws.cpu().numpy()]
        drawn = np.stack([maps[i].ravel()[p] for i, p in zip(batch, places, strict=True)])
        classes = torch.from_numpy(drawn.astype(np.int64)).to(device)
        logits, norms, steps = network(
            torch.from_numpy(points[places]).to(device), torch.tensor(batch, device=device)
        )
        rise = min(1.0, float(steps) / ramp) if ramp else 1.0
        errors = cross_entropy(logits, classes, self._targets().to(device))
        loss: Tensor = errors.mean() + settings.code_weight * rise * norms.mean()
        return loss

    def _targets(self) -> Tensor:
        own = self.settings.background == "own"
        return soft_targets(self._class_count(), self.settings.class_width, own)

    # -- what a voxel is --------------------------------------------------------------------

    def _planned_classes(self) -> Quantise | None:
        """Give the step of the plan that has made classes; None if it has none."""
        last = self.plan.steps[-1] if self.plan is not None else None
        return last if isinstance(last, Quantise) else None

    def _class_count(self) -> int:
        planned = self._planned_classes()
        own = self.settings.background == "own"
        if planned is not None:
            return len(planned.centres) + own
        return self.settings.classes + 2 * self.settings.beyond + own

    def _classes(self, prepared: Prepared) -> Array:
        """Give the class of every voxel, uint8 `(X, Y, Z)`."""
        brain = prepared.brain.data
        state = State(prepared.image, prepared.brain)
        if self._planned_classes() is None:
            quantise = Quantise(centres=tuple(float(c) for c in self.centres_))
            state = quantise.apply(state, {})
        classes = np.rint(state.image.data).astype(np.uint8)
        if self.settings.background == "own":
            return np.where(brain, classes + 1, 0).astype(np.uint8)
        return np.where(brain, classes, 0).astype(np.uint8)

    def positions(self, grid: Geometry, decoding: bool = False) -> Array:
        """Give where the voxels of a grid lie for the decoder.

        Parameters
        ----------
        grid
            Any grid in the space of the working grid; with the published coordinates its field of
            view is taken to be that of the working grid.
        decoding
            The published coordinates decode a field stretched by `N / (N - 1)`.

        Returns
        -------
        numpy.ndarray
            float32 `(X, Y, Z, 3)`, -1..1 over the longest axis of the working grid (millimetres)
            or over each axis (published).
        """
        if self.settings.coordinates == "published":
            axes = [
                np.linspace(-1, 1, n) if decoding else 2 * np.arange(n) / n - 1 for n in grid.shape
            ]
            return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
        working = self._working_grid()
        middle = working.world((np.array(working.shape) - 1) / 2)
        half = (np.array(working.shape) * working.spacing_mm).max() / 2
        index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
        world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        return np.asarray((world - middle) / half, np.float32)

    def _region(self, brain: Array) -> Array:
        """Give the flat places of the voxels that may be drawn."""
        if self.settings.sampled == "cube":
            return np.arange(brain.size)
        from scipy import ndimage

        spacing = self._working_grid().spacing_mm
        outside = ndimage.distance_transform_edt(~brain, sampling=spacing)
        return np.flatnonzero(outside <= self.settings.margin_mm)

    # -- scoring ----------------------------------------------------------------------------

    def prior(self) -> CodePrior:
        """Give mean, standard deviation and bound of the training codes."""
        codes = torch.from_numpy(np.asarray(self.codes_))
        spread = codes.std(dim=0, correction=0).clamp(min=1e-3)
        return CodePrior(codes.mean(dim=0), spread, self.settings.code_bound)

    def fit_codes(self, scans: Sequence[Prepared]) -> FittedCodes:
        """Fit a code to each of several prepared scans, in one batch."""
        seen = []
        for scan in scans:
            region = self._region(scan.brain.data)
            points = self.positions(scan.image.geometry).reshape(-1, 3)[region]
            classes = self._classes(scan).ravel()[region].astype(np.int64)
            seen.append(Observation(torch.from_numpy(points), torch.from_numpy(classes)))
        settings = self.settings
        fixed = FixedDecoder(self.network_)
        return fit_codes(fixed, seen, settings, self.prior(), self._targets(), settings.seed)

    def field(self, code: Array, grid: Geometry, where: Array | None = None) -> Array:
        """Give what a code says about the voxels of a grid.

        Parameters
        ----------
        code
            `(code_length,)`.
        grid
            Any grid in the space of the working grid.
        where
            `(X, Y, Z)` boolean, the voxels to decode; all if None.

        Returns
        -------
        numpy.ndarray
            float32 `(voxels, classes)`, logarithms of the probabilities, voxels in C order.
        """
        places = np.arange(int(np.prod(grid.shape))) if where is None else np.flatnonzero(where)
        points = torch.from_numpy(self.positions(grid, decoding=True).reshape(-1, 3)[places])
        fixed = FixedDecoder(self.network_)
        answers = fixed.decode(points, torch.from_numpy(np.asarray(code, np.float32)))
        parts = [logits.log_softmax(dim=-1) for logits in answers]
        found: Array = torch.cat(parts).numpy()
        return found

    def brain_of(self, code: Array, grid: Geometry | None = None) -> Volume:
        """Give the brain that a code stands for: the expected intensity, 0 where background is.

        Parameters
        ----------
        code
            `(code_length,)`: one of `codes_`, something between two of them, or a draw.
        grid
            Any grid in the space of the working grid; None for the working grid.
        """
        grid = self._working_grid() if grid is None else grid
        chances = np.exp(self.field(code, grid))
        image = np.where(chances.argmax(axis=1) == 0, 0, self._intensity(chances)[0])
        return Volume(image.reshape(grid.shape).astype(np.float32), grid.affine)

    def _intensity(self, chances: Array) -> tuple[Array, Array]:
        """Give mean and variance `(voxels,)` of the intensity, by the chances of brain classes."""
        own = self.settings.background == "own"
        brain = chances[:, 1:] if own else chances
        brain = brain / np.maximum(brain.sum(axis=1, keepdims=True), 1e-12)
        # A plan that makes classes takes classes back.
        planned = self._planned_classes() is not None
        values = np.zeros(brain.shape[1])
        known = np.arange(len(values)) if planned else self.centres_
        # k-means finds fewer centres than asked for in scans of few intensities.
        values[: len(known)] = known
        mean = brain @ values
        return np.asarray(mean), np.maximum(brain @ values**2 - mean**2, 0)

    def _score(self, prepared: Prepared) -> Finding:
        fitted = self.fit_codes([prepared])
        code = fitted.codes[0].numpy()
        brain, grid = prepared.brain.data, prepared.image.geometry
        logarithms = self.field(code, grid, brain)
        observed = self._classes(prepared)[brain].astype(np.int64)
        surprise = -logarithms[np.arange(len(observed)), observed]
        chances = np.exp(logarithms)
        expected, variance = self._intensity(chances)
        scores = {"mean_error": float(surprise.mean(dtype=np.float64))}
        if self.settings.score_from == "distance":
            away = np.abs(prepared.image.data[brain] - expected)
            values = away / np.sqrt(variance + self.settings.least_variance * self._gap() ** 2)
        elif self.settings.score_from == "surprise":
            values = surprise + (chances * logarithms).sum(axis=1)
        else:
            values = surprise
        score = np.zeros(brain.shape, dtype=np.float32)
        restoration = np.zeros(brain.shape, dtype=np.float32)
        score[brain], restoration[brain] = values, expected
        prior = self.prior()
        scores["code_distance"] = float(
            ((fitted.codes[0] - prior.mean) / prior.spread).square().mean().sqrt()
        )
        return Finding(
            self._smoothed(score, prepared),
            restoration,
            scores=scores,
            details={"fit_steps": len(fitted.losses), "fit_loss": fitted.losses},
        )

    def _restore_alone(self, prepared: Prepared) -> Array | None:
        return self._score(prepared).restoration

    def _take_codes(self, weights: Mapping[str, Tensor]) -> None:
        # Without a prior of its own time a decoder would be asked for codes it has never met.
        self.codes_ = _within(weights["codes.weight"], self.settings.code_bound).numpy()

    def _gap(self) -> float:
        """Give the mean gap between classes, in the unit of the prepared image."""
        return 1.0 if self._planned_classes() is not None else float(np.diff(self.centres_).mean())

    def _smoothed(self, score: Array, prepared: Prepared) -> Array:
        settings, brain = self.settings, prepared.brain.data
        spacing = min(prepared.image.spacing_mm)
        size = max(2 * round((settings.mean_mm / spacing - 1) / 2) + 1, 1)
        if settings.smoothing == "fading":
            return least_then_mean(score, settings.least_size, size)
        if settings.smoothing == "edges":
            return guided_in_brain(score, prepared.image.data, brain, size)
        if settings.smoothing == "brain":
            return mean_in_brain(score, brain, size)
        return score


class _AutoDecoder(nn.Module):
    """A decoder and the codes of the training subjects, which are learnt together."""

    def __init__(
        self, decoder: ImplicitDecoder, subjects: int, settings: ImplicitFieldSettings
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.codes = nn.Embedding(subjects, settings.code_length)
        nn.init.normal_(self.codes.weight, std=settings.code_spread / settings.code_length**0.5)
        self.bound = settings.code_bound
        # Saved with the weights, so that a run that was interrupted goes on with the same loss.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.steps: Tensor

    def forward(self, points: Tensor, subjects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give logits `(B, P, classes)`, norms of codes `(B,)`, and how many steps were done."""
        steps = self.steps.clone()
        if self.training:
            self.steps += 1
        with torch.no_grad():
            # As published: a code that has left the ball goes back before it is used.
            self.codes.weight[subjects] = _within(self.codes.weight[subjects], self.bound)
        codes = self.codes(subjects)
        return self.decoder(points, codes), codes.norm(dim=1), steps

    def bounded(self) -> Tensor:
        """Give the codes `(subjects, code_length)`, within their bound."""
        return _within(self.codes.weight.detach().cpu(), self.bound)


def _within(codes: Tensor, bound: float) -> Tensor:
    norms = codes.norm(dim=-1, keepdim=True)
    inside: Tensor = codes * (bound / norms.clamp(min=1e-12)).clamp(max=1)
    return inside
