"""Healthy brains: the template, bent, scaled and aged differently for every subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from atypia.resampling import grid_around
from atypia.simulation import deformation, tissue
from atypia.simulation.fields import Float, axis_mm, sigmoid, weigh_neighbours
from atypia.volume import Geometry, Volume

MARGIN_MM = 6.0
"""Background round the brain on every side of the grid."""


@dataclass(frozen=True, eq=False)
class AnatomyParameters:
    """Everything that makes one brain differ from the template.

    Parameters
    ----------
    scale, rotation_degrees, shift_mm
        Of the head, along or about x, y and z.
    shear
        Of x by y, x by z and y by z.
    velocity
        Lattice step in mm -> coefficients of the random velocity field.
    ventricle_mm
        How far the walls of the left and the right ventricle are pushed outwards (negative:
        inwards), about.
    sulcal_width
        1 as in the template, larger: wider sulci.
    cortex_shift
        Moves the border of gray and white matter; positive thickens the cortex.
    """

    scale: tuple[float, float, float]
    rotation_degrees: tuple[float, float, float]
    shift_mm: tuple[float, float, float]
    shear: tuple[float, float, float]
    velocity: Mapping[float, Float]
    ventricle_mm: tuple[float, float]
    sulcal_width: float
    cortex_shift: float

    def to_json(self) -> dict[str, object]:
        """Give everything but the velocity field."""
        return {
            "scale": list(self.scale),
            "rotation_degrees": list(self.rotation_degrees),
            "shift_mm": list(self.shift_mm),
            "shear": list(self.shear),
            "ventricle_mm": list(self.ventricle_mm),
            "sulcal_width": self.sulcal_width,
            "cortex_shift": self.cortex_shift,
        }


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One healthy brain on a grid; all arrays `(X, Y, Z)` float32 unless said otherwise.

    Parameters
    ----------
    gray, white, csf
        Shares of the tissues, summing to 1 within the brain and 0 outside.
    deep
        How much of the gray matter is deep gray matter, 0 to 1.
    texture
        What the tissue shares do not explain of the template's T1 image, as a fraction of white
        matter's intensity.
    brain
        Boolean mask.
    template_mm
        Where each voxel lies in the template, `(3, X, Y, Z)`, MNI152 world mm.
    ventricle_mm
        Distance to the ventricles, measured in the template.
    geometry
        The grid, RAS+ and axis-aligned.
    """

    gray: Float
    white: Float
    csf: Float
    deep: Float
    texture: Float
    brain: NDArray[np.bool_]
    template_mm: Float
    ventricle_mm: Float
    geometry: Geometry

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, voxel index to world millimetres, RAS+."""
        return self.geometry.affine

    def brain_volume(self) -> Volume:
        """Give the brain mask with its geometry."""
        return Volume(self.brain, self.affine, kind="mask", source="simulated brain")

    def with_shares(self, gray: Float, white: Float, csf: Float, texture: Float) -> Anatomy:
        """Copy with the tissues moved."""
        return replace(self, gray=gray, white=white, csf=csf, texture=texture)


def sample_anatomy(rng: np.random.Generator) -> AnatomyParameters:
    """Draw a brain.

    Size, ventricles and sulci follow an age-like factor plus their own chance, so that large
    ventricles and wide sulci tend to come together without being the same thing.
    """
    age = rng.uniform(-1, 1)
    size = rng.normal(1.0, 0.04)
    scale = size * np.clip(rng.normal(1, 0.03, 3), 0.93, 1.07)
    widening = 1.4 + 2.0 * age + rng.normal(0, 0.8)
    asymmetry = rng.normal(0, 0.4)
    return _aged(rng, scale, age, widening, asymmetry)


def sample_held_out_anatomy(rng: np.random.Generator) -> AnatomyParameters:
    """Draw a brain of a second generator, one that no detector of ours is ever trained on.

    Older or younger than any of `sample_anatomy`, with more asymmetric ventricles, of more extreme
    proportions and bent more: healthy, but of another kind.
    """
    age = float(rng.choice([1.0, -1.0], p=[0.75, 0.25])) * rng.uniform(1.1, 1.6)
    size = rng.normal(1.0, 0.06)
    scale = size * np.clip(rng.normal(1, 0.05, 3), 0.88, 1.12)
    widening = 1.4 + 2.0 * age + rng.normal(0, 0.8)
    asymmetry = rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 1.6)
    drawn = _aged(rng, scale, age, widening, asymmetry)
    bent = {step: np.float32(1.25) * lattice for step, lattice in drawn.velocity.items()}
    return replace(drawn, velocity=bent)


def _aged(
    rng: np.random.Generator,
    scale: NDArray[np.float64],
    age: float,
    widening: float,
    asymmetry: float,
) -> AnatomyParameters:
    """Draw the rest of a brain."""
    return AnatomyParameters(
        scale=_triple(scale),
        rotation_degrees=_triple(rng.normal(0, 3.5, 3)),
        shift_mm=_triple(rng.normal(0, 3, 3)),
        shear=_triple(rng.normal(0, 0.02, 3)),
        velocity=deformation.draw_velocity(rng),
        ventricle_mm=(
            float(np.clip(widening - asymmetry, -1.5, 5.5)),
            float(np.clip(widening + asymmetry, -1.5, 5.5)),
        ),
        sulcal_width=float(np.clip(np.exp(0.3 * age + rng.normal(0, 0.2)), 0.6, 2.0)),
        cortex_shift=float(np.clip(rng.normal(0, 0.06), -0.12, 0.12)),
    )


def render_anatomy(parameters: AnatomyParameters, spacing_mm: float) -> Anatomy:
    """Build the brain that the parameters describe.

    Parameters
    ----------
    parameters
        From `sample_anatomy` or `sample_held_out_anatomy`.
    spacing_mm
        Edge of the isotropic voxels.
    """
    rough = _rough_anatomy(parameters)
    geometry = _covering_grid(rough, spacing_mm)
    near = _refined(_grown(rough.brain), rough.geometry, geometry) > 0.01
    points = np.stack([_refined(part, rough.geometry, geometry) for part in rough.template_mm])
    maps = tissue.tissue_maps().geometry
    values = deformation.sample(_template_stack(spacing_mm), points[:, near], maps)
    return _anatomy(values, near, points, geometry, parameters)


def template_displacement(parameters: AnatomyParameters) -> Float:
    """Give the displacement `(3, X, Y, Z)` in mm on `coarse_grid()`.

    It maps a point of the subject, brought back by the head's affine, to the template.
    """
    grid = coarse_grid()
    velocity = deformation.velocity_field(parameters.velocity, grid)
    left, right = parameters.ventricle_mm
    side = sigmoid(axis_mm(grid, 0) / 4)[None, :, None, None]
    return deformation.integrate(
        velocity + _towards_ventricles() * (left + (right - left) * side), grid
    )


@cache
def coarse_grid() -> Geometry:
    """Give the grid of displacements: the template brain with some room round it."""
    low, high = tissue.brain_box_mm()
    return grid_around(low - 20, high + 20, deformation.COARSE_MM)


@cache
def _towards_ventricles() -> Float:
    """Velocity that widens the ventricles by about 1 mm: it fetches points from nearer to them."""
    from scipy import ndimage

    from atypia.resampling import resample

    maps = tissue.tissue_maps()
    # Every other voxel is enough for what is blurred by 6 mm.
    inside = ndimage.gaussian_filter(maps.ventricle[::2, ::2, ::2], 3.0)
    halved = maps.geometry.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    coarse = resample(Volume(inside, halved), coarse_grid()).data
    slope = np.stack([np.gradient(coarse, deformation.COARSE_MM, axis=axis) for axis in range(3)])
    return np.asarray(slope / np.linalg.norm(slope, axis=0).max(), dtype=np.float32)


@lru_cache(maxsize=2)
def _template_stack(spacing_mm: float) -> Float:
    """Stack the template's maps, smoothed to what the spacing can carry."""
    from scipy import ndimage

    maps = tissue.tissue_maps()
    stack = np.stack([maps.brain, maps.gray, maps.csf, maps.deep, maps.texture, maps.ventricle_mm])
    sigma = np.sqrt(max(spacing_mm**2 - 1, 0)) / 2.355
    if sigma > 0.2:
        ndimage.gaussian_filter(stack, (0, sigma, sigma, sigma), output=stack, truncate=2.5)
    return stack


