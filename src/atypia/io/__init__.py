"""Reading and writing images: `read(path) -> Volume`, `write(volume, path)`.

The format is chosen by the file's suffix from one table; a new format is one file with `read` and
`write` and one line here.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from numpy.typing import ArrayLike

from atypia import files
from atypia.errors import InputError
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
    """Give the file name without its image suffix."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path) or "")]


def read(path: str | Path, kind: Kind = "image", affine: ArrayLike | None = None) -> Volume:
    """Read one 3D image.

    Parameters
    ----------
    path
        `.nii`, `.nii.gz`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`, `.npy` or `.npz`.
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
    if not path.exists():
        raise InputError(path, "no such file", "Check the path")
    if path.is_dir():
        raise InputError(path, "is a folder, not an image", "Name one image file in it")
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
