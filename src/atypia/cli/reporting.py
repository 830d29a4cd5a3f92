"""`atypia report`: write the pages of results, or the page of a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia.cli.shared import Output, Workers, progress_bar
from atypia.errors import SettingsError

PAGES = 12
"""Scans that get a page of their own by default."""


def report(
    place: Path,
    *,
    output: Output | None = None,
    scan: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    pages: int = PAGES,
    static: bool = False,
    workers: Workers = None,
) -> int:
    """Write self-contained HTML pages: of all scans of a results folder and of the most abnormal.

    Parameters
    ----------
    place
        Folder that `atypia predict` wrote; figures of `atypia evaluate` are shown if they are
        there. Or a model, finished or not: its training gets a page.
    output
        The page; `report.html` in the results folder, or `training.html` in the model, if unset.
    scan
        Name of a scan that gets a page of its own, `scans/NAME/index.html`; may be repeated. Of a
        model: an image, or a cohort whose first scan is taken; each snapshot restores it.
    pages
        Without --scan: how many scans get one, the most abnormal first; -1 for all.
    static
        Pages of scans without script and viewer, pictures only.
    workers
        Processes that draw small pictures; one a core by default.
    """
    from atypia.report import write_training_page
    from atypia.report.pages import write_pages
    from atypia.report.samples import samples_of
    from atypia.report.training_page import is_model

    if pages < -1:
        raise SettingsError("--pages", f"{pages} is no number of pages", "Give 0 or more, -1: all")
    if is_model(place):
        if static:
            told = "is for results, and this is a model"
            raise SettingsError("--static", told, "Name a results folder")
        if len(scan) > 1:
            raise SettingsError("--scan", "of a model is one scan", "Give one")
        samples = None
        if scan:
            with progress_bar() as progress:
                samples = samples_of(place, scan[0], progress=progress)
        print(write_training_page(place, output, samples=samples))
        return 0
    with progress_bar() as progress:
        written = write_pages(
            place,
            output,
            scans=scan,
            most=None if pages == -1 else pages,
            static=static,
            workers=workers,
            progress=progress,
        )
    print(written.page)
    for path in written.scans:
        print(path)
    for name, problem in written.problems.items():
        print(f"No page for {name}: {problem}", file=sys.stderr)
    return 1 if written.problems else 0
