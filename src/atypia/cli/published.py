"""`atypia published`: the published diffusion experiments, one command a stage."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from atypia.cli.shared import Cache, Output, Workers, progress_bar
from atypia.errors import SettingsError
from atypia.progress import Progress
from atypia.runs.published_diffusion import (
    Work,
    diffusion_settings,
    evaluate_folds,
    pretrain_folds,
    pretraining_settings,
    published_plan,
    train_folds,
)
from atypia.runs.published_options import PublishedOptions, Stage, read_options
from atypia.runs.published_splits import Leaking, PublishedData
from atypia.settings import merge, read_toml

Keys = Annotated[str, Parameter(help="KEY=VALUE in the reference's spelling; may be repeated.")]
Words = tuple[str, ...]


@Parameter(name="*")
@dataclass(frozen=True)
class PublishedFlags:
    """What all stages are told.

    Parameters
    ----------
    modality
        T1w or T2w; T2w if unset.
    folds
        Number of the last fold and one, since they count from 0; 5 if unset.
    first_fold
        Number of the first one; 0 if unset.
    experiment
        cddpm, ddpm, pddpm or mhd; cddpm if unset. mhd evaluates models of cddpm.
    leaking
        The published folds share people. refuse: stop and name them; drop: leave them out of the
        earlier parts; keep: as published, with a warning in the results.
    preset
        A preset of `atypia fit diffusion`, in place of the experiment's network, training and
        preprocessing: small for a machine without a GPU, tiny to see that everything runs.
    config
        TOML file of settings; keys override it, it overrides the preset.
    """

    modality: Literal["T1w", "T2w"] | None = None
    folds: int | None = None
    first_fold: int | None = None
    experiment: Literal["cddpm", "ddpm", "pddpm", "mhd"] | None = None
    leaking: Leaking = "refuse"
    preset: str | None = None
    config: Path | None = None

    def read(self, stage: Stage, words: Words) -> PublishedOptions:
        """Read the keys, and refuse those that say something else than a flag."""
        options = read_options(words, stage, self.experiment)
        for name in ("modality", "folds", "first_fold"):
            own, theirs = getattr(self, name), options.run.get(name)
            if None not in (own, theirs) and own != theirs:
                flag = name.replace("_", "-")
                raise SettingsError(f"--{flag} {own}", f"a key says {theirs}", "Say it once")
            if own is not None:
                options.run[name] = own
        return options

    def data(self, data_dir: Path, options: PublishedOptions) -> PublishedData:
        """Give the data that are asked for."""
        run = options.run
        first, count = run.get("first_fold", 0), run.get("folds", 5)
        if count < 1 or first < 0:
            raise SettingsError("--folds", f"{count} from {first}", "Give 1 or more, from 0 on")
        sets = run.get("test_sets")
        return PublishedData(
            data_dir,
            run.get("modality", "T2w"),
            # As published: the loop ends before fold number num_folds.
            tuple(range(first, count)) or _no_folds(first, count),
            self.leaking,
            None if sets is None else tuple(sets),
            run.get("sample", False),
        )

    def file(self) -> dict[str, Any]:
        """Read the settings file, if there is one."""
        return {} if self.config is None else read_toml(self.config)


def spark(
    data_dir: Path,
    /,
    *keys: Keys,
    output: Output,
    flags: PublishedFlags | None = None,
    cache: Cache = None,
    workers: Workers = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Pre-train the encoder of every fold with SparK, on its training scans.

    Parameters
    ----------
    data_dir
        The published layout: splits/, Train/ and Test/, below Data/ or not.
    output
        A folder, the same for all stages. The same command goes on after an interruption.
    overwrite
        Replace finished encoders of other settings or scans.
    """
    flags = flags or PublishedFlags()
    options = flags.read("spark", keys)
    data = flags.data(data_dir, options)
    given = merge(merge(flags.file(), options.settings), {"modality": data.modality})
    _plan(options, given, output)
    settings = pretraining_settings(given, flags.preset or "reference")
    with progress_bar() as progress:
        places = pretrain_folds(data, settings, _work(output, cache, workers, progress, overwrite))
    for place in places:
        print(place)
    print("Next: atypia published train with the same folder.")
    return 0


