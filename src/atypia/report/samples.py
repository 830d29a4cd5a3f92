"""Samples: how one scan is restored by each of a training's snapshots, beside the scan itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from atypia.cohort import open_cohort
from atypia.cohort.scan import Scan
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_detector
from atypia.errors import InputError, ModelError
from atypia.preprocessing import Prepared, prepare
from atypia.progress import Progress, silent, track
from atypia.report import pictures
from atypia.report.slices import Focus, ScanVolumes, box_of_interest
from atypia.volume import Array

MOST = 7
"""Snapshots that are shown, evenly spread, the first and the last among them."""


@dataclass(frozen=True)
class Sample:
    """One picture: three views of the scan or of a restoration.

    Parameters
    ----------
    title
        Which weights restored it.
    uri
        The picture.
    error
        Mean absolute difference from the scan in the brain, in normalised intensities; None for
        the scan itself.
    """

    title: str
    uri: str
    error: float | None = None


@dataclass(frozen=True)
class Samples:
    """The restorations of one scan over a training, and whether its person was learnt from.

    A person is known by name: of one image outside of its cohort that is the name of the file.
    """

    scan: str
    learnt_from: bool
    pictures: tuple[Sample, ...]
    size: tuple[int, int]


def samples_of(
    model: str | Path, scan: Scan | str | Path, *, progress: Progress = silent
) -> Samples:
    """Restore one scan by every snapshot of a finished model, and by the model itself.

    Parameters
    ----------
    model
        A finished model folder. Without snapshots (`--training.snapshot-epochs`) only the weights
        that were kept are shown.
    scan
        An image, or a folder or manifest, of which the first scan is taken. One that was not learnt
        from tells more.

    Raises
    ------
    ModelError
        `model` is unfinished or damaged, or a snapshot is.
    InputError
        The scan cannot be used, or the method makes no restorations.
    """
    model = Path(model)
    detector = load_detector(model)
    assert detector.plan is not None
    if not isinstance(scan, Scan):
        # A cohort knows the masks and the person of its scans; of one image only its name is known.
        scan = open_cohort(Path(scan), modality=detector.trained_on["modality"])[0]
    network = getattr(detector, "network_", None)
    places = _spread(sorted((model / "snapshots").glob("epoch-*.safetensors")))
    prepared = prepare(scan, detector.plan, scan.modality(detector.trained_on["modality"]))
    kept = _restored(detector, prepared)
    if not isinstance(network, nn.Module) or kept is None:
        raise InputError(model, f"{detector.method} makes no restorations", "Leave out the scan")
    found: dict[str, Array] = {}
    for place in track(places, "restore", progress):
        title, weights = _snapshot(place)
        network.load_state_dict(_fitting(weights, network, place))
        restored = _restored(detector, prepared)
        assert restored is not None
        found[title] = restored
    learnt_from = scan.person in detector.trained_on["people"]
    return _drawn(scan.id, learnt_from, prepared, {**found, "kept": kept})


def _restored(detector: Detector, prepared: Prepared) -> Array | None:
    # Preparing once serves all snapshots, which `Detector.predict` would do again each time.
    return detector._score_alone(prepared).restoration


def _spread(places: Sequence[Path]) -> list[Path]:
    if len(places) <= MOST:
        return list(places)
    return [places[round(i)] for i in np.linspace(0, len(places) - 1, MOST)]


def _snapshot(place: Path) -> tuple[str, dict[str, Tensor]]:
    """Give a snapshot's title and the weights in it."""
    try:
        with safe_open(place, framework="pt") as file:
            step = int(json.loads(file.metadata()["training"])["step"])
            names = [key for key in file.keys() if key.startswith("network.")]  # noqa: SIM118
            weights = {key.removeprefix("network."): file.get_tensor(key) for key in names}
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise ModelError(place, f"is no whole snapshot ({error})", "Remove it") from error
    return f"step {step:,}", weights


def _fitting(weights: dict[str, Tensor], network: nn.Module, place: Path) -> dict[str, Tensor]:
    """Choose a network's weights; what was trained may hold more than the network that restores."""
    wanted = list(network.state_dict())
    starts = [key.removesuffix(wanted[0]) for key in weights if key.endswith(wanted[0])]
    for start in starts:
        if all(start + key in weights for key in wanted):
            return {key: weights[start + key] for key in wanted}
    raise ModelError(place, "is of another network", "Remove it")


def _drawn(
    name: str, learnt_from: bool, prepared: Prepared, restorations: dict[str, Array]
) -> Samples:
    image, brain = prepared.image, prepared.brain
    inside = np.argwhere(brain.data)
    x, y, z = (int(i) for i in (inside.mean(axis=0).round() if len(inside) else (0, 0, 0)))
    centre = image.geometry.world((x, y, z))
    focus = Focus(
        (x, y, z), (float(centre[0]), float(centre[1]), float(centre[2])), "the middle of the brain"
    )
    titles, painters, errors = [], [], []
    for title, data in {"scan": image.data, **restorations}.items():
        # Also the scan is drawn as a restoration, which is shown in the brain only.
        volumes = ScanVolumes(image, image, brain, restoration=image.with_data(data))
        scale = pictures.ScoreScale(0.0, 1.0, None)
        painters.append(pictures.painters_of(volumes, focus, scale)["restoration"][1])
        difference = np.abs(image.data - data, dtype=np.float64)[brain.data]
        titles.append(title)
        errors.append(float(difference.mean()) if difference.size else 0.0)
    pixels = pictures._painted(painters, pictures._layout(volumes, box_of_interest(volumes)))
    wide = pictures.WIDTH
    shown = tuple(
        Sample(title, pictures._uri(pixels[:, i * wide : (i + 1) * wide]), error if i else None)
        for i, (title, error) in enumerate(zip(titles, errors, strict=True))
    )
    return Samples(name, learnt_from, shown, (wide, pixels.shape[0]))
