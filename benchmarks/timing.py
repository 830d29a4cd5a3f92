"""Helpers of the benchmarks: CPU-seconds, repeated runs, and what machine they ran on."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""


@dataclass(frozen=True)
class Child:
    """What a child process did.

    Parameters
    ----------
    cpu_s
        User and system CPU-seconds, of the child and of every descendant that it waited for.
    wall_s
        Seconds from start to end.
    peak_mb
        Largest resident memory of the child, in MB.
    code
        Exit status.
    stdout, stderr
        What it wrote.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str | None:
        """The last line of its complaint when it failed, None when it ended well."""
        lines = self.stderr.strip().splitlines()
        return None if self.code == 0 else (lines[-1] if lines else f"exit status {self.code}")


def child(command: Sequence[str]) -> Child:
    """Run a command at the repository root, with its `src` importable, and account for it."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT, env=environment
        )
        # wait4 accounts for this child alone, which getrusage(RUSAGE_CHILDREN) does not.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [(f.seek(0), f.read().decode(errors="replace"))[1] for f in (out, err)]
    unit = 2**20 if sys.platform == "darwin" else 2**10
    cpu = usage.ru_utime + usage.ru_stime
    return Child(cpu, wall, usage.ru_maxrss / unit, process.returncode, texts[0], texts[1])


def python(*arguments: str) -> Child:
    """Run this Python with the arguments."""
    return child([sys.executable, *arguments])


def task(module: str, name: str, *arguments: Any, threads: int | None = 1) -> dict[str, Any]:
    """Run one of a module's `TASKS` in a fresh process, so that memory and time are its own.

    Parameters
    ----------
    module
        The benchmark.
    name, arguments
        The task and what it is given; paths arrive as strings.
    threads
        Of torch; None leaves them as they are.

    Returns
    -------
    dict
        The JSON object that the task printed last.
    """
    words = [str(word) if isinstance(word, Path) else word for word in arguments]
    few = "" if threads is None else f"import torch; torch.set_num_threads({threads})\n"
    done = python("-c", f"{few}from {module} import TASKS; TASKS[{name!r}](*{words!r})")
    if done.error:
        raise SystemExit(f"{name} {words} failed: {done.error}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def cpu_seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Give the CPU-seconds of one call, over all threads of this process, and what it returned."""
    start = time.process_time()
    value = function()
    return time.process_time() - start, value


def repeated(measure: Callable[[], float], n: int) -> dict[str, float]:
    """Measure `n` times; give the best and the median."""
    values = [measure() for _ in range(n)]
    return {"best": min(values), "median": statistics.median(values)}


def forget_peak() -> float:
    """Let the kernel forget this process's peak of memory so far; give what it has now, in MB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def memory_mb(what: str) -> float:
    """Give a figure of `/proc/self/status` in MB: VmRSS for memory now, VmHWM for its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def hardware() -> dict[str, Any]:
    """Name the processor, the cores that this process may use, and the versions that matter."""
    torch = sys.modules.get("torch")
    numpy = sys.modules.get("numpy")
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "python": platform.python_version(),
        "numpy": getattr(numpy, "__version__", None),
        "torch": str(torch.__version__) if torch else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
