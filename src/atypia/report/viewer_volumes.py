"""Volumes of the viewer: cropped to the brain, one byte a voxel, and packed as text.

The score map is stored as ranks: a voxel holds how many levels its score is above. Every level is a
stop of the threshold slider, so that the mask at each stop is exactly `score > threshold`, though a
voxel takes one byte.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atypia.report.slices import ScanVolumes, box_of_interest, window_of
from atypia.volume import Array, Geometry

MOST_LEVELS = 250
"""With 0 for outside the brain and 1 for below all levels, a rank stays within a byte."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RankedScores:
    """A score map as ranks among levels.

    Parameters
    ----------
    ranks
        `(X, Y, Z)` uint8: 0 outside the brain, else 1 + the number of levels below the score. A
        score is above `levels[k]` where its rank is at least `k + 2`.
    levels
        Increasing; each a stop of the threshold slider.
    values
        A score that stands for each rank, from rank 1 on.
    """

    ranks: Bytes
    levels: NDArray[np.float32]
    values: NDArray[np.float64]

    def index_of(self, threshold: float) -> int:
        """Give the stop of the slider that is nearest to a threshold."""
        return int(np.abs(self.levels - np.float32(threshold)).argmin())


@dataclass(frozen=True, eq=False)
class ViewerVolumes:
    """What the viewer shows, each volume gzip-compressed NIfTI-1 in base64, all on one grid.

    Parameters
    ----------
    packed
        By name: `scan`, `score`, `flagged` (empty: the page fills it) and, where there are such,
        `restoration`, `own` and `truth`. The latter two are outlines, one voxel wide.
    geometry
        The grid: RAS+, cropped.
    scores
        What `packed["score"]` holds.
    window
        Intensities shown as black and white.
    """

    packed: dict[str, str]
    geometry: Geometry
    scores: RankedScores
    window: tuple[float, float]


def viewer_volumes(volumes: ScanVolumes, stops: Sequence[float]) -> ViewerVolumes:
    """Pack the volumes of one scan for the viewer.

    Parameters
    ----------
    volumes
        On one RAS+ grid.
    stops
        Scores at which the slider must be able to stand, lest a calibrated threshold be rounded;
        it reaches as far as the highest of them.
    """
    box = box_of_interest(volumes)
    affine = volumes.score.affine.copy()
    affine[:3, 3] = volumes.score.geometry.world([part.start for part in box])
    brain = volumes.brain.data[box]
    scores = ranked(volumes.score.data[box], brain, stops)
    low, high = window_of(volumes)
    scan = volumes.image.data[box].astype(np.float64)
    ends = float(min(scan.min(), low)), float(max(np.percentile(scan, 99.95), high))
    packed = {
        "scan": pack(*_in_bytes(scan, ends), affine),
        "score": pack(scores.ranks, 1.0, 0.0, affine),
        "flagged": pack(np.zeros(brain.shape, np.uint8), 1.0, 0.0, affine),
    }
    if volumes.restoration is not None:
        inside = np.where(brain, volumes.restoration.data[box], low)
        packed["restoration"] = pack(*_in_bytes(inside, ends), affine)
    for name, mask in (("own", volumes.own_mask), ("truth", volumes.lesion)):
        if mask is not None:
            packed[name] = pack(outline(mask.data[box]), 1.0, 0.0, affine)
    x, y, z = brain.shape
    return ViewerVolumes(packed, Geometry((x, y, z), affine), scores, (low, high))


def ranked(score: Array, brain: Array, stops: Sequence[float] = ()) -> RankedScores:
    """Rank the scores inside the brain among levels.

    Half of the levels are evenly spaced; the others lie where ever smaller shares of the brain are
    above them, down to a single voxel.
    """
    # float32 throughout, as the masks are made.
    inside = score[brain].astype(np.float32)
    if not inside.size:
        inside = np.zeros(1, np.float32)
    exact = np.asarray(stops, np.float32)
    ends = float(inside.min()), float(np.concatenate([inside, exact]).max())
    room = MOST_LEVELS - exact.size
    even = np.linspace(*ends, room - room // 2)
    shares = np.geomspace(0.5, min(1 / inside.size, 0.5), room // 2)
    levels = np.unique(np.concatenate([even, np.quantile(inside, 1 - shares), exact], dtype="f4"))
    ranks = np.zeros(score.shape, np.uint8)
    ranks[brain] = 1 + np.searchsorted(levels, score[brain].astype(np.float32), side="left")
    wide = levels.astype(np.float64)
    values = np.concatenate([wide[:1], (wide[:-1] + wide[1:]) / 2, wide[-1:]])
    return RankedScores(ranks, levels, values)


def outline(mask: Array) -> Bytes:
    """Give the voxels of a mask that have a neighbour outside of it."""
    from scipy import ndimage

    return np.asarray(mask & ~ndimage.binary_erosion(mask), dtype=np.uint8)


def pack(data: Bytes, slope: float, intercept: float, affine: NDArray[np.float64]) -> str:
    """Write bytes as a NIfTI-1 file, compressed, in base64; a value is `slope * byte + intercept`.

    Equal volumes give equal texts.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(data.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    # Told the range, the viewer need not count all voxels for it; the page sets its own window.
    header["cal_min"] = intercept
    header["cal_max"] = intercept + slope * max(1, int(data.max(initial=0)))
    header["magic"], header["vox_offset"] = b"n+1", 352
    content = header.binaryblock + bytes(4) + data.tobytes(order="F")
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _in_bytes(data: Array, ends: tuple[float, float]) -> tuple[Bytes, float, float]:
    """Give bytes, slope and intercept; what lies beyond the ends takes their value."""
    slope = (ends[1] - ends[0]) / 255
    level = np.rint((data.clip(*ends) - ends[0]) / slope)
    return level.astype(np.uint8), slope, ends[0]
