"""The published diffusion experiments over folds: pre-training, training, evaluation.

::

    OUT/
      fold0/spark/              encoder that SparK has pre-trained
      fold0/model/              model folder, with baselines
      fold0/evaluation.json     figures of every scan of the fold, and of its thresholds
      results.json, .csv, .md   mean and standard deviation over folds
      prepared/                 prepared scans, which all stages and folds share
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atypia import __version__, files
from atypia.calibration import Threshold
from atypia.cohort import Cohort, Scan
from atypia.cohort.scan import joined
from atypia.detectors.base import Detector
from atypia.detectors.diffusion import Diffusion, DiffusionSettings
from atypia.detectors.encoder_file import DESCRIPTION
from atypia.detectors.model_folder import load_baselines, load_detector
from atypia.errors import AtypiaError, ModelError, SettingsError
from atypia.preprocessing import Plan, make_plan, prepare_all
from atypia.preprocessing.grid import Downsample, Resample
from atypia.preprocessing.intensity import ScaleRange
from atypia.progress import Progress, silent
from atypia.runs.evaluating import EvaluationRun, evaluate_detectors
from atypia.runs.fitting import fit_model
from atypia.runs.published_options import EXPERIMENTS, PublishedOptions
from atypia.runs.published_results import FoldResult, summarise, write_results
from atypia.runs.published_splits import FoldParts, PublishedData
from atypia.scoring.restorations import RestorationRules
from atypia.settings import merge

if TYPE_CHECKING:
    from atypia.detectors.spark_pretraining import (
        PretrainingSettings,
    )

METHOD = "diffusion"
LABELLED = "labelled validation"
"""Provenance of a threshold that labels of validation scans have chosen."""

SCORING = (
    "test_times",
    "samples",
    "paired_noise",
    "sampler_steps",
    "eta",
    "rules",
    "slices_at_once",
    "precision",
    "median_size",
    "top_share",
    "subject_score",
)
"""Settings that a model may be evaluated with that it was not trained with."""


@dataclass(frozen=True)
class Work:
    """Where stages work and how.

    Parameters
    ----------
    output
        The folder.
    cache
        Folder of prepared scans; None for one in `output`.
    workers
        Processes that prepare scans; None for one a core.
    overwrite
        Replace finished folds of other settings or scans.
    progress
        Listener.
    """

    output: Path
    cache: Path | None = None
    workers: int | None = 1
    overwrite: bool = False
    progress: Progress = silent

    @property
    def prepared(self) -> Path:
        """The folder of prepared scans."""
        return self.cache or self.output / "prepared"

    def place(self, fold: int, name: str) -> Path:
        """Give the place of something of one fold."""
        return self.output / f"fold{fold}" / name


def diffusion_settings(
    options: PublishedOptions,
    modality: str,
    preset: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> DiffusionSettings:
    """Give the settings of an experiment: experiment < preset < file < options.

    Parameters
    ----------
    options
        What was asked for in the reference's spelling.
    modality
        Of the images.
    preset
        Takes the place of the experiment's own network, training and preprocessing; times and
        rules of the experiment stay, unless the preset has its own.
    config
        Values of a settings file.
    """
    experiment = EXPERIMENTS[options.experiment]
    values: dict[str, Any] = dict(DiffusionSettings.presets[experiment.preset])
    if preset is not None:
        kept = ("variant", "test_times", "samples", "rules")
        values = {name: values[name] for name in kept if name in values}
        own = DiffusionSettings.make(preset=preset).explicit() if preset != "default" else {}
        values = merge(values, own)
    values = merge(values, config or {})
    values = merge(values, options.settings)
    values["rules"] = RestorationRules.make(values.get("rules", {})).model_dump()
    return DiffusionSettings.make(values | {"modality": modality})


def published_plan(changes: Mapping[str, Any]) -> Plan:
    """Give the published preprocessing with another grid or other percentiles.

    Parameters
    ----------
    changes
        ``"size"``: voxels of 1 mm along X, Y, Z; ``"factor"``: how much larger the voxels of the
        working grid are; ``"low"``, ``"high"``: percentiles that become 0 and 1.
    """
    steps = []
    for step in make_plan(Cohort((), "none"), preset="mhd").steps:
        changed = step
        if isinstance(step, Resample) and "size" in changes:
            size = changes["size"]
            if len(size) != 3:
                problem = f"{len(size)} numbers"
                raise SettingsError("imageDim", problem, "Give three, e.g. [192,192,100]")
            moved = [list(row) for row in step.affine]
            for axis, (old, new) in enumerate(zip(step.shape, size, strict=True)):
                moved[axis][3] += (old - new) / 2 * moved[axis][axis]
            changed = step.but(shape=size, affine=moved)
        elif isinstance(step, Downsample) and "factor" in changes:
            changed = step.but(factor=changes["factor"])
        elif isinstance(step, ScaleRange):
            low, high = step.percentiles
            changed = step.but(percentiles=(changes.get("low", low), changes.get("high", high)))
        steps.append(changed)
    return Plan(steps=tuple(steps))


def pretraining_settings(values: Mapping[str, Any], preset: str) -> PretrainingSettings:
    """Give the settings of the pre-training: a preset and what differs from it."""
    from atypia.detectors.spark_pretraining import PretrainingSettings

    return PretrainingSettings.make(values, preset)


def pretrain_folds(data: PublishedData, settings: PretrainingSettings, work: Work) -> list[Path]:
    """Pre-train the encoder with SparK on the training scans of every fold.

    Parameters
    ----------
    data
        Which folds of what.
    settings
        Of the pre-training.
    work
        Where and how.

    Returns
    -------
    list of Path
        The folders of the encoders; those that are there already are kept.
    """
    from atypia.runs.pretraining import pretrain

    places = []
    for fold in data.read()[0]:
        place = work.place(fold.fold, "spark")
        pretrain(
            fold.train,
            settings,
            place,
            cache=work.prepared,
            workers=work.workers,
            overwrite=work.overwrite,
            progress=_of_fold(work, fold),
        )
        places.append(place)
    return places


def train_folds(
    data: PublishedData,
    settings: DiffusionSettings,
    work: Work,
    *,
    encoder: Path | None = None,
    pretrained: bool | None = None,
    validate_every_epochs: int | None = None,
) -> dict[Path, Path | None]:
    """Train a model, and the baselines, on the training scans of every fold.

    Parameters
    ----------
    data
        Which folds of what.
    settings
        Of the detector.
    work
        Where and how.
    encoder
        One pre-trained encoder for all folds.
    pretrained
        Whether to start from a pre-trained encoder; None: from each fold's own if it is there.
    validate_every_epochs
        In place of the settings' number of steps.

    Returns
    -------
    dict
        Model folder -> the encoder that its training started from, None for none. Finished models
        of the same settings and scans are kept.

    Raises
    ------
    ModelError
        A pre-trained encoder was asked for and is not there.
    """
    places: dict[Path, Path | None] = {}
    for fold in data.read()[0]:
        start = _encoder_for(fold.fold, settings, work, encoder, pretrained)
        chosen = settings if start is None else settings.but(encoder=start)
        if validate_every_epochs is not None:
            steps = validate_every_epochs * _steps_of_an_epoch(len(fold.train), chosen)
            chosen = chosen.but(training={"validate_every": steps})
        place = work.place(fold.fold, "model")
        fit_model(
            METHOD,
            chosen,
            fold.train,
            place,
            cache=work.prepared,
            workers=work.workers,
            overwrite=work.overwrite,
            progress=_of_fold(work, fold),
        )
        places[place] = start
    return places


def evaluate_folds(
    data: PublishedData,
    settings: DiffusionSettings,
    work: Work,
    *,
    experiment: str = "cddpm",
    models: Path | None = None,
    voxel_fpr: float = 0.005,
    threshold: float | None = None,
) -> list[FoldResult]:
    """Evaluate the model of every fold and write mean and standard deviation over folds.

    Parameters
    ----------
    data
        Which folds of what.
    settings
        Those of `SCORING` replace the models' own.
    work
        Where and how.
    experiment
        Noted in the results.
    models
        Where `train_folds` has put the models, and its prepared scans if `work` names no others;
        None for the output.
    voxel_fpr
        Share of healthy validation voxels that the threshold may flag.
    threshold
        Judge masks by this one in place of that of the labelled validation scans.

    Returns
    -------
    list of FoldResult
        With the scans that failed. A fold that is there without failures is kept.

    Raises
    ------
    ModelError
        A fold has no model.
    LeakageError
        A model was trained on somebody who is calibrated or tested on, and that is not kept.
    """
    folds, missing = data.read()
    if models is not None and work.cache is None:
        work = replace(work, cache=models / "prepared")
    found = []
    for fold in folds:
        place = work.place(fold.fold, "evaluation.json")
        detectors = _detectors((models or work.output) / f"fold{fold.fold}" / "model", settings)
        rules = {"voxel_fpr": voxel_fpr, "threshold": threshold, "leaking": data.leaking}
        key = _key(fold, data.modality, detectors, rules)
        result = FoldResult.read(place, key)
        if result is None:
            run, labelled = _evaluated(fold, detectors, data, work, voxel_fpr, threshold)
            result = FoldResult.of(fold.fold, key, run, labelled, fold.shared)
            result.write(place)
        found.append(result)
    about = {
        "atypia": __version__,
        "experiment": experiment,
        "modality": data.modality,
        "leaking": data.leaking,
        "voxel_fpr": voxel_fpr,
        "given_threshold": threshold,
        "missing": list(missing),
        "without_labelled_validation": sorted(_without_labels(folds[0])),
        "settings": {name: settings.to_json()[name] for name in SCORING},
    }
    write_results(summarise(found, about), work.output)
    return found


def _evaluated(
    fold: FoldParts,
    detectors: dict[str, Detector],
    data: PublishedData,
    work: Work,
    voxel_fpr: float,
    threshold: float | None,
) -> tuple[EvaluationRun, dict[tuple[str, str], Threshold]]:
    cache, progress = work.prepared, _of_fold(work, fold)
    parts = [fold.healthy, *fold.labelled.values(), *fold.tests.values()]
    plan = next(iter(detectors.values()))._fitted_plan()
    if work.workers != 1:
        for part in parts:  # failures come again, and are noted, when the scan is predicted
            list(
                prepare_all(
                    part, plan, data.modality, cache=cache, workers=work.workers, progress=progress
                )
            )
    keep = data.leaking == "keep"
    for detector in detectors.values():
        if keep:
            # Whoever asks for the published folds has been told who is in two parts of them.
            detector.trained_on = detector.trained_on | {"people": []}
        calibration = detector.calibrate(
            fold.healthy, voxel_fpr=voxel_fpr, cache=cache, progress=progress
        )
        if keep:
            detector.calibration = calibration.but(people=())
    labelled: dict[tuple[str, str], Threshold] = {}
    failures = []
    if threshold is not None:
        chosen = Threshold(threshold, "given")
        labelled = {(name, method): chosen for name in fold.tests for method in detectors}
    elif fold.labelled:
        everyone = joined(*fold.labelled.values())
        judged = evaluate_detectors(detectors, everyone, cache=cache, progress=progress)
        labelled = judged.evaluation.best_thresholds(LABELLED)
        failures = list(judged.failures)
    tested = joined(*fold.tests.values())
    run = evaluate_detectors(detectors, tested, labelled=labelled, cache=cache, progress=progress)
    return replace(run, failures=(*failures, *run.failures)), labelled


def _detectors(place: Path, settings: DiffusionSettings) -> dict[str, Detector]:
    model = load_detector(place)
    if not isinstance(model, Diffusion):
        raise ModelError(place, f"is a model of {model.method}", "Name the folder of the training")
    if model.settings.variant != settings.variant:
        raise SettingsError(
            "experiment",
            f"needs a {settings.variant} network, but {place} is {model.settings.variant}",
            "Choose the experiment that the models were trained for",
        )
    scoring = {name: getattr(settings, name) for name in SCORING}
    scoring["rules"] = settings.rules.model_dump()
    return {METHOD: model.but(**scoring)} | load_baselines(place)


def _encoder_for(
    fold: int, settings: DiffusionSettings, work: Work, encoder: Path | None, wanted: bool | None
) -> Path | None:
    if wanted is False or settings.variant != "conditioned":
        return None
    own = work.place(fold, "spark")
    if encoder is None and (own / DESCRIPTION).exists():
        encoder = own
    if encoder is None and wanted:
        remedy = "Run `atypia published spark` into the same folder first"
        raise ModelError(own, "there is no pre-trained encoder", remedy)
    return encoder


def _steps_of_an_epoch(scans: int, settings: DiffusionSettings) -> int:
    """Count them as `training.epochs` does: without the scans that are kept for validation."""
    share = settings.validation_share
    kept = max(1, round(share * scans)) if share else 0
    return max(1, (scans - kept) // settings.training.batch_size)


def _without_labels(fold: FoldParts) -> set[str]:
    ill = {name for name, cohort in fold.tests.items() if any(s.lesion_mask for s in cohort)}
    return ill - fold.labelled.keys()


def _key(
    fold: FoldParts, modality: str, detectors: Mapping[str, Detector], rules: Mapping[str, Any]
) -> str:
    """Digest of all that the evaluation of a fold depends on."""
    parts = [fold.healthy, *fold.labelled.values(), *fold.tests.values()]
    scans = [_print_of(scan, modality) for part in parts for scan in part]
    digests = [detector.digest() for detector in detectors.values()]
    return files.digest(__version__, json.dumps(rules, sort_keys=True), *digests, *scans)


def _print_of(scan: Scan, modality: str) -> str:
    lesion = scan.lesion_mask
    try:
        state = lesion.stat() if isinstance(lesion, Path) else None
        label = "" if state is None else f"{state.st_size} {state.st_mtime_ns}"
        return f"{scan.id} {scan.fingerprint(modality)} {label}"
    except (OSError, AtypiaError):
        return scan.id  # it will be among the failures, and its fold is evaluated again


def _of_fold(work: Work, fold: FoldParts) -> Progress:
    def show(task: str, done: int, total: int, note: str = "") -> None:
        work.progress(f"fold {fold.fold}: {task}", done, total, note)

    return show
