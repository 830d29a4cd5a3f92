"""Samples: how one scan is restored by each of a training's snapshots, beside the scan itself.

The model may still learn: its snapshots lie in its training folder then.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from atypia import files
from atypia.cohort import open_cohort
from atypia.cohort.scan import Scan
from atypia.detectors.base import Detector
from atypia.detectors.model_folder import load_detector
from atypia.detectors.unfinished import FIT, KNOWN, load_unfinished
from atypia.errors import AtypiaError, InputError, ModelError
from atypia.preprocessing import Prepared, prepare
from atypia.progress import Progress, silent, track
from atypia.report import pictures, snapshots
from atypia.report.slices import Focus, ScanVolumes, box_of_interest
from atypia.runs.fitting import UNFINISHED
from atypia.training import TrainingSettings
from atypia.training.log import DESCRIPTION
from atypia.training.loop import _steps_of_an_epoch
from atypia.volume import Array


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

    Parameters
    ----------
    size
        Width and height of each picture.
    notice
        Why there are none, or not all; empty if nothing is wrong.
    awaited
        Whether more are being restored.
    """

    scan: str
    learnt_from: bool
    pictures: tuple[Sample, ...]
    size: tuple[int, int]
    notice: str = ""
    awaited: bool = False


def samples_of(
    model: str | Path, scan: Scan | str | Path, *, progress: Progress = silent
) -> Samples:
    """Restore one scan by every snapshot of a model, and by the model itself if it is finished.

    Parameters
    ----------
    model
        A model folder; its fit may still run. Without snapshots (`--training.snapshot-epochs`) only
        the weights that a finished model has kept are shown.
    scan
        An image, or a folder or manifest, of which the first scan is taken. One that was not learnt
        from tells more.

    Raises
    ------
    ModelError
        `model` or a snapshot is damaged, or an unfinished model has no snapshot yet.
    InputError
        The scan cannot be used, or the method makes no restorations.
    """
    following = FollowedSamples(model, scan)
    following.restore(progress)
    return following.so_far()


@dataclass(frozen=True)
class _Key:
    """Which weights restore: those of one moment of one fit; written at 0 is the scan itself."""

    fit: str
    title: str
    written: int


@dataclass(frozen=True)
class _Shown:
    """What is to be shown of a model as it was at one moment; each picture by its key."""

    scan: str
    learnt_from: bool
    fit: str
    prepared: Prepared
    keys: tuple[_Key, ...] = ()


class FollowedSamples:
    """The samples of a model that may still learn: each snapshot restores the scan only once.

    Parameters
    ----------
    model, scan
        As in `samples_of`.
    """

    def __init__(self, model: str | Path, scan: Scan | str | Path) -> None:
        self.model, self.scan = Path(model), scan
        self._shown: _Shown | None = None
        # An array until it is drawn.
        self._found: dict[_Key, Array | Sample] = {}
        self._notice = ""
        self._looked_at: object = None
        self._thread: threading.Thread | None = None

    @property
    def finished(self) -> bool:
        """Whether the model has learnt all that it will."""
        return not (self.model / UNFINISHED).is_dir()

    def restore(self, progress: Progress = silent) -> None:
        """Restore the scan by all snapshots that are new.

        Raises
        ------
        ModelError, InputError
            As in `samples_of`.
        """
        if not isinstance(self.scan, Scan) and not Path(self.scan).exists():
            raise InputError(self.scan, "no such file", "Check the path")
        finished = self.finished
        folder = self.model if finished else self.model / UNFINISHED
        detector = load_detector(folder) if finished else load_unfinished(folder)
        network = getattr(detector, "network_", None)
        if not isinstance(network, nn.Module):
            raise _no_restorations(self.model, detector)
        if not finished and not _restores_early(detector):
            problem = f"{detector.method} makes no restorations before it is finished"
            raise ModelError(self.model, problem, "Wait for that")
        fit = detector.trained_on["identity"]
        shown = self._shown = self._prepared(detector)
        places = _places(folder / "snapshots", fit)
        keys = [*places]
        if finished:
            keys.append(_Key(fit, "kept", (self.model / "detector.json").stat().st_mtime_ns))
        self._shown = replace(shown, keys=(*shown.keys[:1], *keys))
        if not keys:
            raise ModelError(self.model, *_why_none(folder))
        if finished and keys[-1] not in self._found:
            self._found[keys[-1]] = self._restored(detector, shown.prepared)
        new = {key: place for key, place in places.items() if key not in self._found}
        for key, place in track(list(new.items()), "restore", progress):
            weights = snapshots.read_weights(place)
            network.load_state_dict(snapshots.fitting(weights, network, place))
            detector._take_codes(weights)
            self._found[key] = self._restored(detector, shown.prepared)

    def so_far(self) -> Samples:
        """Draw what is restored already, beside the scan.

        Drawing is not safe in several threads at a time.
        """
        shown = self._shown
        if shown is None:
            name = self.scan.id if isinstance(self.scan, Scan) else Path(self.scan).name
            return Samples(name, False, (), (1, 1))
        drawn = []
        for key in shown.keys:
            found = self._found.get(key)
            if isinstance(found, np.ndarray):
                found = self._found[key] = _drawn(key, shown.prepared, found)
            if found is not None:
                drawn.append(found)
        size = pictures.WIDTH, _height(_boxes(shown.prepared))
        return Samples(shown.scan, shown.learnt_from, tuple(drawn), size)

    def followed(self) -> Samples:
        """Give what there is, and restore what is new meanwhile, in a thread of its own.

        Whatever goes wrong is told in `Samples.notice`, and tried again when the folder has
        changed.
        """
        busy = self._thread is not None and self._thread.is_alive()
        stamp = _stamp(self.model)
        if not busy and stamp != self._looked_at:
            self._looked_at = stamp
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()
            busy = True
        return replace(self.so_far(), notice="" if busy else self._notice, awaited=busy)

    def _follow(self) -> None:
        try:
            self.restore()
            self._notice = ""
        except AtypiaError as error:
            self._notice = str(error)
        except Exception as error:  # the page has curves to show, whatever happens here
            self._notice = f"The scan cannot be restored ({type(error).__name__}: {error})."

    def _restored(self, detector: Detector, prepared: Prepared) -> Array:
        restored = detector._restore_alone(prepared)
        if restored is None:
            raise _no_restorations(self.model, detector)
        return restored

    def _prepared(self, detector: Detector) -> _Shown:
        """Prepare the scan as this fit does, once for all of its snapshots."""
        before, told = self._shown, detector.trained_on
        if before is not None and before.fit == told["identity"]:
            return before
        scan, plan = self.scan, detector.plan
        assert plan is not None
        if not isinstance(scan, Scan):
            # A cohort knows the masks and the person of its scans; one image only its name.
            scan = open_cohort(Path(scan), modality=told["modality"])[0]
        prepared = prepare(scan, plan, scan.modality(told["modality"]))
        key = _Key(told["identity"], "scan", 0)
        self._found[key] = prepared.image.data
        learnt_from = scan.person in told["people"]
        return _Shown(scan.id, learnt_from, told["identity"], prepared, (key,))


