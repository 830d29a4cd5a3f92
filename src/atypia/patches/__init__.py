"""Patches of a volume: where they lie, cutting them out, and back from patches to voxels."""

from __future__ import annotations

from atypia.patches.assemble import Assembler, assemble, interpolated_scores, spread_scores
from atypia.patches.extract import chunks, extract, mean_inside, padded, sample
from atypia.patches.grid import PatchGrid, Triple, patch_grid, scaled

__all__ = [
    "Assembler",
    "PatchGrid",
    "Triple",
    "assemble",
    "chunks",
    "extract",
    "interpolated_scores",
    "mean_inside",
    "padded",
    "patch_grid",
    "sample",
    "scaled",
    "spread_scores",
]
