"""Volume: a 3D image with its geometry, the one form in which images travel through atypia.

Axes are `(X, Y, Z)`; the 4x4 affine maps voxel indices to world coordinates in millimetres,
RAS+ (x grows to the right, y to the front, z upwards), as in NIfTI.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atypia.errors import InputError

Kind = Literal["image", "mask", "score"]
"""What the voxels mean: intensities; inside or outside; anomaly score, higher = more abnormal."""

Array = NDArray[Any]

ALIGNED_SPACE, MNI152_SPACE = 2, 4
"""NIfTI's codes of a world that is aligned to something, and to the MNI152 template."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the voxels of a grid lie.

    Parameters
    ----------
    shape
        Number of voxels along `(X, Y, Z)`.
    affine
        4x4, voxel index to world millimetres, RAS+.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis, in mm."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(sizes[0]), float(sizes[1]), float(sizes[2]))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def world(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Map voxel indices `(..., 3)` to world millimetres `(..., 3)`."""
        points = np.asarray(voxels, dtype=np.float64)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def voxel(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """Map world millimetres `(..., 3)` to fractional voxel indices `(..., 3)`."""
        inverse = np.linalg.inv(self.affine)
        points = np.asarray(points_mm, dtype=np.float64)
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3])

    def matches(self, other: Geometry, tolerance_mm: float = 1e-2) -> bool:
        """Tell whether both grids have the same shape and the same corners within the tolerance."""
        if self.shape != other.shape:
            return False
        corners = np.array([[0, 0, 0], self.shape, (self.shape[0], 0, 0), (0, self.shape[1], 0)])
        return bool(np.abs(self.world(corners) - other.world(corners)).max() <= tolerance_mm)

    def to_json(self) -> dict[str, Any]:
        """Give shape and affine as plain lists."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image with its geometry; immutable, and always finite.

    Parameters
    ----------
    data
        `(X, Y, Z)`. Of kind ``"mask"`` it is boolean, of kind ``"score"`` float32; an image keeps
        the type in which it was stored.
    affine
        4x4, voxel index to world millimetres, RAS+.
    kind
        What the voxels mean.
    source
        Where the volume came from, named in error messages.
    space
        NIfTI's code of the world space: 1 scanner, 2 aligned, 4 MNI152.

    Raises
    ------
    InputError
        Not 3D, empty, not real numbers, not finite, or a singular affine.
    """

    data: Array
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    kind: Kind = "image"
    source: str = "volume"
    space: int = 1

    def __post_init__(self) -> None:
        data = _checked_data(np.asanyarray(self.data), self.kind, self.source)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "affine", _checked_affine(self.affine, self.source))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along `(X, Y, Z)`."""
        x, y, z = self.data.shape
        return (x, y, z)

    @cached_property
    def geometry(self) -> Geometry:
        """The grid on which the voxels lie."""
        return Geometry(self.shape, self.affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis, in mm."""
        return self.geometry.spacing_mm

    def with_data(self, data: ArrayLike, kind: Kind | None = None) -> Self:
        """Put other voxels of the same shape onto this grid."""
        array = np.asanyarray(data)
        if array.shape != self.shape:
            raise InputError(
                self.source,
                f"voxels of shape {array.shape} do not fit a grid of {self.shape}",
                "Give an array of the grid's shape",
            )
        return replace(self, data=array, kind=kind or self.kind)

    def canonical(self) -> Volume:
        """Permute and flip the axes so that they run right, anterior, superior (RAS+).

        Voxels are moved, never interpolated.
        """
        import nibabel.orientations as orientations

        turn = orientations.io_orientation(self.affine)
        data = orientations.apply_orientation(self.data, turn)
        affine = self.affine @ orientations.inv_ornt_aff(turn, self.shape)
        return replace(self, data=data, affine=affine)

    def require_same_grid(self, other: Volume) -> None:
        """Refuse another volume that does not lie on this volume's grid.

        Raises
        ------
        InputError
            Shape or affine differ.
        """
        if not self.geometry.matches(other.geometry):
            raise InputError(
                other.source,
                f"shape {other.shape} or affine differs from {self.source} with shape {self.shape}",
                "Resample it onto that image's grid",
            )


def _checked_data(data: Array, kind: Kind, source: str) -> Array:
    if data.ndim != 3:
        raise InputError(source, f"has {data.ndim} dimensions, not 3", "Give one 3D image")
    if data.size == 0:
        raise InputError(source, f"is empty (shape {data.shape})", "Give an image with voxels")
    if data.dtype.kind not in "buif":
        raise InputError(source, f"holds {data.dtype}, not real numbers", "Convert it to float32")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        count = int(data.size - np.isfinite(data).sum())
        raise InputError(
            source, f"holds {count} NaN or infinite voxels", "Replace them, e.g. with 0"
        )
    if kind == "mask":
        return data if data.dtype == bool else data != 0
    return data.astype(np.float32, copy=False) if kind == "score" else data


def _checked_affine(affine: ArrayLike, source: str) -> NDArray[np.float64]:
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(source, "has no finite 4x4 affine", "Mend the header's geometry")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise InputError(source, "has a singular affine", "Mend the header's geometry")
    matrix.setflags(write=False)
    return matrix
