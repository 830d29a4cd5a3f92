"""A volume as an image of SimpleITK, whose world has x to the left and y to the back."""

from __future__ import annotations

from typing import Any

import numpy as np

from atypia.volume import Volume

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns one world into the other, either way."""


def to_itk(volume: Volume) -> Any:
    """Give a SimpleITK image with the volume's geometry: float32, or uint8 for a mask."""
    import SimpleITK as sitk

    kind = np.uint8 if volume.kind == "mask" else np.float32
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.astype(kind).T))
    affine = LPS_FROM_RAS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image
