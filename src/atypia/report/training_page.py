"""Training page: curves, settings and people of one model, finished or still learning."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from atypia import files
from atypia.detectors.encoder_file import DESCRIPTION as ENCODER
from atypia.detectors.training_scans import PEOPLE
from atypia.detectors.unfinished import read_fit
from atypia.errors import InputError, ModelError
from atypia.report.privacy import setting_without_folders, without_folders
from atypia.report.rendering import Fact, flat, number, template
from atypia.report.samples import Samples
from atypia.report.training_charts import Line, history, is_steep, smooth
from atypia.runs.fitting import UNFINISHED
from atypia.training.log import DESCRIPTION, read_log

REFRESH_SECONDS = 10
"""Between two looks at a run that is not finished."""
QUIET_SECONDS = 600
"""A run that wrote nothing for so long is said to be silent."""


@dataclass(frozen=True, eq=False)
class Training:
    """What a model folder tells about its training.

    Parameters
    ----------
    model
        The folder.
    finished
        Whether the curves are those of the finished model.
    method
        Its name; empty where that is not written.
    lines
        Of the log, each with a `step`; none if there is no log.
    written
        When the last line was written, in seconds since 1970; None without a log.
    people
        How many it learns from; None if that is not told.
    told
        `detector.json` or `encoder.json` of a finished model, `training.json` of another one.
    settings
        All of them; of an unfinished model perhaps those of the training only.
    """

    model: Path
    finished: bool
    method: str
    lines: tuple[Mapping[str, Any], ...]
    written: float | None
    people: int | None
    told: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def steps(self) -> int:
        """Steps that are asked for; those done where that is not told."""
        return self.step if self.finished else max(int(self.told.get("steps", 0)), self.step)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Give steps and values of a logged figure, those that are finite."""
        found = [
            (int(line["step"]), float(line[name])) for line in self.lines if _is_number(line, name)
        ]
        return [step for step, _ in found], [value for _, value in found]

    @property
    def validations(self) -> list[tuple[int, float]]:
        """Step and loss of every validation; the log repeats the latest one on each line."""
        found: list[tuple[int, float]] = []
        for point in zip(*self.series("validation"), strict=True):
            if not found or point[1] != found[-1][1]:
                found.append(point)
        return found

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and loss of the best validation, whose weights are kept; None without one."""
        return min(self.validations, key=lambda point: point[1], default=None)


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds a model, or the beginnings of one."""
    names = ("detector.json", ENCODER, f"{UNFINISHED}/{DESCRIPTION}", f"{UNFINISHED}/{PEOPLE}")
    return any((folder / name).is_file() for name in names)


def read_training(model: Path) -> Training:
    """Read what is known of a model's training; an unfinished one goes before a finished one.

    Raises
    ------
    InputError
        `model` is no model folder, or its description is damaged.
    """
    model = Path(model)
    if not is_model(model):
        raise InputError(model, "is no model folder", "Name the folder that `atypia fit` wrote")
    unfinished = model / UNFINISHED
    if unfinished.is_dir():
        place = unfinished / DESCRIPTION
        told = _read(place) if place.exists() else {}
        people = unfinished / PEOPLE
        count = len(files.read_json(people)) if people.exists() else None
        fit: Mapping[str, Any] = {}
        with suppress(ModelError):  # of an older version, or removed in this very moment
            fit = read_fit(unfinished)
        settings = fit.get("settings", {"training": told.get("settings", {})})
        return Training(
            model, False, fit.get("method", ""), *_log(unfinished), count, told, settings
        )
    is_detector = (model / "detector.json").exists()
    told = _read(model / ("detector.json" if is_detector else ENCODER))
    among = told.get("trained_on", {}) if is_detector else told
    count = len(among["people"]) if "people" in among else None
    method = str(told.get("method", "spark"))
    return Training(model, True, method, *_log(model), count, told, told.get("settings", {}))


def write_training_page(
    model: str | Path, output: str | Path | None = None, *, samples: Samples | None = None
) -> Path:
    """Write one HTML page about the training of a model, offline and in one file.

    Parameters
    ----------
    model
        The model folder; its training may be unfinished.
    output
        The page; `training.html` in the model folder if unset.
    samples
        Restorations of one scan to show; see `atypia.report.samples`.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    InputError
        `model` is no model folder, or is damaged.
    """
    output = Path(model) / "training.html" if output is None else Path(output)
    files.write_text(output, training_page(Path(model), samples=samples))
    return output


