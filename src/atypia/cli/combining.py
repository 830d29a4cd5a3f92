"""`atypia combine`: fitted models as one ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia.cli.shared import Cache, CohortOptions, Output, progress_bar
from atypia.runs.combining import combine_models


def combine(
    *models: Path,
    healthy: Path,
    output: Output,
    how: str = "mean",
    rate: float = 0.05,
    options: CohortOptions | None = None,
    cache: Cache = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Combine the score maps of fitted models, by their ranks among healthy scores.

    Parameters
    ----------
    models
        Folders that `atypia fit` wrote: two at least, with the same preprocessing.
    healthy
        Healthy scans of subjects that no model was trained on. They count as learnt from:
        calibrate with others.
    output
        The model folder of the ensemble.
    how
        mean, max, geometric or voting.
    rate
        In a voting: share of healthy voxels that each model may flag.
    overwrite
        Replace a finished model in the output folder.
    """
    scans = (options or CohortOptions()).open(healthy)
    with progress_bar() as progress:
        ensemble = combine_models(
            models,
            scans,
            output,
            how=how,
            rate=rate,
            cache=cache,
            overwrite=overwrite,
            progress=progress,
        )
    names = ", ".join(ensemble.members_)
    print(f"ensemble of {names}, on the scale of {len(scans)} scans of {scans.name}: {output}")
    print(
        f"Next: atypia calibrate {output} HEALTHY, with scans of healthy subjects who are neither "
        f"in {healthy} nor were trained on."
    )
    return 0
