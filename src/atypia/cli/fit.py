"""`atypia fit METHOD`: one command a method, its flags made from the method's settings class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from atypia.cli.shared import Cache, CohortOptions, Output, Workers, progress_bar
from atypia.detectors.base import DetectorSettings
from atypia.registry import METHODS, detector_class
from atypia.runs.fitting import fit_model, is_first_process
from atypia.settings import merge, read_toml


def __getattr__(name: str) -> Callable[..., int]:
    # The command line asks for `atypia.cli.fit:METHOD`; the command is made when it is run.
    if name in METHODS:
        return command_for(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def command_for(method: str) -> Callable[..., int]:
    """Make the command that fits one method."""
    kind = detector_class(method)

    def command(
        cohort: Path,
        *,
        output: Output,
        preset: str | None = None,
        config: Path | None = None,
        options: CohortOptions | None = None,
        cache: Cache = None,
        workers: Workers = None,
        overwrite: bool = False,
        start: Path | None = None,
        settings: DetectorSettings | None = None,
    ) -> int:
        given = {} if settings is None else settings.explicit()
        from_file = {} if config is None else read_toml(config)
        chosen = kind.settings_class.make(merge(from_file, given), preset)
        scans = (options or CohortOptions()).open(cohort, chosen.modality)
        with progress_bar() as progress:
            detector = fit_model(
                method,
                chosen,
                scans,
                output,
                cache=cache,
                workers=workers,
                overwrite=overwrite,
                start=start,
                progress=progress,
            )
        if not is_first_process():
            return 0
        print(f"{detector.method} fitted on {len(scans)} scans of {scans.name}: {output}")
        print(f"Next: atypia calibrate {output} HEALTHY, with scans of other healthy subjects.")
        return 0

    presets = ", ".join(["default", *kind.settings_class.presets])
    command.__name__ = method
    command.__doc__ = f"""{METHODS[method].summary}

    Parameters
    ----------
    cohort
        Healthy scans: a folder or a CSV/TSV manifest.
    output
        The model folder. The same command goes on after an interruption.
    preset
        A named set of settings: {presets}.
    config
        TOML file of settings; flags override it, it overrides the preset.
    overwrite
        Replace a finished model in the output folder.
    start
        Go on from a snapshot (`snapshots/epoch-NNNN.safetensors` of a model) or checkpoint of
        another run with the same network, at its step and with the settings given here.
    """
    annotations: dict[str, Any] = {
        "cohort": Path,
        "output": Output,
        "preset": str | None,
        "config": Path | None,
        "options": CohortOptions | None,
        "cache": Cache,
        "workers": Workers,
        "overwrite": Annotated[bool, Parameter(negative="")],
        "start": Path | None,
        "settings": Annotated[kind.settings_class, Parameter(name="*")],
        "return": int,
    }
    command.__annotations__ = annotations
    return command