def _restores_early(detector: Detector) -> bool:
    return type(detector)._restore_alone is not Detector._restore_alone


def _no_restorations(model: Path, detector: Detector) -> InputError:
    return InputError(model, f"{detector.method} makes no restorations", "Leave out the scan")


def _places(folder: Path, fit: str) -> dict[_Key, Path]:
    """Choose the snapshots of a fit that are shown."""
    found = {}
    for place in snapshots.spread(snapshots.of_fit(folder, fit)):
        step, written = snapshots.read_counts(place).step, place.stat().st_mtime_ns
        found[_Key(fit, f"step {step:,}", written)] = place
    return found


def _why_none(unfinished: Path) -> tuple[str, str]:
    """Say why a fit has no snapshot, and when there will be one."""
    try:
        told = files.read_json(unfinished / DESCRIPTION)
        settings = TrainingSettings.make(told["settings"])
        epochs = settings.snapshot_epochs
        first = None if epochs is None else epochs * _steps_of_an_epoch(settings, told["scans"])
    except (AtypiaError, KeyError, TypeError):
        return "has no snapshot yet", "Wait until the training has begun"
    if first is None or first > told["steps"]:
        remedy = "Wait until it is finished; --training.snapshot-epochs would have kept some"
        return "keeps no snapshots while it learns", remedy
    return "has no snapshot yet", f"Wait for the first, at step {first:,}"


def _stamp(model: Path) -> object:
    """Give what changes when there is something new to restore by, or to say."""
    unfinished = model / UNFINISHED
    places = [model / "detector.json", *(unfinished / name for name in (FIT, KNOWN, DESCRIPTION))]
    places += [*snapshots.whole(unfinished / "snapshots"), *snapshots.whole(model / "snapshots")]
    found = []
    for place in places:
        with suppress(OSError):  # not there yet, or removed in this very moment
            found.append((place, place.stat().st_mtime_ns))
    return found


def _boxes(prepared: Prepared) -> list[tuple[int, int, int, int]]:
    volumes = ScanVolumes(prepared.image, prepared.image, prepared.brain)
    return pictures._layout(volumes, box_of_interest(volumes))


def _height(boxes: Sequence[tuple[int, int, int, int]]) -> int:
    return boxes[-1][1] + boxes[-1][3]


def _drawn(key: _Key, prepared: Prepared, data: Array) -> Sample:
    """Draw the middle of a restoration, or of the scan as if it were one: in the brain only."""
    image, brain = prepared.image, prepared.brain
    inside = np.argwhere(brain.data)
    x, y, z = (int(i) for i in (inside.mean(axis=0).round() if len(inside) else (0, 0, 0)))
    centre = image.geometry.world((x, y, z))
    focus = Focus(
        (x, y, z), (float(centre[0]), float(centre[1]), float(centre[2])), "the middle of the brain"
    )
    volumes = ScanVolumes(image, image, brain, restoration=image.with_data(data))
    painters = pictures.painters_of(volumes, focus, pictures.ScoreScale(0.0, 1.0, None))
    pixels = pictures._painted([painters["restoration"][1]], _boxes(prepared))
    difference = np.abs(image.data - data, dtype=np.float64)[brain.data]
    error = float(difference.mean()) if difference.size else 0.0
    return Sample(key.title, pictures._uri(pixels), error if key.written else None)
