"""How long work tells how far it is: one callable, silent unless somebody listens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """A listener for progress; `done == total` ends the task of that name."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Hear that `done` of `total` pieces of `task` are finished."""


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Ignore all progress: the default everywhere in the library."""


def track(items: Sequence[Item], task: str, progress: Progress) -> Iterator[Item]:
    """Iterate over `items` and tell `progress` after each."""
    progress(task, 0, len(items))
    for done, item in enumerate(items, start=1):
        yield item
        progress(task, done, len(items))
