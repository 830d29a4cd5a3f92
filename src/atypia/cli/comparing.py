"""`atypia benchmark`: compare methods by a protocol."""

from __future__ import annotations

from pathlib import Path

from atypia.cli.shared import Output, Workers, list_failures, progress_bar
from atypia.evaluation.ranking import RANK_COLUMNS
from atypia.evaluation.result_tables import tables
from atypia.evaluation.table import markdown
from atypia.runs.comparing import compare_methods
from atypia.runs.protocol import Protocol, ready_made


def benchmark(
    protocol: str | None = None,
    *,
    output: Output = Path("benchmark"),
    data: Path = Path(),
    workers: Workers = None,
) -> int:
    """Compare methods on the same scans: fit, calibrate, score and evaluate them all.

    Parameters
    ----------
    protocol
        A ready-made protocol by its name, or a TOML file; without one they are listed.
    output
        A folder. The same command goes on after an interruption.
    data
        Folder to which the protocol's paths are relative.
    """
    if protocol is None:
        for name in ready_made():
            print(f"{name:<24} {Protocol.read(name).summary}")
        return 0
    chosen = Protocol.read(protocol)
    with progress_bar() as progress:
        run = compare_methods(chosen, output, data=data, workers=workers, progress=progress)
    from atypia.report import write_comparison

    page = write_comparison(output)
    print(tables(run.results["evaluation"]))
    if run.results["ranks"]:
        print(f"\nRanks\n\n{markdown(run.results['ranks'], RANK_COLUMNS)}")
    print(f"\n{run.results['seconds']:.0f} s. Open {page.resolve()}")
    return list_failures(run.failures, len(run.results["evaluation"]["scans"]))
