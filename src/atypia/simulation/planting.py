"""Planting: roundish lesions put into any image of a brain, on its own grid, without tissue maps.

A lesion is a ball whose surface smooth noise roughens, cut where it encloses the volume that was
asked for. Where voxels are coarse it is worked out on a finer grid and averaged, so that a lesion
smaller than a voxel shows as faintly as it would. It changes the intensity by a share of the
brain's median; what lies underneath shines through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atypia.errors import InputError, SettingsError
from atypia.simulation.fields import Float, sigmoid
from atypia.volume import Volume

ROUGHNESS = 0.12
"""Standard deviation of the surface, as a share of the radius."""
REACH = 1.6
"""No part of a lesion is further from its centre than so many radii (but for its soft edge)."""
FINE_MM = 1.0
"""Voxels are divided until they are not larger than this, nor than a sixth of the diameter."""
FINEST = 8
"""Parts of a voxel along one axis, at most."""
_WAVES = 24


@dataclass(frozen=True)
class PlantedParameters:
    """One planted lesion.

    Parameters
    ----------
    centre_mm
        World mm.
    diameter_mm
        Of the ball that has as much volume as the lesion.
    contrast
        Change of intensity as a share of the brain's median: 0.3 is brighter by 30 % of it.
    softness_mm
        Half-width of the edge, about.
    seed
        Of the irregularities.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    contrast: float
    softness_mm: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Give the parameters as plain values."""
        return {**asdict(self), "centre_mm": list(self.centre_mm)}


@dataclass(frozen=True, eq=False)
class PlantedLesion:
    """A lesion on a grid.

    Parameters
    ----------
    box
        The part of the grid outside which there is nothing of it.
    share
        Of lesion in every voxel of the box, 0 to 1.
    mask
        The truth: as many voxels as the volume fills, at least one, those of the highest share.
    """

    box: tuple[slice, slice, slice]
    share: Float
    mask: NDArray[np.bool_]


def least_distance_mm(diameter_mm: float) -> float:
    """Give how far apart the centres of the lesions in one scan are at least."""
    return 2 * diameter_mm + 10


def check_lesion(diameter_mm: float, contrast: float) -> None:
    """Refuse a lesion that no brain could have.

    Raises
    ------
    SettingsError
        The diameter is not above 0, or the contrast is below -1 or not finite.
    """
    if not (math.isfinite(diameter_mm) and diameter_mm > 0):
        raise SettingsError(f"diameter {diameter_mm} mm", "is not above 0", "Give e.g. 10")
    if not (math.isfinite(contrast) and contrast >= -1):
        raise SettingsError(f"contrast {contrast}", "is no share from -1 on", "Give e.g. 0.3")


def sample_planted(
    brain: Volume, diameter_mm: float, contrast: float, count: int, rng: np.random.Generator
) -> tuple[PlantedParameters, ...]:
    """Draw lesions for one scan; the draw does not depend on the contrast.

    Parameters
    ----------
    brain
        Mask, any orientation and spacing. Centres are at least a radius away from its edge.
    diameter_mm, contrast
        See `PlantedParameters`.
    count
        How many; their centres are at least `least_distance_mm` apart.
    rng
        Where the chance comes from.

    Returns
    -------
    tuple of PlantedParameters
        Fewer than `count` where no more fit.

    Raises
    ------
    SettingsError
        The diameter or the contrast is impossible.
    """
    check_lesion(diameter_mm, contrast)
    voxels = _deep(brain, diameter_mm / 2)
    places = brain.geometry.world(voxels)
    lesions: list[PlantedParameters] = []
    while len(lesions) < count and len(places):
        chosen = int(rng.integers(len(places)))
        # Anywhere in its voxel: a lesion is not centred on the grid.
        x, y, z = brain.geometry.world(voxels[chosen] + rng.uniform(-0.5, 0.5, 3))
        lesions.append(
            PlantedParameters(
                centre_mm=(float(x), float(y), float(z)),
                diameter_mm=float(diameter_mm),
                contrast=float(contrast),
                # A softer edge would add much to the volume of a small lesion.
                softness_mm=min(float(rng.uniform(0.5, 1.2)), diameter_mm / 20),
                seed=int(rng.integers(2**31)),
            )
        )
        # One and the same voxel may not be drawn twice, however small the lesions are.
        room = sum(brain.spacing_mm)
        away = np.linalg.norm(places - (x, y, z), axis=1)
        there = away >= least_distance_mm(diameter_mm) + room / 2
        voxels, places = voxels[there], places[there]
    return tuple(lesions)


def render_planted(brain: Volume, parameters: PlantedParameters) -> PlantedLesion:
    """Put a lesion onto the grid of a brain; it is of one piece and never leaves the brain.

    Parameters
    ----------
    brain
        Mask.
    parameters
        From `sample_planted`; the contrast plays no part.

    Raises
    ------
    InputError
        No voxel of the brain is within reach of the lesion.
    """
    radius = parameters.diameter_mm / 2
    box = _box(brain, parameters)
    inside = np.asarray(brain.data[box])
    if not inside.any():
        raise InputError(
            brain.source,
            f"has no brain at {tuple(round(c, 1) for c in parameters.centre_mm)} mm",
            "Draw the lesion for this brain",
        )
    fine_mm = min(FINE_MM, parameters.diameter_mm / 6)
    parts = [min(math.ceil(s / fine_mm - 1e-6), FINEST) for s in brain.spacing_mm]
    height = _height(brain, box, parts, parameters)
    wanted = 4 / 3 * math.pi * radius**3 / brain.geometry.voxel_volume_mm3
    while True:
        share, mask = _cut(height, inside, parts, wanted, parameters.softness_mm)
        beyond = _beyond(mask, brain, box, parameters)
        if not beyond.any():
            return PlantedLesion(box, share, mask)
        # The volume that lay there is grown on this side of the gap.
        inside = inside & ~beyond


def _cut(
    height: NDArray[np.float64],
    inside: NDArray[np.bool_],
    parts: Sequence[int],
    wanted: float,
    softness_mm: float,
) -> tuple[Float, NDArray[np.bool_]]:
    """Cut a surface where it encloses so many voxels; give the share of every voxel and the mask.

    Nothing of it lies outside of `inside`.
    """
    fine = inside
    for axis, number in enumerate(parts):
        fine = np.repeat(fine, number, axis=axis)
    reachable = height[fine]
    count = min(max(round(wanted * math.prod(parts)), 1), reachable.size)
    edge = np.partition(reachable, reachable.size - count)[reachable.size - count]
    shares = np.where(fine, sigmoid((height - edge) / softness_mm), 0)
    share = shares.reshape(*(n for pair in zip(inside.shape, parts, strict=True) for n in pair))
    share = share.mean(axis=(1, 3, 5)).astype(np.float32)
    # By rank, so that the volume is right, and no mask is empty, however coarse the voxels are.
    ranked = np.where(inside, share, -1).ravel()
    voxels = min(max(round(wanted), 1), int(inside.sum()))
    mask = np.zeros(ranked.size, dtype=bool)
    mask[np.argsort(-ranked, kind="stable")[:voxels]] = True
    return share, mask.reshape(inside.shape)


def _beyond(
    mask: NDArray[np.bool_],
    brain: Volume,
    box: tuple[slice, slice, slice],
    parameters: PlantedParameters,
) -> NDArray[np.bool_]:
    """Give what of a mask does not hang together with its voxel that is nearest to the centre.

    That is what lies beyond a gap in the brain, such as the fissure between its halves.
    """
    from scipy import ndimage

    # As lesions are told apart wherever they are counted: by faces, edges and corners.
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return np.zeros_like(mask)
    voxels = np.argwhere(mask)
    away = brain.geometry.world(voxels + [part.start for part in box]) - parameters.centre_mm
    nearest = voxels[int(np.linalg.norm(away, axis=1).argmin())]
    return np.asarray(mask & (labels != labels[tuple(nearest)]))


def apply_planted(image: Volume, brain: Volume, lesions: Sequence[PlantedParameters]) -> Volume:
    """Plant lesions into an image.

    Parameters
    ----------
    image
        In its own units of intensity, with the brain brighter than 0.
    brain
        Mask on the same grid.
    lesions
        From `sample_planted`.

    Returns
    -------
    Volume
        float32; nothing gets darker than the darkest voxel of the image.

    Raises
    ------
    InputError
        The grids differ, the brain is empty, or its median intensity is not above 0.
    """
    image.require_same_grid(brain)
    data = image.data.astype(np.float32)
    median = float(np.median(data[brain.data])) if brain.data.any() else 0.0
    if median <= 0:
        raise InputError(
            image.source,
            f"the median intensity of its brain is {median:g}, not above 0, so that a contrast "
            "relative to it means nothing",
            "Give the scan in its own units, not normalised, and a brain mask with voxels",
        )
    floor = data.min()
    for parameters in lesions:
        lesion = render_planted(brain, parameters)
        changed = data[lesion.box] + np.float32(parameters.contrast * median) * lesion.share
        data[lesion.box] = np.maximum(changed, floor)
    return image.with_data(data)


def planted_mask(brain: Volume, lesions: Sequence[PlantedParameters]) -> Volume:
    """Give the true mask of planted lesions, all together, on the grid of the brain."""
    mask = np.zeros(brain.shape, dtype=bool)
    for parameters in lesions:
        lesion = render_planted(brain, parameters)
        mask[lesion.box] |= lesion.mask
    return brain.with_data(mask, "mask")


def _deep(brain: Volume, depth_mm: float) -> NDArray[np.int64]:
    """List the voxels `(N, 3)` that are at least so far inside the brain."""
    depth, first = _depth(brain)
    return np.asarray(np.argwhere(depth >= depth_mm) + first)


# Lesions of many sizes are drawn for one brain, and its distances take longest.
@lru_cache(maxsize=1)
def _depth(brain: Volume) -> tuple[Float, NDArray[np.int64]]:
    """Give the distance to the edge of the brain, mm, in the box that holds it, and its corner.

    The edge of the image counts. Distances are exact for axes at right angles, as scanners give.
    """
    from scipy import ndimage

    found = ndimage.find_objects(brain.data.astype(np.uint8))
    if not found:
        return np.zeros((1, 1, 1), dtype=np.float32), np.zeros(3, dtype=np.int64)
    padded = np.pad(brain.data[found[0]], 1)
    depth = ndimage.distance_transform_edt(padded, sampling=brain.spacing_mm)
    first = np.array([part.start for part in found[0]])
    return depth[1:-1, 1:-1, 1:-1].astype(np.float32), first


def _box(brain: Volume, parameters: PlantedParameters) -> tuple[slice, slice, slice]:
    """Give the part of the grid that a lesion may reach."""
    reach = REACH * parameters.diameter_mm / 2 + 4 * parameters.softness_mm
    inverse = np.linalg.inv(brain.affine[:3, :3])
    # A ball of 1 mm spans so many voxels along each axis, however the axes are turned.
    half = reach * np.linalg.norm(inverse, axis=1) + 1
    middle = brain.geometry.voxel(parameters.centre_mm)
    low = np.clip(np.floor(middle - half), 0, None).astype(int)
    high = np.minimum(np.ceil(middle + half).astype(int) + 1, brain.shape)
    x, y, z = (slice(int(a), max(int(a), int(b))) for a, b in zip(low, high, strict=True))
    return x, y, z


def _height(
    brain: Volume,
    box: tuple[slice, slice, slice],
    parts: Sequence[int],
    parameters: PlantedParameters,
) -> NDArray[np.float64]:
    """Give how far every part of a voxel of the box is from the rough surface, inwards, in mm."""
    radius = parameters.diameter_mm / 2
    steps = [
        np.arange(p.start, p.stop).repeat(n) + (np.tile(np.arange(n), p.stop - p.start) + 0.5) / n
        for p, n in zip(box, parts, strict=True)
    ]
    matrix = brain.affine[:3, :3]
    start = brain.affine[:3, 3] - np.asarray(parameters.centre_mm) - matrix @ np.full(3, 0.5)
    x, y, z = np.ix_(*steps)
    offsets = [
        row[0] * x + row[1] * y + row[2] * z + first
        for row, first in zip(matrix, start, strict=True)
    ]
    distance = np.sqrt(sum(offset**2 for offset in offsets))
    # A sum of plane waves is smooth noise that any grid shares, and on a grid each of them is the
    # product of three lines.
    vectors, phases = surface_waves(parameters)
    noise = np.zeros(distance.shape)
    for vector, phase in zip(vectors, phases, strict=True):
        along = vector @ matrix
        lines = [np.exp(1j * a * line) for a, line in zip(along, steps, strict=True)]
        plane = lines[1][:, None] * (lines[2] * np.exp(1j * (phase + vector @ start)))
        noise += (lines[0][:, None, None] * plane).real
    height = radius + ROUGHNESS * radius * math.sqrt(2 / _WAVES) * noise - distance
    return np.where(distance <= REACH * radius + 4 * parameters.softness_mm, height, -1e3)


def surface_waves(
    parameters: PlantedParameters,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give wave vectors `(N, 3)` in radians per mm and phases `(N,)` of a lesion's roughness.

    The waves are 1.2 to 3 radii long: a larger lesion has larger bumps.
    """
    rng = np.random.default_rng([parameters.seed, 2])
    directions = rng.standard_normal((_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(1.2, 3.0, (_WAVES, 1)) * parameters.diameter_mm / 2
    return 2 * np.pi * directions / lengths, rng.uniform(0, 2 * np.pi, _WAVES)
