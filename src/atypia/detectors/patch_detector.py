"""PatchDetector: what the methods share that judge a scan patch by patch.

Features of patches come from a network or from written-down descriptors (`atypia.features`); a
method learns what healthy vectors are and judges new ones. Where the published pipeline differs,
and why, is told in `docs/patch-features.md`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy import ndimage
from torch import nn

from atypia.detectors.base import Detector, DetectorSettings, TrainingSet
from atypia.detectors.encoder_file import encoder_origin, load_encoder
from atypia.detectors.prediction import Finding
from atypia.detectors.spark_pretraining import PretrainingSettings, learn_encoder
from atypia.detectors.training_scans import divided
from atypia.errors import ModelError, SettingsError
from atypia.features import FeatureRules, PatchFeatures
from atypia.features.patch_features import MOST_VALUES, Patches
from atypia.networks.cnn3d import SimpleCNN
from atypia.networks.resnet import ResNetEncoder
from atypia.preprocessing import Plan, Prepared
from atypia.registry import detector_class
from atypia.training import TrainingSettings
from atypia.training.slices import usual_range
from atypia.volume import Array

TINY: dict[str, Any] = {
    "spacing_mm": 6.0,
    "align": "none",
    "network_width": 4,
    "crop": 16,
    "cell": 4,
    "dimension": 8,
    "pretraining": {"steps": 3, "batch_size": 2, "validate_every": 3},
}
"""Of the tests' preset, for every method that judges patches."""


class PatchSettings(FeatureRules, DetectorSettings):
    """Settings that the methods of patches share."""

    features: Literal["descriptors", "self_supervised", "random", "file", "detector"] = (
        "descriptors"
    )
    """Where features come from: descriptors that are written down; an encoder that learns from the
    training scans to paint hidden cubes; random weights, as in the published pipeline; weights of
    your own; or the encoder of another fitted model."""
    network: Literal["resnet18", "resnet34", "resnet50", "simple"] = "resnet18"
    """The encoder, unless another model gives it."""
    network_width: int = Field(16, ge=1)
    """Channels of its first stage; the others are multiples. Published ResNets have 64, the simple
    network 32."""
    stem_stride: Literal[2, 4] = 2
    """Voxels from place to place of a ResNet's finest map; 4 in published ones."""
    weights: Path | None = None
    """With features "file": a folder that `atypia fit spark --axes 3` wrote, or a safetensors file
    with exactly the network's weights. With "detector": a model folder."""
    cell: Literal[2, 4, 8, 16, 32] = 8
    """Voxels of the side of a cube that is hidden while the encoder learns."""
    crop: int = Field(48, ge=8)
    """Voxels of the edge of the crops that it learns from."""
    hidden_share: float = Field(0.65, gt=0, lt=1)
    """Share of the cubes that are hidden."""
    pretraining: TrainingSettings = TrainingSettings(
        steps=300, batch_size=4, learning_rate=1e-3, validate_every=100, weight_decay=0.05
    )
    """How the encoder learns."""
    normalise: bool = False
    """Subtract from a patch's score what held-out healthy scans score there, and divide by how much
    that varies."""
    normalise_mm: float = Field(6.0, ge=0)
    """Standard deviation of the Gaussian that smooths both."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Share of the training scans that judge the training, and tell what healthy scans score."""


