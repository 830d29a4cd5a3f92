"""Lesions: tumour, stroke, white matter lesions and cavity, each grown to a volume that is drawn.

Every lesion is a height, in millimetres, that falls from its heart outwards, follows the anatomy
and is roughened by smooth noise. It is cut where it encloses the volume that was drawn; a sigmoid
across the cut gives the soft edge. So the true mask, the share of one half and more, is never
empty and never leaves the brain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atypia.errors import unknown_name
from atypia.simulation.anatomy import Anatomy
from atypia.simulation.contrast import Component
from atypia.simulation.fields import Float, sigmoid, smooth_noise
from atypia.simulation.lesion_places import deep_white, place_in_white, place_on_cortex
from atypia.simulation.mass_effect import push_aside

FORBIDDEN = np.float32(-1e3)
"""Height outside the brain."""

LEVELS: Mapping[str, Mapping[str, float]] = {
    "oedema": {"T1w": 0.78, "T2w": 0.38, "FLAIR": 1.5},
    "tumour core": {"T1w": 0.7, "T2w": 0.5, "FLAIR": 1.3},
    "tumour rim": {"T1w": 1.35, "T2w": 0.75, "FLAIR": 1.65},
    "infarct": {"T1w": 0.72, "T2w": 0.35, "FLAIR": 1.5},
    "white matter lesion": {"T1w": 0.85, "T2w": 0.45, "FLAIR": 1.5},
    "fluid": {"T1w": 0.05, "T2w": 0.02, "FLAIR": 0.08},
    "gliosis": {"T1w": 0.85, "T2w": 0.55, "FLAIR": 1.4},
}
"""Lesion tissue -> modality -> intensity, on the scale CSF = 0, gray matter = 1."""


@dataclass(frozen=True)
class LesionParameters:
    """One lesion.

    Parameters
    ----------
    name
        Key of `LESIONS`.
    centre_mm
        Its heart, in template space, MNI152 world mm.
    volume_ml
        Of the true mask.
    softness_mm
        Half-width of the edge, about.
    roughness_mm
        Standard deviation of the edge's irregularity.
    core_share
        Tumour: core's part of the volume. White matter lesions: the periventricular part.
    mass_effect_mm
        How far the tissue at the core's edge is pushed aside.
    intensity
        1 is the tissue of `LEVELS`; less lies nearer to gray matter, more further away.
    seed
        Of the irregularities.
    """

    name: str
    centre_mm: tuple[float, float, float]
    volume_ml: float
    softness_mm: float
    roughness_mm: float
    core_share: float
    mass_effect_mm: float
    intensity: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Give the parameters as plain values."""
        return {**asdict(self), "centre_mm": list(self.centre_mm)}


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion on the grid of an anatomy.

    Parameters
    ----------
    anatomy
        With the tissue pushed aside.
    components
        Shares of lesion tissue as they show in the image, in the order of painting.
    mask
        The truth: share of one half and more, boolean `(X, Y, Z)`.
    """

    anatomy: Anatomy
    components: tuple[Component, ...]
    mask: NDArray[np.bool_]


Shares = tuple[tuple[str, Float], ...]


@dataclass(frozen=True)
class LesionKind:
    """What `LESIONS` knows about a lesion.

    Parameters
    ----------
    description
        One line.
    volume_ml
        Smallest and largest volume that is drawn.
    place
        Draws a centre in template space, mm.
    grow
        Gives the names and shares of the lesion's tissues, in the order of painting.
    """

    description: str
    volume_ml: tuple[float, float]
    place: Callable[[np.random.Generator], NDArray[np.float64]]
    grow: Callable[[Anatomy, LesionParameters], Shares]


def sample_lesion(rng: np.random.Generator, name: str) -> LesionParameters:
    """Draw a lesion.

    Raises
    ------
    SettingsError
        The name is unknown.
    """
    if name not in LESIONS:
        raise unknown_name("lesion", name, LESIONS)
    kind = LESIONS[name]
    x, y, z = kind.place(rng)
    low, high = np.log(kind.volume_ml)
    return LesionParameters(
        name=name,
        centre_mm=(float(x), float(y), float(z)),
        volume_ml=float(np.exp(rng.uniform(low, high))),
        softness_mm=float(rng.uniform(0.5, 1.2)),
        roughness_mm=float(rng.uniform(1.0, 2.2)),
        core_share=float(rng.uniform(0.2, 0.5)),
        mass_effect_mm=float(rng.uniform(2, 7)),
        intensity=float(rng.uniform(0.8, 1.2)),
        seed=int(rng.integers(2**31)),
    )


def render_lesion(anatomy: Anatomy, parameters: LesionParameters) -> Lesion:
    """Put a lesion into an anatomy.

    Parameters
    ----------
    anatomy
        Healthy.
    parameters
        From `sample_lesion`.
    """
    if parameters.name not in LESIONS:
        raise unknown_name("lesion", parameters.name, LESIONS)
    if parameters.name == "tumour":
        core_ml = parameters.volume_ml * parameters.core_share
        anatomy = push_aside(
            anatomy, _centre(anatomy, parameters), core_ml, parameters.mass_effect_mm
        )
    shares = LESIONS[parameters.name].grow(anatomy, parameters)
    mask = np.zeros(anatomy.brain.shape, dtype=bool)
    for _, share in shares:
        mask |= share >= 0.5
    # The tissue underneath shines through unevenly, except through fluid.
    rng = np.random.default_rng([parameters.seed, 1])
    mottle = np.clip(0.8 + 0.1 * smooth_noise(rng, 12.0, anatomy.geometry), 0.55, 1)
    components = tuple(
        (share if tissue == "fluid" else share * mottle, _levels(tissue, parameters))
        for tissue, share in shares
    )
    return Lesion(anatomy, components, mask)


def _levels(tissue: str, parameters: LesionParameters) -> Mapping[str, float]:
    """Scale how far a lesion's tissue stands out from gray matter; fluid stays fluid."""
    factor = 1.0 if tissue == "fluid" else parameters.intensity
    return {m: 1 + factor * (level - 1) for m, level in LEVELS[tissue].items()}


