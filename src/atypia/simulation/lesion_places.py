"""Where lesions begin: places drawn in the template, MNI152 world mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atypia.simulation.tissue import tissue_maps


def deep_white(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw places `(count, 3)` deep in the template's cerebral white matter, mm."""
    maps = tissue_maps()
    white = (maps.brain - maps.gray - maps.csf)[::2, ::2, ::2] > 0.95
    away = maps.ventricle_mm[::2, ::2, ::2] > 7
    places = maps.geometry.world(2 * np.argwhere(white & away))
    cerebral = (places[:, 2] > 4) & (np.abs(places[:, 0]) > 14)
    return np.asarray(rng.choice(places[cerebral], count, replace=False))


def place_in_white(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw one such place."""
    return np.asarray(deep_white(rng, 1)[0])


def place_on_cortex(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a point of the lateral convexity, most often in the middle cerebral territory."""
    maps = tissue_maps()
    places = maps.geometry.world(2 * np.argwhere(maps.gray[::2, ::2, ::2] > 0.7))
    x, y, z = places.T
    rim = (x / 68) ** 2 + ((y + 17) / 88) ** 2 + ((z - 10) / 66) ** 2
    convex = places[(rim > 0.72) & (np.abs(x) > 22) & (z > -6) & (y > -85) & (y < 52)]
    return np.asarray(rng.choice(convex))
