"""Work in processes: in order, with progress, whatever the number of workers."""

from __future__ import annotations

import math
import os

import pytest

from atypia.errors import InputError
from atypia.parallel import map_in_processes


def refuse(job: int) -> int:
    raise InputError(f"job {job}", "is bad", "Leave it out")


def where(job: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_with_progress(workers: int) -> None:
    heard: list[tuple[str, int, int]] = []

    def listen(task: str, done: int, total: int, note: str = "") -> None:
        heard.append((task, done, total))

    assert list(map_in_processes(math.factorial, [5, 3, 4], workers, "work", listen)) == [
        120,
        6,
        24,
    ]
    assert heard == [("work", n, 3) for n in range(4)]


@pytest.mark.parametrize(("workers", "jobs"), [(1, [0, 1]), (4, [0])])
def test_no_process_is_started_for_one_worker_or_one_job(workers: int, jobs: list[int]) -> None:
    found = map_in_processes(where, jobs, workers, "work", lambda *told: None)
    assert set(found) == {os.getpid()}


def test_an_error_of_ours_crosses_processes_whole() -> None:
    with pytest.raises(InputError, match=r"job 1: is bad\. Leave it out\."):
        list(map_in_processes(refuse, [1, 2], 2, "work", lambda *told: None))


def test_no_job_is_no_work() -> None:
    assert list(map_in_processes(refuse, [], None, "work", lambda *told: None)) == []
