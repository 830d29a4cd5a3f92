"""Lesions one by one: which true lesions a mask finds, and which of its components are true.

Source: Maier-Hein, Reinke et al. 2024, Metrics Reloaded (doi:10.1038/s41592-023-02151-z): object
detection with localisation by overlap; sensitivity, positive predictive value and F1 of objects.
A found component that covers two lesions detects both, and a lesion may have several true
components: true lesions and found components are counted apart, so that nothing is assigned twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atypia.errors import InputError, SettingsError
from atypia.scoring.components import ROUNDING

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SIZE_EDGES_MM3 = (0.0, 100.0, 1000.0, 10000.0, math.inf)
"""Edges of the strata of sizes; a size on an edge belongs to the larger ones."""


@dataclass(frozen=True)
class LesionCounts:
    """Counted lesions and components, of one scan or of several.

    Parameters
    ----------
    lesions, detected
        True lesions, and how many of them the mask finds.
    components, true_components
        Components of the mask, and how many of them overlap a true lesion.
    """

    lesions: int = 0
    detected: int = 0
    components: int = 0
    true_components: int = 0

    @property
    def recall(self) -> float | None:
        """Share of the true lesions that is detected; None without a true lesion."""
        return self.detected / self.lesions if self.lesions else None

    @property
    def precision(self) -> float | None:
        """Share of the components that is true; None without a component."""
        return self.true_components / self.components if self.components else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of recall and precision.

        None when there is neither a lesion nor a component; 0 when there is one of both alone.
        """
        if not self.lesions and not self.components:
            return None
        recall, precision = self.recall or 0.0, self.precision or 0.0
        return 2 * recall * precision / (recall + precision) if recall + precision else 0.0

    @property
    def false_positives(self) -> int:
        """Number of components that overlap no true lesion."""
        return self.components - self.true_components

    def to_json(self) -> dict[str, float | None]:
        """Give the counts and the figures by name."""
        return dict(vars(self)) | {
            "recall": self.recall,
            "precision": self.precision,
            "f1": self.f1,
            "false_positives": self.false_positives,
        }


@dataclass(frozen=True)
class LesionFigures:
    """What a mask finds in one scan, all sizes together and by size.

    Parameters
    ----------
    every
        All sizes.
    by_size
        Name of a stratum -> its counts: true lesions by their own size, components by theirs.
    """

    every: LesionCounts
    by_size: Mapping[str, LesionCounts]

    def to_json(self) -> dict[str, Any]:
        """Give the counts and the figures by name."""
        sizes = {name: counts.to_json() for name, counts in self.by_size.items()}
        return {**self.every.to_json(), "by_size": sizes}


def lesion_figures(
    mask: Mask,
    truth: Mask,
    spacing_mm: Spacing,
    *,
    least_overlap: float = 0.0,
    edges_mm3: Sequence[float] = SIZE_EDGES_MM3,
) -> LesionFigures:
    """Compare a mask with the truth, lesion by lesion.

    Parameters
    ----------
    mask, truth
        `(X, Y, Z)` boolean. Their components (26-neighbourhood) are the found and true lesions.
    spacing_mm
        Voxel size along X, Y, Z.
    least_overlap
        Share of a true lesion's voxels that the mask must hold for the lesion to be detected, 0 to
        1; one voxel is always needed, and enough for 0. A component is true when it holds one
        voxel of the truth.
    edges_mm3
        Edges of the strata of sizes, rising.

    Raises
    ------
    InputError
        The shapes differ, or a mask is not 3D and boolean.
    SettingsError
        The share is not between 0 and 1, or the edges do not rise.
    """
    check_overlap(least_overlap)
    names = size_names(edges_mm3)
    for name, given in (("mask", mask), ("truth", truth)):
        if given.dtype != bool or given.ndim != 3 or given.shape != truth.shape:
            problem = f"{given.dtype} of shape {given.shape} does not fit the truth"
            raise InputError(name, problem, "Give two 3D boolean masks on one grid")
    true_sizes, overlaps = _sizes(truth, mask)
    found_sizes, hits = _sizes(mask, truth)
    detected = overlaps >= needed_voxels(true_sizes, least_overlap)
    voxel = math.prod(spacing_mm)
    edges = np.asarray(edges_mm3, dtype=np.float64)
    # As everywhere, rounded affines must not move a lesion below an edge that it lies on.
    strata = [
        np.searchsorted(edges, sizes * voxel / ROUNDING, side="right") - 1
        for sizes in (true_sizes, found_sizes)
    ]
    by_size = {
        name: _counts(detected[strata[0] == number], hits[strata[1] == number] > 0)
        for number, name in enumerate(names)
    }
    return LesionFigures(_counts(detected, hits > 0), by_size)


def components(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Give the components of a mask (26-neighbourhood), numbered from 1, and their number."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return labels, int(count)


def needed_voxels(sizes: NDArray[Any], least_overlap: float) -> NDArray[np.int64]:
    """Give how many voxels of lesions of these sizes must be found, at least one."""
    # The subtracted part keeps 0.1 * 30 = 3.0000000000000004 from asking for 4 of 30.
    asked = np.ceil(least_overlap * np.asarray(sizes) * (1 - 1e-12))
    return np.maximum(asked, 1).astype(np.int64)


def check_overlap(least_overlap: float) -> None:
    """Refuse a share that is not between 0 and 1.

    Raises
    ------
    SettingsError
        It is not.
    """
    if not 0.0 <= least_overlap <= 1.0:
        problem = f"{least_overlap} is not between 0 and 1"
        raise SettingsError("least_overlap", problem, "Give a share, e.g. 0.1")


def size_names(edges_mm3: Sequence[float] = SIZE_EDGES_MM3) -> tuple[str, ...]:
    """Name the strata between edges, e.g. ``"100 to 1000 mm3"``.

    Raises
    ------
    SettingsError
        There are fewer than two edges, or they do not rise.
    """
    return interval_names(edges_mm3, "mm3", "edges_mm3")


def interval_names(edges: Sequence[float], unit: str, setting: str) -> tuple[str, ...]:
    """Name the intervals between edges, each with its lower edge and without its upper one.

    Raises
    ------
    SettingsError
        There are fewer than two edges, or they do not rise; `setting` is named.
    """
    pairs = list(pairwise(edges))
    if not pairs or not all(low < high for low, high in pairs):
        raise SettingsError(setting, f"{tuple(edges)} do not rise", "Give e.g. 0, 100, inf")
    return tuple(_interval_name(low, high, unit) for low, high in pairs)


def _interval_name(low: float, high: float, unit: str) -> str:
    if low <= 0:
        return "all" if math.isinf(high) else f"under {high:g} {unit}"
    return f"{low:g} {unit} and more" if math.isinf(high) else f"{low:g} to {high:g} {unit}"


def _sizes(mask: Mask, other: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the voxels of every component, and how many of them lie in the other mask."""
    labels, count = components(mask)
    sizes = np.bincount(labels[mask], minlength=count + 1)[1:]
    return sizes, np.bincount(labels[mask & other], minlength=count + 1)[1:]


def _counts(detected: Mask, hits: Mask) -> LesionCounts:
    return LesionCounts(detected.size, int(detected.sum()), hits.size, int(hits.sum()))