def _tumour(anatomy: Anatomy, parameters: LesionParameters) -> Shares:
    rng = np.random.default_rng(parameters.seed)
    distance = _distance(anatomy, _centre(anatomy, parameters))
    fine = smooth_noise(rng, 9.0, anatomy.geometry)
    coarse = smooth_noise(rng, 22.0, anatomy.geometry)
    rough = np.float32(parameters.roughness_mm) * (0.9 * fine + 1.4 * coarse)
    core_height = rough - distance - 6 * anatomy.csf
    core_ml = parameters.volume_ml * parameters.core_share
    core, core_depth = _cut(core_height, core_ml, parameters.softness_mm, anatomy)
    # Oedema spreads along white matter and stops at cortex and fluid.
    wide = 2 * np.float32(parameters.roughness_mm) * smooth_noise(rng, 14.0, anatomy.geometry)
    barrier = 18 * anatomy.gray * (1 - 0.6 * anatomy.deep) + 40 * anatomy.csf
    barrier += 2 * _beyond_midline(anatomy, parameters)
    spread = np.where(core >= 0.5, 1e3 + core_depth, wide - 0.8 * distance - barrier)
    oedema, _ = _cut(spread, parameters.volume_ml, 1.5 * parameters.softness_mm, anatomy)
    rim_mm = max(2.5, anatomy.geometry.spacing_mm[0])
    necrosis = sigmoid((core_depth - np.float32(rim_mm) - fine) / 0.7)
    rim = core * (0.75 + 0.25 * np.clip(fine, -1, 1))
    return (
        ("oedema", np.maximum(oedema, core)),
        ("tumour core", core),
        ("tumour rim", rim * (1 - necrosis)),
    )


