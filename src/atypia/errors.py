"""The exceptions of atypia; each one says where, what is wrong and what to do.

::

    AtypiaError
    ├── InputError               a file, volume, mask or cohort that cannot be used
    │   ├── CohortError          the scans are readable, their combination is not
    │   └── LeakageError         the same subject on both sides of a split
    ├── SettingsError            an unknown name, flag or value
    ├── ModelError               a model folder that is damaged or of another version
    │   └── NotFittedError       the detector has not learnt anything yet
    ├── OutputError              a place that cannot be written
    └── MissingDependencyError   an optional package is needed and absent
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtypiaError(Exception):
    """Base of every error that a user can cause.

    Parameters
    ----------
    where
        The file, scan, flag or object that the error is about.
    problem
        What is wrong with it, without a full stop.
    remedy
        What to do, as a sentence without a full stop.
    """

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        super().__init__(str(where), problem, remedy)
        self.where = str(where)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.remedy}."


class InputError(AtypiaError):
    """A file, volume or mask that cannot be used."""


class CohortError(InputError):
    """Scans that are readable one by one, but do not make the cohort that is asked for."""


class LeakageError(InputError):
    """The same subject stands on both sides of a split."""


class SettingsError(AtypiaError):
    """An unknown name, flag or value."""


class ModelError(AtypiaError):
    """A model folder that is damaged or was written by another version."""


class NotFittedError(ModelError):
    """The detector has not learnt anything yet."""


class OutputError(AtypiaError):
    """A place that cannot be written."""


class MissingDependencyError(AtypiaError):
    """An optional package is needed and absent."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> SettingsError:
    """Build the error for a misspelt name, with the nearest known one as the remedy.

    Parameters
    ----------
    kind
        What the name should be the name of, e.g. ``"method"``.
    name
        What the user wrote.
    known
        The names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    guess = next((n for n in names if close and n.lower() == close[0]), None)
    hint = f"Did you mean {guess!r}? " if guess else ""
    return SettingsError(f"{kind} {name!r}", "unknown", f"{hint}Known: {', '.join(names)}")