def training_page(model: Path, *, samples: Samples | None = None, refreshing: bool = False) -> str:
    """Give the page's text.

    Parameters
    ----------
    refreshing
        Let the browser ask again after `REFRESH_SECONDS`, if there is more to come.
    """
    training = read_training(model)
    awaited = not training.finished or (samples is not None and samples.awaited)
    if samples is not None:
        samples = replace(samples, notice=without_folders(samples.notice))
    return template("training.html.j2").render(
        training=training,
        name=training.model.resolve().name,
        refresh=REFRESH_SECONDS if refreshing and awaited else None,
        facts=_facts(training),
        silence=_silence(training),
        loss=_loss_chart(training),
        logarithmic=_is_steep(training),
        others=_other_charts(training),
        best=training.best,
        settings=[(key, setting_without_folders(value)) for key, value in flat(training.settings)],
        samples=samples,
    )


def _facts(training: Training) -> list[Fact]:
    told = training.told
    among = told.get("trained_on", told)
    facts = []
    for name in ("cohort", "modality", "scans"):
        if name in among:
            facts.append(Fact(name, str(among[name])))
    if training.people is not None:
        facts.append(Fact("people", str(training.people), "Learnt from, validation included."))
    if training.lines:
        done = f"{training.step:,}"
        if training.steps > training.step:
            done += f" of {training.steps:,} ({training.step / training.steps:.0%})"
        facts.append(Fact("steps", done, "Of the optimiser."))
        facts.append(Fact("loss", number(training.series("loss")[1][-1]), "Of the last step."))
    if training.best is not None:
        step, value = training.best
        facts.append(
            Fact("best validation", f"{number(value)} at step {step:,}", "Its weights are kept.")
        )
        facts.append(Fact("validations", str(len(training.validations))))
    return facts + _pace(training)


def _pace(training: Training) -> list[Fact]:
    """Tell how fast an unfinished training is; a finished one does not keep its times."""
    told, written = training.told, training.written
    if training.finished or written is None or not {"began_at", "began_at_step"} <= told.keys():
        return []
    done = training.step - int(told["began_at_step"])
    if done <= 0:
        return []
    seconds = max(0.0, written - float(told["began_at"])) / done
    hint = "Since the training was last started, validations included."
    facts = [Fact("seconds a step", f"{seconds:.3g}", hint)]
    left = (training.steps - training.step) * seconds
    return [*facts, Fact("to go", _duration(left), "At that pace.")] if left > 0 else facts


def _silence(training: Training) -> str:
    """Say when an unfinished training was last heard of; empty for a finished one."""
    if training.finished or training.written is None:
        return ""
    since = max(0.0, time.time() - training.written)
    told = f"The log was last written to {_duration(since)} ago."
    if since > QUIET_SECONDS:
        told += " If nothing runs any more, the same `atypia fit` goes on from its checkpoint."
    return told


def _loss_chart(training: Training) -> Markup | None:
    steps, values = training.series("loss")
    if not steps:
        return None
    lines = [Line("training loss of each step", "raw", steps, values)]
    if len(values) > 2:
        lines.append(Line("training loss, running mean", "smooth", steps, list(smooth(values))))
    checked = training.validations
    if checked:
        at, losses = [s for s, _ in checked], [v for _, v in checked]
        lines.append(Line("validation loss", "held", at, losses))
    steep = _is_steep(training)
    return history(lines, "loss", end=training.steps, best=training.best, logarithmic=steep)


def _is_steep(training: Training) -> bool:
    return is_steep([*training.series("loss")[1], *training.series("validation")[1]])


def _other_charts(training: Training) -> dict[str, Markup]:
    """Draw every other figure of the log, such as the learning rate."""
    names = dict.fromkeys(name for line in training.lines for name in line)
    found = {}
    for name in names:
        if name in ("step", "loss", "validation"):
            continue
        steps, values = training.series(name)
        if steps:
            # A rate that rises from 0 and falls to a hundredth is read off more easily as it is.
            logarithmic = name != "learning_rate" and is_steep(values)
            lines = [Line(name.replace("_", " "), "plain", steps, values)]
            found[name] = history(lines, name, end=training.steps, logarithmic=logarithmic)
    return found


def _log(folder: Path) -> tuple[tuple[Mapping[str, Any], ...], float | None]:
    """Give the lines of a folder's log, and when the last one was written."""
    path = folder / "training.jsonl"
    try:
        written = path.stat().st_mtime
    except OSError:
        return (), None
    lines = [line for line in read_log(path) if isinstance(line, dict) and _is_number(line, "step")]
    return tuple(lines), written if lines else None


def _is_number(line: Mapping[str, Any], name: str) -> bool:
    value = line.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(path: Path) -> Mapping[str, Any]:
    told = files.read_json(path)
    if not isinstance(told, dict):
        raise InputError(path, "is damaged", "Fit the model again")
    return told


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
