"""niivue: the viewer of the subject page, taken from an installed package and never kept by us.

niivue (BSD-2-Clause, https://github.com/niivue/niivue) is one JavaScript file that nilearn ships.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from atypia.errors import MissingDependencyError

PACKAGE, FILE = "nilearn", "niivue.umd.js"
"""ipyniivue's script is no substitute: it exports a notebook widget and not the viewer."""
PLACES = ("_assets/js", "plotting/data/js", "reporting/data/js")
"""Folders of nilearn in which the file is looked for first; then everywhere in it."""
REMEDY = "pip install 'nilearn>=0.12', or write the page without a viewer (static)"


@dataclass(frozen=True)
class Bundle:
    """The viewer's JavaScript; its global name is `niivue`.

    Parameters
    ----------
    script
        The text, fit to stand inside of a `<script>` element.
    origin
        Package, version and file, in words.
    """

    script: str
    origin: str


def viewer_bundle() -> Bundle:
    """Find the viewer's script in an installed package.

    Raises
    ------
    MissingDependencyError
        No package holds it, or it cannot stand inside of a page.
    """
    # find_spec gives the folder without importing nilearn, whose import takes seconds.
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = _path_within(Path(folder))
        if path is None:
            continue
        script = path.read_text("utf-8")
        # Either would end the script, or hide its end, in the middle of the text.
        if "</script" in script.lower() or "<!--" in script:
            raise MissingDependencyError("viewer niivue", f"{FILE} cannot be embedded", REMEDY)
        return Bundle(script, f"{FILE} of {PACKAGE} {metadata.version(PACKAGE)}")
    raise MissingDependencyError("viewer niivue", f"{FILE} not found in {PACKAGE}", REMEDY)


def _path_within(folder: Path) -> Path | None:
    known = (folder / place / FILE for place in PLACES)
    return next((path for path in known if path.is_file()), None) or next(
        iter(sorted(folder.rglob(FILE))), None
    )