def _head_matrix(parameters: AnatomyParameters) -> NDArray[np.float64]:
    """4x4 from the template to the subject, mm, about the middle of the brain."""
    from scipy.spatial.transform import Rotation

    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = parameters.shear
    turn = Rotation.from_euler("xyz", parameters.rotation_degrees, degrees=True).as_matrix()
    linear = turn @ shear @ np.diag(parameters.scale)
    low, high = tissue.brain_box_mm()
    middle = (low + high) / 2
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = middle - linear @ middle + parameters.shift_mm
    return matrix


@dataclass(frozen=True, eq=False)
class _Rough:
    """Coarse voxels round the deformed brain: brain share and place in the template."""

    brain: Float
    template_mm: Float
    geometry: Geometry


def _rough_anatomy(parameters: AnatomyParameters) -> _Rough:
    """Deform in coarse voxels; everything here is smooth enough to be interpolated later."""
    low, high = tissue.brain_box_mm()
    geometry = grid_around(low - 32, high + 32, deformation.COARSE_MM)
    inverse = np.asarray(np.linalg.inv(_head_matrix(parameters)), dtype=np.float64)
    points = deformation.affine_places(geometry, inverse)
    displacement = template_displacement(parameters)
    points += deformation.sample(displacement, points, coarse_grid(), border=True)
    brain = tissue.tissue_maps().brain[None]
    share = deformation.sample(brain, points, tissue.tissue_maps().geometry)[0]
    return _Rough(share, points, geometry)


