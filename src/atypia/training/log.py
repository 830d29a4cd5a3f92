"""The training log: one JSON object a line, and TensorBoard events when asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from atypia import files
from atypia.errors import MissingDependencyError

DESCRIPTION = "training.json"
"""Beside the log of an unfinished run: how far it is to go."""


class TrainingLog:
    """Write `training.jsonl`; after a resume, lines of steps that are done again are dropped.

    Parameters
    ----------
    folder
        Where it is written; None writes nothing.
    step
        The step at which training goes on.
    tensorboard
        Also write event files.
    """

    def __init__(self, folder: Path | None, step: int, tensorboard: bool) -> None:
        self.path = None if folder is None else Path(folder) / "training.jsonl"
        self.file: TextIO | None = None
        self.events: Any = None
        if self.path is None:
            return
        kept = [line for line in read_log(self.path) if line["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        if tensorboard:
            self.events = _writer(self.path.parent / "tensorboard", step)

    def __enter__(self) -> Self:
        if self.path is not None:
            self.file = self.path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.file is not None:
            self.file.close()
        if self.events is not None:
            self.events.close()

    def describe(self, **facts: Any) -> None:
        """Write `training.json`, for whoever looks at the run before it is finished."""
        if self.path is not None:
            files.write_json(self.path.with_name(DESCRIPTION), facts)

    def record(self, step: int, **values: float | None) -> None:
        """Write one line; values that are None are left out."""
        there = {key: value for key, value in values.items() if value is not None}
        if self.file is not None:
            self.file.write(json.dumps({"step": step, **there}) + "\n")
        if self.events is not None:
            for key, value in there.items():
                self.events.add_scalar(key, value, step)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a training log; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "--training.tensorboard", "tensorboard is absent", "pip install 'atypia[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
