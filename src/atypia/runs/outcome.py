"""How a run over a cohort ended."""

from __future__ import annotations

from dataclasses import dataclass

from atypia.preprocessing import Failure


@dataclass(frozen=True)
class RunReport:
    """How a cohort run ended: scans done now, done before, and failures."""

    done: int
    kept: int
    failures: tuple[Failure, ...]