def _covering_grid(rough: _Rough, spacing_mm: float) -> Geometry:
    found = np.argwhere(rough.brain > 0)
    margin = deformation.COARSE_MM / 2 + MARGIN_MM
    corner = rough.geometry.world(found.min(axis=0)) - margin
    opposite = rough.geometry.world(found.max(axis=0)) + margin
    return grid_around(corner, opposite, spacing_mm)


def _grown(share: Float) -> Float:
    """Let every coarse voxel take its neighbours' largest share, so that no thin part is lost."""
    from scipy import ndimage

    return np.asarray(ndimage.maximum_filter(share, size=3))


def _refined(values: Float, coarse: Geometry, fine: Geometry) -> Float:
    """Interpolate linearly from one axis-aligned grid to another, an axis at a time."""
    for axis in (2, 1, 0):
        places = axis_mm(fine, axis)
        steps = (places - coarse.affine[axis, 3]) / coarse.affine[axis, axis]
        first = np.floor(steps).astype(int)
        share = steps - first
        values = weigh_neighbours(values, axis, first, np.stack([1 - share, share]))
    return values


def _anatomy(
    values: Float,
    near: NDArray[np.bool_],
    points: Float,
    geometry: Geometry,
    parameters: AnatomyParameters,
) -> Anatomy:
    """Turn maps sampled at the voxels `near` into shares that sum to one, with own sulci."""

    def spread(part: Float, outside: float = 0.0) -> Float:
        field = np.full(geometry.shape, outside, dtype=np.float32)
        field[near] = part
        return field

    share, gray, csf, deep, texture, ventricle_mm = values
    inside = _largest_part(spread(share) >= 0.5)[near].astype(np.float32)
    whole = inside / np.maximum(share, 0.5)
    csf = np.clip(csf * whole, 0, 1)
    # A power below one swells what little CSF a fold holds; near the ventricles nothing changes.
    cortical = np.clip((ventricle_mm - 4) / 6, 0, 1)
    power = 1 + cortical * np.float32(1 / parameters.sulcal_width - 1)
    wide = np.clip((csf - 0.04) / 0.96, 0, 1) ** power
    matter = np.clip(gray * whole / np.maximum(1 - csf, 1e-3), 0, 1)
    matter += 4 * matter * (1 - matter) * np.float32(parameters.cortex_shift) * (1 - deep)
    gray = matter * (1 - wide) * inside
    white = (1 - wide) * inside - gray

    return Anatomy(
        gray=spread(gray),
        white=spread(white),
        csf=spread(wide * inside),
        deep=spread(deep),
        texture=spread(texture * inside),
        brain=spread(inside) > 0,
        template_mm=points,
        ventricle_mm=spread(ventricle_mm, tissue.FAR_MM),
        geometry=geometry,
    )


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop crumbs that the deformation and the mask's edge have left apart from the brain."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))
