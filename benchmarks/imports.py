"""CPU-seconds of `import atypia` and of `atypia fit --help`, beside an empty interpreter.

Limits: 0.15 and 0.5 CPU-seconds, and neither may load torch.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import timing

IMPORT_LIMIT_S = 0.15
HELP_LIMIT_S = 0.5

_LOADED = "import sys, atypia; print('torch' in sys.modules)"
# The help exits, hence the hook: it looks at the very end what was loaded.
_HELP_LOADED = """
import atexit, runpy, sys
atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))
sys.argv = ['atypia', 'fit', '--help']
runpy.run_module('atypia', run_name='__main__')
"""


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time each command in fresh processes, in turn, so that all see the same load."""
    commands = {
        "empty interpreter": ("-c", "pass"),
        "import atypia": ("-c", "import atypia"),
        "atypia fit --help": ("-m", "atypia", "fit", "--help"),
    }
    runs: dict[str, list[timing.Child]] = {name: [] for name in commands}
    for _ in range(5 if quick else 15):
        for name, arguments in commands.items():
            runs[name].append(timing.python(*arguments))
    limits = {"import atypia": IMPORT_LIMIT_S, "atypia fit --help": HELP_LIMIT_S}
    torch = {
        "import atypia": _says(timing.python("-c", _LOADED), "stdout"),
        "atypia fit --help": _says(timing.python("-c", _HELP_LOADED), "stderr"),
    }
    rows = [_row(name, done, limits.get(name), torch.get(name)) for name, done in runs.items()]
    keys = {"empty interpreter": "empty", "import atypia": "import", "atypia fit --help": "help"}
    figures = {
        f"{keys[row['command']]}_{key}": value
        for row in rows
        for key, value in row.items()
        if key != "command"
    }
    return rows, figures


def _row(
    name: str, runs: list[timing.Child], limit: float | None, torch: bool | None
) -> dict[str, Any]:
    error = next((run.error for run in runs if run.error), None)
    cpu = None if error else statistics.median(run.cpu_s for run in runs)
    return {
        "command": name,
        "cpu_s": cpu,
        "best_cpu_s": None if error else min(run.cpu_s for run in runs),
        "limit": limit,
        "within": None if cpu is None or limit is None else cpu < limit,
        "torch": None if error else torch,
        "error": error,
    }


def _says(child: timing.Child, stream: str) -> bool | None:
    lines = getattr(child, stream).strip().splitlines()
    return {"True": True, "False": False}.get(lines[-1] if lines else "")
