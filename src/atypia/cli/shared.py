"""What several commands share: cohort options, the progress bar, and the closing summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atypia.cohort import Cohort, open_cohort, read_names
from atypia.errors import SettingsError
from atypia.preprocessing import Failure
from atypia.progress import Progress

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Cache = Annotated[
    Path | None, Parameter(help="Folder in which prepared scans are kept and shared.")
]
Workers = Annotated[
    int | None, Parameter(help="Processes that prepare scans; one a core if unset.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class CohortOptions:
    """Which scans of a cohort.

    Parameters
    ----------
    layout
        manifest, bids, folder, or a data set of docs/cohorts.md; recognised if unset.
    names
        Only the scans that this text file names, one a line: file name of an image, subject or id.
    split
        Only the scans of this part of the split.
    where
        Only the scans with this property, e.g. condition=healthy or site=A; may be repeated.
    """

    layout: str | None = None
    names: Annotated[Path | None, Parameter(name="--list")] = None
    split: str | None = None
    where: Annotated[tuple[str, ...], Parameter(negative="")] = ()

    def open(self, path: Path, modality: str | None = None) -> Cohort:
        """Open the cohort and keep the scans that are asked for."""
        cohort = open_cohort(path, self.layout, modality)
        if self.names is not None:
            cohort = cohort.listed(read_names(self.names))
        values = {} if self.split is None else {"split": self.split}
        for condition in self.where:
            key, sign, value = condition.partition("=")
            if not sign:
                raise SettingsError(f"--where {condition}", "is not KEY=VALUE", "Write KEY=VALUE")
            values[key] = value
        return cohort.where(**values) if values else cohort


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on the terminal (standard error), one line a task."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, tuple[int, int]] = {}

        def show(task: str, done: int, total: int, note: str = "") -> None:
            bar, before = tasks.get(task, (None, 0))
            if bar is None or done < before:
                bar = bars.add_task(task, total=total, note=note)
            tasks[task] = (bar, done)
            bars.update(bar, completed=done, total=total, note=note)  # type: ignore[arg-type]

        yield show


def list_failures(failures: Sequence[Failure], total: int) -> int:
    """Name the scans that failed on standard error; give the exit code."""
    if not failures:
        return 0
    print(f"atypia: {len(failures)} of {total} scans failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.scan.id}: {failure.error}", file=sys.stderr)
    return 1
