"""The pipeline object: extractor, embedding, autoencoder and threshold, fitted on healthy scans."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from atypia.errors import InputError, ModelError, NotFittedError, SettingsError, unknown_name
from atypia.patch_pipeline.autoencoders import Autoencoder, autoencoder_named
from atypia.patch_pipeline.embeddings import (
    LAYERS,
    MultiScaleFeatureEmbedding,
    PatchSampler,
    vectors_of,
)
from atypia.patch_pipeline.extractors import FeatureExtractor3D
from atypia.patch_pipeline.folder import fill, read_folder, save_pipeline
from atypia.patch_pipeline.inference import AGGREGATIONS, Metadata, inference_pipeline
from atypia.patch_pipeline.judging import (
    apply_threshold,
    comprehensive_evaluation,
    compute_threshold_from_normal_scores,
)
from atypia.patch_pipeline.tensors import (
    Given,
    as_truth,
    as_volume,
    device_of,
    plain,
    seeded,
    spatial,
    three,
)
from atypia.patch_pipeline.training import History, train_autoencoder
from atypia.patches.loading import resized
from atypia.scoring.ensemble import HealthyQuantiles
from atypia.scoring.thresholds import threshold_from_healthy
from atypia.volume import Volume

HELD_OUT = 0.2
"""Share of the training scans that is held out where no other scans are given."""
MOST_VALUES = 2**28
"""Of the vectors that are learnt from: a gigabyte. From more scans fewer patches each are taken."""
VOLUME_RATE = 0.05
"""Share of healthy scans that may be flagged as wholes, if there are enough to promise it."""

PATCH_KEYS = ("patch_size", "stride", "max_patches", "sampling_strategy", "aggregation")
TRAINING_KEYS = tuple(inspect.signature(train_autoencoder).parameters)[3:]


class AnomalyDetectionPipeline:
    """Patches whose features an autoencoder cannot give back are abnormal.

    The extractor's random weights give weak features: for results use the detectors `memory_bank`,
    `padim` or `patch_autoencoder` with descriptors or self-supervision.

    Parameters
    ----------
    feature_extractor_config
        `type` and `args` of `FeatureExtractor3D`; `layer_names` if others than layer1 and layer2
        are read. The type may be a network of your own, which `load` then needs again.
    embedding_config
        Options of `FeatureEmbedding`, and `fusion_method` of the layers. What it says of lengths is
        compared with what is there, and a warning tells the difference.
    autoencoder_config
        `type` (standard, variational, denoising, contractive) and `args` of it; an `input_dim` is
        compared likewise.
    patch_config
        Options of `PatchSampler`, with sizes in voxels of the scan, and `aggregation`, as of
        `create_anomaly_score_map` ("interpolated" unless given).
    training_config
        Options of `train_autoencoder`.
    device
        None for the first GPU, if there is one.
    seed
        Of weights, patches and training.

    Raises
    ------
    SettingsError
        An unknown name in a configuration.
    """

    def __init__(
        self,
        feature_extractor_config: Mapping[str, Any],
        embedding_config: Mapping[str, Any],
        autoencoder_config: Mapping[str, Any],
        patch_config: Mapping[str, Any],
        training_config: Mapping[str, Any] | None = None,
        device: str | torch.device | None = None,
        seed: int = 0,
    ) -> None:
        extractor = dict(feature_extractor_config)
        kind = extractor.get("type", "simple")
        self.own_network: nn.Module | None = kind if isinstance(kind, nn.Module) else None
        if self.own_network is not None:
            extractor["type"] = type(self.own_network).__name__
        self.config: dict[str, Any] = plain(
            {
                "feature_extractor": {"args": {}, "layer_names": LAYERS, **extractor},
                "embedding": dict(embedding_config),
                "autoencoder": {"type": "standard", "args": {}, **autoencoder_config},
                "patches": {"stride": None, "aggregation": "interpolated", **patch_config},
                "training": dict(training_config or {}),
                "seed": seed,
            }
        )
        _require_known("patch_config", self.config["patches"], PATCH_KEYS)
        _require_known("training_config", self.config["training"], TRAINING_KEYS)
        if "patch_size" not in self.config["patches"]:
            raise SettingsError("patch_config", "has no patch_size", "Give voxels")
        if self.config["patches"]["aggregation"] not in AGGREGATIONS:
            raise unknown_name("aggregation", self.config["patches"]["aggregation"], AGGREGATIONS)
        self.device = device_of(device)
        self.seed = seed
        self.healthy: HealthyQuantiles | None = None
        self.healthy_maxima = np.empty(0)
        self.threshold: float | None = None
        self.provenance = "none yet"
        self.thresholds: dict[str, float] = {}
        self.history: History = {}
        self._build()

    # -- learning ---------------------------------------------------------------------------

    def fit(
        self,
        train_volumes: Sequence[Given],
        val_volumes: Sequence[Given] | None = None,
        threshold_method: str = "percentile",
        threshold_percentile: float = 95,
        sigma_multiplier: float = 3.0,
        contamination_rate: float | None = None,
    ) -> Self:
        """Learn from healthy scans, and choose the threshold on scans that were held out.

        Parameters
        ----------
        train_volumes
            `(1, D, H, W)` or `(D, H, W)` each.
        val_volumes
            Healthy scans that stop the training and give the threshold; without them a fifth of the
            training scans is held out. Of a single scan nothing can be: a warning tells that the
            threshold is too low.
        threshold_method, threshold_percentile, sigma_multiplier, contamination_rate
            As of `compute_threshold_from_normal_scores`, over the voxels of the held-out score
            maps.

        Raises
        ------
        InputError
            No scan, or one that is smaller than a patch.
        """
        learning, held_out, told = self._divided(train_volumes, val_volumes)
        self._build()
        known = self._vectors(learning, 0)
        self.embedding.learn_spread(known.to(self.device))
        known, kept = self._scaled(known), self._vectors(held_out, 1)
        options: dict[str, Any] = {"device": self.device, "seed": self.seed, "plot_losses": False}
        options |= self.config["training"]
        self.history = train_autoencoder(self.autoencoder, known, kept, **options)
        scores = [self._score(volume)[0].numpy() for volume in held_out]
        self._calibrate(scores, told)
        self.threshold = compute_threshold_from_normal_scores(
            np.concatenate([score.ravel() for score in scores]),
            threshold_method,
            threshold_percentile,
            sigma_multiplier,
            contamination_rate,
        )
        named = threshold_method
        if threshold_method == "percentile":
            named = f"percentile {threshold_percentile:g}"
        self.provenance = f"{named} of the voxel scores of {told}"
        return self

    def _divided(
        self, train_volumes: Sequence[Given], val_volumes: Sequence[Given] | None
    ) -> tuple[list[Tensor], list[Tensor], str]:
        """Give the scans that are learnt from, those held out, and words for these."""
        known = [as_volume(volume) for volume in train_volumes]
        kept = [as_volume(volume) for volume in val_volumes or ()]
        if not known:
            raise InputError("train_volumes", "are none", "Give healthy scans")
        if kept:
            return known, kept, f"{len(kept)} held-out healthy scans"
        if len(known) == 1:
            warnings.warn("one scan: nothing is held out, the threshold is too low", stacklevel=3)
            return known, known, "the one training scan (nothing was held out: too low)"
        count = max(1, round(HELD_OUT * len(known)))
        order = np.random.default_rng([self.seed, 1]).permutation(len(known))
        kept = [known[index] for index in sorted(order[:count])]
        rest = [known[index] for index in sorted(order[count:])]
        return rest, kept, f"{count} of {len(known)} training scans, held out from training"

    def _calibrate(self, scores: Sequence[Any], told: str) -> None:
        voxels = np.concatenate([score.ravel() for score in scores])
        self.healthy = HealthyQuantiles.learn(voxels)
        self.healthy_maxima = np.array([score.max() for score in scores], np.float64)
        self.thresholds = {
            method: threshold_from_healthy(voxels, method)
            for method in ("percentile", "sigma", "mad", "iqr")
        }

    # -- judging ----------------------------------------------------------------------------

    def score_map(self, volume: Given) -> tuple[Tensor, Metadata]:
        """Give the score map of a scan, float32 `(D, H, W)`, and what `inference_pipeline` tells.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self._require_fitted()
        return self._score(as_volume(volume))

    def predict(self, volume: Given) -> Tensor:
        """Give the mask of a scan, `(D, H, W)`, 1 where its score is above the threshold."""
        return apply_threshold(self.score_map(volume)[0], self.get_threshold())

    def batch_score_maps(self, volumes: Sequence[Given]) -> list[tuple[Tensor, Metadata]]:
        """Give `score_map` of each scan."""
        return [self.score_map(volume) for volume in volumes]

    def batch_predict(self, volumes: Sequence[Given]) -> list[Tensor]:
        """Give `predict` of each scan."""
        return [self.predict(volume) for volume in volumes]

    def evaluate(
        self,
        volumes: Sequence[Given],
        masks: Sequence[Any],
        custom_threshold: float | None = None,
    ) -> dict[str, Any]:
        """Compare the score maps of scans with their true masks.

        Scans are flagged as wholes by the highest healthy score, or by a conformal threshold once
        there are enough healthy scans.

        Parameters
        ----------
        volumes, masks
            One each a scan. A mask of another shape is resized with a warning, the nearest voxel
            taken: it must show the same field of view.
        custom_threshold
            Instead of the fitted one.

        Returns
        -------
        dict
            As `comprehensive_evaluation`, with `threshold`, `threshold_provenance` and
            `volume_threshold`.

        Raises
        ------
        InputError
            Their numbers differ, or there is none.
        """
        if len(volumes) != len(masks) or not len(volumes):
            problem = f"{len(volumes)} volumes and {len(masks)} masks"
            raise InputError("evaluate", problem, "Give one mask for each volume")
        scores = [self.score_map(volume)[0].numpy() for volume in volumes]
        truths = [_fitting(mask, score.shape) for mask, score in zip(masks, scores, strict=True)]
        own = custom_threshold is None
        threshold = self.get_threshold() if custom_threshold is None else custom_threshold
        whole = self.volume_threshold()
        found = comprehensive_evaluation(truths, scores, threshold, volume_threshold=whole)
        told = self.provenance if own else "given to evaluate"
        return found | {
            "threshold": threshold,
            "threshold_provenance": told,
            "volume_threshold": whole,
        }

    def get_threshold(self, method: str | None = None) -> float:
        """Give the threshold, or the one that percentile (95), sigma, mad or iqr would set."""
        self._require_fitted()
        if method is not None and method not in self.thresholds:
            raise unknown_name("threshold method", method, self.thresholds)
        assert self.threshold is not None
        return self.threshold if method is None else self.thresholds[method]

    def set_threshold(self, threshold: float) -> None:
        """Flag voxels above another threshold."""
        self._require_fitted()
        if not math.isfinite(threshold):
            raise SettingsError("threshold", f"{threshold} is not finite", "Give a score")
        self.threshold, self.provenance = float(threshold), "set by hand"

    def volume_threshold(self) -> float:
        """Give the highest voxel score above which a scan as a whole is flagged."""
        self._require_fitted()
        # Fewer scans cannot promise less than one in all of them and the new one.
        alpha = max(VOLUME_RATE, 1 / (len(self.healthy_maxima) + 1))
        return threshold_from_healthy(self.healthy_maxima, "conformal", alpha=alpha)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, with the lengths that were found."""
        copied: dict[str, Any] = plain(self.config)
        return copied

    def get_training_history(self) -> History:
        """Give the losses and learning rates by epoch, empty before `fit`."""
        return {name: list(values) for name, values in self.history.items()}

    def __repr__(self) -> str:
        parts = f"{self.config['feature_extractor']['type']}, {self.config['autoencoder']['type']}"
        if self.threshold is None:
            return f"AnomalyDetectionPipeline({parts}, not fitted)"
        told = f"fitted, threshold {self.threshold:.4g}: {self.provenance}"
        return f"AnomalyDetectionPipeline({parts}, {told})"

    # -- keeping ----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write a fitted pipeline into a folder, `config.json` last."""
        self._require_fitted()
        save_pipeline(self, Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        network: nn.Module | None = None,
    ) -> Self:
        """Read what `save` wrote; scores are the same bit for bit on the same machine.

        Parameters
        ----------
        folder, device
            Where it is, and where it shall run.
        network
            Of the kind that was given as the extractor's type, if it was one of your own.

        Raises
        ------
        ModelError
            Missing, damaged, of another version, or without the network it needs.
        """
        folder = Path(folder)
        found = read_folder(folder)
        config = found.told["config"]
        extractor = dict(config["feature_extractor"])
        if found.told["own_network"]:
            if network is None:
                raise ModelError(folder, "needs its network", "Give it as network=...")
            extractor["type"] = network
        parts = (config["embedding"], config["autoencoder"], config["patches"])
        pipeline = cls(extractor, *parts, config["training"], device, config["seed"])
        fill(pipeline, found, folder)
        return pipeline

    # -- parts ------------------------------------------------------------------------------

    def _build(self) -> None:
        """Make the parts anew, and write into the configuration the lengths that they have."""
        config = self.config
        layers, patches = config["feature_extractor"]["layer_names"], config["patches"]
        embedding = {"patch_size": patches["patch_size"], **config["embedding"]}
        fusion = embedding.pop("fusion_method", "concat")
        with seeded(self.seed):
            made = copy.deepcopy(self.own_network) or config["feature_extractor"]["type"]
            arguments = {} if self.own_network else config["feature_extractor"]["args"]
            self.extractor = FeatureExtractor3D(made, **arguments)
        self.extractor.keep(layers)
        several = len(layers)
        self.embedding = MultiScaleFeatureEmbedding(
            self.extractor,
            [three(patches["patch_size"])] * several,
            [embedding] * several,
            layers,
            fusion,
            self.seed + 1,
        )
        arguments = dict(config["autoencoder"]["args"])
        length = self.embedding.embed_dim
        if arguments.pop("input_dim", length) != length:
            warnings.warn(
                f"autoencoder: vectors have {length} values, not its input_dim", stacklevel=3
            )
        with seeded(self.seed + 2):
            self.autoencoder: Autoencoder = autoencoder_named(
                config["autoencoder"]["type"], length, **arguments
            )
        config["autoencoder"]["args"]["input_dim"] = length
        # What was declared wrongly has been told once.
        config["embedding"] = {
            name: value
            for name, value in config["embedding"].items()
            if name not in ("input_channels", "patch_size")
        }
        self.embedding.to(self.device)

    def parts(self) -> nn.ModuleDict:
        """Give everything that has weights."""
        return nn.ModuleDict({"embedding": self.embedding, "autoencoder": self.autoencoder})

    def _sampler(self, stream: int) -> PatchSampler:
        patches = {k: v for k, v in self.config["patches"].items() if k != "aggregation"}
        size, stride = three(patches.pop("patch_size")), patches.pop("stride")
        step = stride if stride is None else three(stride)
        return PatchSampler(size, step, **patches, seed=self.seed + stream)

    def _vectors(self, volumes: Sequence[Tensor], stream: int) -> Tensor:
        """Give the vectors of the patches that are learnt from, `(N, E)`."""
        sampler, found = self._sampler(stream), []
        share = max(1, MOST_VALUES // (self.embedding.embed_dim * len(volumes)))
        sampler.max_patches = min(sampler.max_patches or share, share)
        for volume in volumes:
            grid = sampler.grid(spatial(volume.shape))
            read = (self.extractor, self.embedding, grid, self.embedding.layer_names)
            found.append(vectors_of(volume, *read, sampler.chosen(grid)))
        return torch.cat(found)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return (vectors - self.embedding.mean.cpu()) / self.embedding.spread.cpu()

    def _score(self, volume: Tensor) -> tuple[Tensor, Metadata]:
        return inference_pipeline(
            volume,
            self.extractor,
            self.embedding,
            self.autoencoder,
            self._sampler(0),
            self.embedding.layer_names,
            self.device,
            self.config["patches"]["aggregation"],
        )

    def _require_fitted(self) -> None:
        if self.threshold is None:
            raise NotFittedError("pipeline", "has not learnt anything yet", "Call fit first")


def _fitting(mask: Any, shape: tuple[int, ...]) -> Any:
    """Give a true mask on the grid of its scan."""
    truth = as_truth(mask)
    truth = truth[0] if truth.ndim == 4 else truth
    if truth.shape == shape:
        return truth
    warnings.warn(f"evaluate: a mask of {truth.shape} is resized to {shape}", stacklevel=3)
    return resized(Volume(truth, kind="mask"), spatial(shape)).data


def _require_known(name: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise unknown_name(name, key, known)
