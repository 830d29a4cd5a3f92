"""Kept: the last few things that were made, until the files they were made from change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """What was asked for last.

    Parameters
    ----------
    most
        So many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, tuple[object, Made]] = OrderedDict()

    def get(self, key: Hashable, stamp: object, make: Callable[[], Made]) -> Made:
        """Give what is kept, or make it if it is not, or was made from other files.

        Parameters
        ----------
        key
            What is asked for.
        stamp
            Of the files, taken before: what is made while they change is made again.
        """
        before = self._made.get(key)
        if before is None or before[0] != stamp:
            before = self._made[key] = (stamp, make())
        self._made.move_to_end(key)
        if len(self._made) > self._most:
            self._made.popitem(last=False)
        return before[1]
