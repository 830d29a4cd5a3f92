"""`atypia power`: plant lesions into healthy scans, and tell which of them a model finds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia.cli.shared import Cache, CohortOptions, Output, progress_bar
from atypia.cohort.planted import PER_SCAN
from atypia.detectors.model_folder import load_detector
from atypia.evaluation.power import CONTRASTS, DIAMETERS_MM
from atypia.runs.power import examples, power_of

Several = Parameter(consume_multiple=True, negative="")


def power(
    model: Path,
    healthy: Path,
    *,
    output: Output,
    diameter_mm: Annotated[tuple[float, ...], Several] = DIAMETERS_MM,
    contrast: Annotated[tuple[float, ...], Several] = CONTRASTS,
    lesions_per_scan: int = PER_SCAN,
    least_overlap: float = 0.0,
    most_scans: int | None = None,
    seed: int = 0,
    options: CohortOptions | None = None,
    cache: Cache = None,
) -> int:
    """Plant lesions into healthy scans, and tell which of them a model finds at its threshold.

    Parameters
    ----------
    model
        Folder of a calibrated model.
    healthy
        Healthy scans of subjects that were not used for training.
    output
        A folder: power.json, power.csv, power.md, power.html. Scans and cells that are done
        already are kept.
    diameter_mm
        Of the lesions; several may follow.
    contrast
        Change of intensity as a share of the brain's median, e.g. -0.3 0.3.
    lesions_per_scan
        Planted into one scan at once, if they fit.
    least_overlap
        Share of a lesion that the mask must hold; one voxel for 0.
    most_scans
        So many scans, drawn by the seed; all if unset.
    seed
        Of places, forms, and the scans that are drawn.
    """
    from atypia.report.power import power_markdown, write_power

    scans = (options or CohortOptions()).open(healthy)
    detector = load_detector(model)
    with progress_bar() as progress:
        found = power_of(
            detector,
            scans,
            diameters_mm=diameter_mm,
            contrasts=contrast,
            lesions_per_scan=lesions_per_scan,
            least_overlap=least_overlap,
            most_scans=most_scans,
            seed=seed,
            work=output / "scans",
            cache=cache,
            progress=progress,
        )
    if found.scans:  # a report of no scans would say nothing
        page = write_power(found, output, examples(detector, scans, found, cache))
        print(power_markdown(found))
        print(page)
    if not found.failed:
        return 0
    total = len(found.failed) + len(found.scans)
    print(f"atypia: {len(found.failed)} of {total} scans failed:", file=sys.stderr)
    for scan, error in found.failed.items():
        print(f"  {scan}: {error}", file=sys.stderr)
    if not found.scans:
        print("atypia: no report was written.", file=sys.stderr)
    return 1
