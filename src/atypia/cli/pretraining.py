"""`atypia fit spark`: pre-train the encoder that `atypia fit diffusion --encoder` starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia.cli.shared import Cache, CohortOptions, Output, Workers, progress_bar
from atypia.detectors.spark_pretraining import PretrainingSettings
from atypia.runs.fitting import is_first_process
from atypia.runs.pretraining import pretrain
from atypia.settings import merge, read_toml


def spark(
    cohort: Path,
    *,
    output: Output,
    preset: str | None = None,
    config: Path | None = None,
    options: CohortOptions | None = None,
    cache: Cache = None,
    workers: Workers = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[PretrainingSettings | None, Parameter(name="*")] = None,
) -> int:
    """Pre-train the encoder of the diffusion method on hidden cells of slices (SparK).

    Then give its folder to `atypia fit diffusion COHORT -o MODEL --encoder FOLDER`, with the same
    scans and settings of preprocessing.

    Parameters
    ----------
    cohort
        Healthy scans: a folder or a CSV/TSV manifest.
    output
        The folder of the encoder. The same command goes on after an interruption.
    preset
        A named set of settings: default, tiny, small, reference.
    config
        TOML file of settings; flags override it, it overrides the preset.
    overwrite
        Replace a finished encoder in the output folder.
    """
    given = {} if settings is None else settings.explicit()
    from_file = {} if config is None else read_toml(config)
    chosen = PretrainingSettings.make(merge(from_file, given), preset)
    scans = (options or CohortOptions()).open(cohort, chosen.modality)
    with progress_bar() as progress:
        told = pretrain(
            scans,
            chosen,
            output,
            cache=cache,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    if not is_first_process():
        return 0
    loss = told["validation_loss"]
    reached = "" if loss is None else f", validation loss {loss:.4g}"
    print(f"encoder pre-trained on {len(scans)} scans of {scans.name}{reached}: {output}")
    depth, width = told["depth"], told["width"]
    if told["axes"] == 3:
        shape = f"--network resnet{depth} --network-width {width}"
        shape += f" --stem-stride {told['stem_stride']}"
        words = f"memory_bank COHORT -o MODEL --features file --weights {output} {shape}"
    else:
        shape = f"--encoder-depth {depth} --encoder-width {width}"
        words = f"diffusion COHORT -o MODEL --encoder {output} {shape}"
    print(f"Next: atypia fit {words}")
    return 0
