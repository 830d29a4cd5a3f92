"""Numpy `.npy` and `.npz` files; `.npz` carries its affine, `.npy` needs it as an option."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from atypia.errors import InputError
from atypia.volume import Kind, Volume

UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def read(path: Path, kind: Kind = "image", affine: ArrayLike | None = None) -> Volume:
    """Read `.npy`, or from `.npz` the array `data` and, when there, `affine`.

    Without `data` it is `volume`, or else the only array of the file.
    """
    try:
        # numpy leaves a file open that it opened itself and could not read.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                data, stored = loaded, None
            else:
                with loaded:
                    names = [name for name in loaded.files if name != "affine"]
                    known = [name for name in ("data", "volume") if name in names]
                    data = loaded[(known or names)[0] if known or len(names) == 1 else "data"]
                    stored = loaded.get("affine")
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            path,
            f"is not a readable numpy file ({reason})",
            "Save it with numpy.save, or numpy.savez with the arrays 'data' and 'affine'",
        ) from error
    if affine is not None and stored is not None:
        raise InputError(path, "has its own affine", "Leave the affine option out")
    matrix = stored if affine is None else affine
    return Volume(data, np.eye(4) if matrix is None else np.asarray(matrix), kind, str(path))


def write(volume: Volume, path: Path) -> None:
    """Write `.npz` with `data` and `affine`, or `.npy` with the voxels alone."""
    with path.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(file, data=volume.data, affine=volume.affine)
        else:
            np.save(file, volume.data, allow_pickle=False)
