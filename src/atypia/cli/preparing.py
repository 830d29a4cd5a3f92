"""`atypia prepare`: a cohort in, prepared scans and a page about their quality out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia import files
from atypia.cli.shared import CohortOptions, Output, Workers, list_failures, progress_bar
from atypia.detectors.training_scans import PreparationSettings
from atypia.preprocessing import Plan
from atypia.runs.preparing import CACHE, prepare_cohort


def prepare(
    cohort: Path,
    *,
    output: Output,
    plan: Path | None = None,
    options: CohortOptions | None = None,
    workers: Workers = None,
    settings: Annotated[PreparationSettings | None, Parameter(name="*")] = None,
) -> int:
    """Prepare scans once for all later commands, and write a page to check how that went.

    Parameters
    ----------
    cohort
        A folder or manifest.
    output
        A folder. The same command goes on after an interruption.
    plan
        Use this plan, e.g. plan.json of a model; only --modality counts beside it.
    """
    chosen = PreparationSettings.make({} if settings is None else settings.explicit())
    given = None if plan is None else Plan.make(files.read_json(plan))
    scans = (options or CohortOptions()).open(cohort, chosen.modality)
    with progress_bar() as progress:
        report = prepare_cohort(
            scans, output, chosen, plan=given, workers=workers, progress=progress
        )
        from atypia.report import write_quality_page

        page = write_quality_page(output, workers=workers, progress=progress)
    print(f"{report.done} scans prepared, {report.kept} kept from before: {output}")
    print(f"Use them with --cache {output / CACHE}. Look at {page}")
    return list_failures(report.failures, len(scans))
