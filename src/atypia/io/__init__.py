"""Reading and writing images: `read(path) -> Volume`, `write(volume, path)`.

The format is chosen by the file's suffix from one table; a new format is one file with `read` and
`write` and one line here. DICOM is known by what it is: a folder of slices, or a slice of any name.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from numpy.typing import ArrayLike

from atypia import files
from atypia.errors import InputError
from atypia.io import dicom
from atypia.io.dicom_frames import is_dicom
from atypia.volume import Kind, Volume

FORMATS = {
    ".nii": "atypia.io.nifti",
    ".nii.gz": "atypia.io.nifti",
    ".npy": "atypia.io.arrays",
    ".npz": "atypia.io.arrays",
    ".nrrd": "atypia.io.itk",
    ".nhdr": "atypia.io.itk",
    ".mha": "atypia.io.itk",
    ".mhd": "atypia.io.itk",
}
"""Suffix -> module that reads and writes it."""


def suffix_of(path: str | Path) -> str | None:
    """Give the known image suffix of a path, None when it is not an image that we read."""
    name = Path(path).name.lower()
    return max((s for s in FORMATS if name.endswith(s)), key=len, default=None)


def stem_of(path: str | Path) -> str:
    """Give the file name without its image suffix; for DICOM, the name of the folder."""
    suffix = suffix_of(path)
    if suffix is None and is_image(path):
        folder = dicom.addressed(Path(path))[0].resolve()
        return folder.parent.name if folder.is_file() else folder.name
    name = Path(path).name
    return name[: len(name) - len(suffix or "")]


def exists(path: str | Path) -> bool:
    """Tell whether there is something at a path, which may be `FOLDER#KEY` of a DICOM series."""
    return dicom.addressed(Path(path))[0].exists()


def is_image(path: str | Path) -> bool:
    """Tell whether a path looks like an image: by its suffix, or as a folder or file of DICOM."""
    place = dicom.addressed(Path(path))[0]
    return suffix_of(path) is not None or place.is_dir() or is_dicom(place)


def files_of(path: str | Path) -> list[Path]:
    """Give the files that an image consists of, as far as they exist."""
    place = dicom.addressed(Path(path))[0]
    if place.is_dir():
        return dicom.files_of(place)
    if suffix_of(path) is None and is_dicom(place):
        return dicom.files_of(place.parent)
    if not place.exists():
        return []
    if suffix_of(place) not in (".nhdr", ".mhd"):
        return [place]
    # The voxels of a header file may lie beside it.
    stem = stem_of(place)
    return sorted(p for p in place.parent.iterdir() if p.name.startswith(f"{stem}."))


def read(path: str | Path, kind: Kind = "image", affine: ArrayLike | None = None) -> Volume:
    """Read one 3D image.

    Parameters
    ----------
    path
        `.nii`, `.nii.gz`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`, `.npy` or `.npz`; for DICOM, a folder
        with one series, `FOLDER#KEY` of one among several, a slice of a series, or a multi-frame
        file.
    kind
        What the voxels mean; a mask becomes boolean (non-zero is inside).
    affine
        4x4, voxel to world mm, RAS+, for array files, which carry none (identity by default: 1 mm,
        axes right, anterior, superior). An error for a format that has its own.

    Returns
    -------
    Volume
        With the stored data type, unless the file asks for scaling (then float32).

    Raises
    ------
    InputError
        Missing, unreadable or truncated file, unknown suffix, not one finite 3D image.
    """
    path = Path(path)
    if not exists(path):
        raise InputError(path, "no such file", "Check the path")
    if suffix_of(path) is None and is_image(path):
        return dicom.read(path, kind, affine)
    return _module(path).read(path, kind, affine)  # type: ignore[no-any-return]


def write(volume: Volume, path: str | Path) -> None:
    """Write a volume atomically, in the format that the suffix names.

    Raises
    ------
    InputError
        Unknown suffix.
    OutputError
        The place cannot be written.
    """
    module = _module(Path(path))
    with files.replacing(path) as temporary:
        module.write(volume, temporary)


def _module(path: Path):  # type: ignore[no-untyped-def]
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(path, "is of no known image format", f"Use one of {', '.join(FORMATS)}")
    return importlib.import_module(FORMATS[suffix])