def _stroke(anatomy: Anatomy, parameters: LesionParameters) -> Shares:
    rng = np.random.default_rng(parameters.seed)
    centre = _centre(anatomy, parameters)
    apex = _voxel_near(anatomy, _inwards(np.array(parameters.centre_mm)))
    apex_mm = anatomy.geometry.world(apex)
    axis = centre - apex_mm
    length = float(np.linalg.norm(axis))
    offset = [
        np.float32(1) * (part - start) for part, start in zip(_axes(anatomy), apex_mm, strict=True)
    ]
    along = sum(part * np.float32(a / length) for part, a in zip(offset, axis, strict=True))
    across = np.sqrt(np.maximum(sum(part**2 for part in offset) - along**2, 0))
    fine = smooth_noise(rng, 9.0, anatomy.geometry)
    coarse = smooth_noise(rng, 22.0, anatomy.geometry)
    rough = np.float32(parameters.roughness_mm) * (1.6 * coarse + 1.0 * fine)
    # A blunt wedge: it widens from the depth of the white matter towards the cortex.
    wedge = 0.45 * np.maximum(along, -8) - across - 1.5 * np.maximum(-along, 0)
    below = np.maximum(-12 - anatomy.template_mm[2], 0) * (parameters.centre_mm[2] > 0)
    barrier = 12 * anatomy.csf + 4 * _beyond_midline(anatomy, parameters) + below
    height = (wedge + rough - barrier).astype(np.float32)
    softness = 2.6 * parameters.softness_mm
    share, _ = _cut(height, parameters.volume_ml, softness, anatomy)
    return (("infarct", share),)


def _white_matter_lesions(anatomy: Anatomy, parameters: LesionParameters) -> Shares:
    rng = np.random.default_rng(parameters.seed)
    noise = smooth_noise(rng, 8.0, anatomy.geometry)
    x, y, _ = anatomy.template_mm
    # Caps sit at the frontal and occipital horns; the corpus callosum stays clear.
    caps = 3 * (np.exp(-(((y - 30) / 12) ** 2)) + np.exp(-(((y + 46) / 14) ** 2)))
    barrier = 16 * (anatomy.gray + anatomy.csf) + 1.5 * np.maximum(10 - np.abs(x), 0)
    near = caps - anatomy.ventricle_mm + np.float32(1.6) * noise - barrier
    periventricular = (0.5 + 0.5 * parameters.core_share) * parameters.volume_ml
    share, _ = _cut(near, periventricular, 1.2 * parameters.softness_mm, anatomy)
    deep = _spots(rng, anatomy) - barrier
    spots, _ = _cut(
        np.where(share >= 0.5, FORBIDDEN, deep),
        parameters.volume_ml - periventricular,
        0.8 * parameters.softness_mm,
        anatomy,
    )
    return (("white matter lesion", np.maximum(share, spots)),)


def _spots(rng: np.random.Generator, anatomy: Anatomy) -> Float:
    """Give the height of many small foci; the volume decides how far each one grows."""
    noise = smooth_noise(rng, 5.0, anatomy.geometry)
    height = np.full(anatomy.brain.shape, FORBIDDEN, dtype=np.float32)
    x, y, z = _axes(anatomy)
    reach = int(np.ceil(9 / anatomy.geometry.spacing_mm[0]))
    for place in deep_white(rng, int(rng.integers(12, 30))):
        voxel = _voxel_near(anatomy, place)
        i, j, k = (slice(max(int(v) - reach, 0), int(v) + reach + 1) for v in voxel)
        cx, cy, cz = anatomy.geometry.world(voxel)
        a, b, c = rng.uniform(0.7, 1.3, 3)
        distance = np.sqrt(
            (a * (x[i] - cx)) ** 2 + (b * (y[:, j] - cy)) ** 2 + (c * (z[:, :, k] - cz)) ** 2
        )
        rise = rng.uniform(-3, 1.5) - distance + 1.2 * noise[i, j, k]
        height[i, j, k] = np.maximum(height[i, j, k], rise)
    return height


def _cavity(anatomy: Anatomy, parameters: LesionParameters) -> Shares:
    rng = np.random.default_rng(parameters.seed)
    distance = _distance(anatomy, _centre(anatomy, parameters))
    noise = smooth_noise(rng, 9.0, anatomy.geometry)
    rough = 1.3 * np.float32(parameters.roughness_mm) * noise
    total, depth = _cut(
        rough - distance - 5 * anatomy.csf, parameters.volume_ml, parameters.softness_mm, anatomy
    )
    fluid = sigmoid((depth - np.float32(2.2) + 0.6 * noise) / np.float32(0.7))
    return (("gliosis", total), ("fluid", fluid * total))


