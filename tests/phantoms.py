"""Small brain-like volumes that take milliseconds: an ellipsoid of smooth tissue, with a blob."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from atypia.cohort import Cohort, Scan
from atypia.volume import Volume

SHAPE = (26, 30, 24)
SPACING_MM = (6.0, 6.0, 6.0)


def phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    lesion: bool = False,
) -> tuple[Volume, Volume, Volume]:
    """Make image, brain mask and lesion mask; world coordinates have their origin in the middle."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing_mm
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    rng = np.random.default_rng(seed)
    radius = np.array([62.0, 74.0, 58.0]) * rng.uniform(0.96, 1.04, 3)
    distance = np.sqrt(((world / radius) ** 2).sum(-1))
    brain = distance < 1
    # Two "tissues" that all subjects share, and texture of their own.
    tissue = (
        100 + 40 * (distance < 0.7) + 10 * np.cos(world[..., 0] / 15) * np.cos(world[..., 1] / 20)
    )
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1.0) * 12
    image = tissue + texture
    blob = ((world - [20, 10, 8]) ** 2).sum(-1) < 18**2 if lesion else np.zeros(shape, bool)
    image = np.where(brain, image + 90 * blob, 0).astype(np.float32)
    volume = Volume(image, affine, source=f"phantom {seed}")
    return volume, volume.with_data(brain, "mask"), volume.with_data(blob & brain, "mask")


def phantom_scan(seed: int, **options: object) -> Scan:
    """Make a scan of a phantom, its condition "blob" with a lesion and "healthy" without."""
    image, brain, lesion = phantom(seed, **options)  # type: ignore[arg-type]
    planted = bool(options.get("lesion"))
    return Scan(
        subject=f"phantom-{seed:03d}",
        images={"T2w": image},
        dataset="phantoms",
        brain_mask=brain,
        lesion_mask=lesion if planted else None,
        condition="blob" if planted else "healthy",
    )


def phantom_cohort(seeds: range, **options: object) -> Cohort:
    """Make a cohort of phantoms."""
    return Cohort(tuple(phantom_scan(seed, **options) for seed in seeds), "phantoms")