class PatchDetector(Detector):
    """Base of the methods that judge patches; they write `_learn` and `_judge`."""

    settings: PatchSettings
    free_settings: ClassVar[frozenset[str]] = frozenset(
        ("score_map", "blending", "megabytes", "normalise")
    )
    """Those that may be changed without a new fit."""

    features_: PatchFeatures
    usual_: Array
    spread_: Array

    # -- what a method writes ---------------------------------------------------------------

    @abstractmethod
    def _learn(
        self, learning: Sequence[Prepared], held_out: Sequence[Prepared], training: TrainingSet
    ) -> None:
        """Learn from healthy scans, whose patches `_patches` gives one scan at a time."""

    @abstractmethod
    def _judge(self, patches: Patches) -> Array:
        """Score each patch of a scan, `(N,)`."""

    # -- what they share --------------------------------------------------------------------

    def encoder(self) -> nn.Module | None:
        """Give the network that makes features, for another method to use."""
        return self.features_.network

    def _learnt_settings(self) -> set[str]:
        own = set(type(self.settings).model_fields) - set(DetectorSettings.model_fields)
        return super()._learnt_settings() | (own - self.free_settings)

    def _build(self) -> None:
        settings = self.settings
        if self.plan is not None and settings.patch_size > min(self._working_grid().shape):
            problem = f"is larger than the working grid, {self._working_grid().shape}"
            raise SettingsError(f"patch_size {settings.patch_size}", problem, "Choose smaller ones")
        self.features_ = PatchFeatures(settings, self._network(), settings.seed)

    def _network(self) -> nn.Module | None:
        settings = self.settings
        if settings.features == "descriptors":
            return None
        if settings.features == "detector":
            told = self.trained_on.get("encoder_of")
            return encoder_like(told) if told else self._donor().encoder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            if settings.network == "simple":
                width = settings.network_width
                return SimpleCNN((width, 2 * width, 4 * width))
            return ResNetEncoder(
                int(settings.network.removeprefix("resnet")),
                outputs=1,
                width=settings.network_width,
                axes=3,
                stem_stride=settings.stem_stride,
            )

    def _learnt_before(self) -> tuple[list[str], list[str]]:
        settings = self.settings
        if settings.features == "detector":
            donor = self._donor()
            return [donor.digest()], donor.trained_on.get("people", [])
        if settings.features == "file":
            return encoder_origin(self._given_weights())
        return [], []

    def _provenance(self) -> dict[str, Any]:
        if self.settings.features != "detector":
            return {}
        donor = self._donor()
        assert donor.plan is not None
        told = {"settings": donor.settings.to_json(), "plan": donor.plan.to_json()}
        # Its own encoder may come from a third model.
        before = {key: donor.trained_on[key] for key in ("encoder_of",) if key in donor.trained_on}
        return {"encoder_of": {"method": donor.method, **told, **before}}

    def _fit(self, training: TrainingSet) -> None:
        settings = self.settings
        learning, held_out = divided(training.scans, settings.validation_share, settings.seed)
        bounds = usual_range(learning)
        self.features_.bounds.copy_(torch.tensor(bounds))
        network = self.features_.network
        if settings.features == "self_supervised":
            self._learn_encoder(network, training)
        elif settings.features == "file":
            assert network is not None
            load_weights(self._given_weights(), network)
        self.features_.learn([(scan.image, scan.brain) for scan in learning])
        self._learn(learning, held_out, training)
        self._learn_usual([self._patches(scan) for scan in held_out])

    def _score(self, prepared: Prepared) -> Finding:
        patches = self._patches(prepared)
        scores = self._judge(patches)
        if self.settings.normalise:
            places = patches.numbers
            scores = (scores - self.usual_.ravel()[places]) / self.spread_.ravel()[places]
        return Finding(self.features_.map(scores, patches, prepared.brain.data, self.settings))

    def _patches(self, prepared: Prepared) -> Patches:
        return self.features_.of(prepared.image, prepared.brain)

    def sample(self, scans: Sequence[Prepared], most: int) -> tuple[Array, Array]:
        """Give vectors and places (mm) of patches, as many from each scan, drawn by chance.

        Parameters
        ----------
        scans
            Each gives one patch at least.
        most
            Of all patches; long vectors are limited further, to half a gigabyte.

        Returns
        -------
        tuple
            float32 `(N, length)` and `(N, 3)`.
        """
        most = min(most, MOST_VALUES // self.features_.length)
        share = max(1, most // max(len(scans), 1))
        vectors, places = [], []
        for index, scan in enumerate(scans):
            patches = self._patches(scan)
            rng = np.random.default_rng([self.settings.seed, 17, index])
            chosen = np.sort(rng.permutation(len(patches.vectors))[:share])
            vectors.append(patches.vectors[chosen])
            places.append(self.places_mm(patches)[chosen])
        return np.concatenate(vectors), np.concatenate(places)

    def places_mm(self, patches: Patches) -> Array:
        """Give the centres of patches on the working grid in mm, float32 `(N, 3)`."""
        spacing = np.asarray(self._working_grid().spacing_mm)
        return np.asarray(patches.grid.centres()[patches.numbers] * spacing, np.float32)

    def _learn_usual(self, healthy: Sequence[Patches]) -> None:
        """Learn what healthy scans score at each patch, and how much that varies."""
        counts = healthy[0].grid.counts
        total, squares, seen = (np.zeros(counts) for _ in range(3))
        for patches in healthy:
            scores = self._judge(patches)
            for gathered, values in ((total, scores), (squares, scores**2), (seen, 1)):
                gathered.ravel()[patches.numbers] += values
        steps = np.diff([starts[:2] for starts in healthy[0].grid.starts if len(starts) > 1])
        stride = float(np.mean(steps)) if steps.size else 1.0
        width = self.settings.normalise_mm / (
            stride * float(np.mean(self._working_grid().spacing_mm))
        )
        total, squares, seen = (ndimage.gaussian_filter(a, width) for a in (total, squares, seen))
        known = seen > 1e-6
        mean = np.divide(total, seen, where=known, out=np.zeros(counts))
        variance = np.divide(squares, seen, where=known, out=np.zeros(counts)) - mean**2
        deviation = np.sqrt(np.maximum(variance, 0))
        usual = float(np.median(deviation[known]))
        self.usual_ = np.where(known, mean, np.median(mean[known])).astype(np.float32)
        # Where healthy scans hardly differ a little more would count for everything.
        spread = np.where(known, deviation, usual) + 0.5 * usual + 1e-12
        self.spread_ = spread.astype(np.float32)

    # -- encoders ---------------------------------------------------------------------------

    def _learn_encoder(self, network: nn.Module | None, training: TrainingSet) -> None:
        settings = self.settings
        if not isinstance(network, ResNetEncoder):
            raise SettingsError(
                f"network {settings.network}", "cannot hide cubes", "Choose a resnet"
            )
        rules = PretrainingSettings(
            axes=3,
            stem_stride=settings.stem_stride,
            encoder_depth=network.depth,
            encoder_width=settings.network_width,
            cell=settings.cell,
            crop=settings.crop,
            hidden_share=settings.hidden_share,
            validation_share=settings.validation_share,
            seed=settings.seed,
            training=settings.pretraining,
        )
        learnt = learn_encoder(
            training.scans,
            rules,
            folder=None if training.folder is None else training.folder / "encoder",
            identity=training.identity,
            progress=training.progress,
        )
        learnt.encoder.head = network.head
        network.load_state_dict(learnt.encoder.state_dict())
        self.features_.bounds.copy_(torch.tensor(learnt.bounds))

    def _given_weights(self) -> Path:
        if self.settings.weights is None:
            problem = f'features "{self.settings.features}" need weights'
            raise SettingsError("weights", problem, "Name their file or folder with --weights")
        return self.settings.weights

    def _donor(self) -> Detector:
        # Here, because whoever reads model folders knows every method.
        from atypia.detectors.model_folder import load_detector

        donor = load_detector(self._given_weights())
        place = self._given_weights()
        if donor.encoder() is None:
            raise ModelError(place, f"{donor.method} has no encoder", "Choose another model")
        if self.plan is not None:
            theirs, ours = donor._working_grid(), self._working_grid()
            if theirs.shape != ours.shape or not np.allclose(theirs.affine, ours.affine, atol=1e-3):
                raise ModelError(
                    place,
                    f"works on another grid, {theirs.shape} at {theirs.spacing_mm} mm, not "
                    f"{ours.shape} at {ours.spacing_mm} mm",
                    "Fit with the preprocessing and spacing of that model",
                )
        return donor


def encoder_like(told: dict[str, Any]) -> nn.Module | None:
    """Build the encoder that a method has with its settings, without what it has learnt."""
    kind = detector_class(told["method"])
    detector = kind(kind.settings_class.make(told["settings"]))
    detector.plan = Plan.make(told["plan"])
    detector.trained_on = {key: told[key] for key in ("encoder_of",) if key in told}
    detector._build()
    return detector.encoder()


def load_weights(place: Path, network: nn.Module) -> None:
    """Fill a network with weights of the user's, strictly.

    Parameters
    ----------
    place
        A folder with an encoder of `atypia fit spark`, or a safetensors file.

    Raises
    ------
    ModelError
        It cannot be read, or a weight is missing, unexpected or of another shape.
    """
    if isinstance(network, ResNetEncoder):
        load_encoder(place, network)
        return
    try:
        network.load_state_dict(load_file(place))
    except (OSError, SafetensorError) as error:
        raise ModelError(place, f"is no file of weights ({error})", "Check the path") from error
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ModelError(place, f"does not fit the network ({told})", "Check --network") from error