def _cut(
    height: Float, volume_ml: float, softness_mm: float, anatomy: Anatomy
) -> tuple[Float, Float]:
    """Give the share that encloses a volume, and the depth below its edge in mm."""
    inside = height[anatomy.brain]
    reachable = int((inside > FORBIDDEN / 2).sum())
    wanted = round(volume_ml * 1000 / anatomy.geometry.voxel_volume_mm3)
    count = max(min(wanted, reachable), 1)
    edge = np.partition(inside, inside.size - count)[inside.size - count]
    depth = np.where(anatomy.brain, height - edge, FORBIDDEN).astype(np.float32)
    return sigmoid(depth / np.float32(softness_mm)) * anatomy.brain, depth


def _axes(anatomy: Anatomy) -> tuple[Float, Float, Float]:
    """World coordinates along x, y and z, shaped to broadcast over the grid, mm."""
    affine = anatomy.affine
    shape = anatomy.brain.shape
    x, y, z = (
        affine[a, 3] + affine[a, a] * np.arange(shape[a], dtype=np.float32) for a in range(3)
    )
    return (
        x[:, None, None].astype(np.float32),
        y[None, :, None].astype(np.float32),
        z[None, None, :].astype(np.float32),
    )


def _distance(anatomy: Anatomy, centre_mm: NDArray[np.float64]) -> Float:
    x, y, z = (part - np.float32(c) for part, c in zip(_axes(anatomy), centre_mm, strict=True))
    return np.asarray(np.sqrt(x**2 + y**2 + z**2), dtype=np.float32)


def _centre(anatomy: Anatomy, parameters: LesionParameters) -> NDArray[np.float64]:
    """World mm of the lesion's heart in this brain."""
    return anatomy.geometry.world(_voxel_near(anatomy, np.array(parameters.centre_mm)))


def _voxel_near(anatomy: Anatomy, template_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the voxel inside the brain whose place in the template is nearest, by stepping there."""
    voxel = np.array(anatomy.brain.shape) // 2
    limit = np.array(anatomy.brain.shape) - 1
    spacing = anatomy.geometry.spacing_mm[0]
    # The map to the template is close to a shift, so a few corrections arrive.
    for _ in range(12):
        miss = template_mm - anatomy.template_mm[(slice(None), *voxel)]
        voxel = np.clip(voxel + np.round(miss / spacing).astype(int), 0, limit)
    return voxel


def _beyond_midline(anatomy: Anatomy, parameters: LesionParameters) -> Float:
    """Measure in mm how far voxels lie on the other side of the brain; the falx is a wall."""
    side = np.float32(np.sign(parameters.centre_mm[0]))
    return np.asarray(np.maximum(3 - side * anatomy.template_mm[0], 0), dtype=np.float32)


def _inwards(point_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Go from the cortex to beside the lateral ventricle of the same side."""
    side = np.sign(point_mm[0])
    target = np.array([24 * side, np.clip(point_mm[1], -45, 25), 14.0])
    return np.asarray(point_mm + 0.85 * (target - point_mm))


LESIONS: Mapping[str, LesionKind] = {
    "tumour": LesionKind(
        "core with a bright irregular rim, oedema along white matter, mass effect",
        (12.0, 110.0),
        place_in_white,
        _tumour,
    ),
    "stroke": LesionKind(
        "wedge from the cortex inwards, on one side, with irregular soft edges",
        (6.0, 90.0),
        place_on_cortex,
        _stroke,
    ),
    "white_matter_lesions": LesionKind(
        "confluent caps and bands at the ventricles, and small foci in deep white matter",
        (3.0, 35.0),
        place_in_white,
        _white_matter_lesions,
    ),
    "cavity": LesionKind(
        "old cavity filled with fluid, in a thin gliotic rim",
        (2.0, 30.0),
        place_in_white,
        _cavity,
    ),
}
"""Name -> lesion."""
