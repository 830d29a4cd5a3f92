"""Privacy: what a page must not tell of where files lie, because folders are named after people.

A folder may be named `O'Brien, Anna (2)`, so that nothing tells for sure where in a sentence a path
begins or ends. In doubt more is left out, not less, down to half of the sentence.
"""

from __future__ import annotations

import itertools
import re

_SUFFIX = "nii|gz|json|jsonl|tsv|csv|txt|toml|md|html|pt|pth|npz|npy|mgz|mgh|nrrd|mha|dcm|webp|png"
_ROOT = r"(?:~[\w.-]*|\.{1,2}|(?<!\w)\w+:)?[/\\]+(?=[^\s'\"])"
"""What a path begins with that can be told from words: root, drive, `~`, `.`, or `s3:`."""
_FIRST = re.compile(rf"""(?<![^\s'"`(\[=|]){_ROOT}""")
_NEXT = re.compile(rf"""(?:(?<=\s)|(?<=\s['"`(\[])){_ROOT}""")
"""After another path: a folder's name may end with a quote or a bracket."""
_END = re.compile(rf"(?:\.(?:{_SUFFIX}))+(?!\.?[\w/\\])", re.IGNORECASE)
"""Where such a path ends for sure; else it may go on to the next one."""
_BREAK = re.compile(r"""([:;|<>]|(?<!\w)['"`]|['"`](?!\w)|\.(?=\s))""")
"""What a path that begins like a word is not taken to hold."""
_WORDS = re.compile(r"(?<![\w/\\])(?:and/or|n/a|mm/s)(?![\w/\\])", re.IGNORECASE)
"""No paths."""
_FRACTION = re.compile(r"(?<![\w/\\.])[\d.]+/[\d.]+(?![\w/\\])")
_SURELY = re.compile(r"/[^\s/]*\.[A-Za-z]|/.*/", re.DOTALL)
"""In a text without these: a name with a suffix after a separator, or several separators."""


def file_name(path: str) -> str:
    """Give the last part of a path, of this or another operating system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def without_folders(text: str) -> str:
    """Replace every path in a text by its last part.

    What stands before the first colon of an error is taken for one path if it holds a separator.
    A relative path elsewhere takes the words before it along, since they may be part of it.
    """
    return "".join(_line(line) for line in text.splitlines(keepends=True))


def setting_without_folders(value: str) -> str:
    """Replace every path in the value of a setting, which may be a list, by its last part.

    Of a list everything from a path to the next absolute one counts as one: a comma may be part of
    a folder's name.
    """
    before, *paths = _at_starts(value)
    if _last_separator(_without_fractions(before)) >= 0:
        before = _after_folders(before)
    return "".join([before, *map(_after_folders, paths)])


def _line(line: str) -> str:
    where, colon, rest = line.partition(": ")
    if colon and not _FIRST.search(where) and _last_separator(_without_fractions(where)) >= 0:
        return f"{file_name(where)}: {_shortened(rest)}"
    return _shortened(line)


def _shortened(line: str) -> str:
    before, *paths = _at_starts(line)
    parts = [_without_relative(before)]
    for path in paths:
        end = _END.search(path)
        cut = len(path) if end is None else end.end()
        parts += [_after_folders(path[:cut]), _without_relative(path[cut:])]
    return "".join(parts)


def _at_starts(text: str) -> list[str]:
    """Divide a text before every path that can be told from words."""
    first = _FIRST.search(text)
    if first is None:
        return [text]
    others = (found.start() for found in _NEXT.finditer(text, first.end()))
    places = [0, first.start(), *others, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(places)]


def _without_relative(text: str) -> str:
    """Leave out the folders of paths that begin like a word."""
    # Pieces, and between them what breaks them.
    pieces = _BREAK.split(text)
    for place in range(0, len(pieces), 2):
        quoted = 0 < place < len(pieces) - 1 and all(
            pieces[side] in ("'", '"', "`") for side in (place - 1, place + 1)
        )
        told = _WORDS.sub("", _without_fractions(pieces[place]))
        if "\\" in told or ("/" in told and (quoted or _SURELY.search(told))):
            pieces[place] = _after_folders(pieces[place])
    return "".join(pieces)


def _after_folders(text: str) -> str:
    """Give what follows the last separator; white space at the beginning stays."""
    kept = text[: len(text) - len(text.lstrip())]
    place = _last_separator(text)
    return text if place < 0 else kept + text[place + 1 :]


def _last_separator(text: str) -> int:
    """Give where the last separator of a path stands, -1 without one."""
    told = _blank(_WORDS, text.rstrip("/\\"))
    return max(told.rfind("/"), told.rfind("\\"))


def _without_fractions(text: str) -> str:
    # Not from absolute paths: they may end in a folder with a number.
    return _blank(_FRACTION, text)


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """Fill what a pattern finds with dots, so that places stay."""
    return pattern.sub(lambda found: "." * len(found[0]), text)
