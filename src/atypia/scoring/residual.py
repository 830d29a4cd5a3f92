"""From a residual (scan minus restoration) to a score."""

from __future__ import annotations

from typing import Literal

import numpy as np

from atypia.volume import Array

Sign = Literal["both", "bright", "dark"]
"""Which deviations count: all, only too bright, only too dark."""


def signed(residual: Array, sign: Sign) -> Array:
    """Turn a residual into a score: its size, or its positive or negative part."""
    if sign == "both":
        return np.abs(residual)
    return np.maximum(residual if sign == "bright" else -residual, 0)
