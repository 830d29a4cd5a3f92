"""Slices: the volumes of one scan, the place worth looking at, and three views through it.

Everything is turned to RAS+ first, voxels moved and never interpolated; pictures get their true
proportions from the spacing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atypia import io
from atypia.cohort.scan import Labels
from atypia.runs.predicting import FILES
from atypia.volume import Array, Kind, Volume

MARGIN_MM = 6.0
"""How much around the brain is shown: enough to see what was cut away."""


@dataclass(frozen=True, eq=False)
class ScanVolumes:
    """The volumes of one scan on one grid, axes RAS+; None where there is none."""

    image: Volume
    score: Volume
    brain: Volume
    restoration: Volume | None = None
    mask: Volume | None = None
    own_mask: Volume | None = None
    lesion: Volume | None = None


@dataclass(frozen=True)
class Focus:
    """The voxel through which the views are cut, and why there."""

    voxel: tuple[int, int, int]
    centre_mm: tuple[float, float, float]
    reason: str


@dataclass(frozen=True)
class View:
    """One anatomical plane: the axis it is cut along, and the letters at its four edges."""

    name: str
    axis: int
    left: str
    right: str
    bottom: str
    top: str

    @property
    def plane(self) -> tuple[int, int]:
        """The two axes that remain: across, upwards."""
        across, up = (axis for axis in range(3) if axis != self.axis)
        return across, up


VIEWS = (
    View("axial", 2, "L", "R", "P", "A"),
    View("coronal", 1, "L", "R", "I", "S"),
    View("sagittal", 0, "P", "A", "I", "S"),
)
"""In RAS+ the patient's left is on the left: neurological display."""


def read_volumes(place: Path, description: Mapping[str, Any]) -> ScanVolumes:
    """Read what is shown of one scan.

    Raises
    ------
    InputError
        A file is missing or damaged, or lies on another grid than the score map.
    """
    kinds: dict[str, Kind] = {"restoration": "image", "mask": "mask", "own_mask": "mask"}
    score = io.read(place / FILES["score_map"], "score")
    there: dict[str, Volume] = {
        "image": io.read(description["image"]),
        "brain": io.read(place / FILES["brain"], "mask"),
    }
    for name, kind in kinds.items():
        if (place / FILES[name]).exists():
            there[name] = io.read(place / FILES[name], kind)
    if description["lesion_mask"]:
        lesion, labels = Path(description["lesion_mask"]), description.get("lesion_labels")
        there["lesion"] = Labels(lesion, tuple(labels))() if labels else io.read(lesion, "mask")
    for volume in there.values():
        score.require_same_grid(volume)
    turned = {name: volume.canonical() for name, volume in there.items()}
    return ScanVolumes(score=score.canonical(), **turned)


def focus_of(volumes: ScanVolumes) -> Focus:
    """Choose where to look: the true lesion, else the largest found one, else the highest score."""
    score = np.where(volumes.brain.data, volumes.score.data, -np.inf)
    if volumes.lesion is not None and volumes.lesion.data.any():
        return _focus(volumes, _middle(volumes.lesion), "the largest true lesion")
    found = volumes.mask if volumes.mask is not None else volumes.own_mask
    if found is not None and found.data.any():
        within = np.where(_largest(found.data), volumes.score.data, -np.inf)
        return _focus(volumes, int(within.argmax()), "the peak of the largest lesion found")
    return _focus(volumes, int(score.argmax()), "the highest score, nothing is flagged")


def window_of(volumes: ScanVolumes) -> tuple[float, float]:
    """Give the intensities shown as black and white, by the brain of the scan."""
    inside = volumes.image.data[volumes.brain.data]
    if not inside.size:
        inside = volumes.image.data.ravel()
    low, high = np.percentile(inside, (0.5, 99.7))
    return float(low), float(max(high, low + 1e-6))


def box_of_interest(volumes: ScanVolumes) -> tuple[slice, slice, slice]:
    """Give the part of the grid that is shown: the brain and a margin."""
    part = []
    shown = volumes.brain.data
    if volumes.lesion is not None:
        shown = shown | volumes.lesion.data
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        inside = np.flatnonzero(shown.any(axis=others))
        size = shown.shape[axis]
        first, last = (int(inside[0]), int(inside[-1])) if inside.size else (0, size - 1)
        margin = round(MARGIN_MM / volumes.score.spacing_mm[axis])
        part.append(slice(max(0, first - margin), min(size, last + margin + 1)))
    return part[0], part[1], part[2]


def cut(data: Array, view: View, focus: Focus, box: tuple[slice, slice, slice]) -> Array:
    """Give one slice `(up, across)` of the part that is shown."""
    index: list[slice | int] = list(box)
    index[view.axis] = focus.voxel[view.axis]
    return np.asarray(data[tuple(index)]).T


def _focus(volumes: ScanVolumes, flat: int, reason: str) -> Focus:
    x, y, z = (int(i) for i in np.unravel_index(flat, volumes.score.shape))
    centre = volumes.score.geometry.world((x, y, z))
    return Focus((x, y, z), (float(centre[0]), float(centre[1]), float(centre[2])), reason)


def _middle(mask: Volume) -> int:
    """Give the flat index of the voxel deepest inside the largest component."""
    from scipy import ndimage

    inside = _largest(mask.data)
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    depth = np.zeros(mask.shape, dtype=np.float32)
    # The rim counts as outside, also where the box touches the lesion.
    padded = np.pad(inside[box], 1)
    deep = ndimage.distance_transform_edt(padded, sampling=mask.spacing_mm)
    depth[box] = deep[1:-1, 1:-1, 1:-1]
    return int(depth.argmax())


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())
