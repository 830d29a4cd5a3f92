"""Privacy: what a page must not tell of where files lie, because folders are named after people."""

from __future__ import annotations

import re

_FOLDER = r"""[^\s/\\:;"'<>|()]+(?:\ +[^\s/\\:;"'<>|()]+)*[/\\]+"""
"""One folder's name, which may hold spaces, and the separator after it."""
_ABSOLUTE = re.compile(rf"(?<![\w.])(?:~|[A-Za-z]:|file:)?[/\\]+(?:{_FOLDER})+")
_RELATIVE = re.compile(r"(?<![\w.])(?:[\w.~-]+[/\\]+)+(?=[\w.-]*\.\w)")
"""Folders before a name with a suffix; other words with a stroke between them are words."""


def file_name(path: str) -> str:
    """Give the last part of a path, of this or another operating system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def without_folders(text: str) -> str:
    """Replace every path in a text by its last part.

    In doubt more is left out, not less: what stands before the first colon of an error is taken
    for one path if it holds a separator.
    """
    where, colon, rest = text.partition(": ")
    if colon and re.search(r"[/\\]", where):
        return f"{file_name(where)}: {_shortened(rest)}"
    return _shortened(text)


def setting_without_folders(value: str) -> str:
    """Replace every path in the value of a setting, which may be a list, by its last part."""
    return ", ".join(file_name(part) for part in value.split(", "))


def _shortened(text: str) -> str:
    return _RELATIVE.sub("", _ABSOLUTE.sub("", text))
