"""NRRD and MetaImage through SimpleITK, whose world is LPS: x and y change sign on the way."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError
from atypia.volume import Kind, Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns LPS into RAS+ and back."""

LOCAL_DATA = {".nhdr": ".nrrd", ".mhd": ".mha"}
"""Header-only suffix -> the one whose files hold header and voxels in one."""


def read(path: Path, kind: Kind = "image", affine: ArrayLike | None = None) -> Volume:
    """Read `.nrrd`, `.nhdr`, `.mha` or `.mhd`; see `atypia.io.read`."""
    import SimpleITK as sitk

    if affine is not None:
        raise InputError(path, "has its own affine", "Leave the affine option out")
    try:
        _require_intact(path)
        image = sitk.ReadImage(str(path))
    except (RuntimeError, OSError, zlib.error) as error:
        raise InputError(
            path,
            "is damaged, truncated, not NRRD or MetaImage, or lacks its data file",
            "Copy the original again, a header together with its data file",
        ) from error
    size, components = image.GetSize(), image.GetNumberOfComponentsPerPixel()
    if components > 1:
        raise InputError(
            path, f"has {components} values a voxel", "Extract the one 3D volume that you mean"
        )
    if len(size) < 3 or any(n > 1 for n in size[3:]):
        raise InputError(
            path, f"is {len(size)}D of size {size}", "Extract the one 3D volume that you mean"
        )
    voxels = sitk.GetArrayFromImage(image).T.reshape(size[:3], order="F")
    return Volume(voxels, _affine(image), kind, str(path))


def write(volume: Volume, path: Path) -> None:
    """Write NRRD or MetaImage, compressed, masks as uint8; see `atypia.io.write`.

    `.nhdr` and `.mhd` hold their voxels as well, which both formats allow: one file is written
    whole or not at all.
    """
    import SimpleITK as sitk

    data = volume.data
    if data.dtype in (bool, np.float16):
        data = data.astype(np.uint8 if data.dtype == bool else np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    lps = LPS @ volume.affine
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / volume.spacing_mm).ravel().tolist())
    suffix = path.suffix.lower()
    place = path.with_name(path.name + LOCAL_DATA.get(suffix, suffix))
    try:
        sitk.WriteImage(image, str(place), useCompression=True)
        place.replace(path)
    except RuntimeError as error:
        raise OSError("the disk is full or read-only") from error
    finally:
        place.unlink(missing_ok=True)


def _affine(image: Any) -> NDArray[np.float64]:
    dimensions = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS @ affine


def _require_intact(path: Path) -> None:
    """Refuse a compressed MetaImage with a wrong bit, over which its reader goes in silence."""
    content = path.read_bytes()
    header = re.match(rb"(?s)(.{0,65536}?\n)?ElementDataFile *= *([^\r\n]+)\r?\n", content)
    if header is None or not re.search(rb"CompressedData *= *True", header[0]):
        return
    if header[2].strip() == b"LOCAL":
        voxels = content[header.end() :]
    else:
        voxels = (path.parent / header[2].strip().decode()).read_bytes()
    if not (reader := zlib.decompressobj()).decompress(voxels) or not reader.eof:
        raise zlib.error("incomplete")
