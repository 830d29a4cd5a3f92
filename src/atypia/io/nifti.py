"""NIfTI-1/2 through nibabel, with affine and data type kept."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import ArrayLike

from atypia.errors import InputError
from atypia.volume import Array, Kind, Volume

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


def read(path: Path, kind: Kind = "image", affine: ArrayLike | None = None) -> Volume:
    """Read a NIfTI file; see `atypia.io.read`."""
    if affine is not None:
        raise InputError(path, "has its own affine", "Leave the affine option out")
    try:
        image = _loaded(path)
        data = _stored(image)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            path, f"is damaged, truncated or not NIfTI ({reason})", "Copy the original file again"
        ) from error
    if data.ndim > 3 and all(size == 1 for size in data.shape[3:]):
        data = data.reshape(data.shape[:3])
    if data.ndim == 4:
        raise InputError(
            path, f"is 4D with {data.shape[3]} volumes", "Extract the one 3D volume that you mean"
        )
    code = int(image.header["sform_code"]) or int(image.header["qform_code"]) or 1
    return Volume(data, image.affine, kind, str(path), code)


def write(volume: Volume, path: Path) -> None:
    """Write a NIfTI-1 file, masks as uint8; see `atypia.io.write`."""
    data = volume.data
    if data.dtype == bool:
        data = data.view(np.uint8) if data.flags.c_contiguous else data.astype(np.uint8)
    elif data.dtype in (np.int64, np.uint64):
        data = data.astype(np.float64)
    elif data.dtype == np.float16:
        data = data.astype(np.float32)
    image = nibabel.Nifti1Image(data, volume.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(volume.affine, volume.space)
    image.set_qform(volume.affine, volume.space)
    nibabel.save(image, path)


def _loaded(path: Path) -> nibabel.Nifti1Image:
    if path.suffix.lower() != ".gz":
        return cast(nibabel.Nifti1Image, nibabel.load(path))
    # nibabel stops at the last voxel and so never sees the checksum that ends a gzip file.
    with gzip.open(path) as file:
        content = file.read()
    nifti2 = b"n+2" in content[4:8]
    return (nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image).from_bytes(content)


def _stored(image: nibabel.Nifti1Image) -> Array:
    # The header of a loaded image has forgotten its scaling; the proxy applies it.
    proxy: Any = image.dataobj
    data: Array = np.asanyarray(proxy)
    return data if (proxy.slope, proxy.inter) == (1, 0) else data.astype(np.float32)
