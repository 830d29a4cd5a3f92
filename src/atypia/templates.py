"""The healthy template brain: MNI152 (2009a, 1 mm) as it ships inside nilearn's wheel."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from atypia import io
from atypia.errors import MissingDependencyError
from atypia.volume import Volume


@dataclass(frozen=True)
class Template:
    """A skull-stripped brain with its tissue maps, all on one grid, MNI152 world space.

    Parameters
    ----------
    t1w
        T1-weighted intensities, uint8.
    gray_matter, white_matter
        Share of the tissue in each voxel, 0 to 255, uint8.
    brain
        Brain mask.
    """

    t1w: Volume
    gray_matter: Volume
    white_matter: Volume
    brain: Volume


@cache
def mni152() -> Template:
    """Read the template; later calls give the same object.

    Raises
    ------
    MissingDependencyError
        nilearn is absent, or keeps its files elsewhere than the versions we know.
    """
    t1w, gray, white = (io.read(_file(name)) for name in ("t1", "gm", "wm"))
    brain = t1w.with_data(t1w.data > 0, kind="mask")
    for volume in (t1w, gray, white, brain):
        volume.data.setflags(write=False)
    return Template(t1w, gray, white, brain)


def _file(name: str) -> Path:
    # find_spec gives the folder without importing nilearn, whose import takes seconds.
    spec = importlib.util.find_spec("nilearn")
    places = spec.submodule_search_locations if spec else None
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    for place in places or ():
        path = Path(place) / "datasets" / "data" / file
        if path.exists():
            return path
    raise MissingDependencyError(
        "template MNI152", f"{file} not found in nilearn", "pip install 'nilearn>=0.12'"
    )
