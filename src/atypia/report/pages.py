"""Pages of a results folder: those of its scans, and the one of all that leads to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atypia.errors import AtypiaError
from atypia.progress import Progress, silent, track
from atypia.report.cohort_table import ranked
from atypia.report.page import write_report
from atypia.report.results import read_results
from atypia.report.subject_page import write_subject_page


@dataclass(frozen=True)
class Written:
    """What was written.

    Parameters
    ----------
    page
        The one of all scans.
    scans
        The pages of single scans.
    problems
        Scan -> why it has no page.
    """

    page: Path
    scans: tuple[Path, ...]
    problems: dict[str, str]


def write_pages(
    results: Path,
    output: Path | None = None,
    *,
    scans: Sequence[str] = (),
    most: int | None = None,
    static: bool = False,
    workers: int | None = 1,
    progress: Progress = silent,
) -> Written:
    """Write pages of scans, then the page of all of them, which leads there.

    Parameters
    ----------
    results
        Folder that `atypia predict` wrote.
    output
        The page of all; `report.html` in the results folder if unset.
    scans
        Those that get a page of their own; by default the most abnormal ones.
    most
        How many of these; None for all.
    static
        Pages of scans without script and viewer.
    workers
        Processes that draw thumbnails; None for one a core.

    Raises
    ------
    InputError
        `results` holds no `run.json`.
    MissingDependencyError
        The viewer is not installed, and `static` is not asked for.
    """
    found = read_results(Path(results), progress=progress)
    chosen = list(scans) or [entry.id for entry in ranked(found)[:most]]
    written, problems = [], {}
    for scan in track(chosen, "pages of scans", progress):
        try:
            written.append(write_subject_page(found, scan, static=static))
        except AtypiaError as error:
            if scan in scans:
                raise  # it was asked for by its name
            problems[scan] = str(error)
    page = write_report(found.folder, output, workers=workers, progress=progress)
    return Written(page, tuple(written), problems)
