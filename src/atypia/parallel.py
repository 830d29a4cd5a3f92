"""Doing independent work in several processes, in order, with progress."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from atypia.errors import AtypiaError
from atypia.progress import Progress

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_in_processes(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None,
    task: str,
    progress: Progress,
) -> Iterator[Result]:
    """Apply `work` to every job and give the results in order.

    Parameters
    ----------
    work
        A function of a module (not a lambda), or a partial of one.
    workers
        Number of processes; None for one a core. With one, or one job, no process is started.
    task
        Name of the work for `progress`.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    progress(task, 0, len(jobs))
    if workers <= 1:
        for done, job in enumerate(jobs, start=1):
            yield work(job)
            progress(task, done, len(jobs))
        return
    # Spawned, not forked: a fork of a process that has started threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for done, result in enumerate(pool.map(work, jobs), start=1):
                yield result
                progress(task, done, len(jobs))
        except BrokenProcessPool as error:
            raise AtypiaError(
                task, "a worker process was killed, probably for want of memory", "Use --workers 1"
            ) from error