def train(
    data_dir: Path,
    /,
    *keys: Keys,
    output: Output,
    flags: PublishedFlags | None = None,
    cache: Cache = None,
    workers: Workers = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train the model of every fold, from the fold's pre-trained encoder if it is there.

    Parameters
    ----------
    data_dir
        The published layout: splits/, Train/ and Test/, below Data/ or not.
    output
        A folder, the same for all stages. The same command goes on after an interruption.
    overwrite
        Replace finished models of other settings or scans.
    """
    flags = flags or PublishedFlags()
    options = flags.read("train", keys)
    data, run = flags.data(data_dir, options), options.run
    given = flags.file()
    _plan(options, given, output)
    settings = diffusion_settings(options, data.modality, flags.preset, given)
    encoder = run.get("encoder")
    with progress_bar() as progress:
        places = train_folds(
            data,
            settings,
            _work(output, cache, workers, progress, overwrite),
            encoder=None if encoder is None else Path(encoder),
            pretrained=run.get("pretrained"),
            validate_every_epochs=run.get("validate_every_epochs"),
        )
    for place, start in places.items():
        began = "not pre-trained" if start is None else f"encoder from {start}"
        print(f"{place}: {began}")
    print("Next: atypia published evaluate with the same folder.")
    return 0


def evaluate(
    data_dir: Path,
    /,
    *keys: Keys,
    output: Output,
    flags: PublishedFlags | None = None,
    models: Path | None = None,
    voxel_fpr: float = 0.005,
    cache: Cache = None,
    workers: Workers = None,
) -> int:
    """Evaluate every fold on all test sets; results.json, .csv and .md hold mean and deviation.

    Parameters
    ----------
    data_dir
        The published layout: splits/, Train/ and Test/, below Data/ or not.
    output
        A folder. Folds that are done are kept; another experiment needs another folder.
    models
        Where `atypia published train` has put the models; the output if unset.
    voxel_fpr
        Share of healthy validation voxels that the threshold from healthy scans may flag.
    """
    flags = flags or PublishedFlags()
    options = flags.read("evaluate", keys)
    data, run = flags.data(data_dir, options), options.run
    settings = diffusion_settings(options, data.modality, flags.preset, flags.file())
    given = run.get("models")
    with progress_bar() as progress:
        found = evaluate_folds(
            data,
            settings,
            _work(output, cache, workers, progress),
            experiment=options.experiment,
            models=models or (None if given is None else Path(given)),
            voxel_fpr=voxel_fpr,
            threshold=run.get("threshold"),
        )
    print((output / "results.md").read_text(encoding="utf-8"))
    failures = {
        f"fold {fold.fold}, {scan}": why for fold in found for scan, why in fold.failures.items()
    }
    for scan, why in failures.items():
        print(f"atypia: {scan}: {why}", file=sys.stderr)
    return 1 if failures else 0


def _no_folds(first: int, count: int) -> tuple[int, ...]:
    problem = f"the first one is {first}, and {count} are asked for"
    raise SettingsError("--folds", problem, "--folds counts from fold 0 on, as published")


def _plan(options: PublishedOptions, values: dict[str, Any], output: Path) -> None:
    """Write the preprocessing that keys ask for, and name it among the settings."""
    if not options.plan:
        return
    if "preprocessing" in values:
        raise SettingsError(
            "keys of the preprocessing",
            "stand beside preprocessing in --config",
            "Say there what you want",
        )
    path = output / "preprocessing.json"
    published_plan(options.plan).write(path)
    values["preprocessing"] = str(path)


def _work(
    output: Path,
    cache: Path | None,
    workers: int | None,
    progress: Progress,
    overwrite: bool = False,
) -> Work:
    return Work(output, cache, workers, overwrite, progress)
