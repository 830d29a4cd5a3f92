"""Presets: named plans, those of the published methods and the one that we recommend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atypia.cohort.scan import Cohort
from atypia.errors import SettingsError, unknown_name
from atypia.preprocessing.align import MNI152, Align
from atypia.preprocessing.bias import CorrectBias
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.classes import Quantise
from atypia.preprocessing.denoise import Denoise
from atypia.preprocessing.grid import Downsample, Resample
from atypia.preprocessing.intensity import Normalise, ScaleRange
from atypia.preprocessing.plan import AnyStep, Plan
from atypia.preprocessing.step import State
from atypia.resampling import box_of, grid_around
from atypia.volume import Geometry

Alignment = Literal["affine", "rigid", "centre", "none"]

MARGIN_MM = 6.0
"""Room round the brains for what alignment leaves over."""


@dataclass(frozen=True)
class Preset:
    """What `make_plan` makes a plan of.

    Parameters
    ----------
    source
        Whose preprocessing it is.
    spacing_mm
        Edge of a voxel of the working grid.
    align
        Registration to the template, or ``"none"``.
    size_mm
        Field of view along (X, Y, Z), round the middle of the brain's box; None for that box and a
        margin.
    before
        Steps between brain and alignment, on the scan's own grid.
    interpolation
        Of the image onto the working grid.
    after
        Steps on the working grid.
    """

    source: str
    spacing_mm: float
    align: Alignment
    size_mm: tuple[float, float, float] | None = None
    before: tuple[AnyStep, ...] = ()
    interpolation: Literal["linear", "bspline"] = "linear"
    after: tuple[AnyStep, ...] = (Normalise(),)

    @property
    def factor(self) -> int:
        """By how much the steps on the working grid make its voxels larger."""
        return prod(step.factor for step in self.after if isinstance(step, Downsample))


PRESETS: Mapping[str, Preset] = {
    "atypia": Preset("ours, the recommended one", spacing_mm=2.0, align="affine"),
    "ifl": Preset(
        "IFL, https://arxiv.org/abs/2106.05214",
        spacing_mm=1.3125,
        align="centre",
        size_mm=(210.0, 210.0, 210.0),
        after=(ScaleRange(percentiles=(2, 98)), Quantise(mode_size=2)),
    ),
    "itermask3d": Preset(
        "IterMask3D, https://arxiv.org/abs/2504.04911",
        spacing_mm=1.0,
        align="centre",
        size_mm=(192.0, 192.0, 192.0),
        after=(Normalise(percentiles=(0, 100), limit=3.0),),
    ),
    "mhd": Preset(
        "MHD, https://arxiv.org/abs/2407.12474, and cDDPM, https://arxiv.org/abs/2312.04215",
        spacing_mm=2.0,
        align="affine",
        size_mm=(192.0, 192.0, 100.0),
        # As published, but for the grid, of which nothing is said: 4 costs half a minute more.
        before=(CorrectBias(shrink=5, iterations=(200, 200, 200, 200), tolerance=5e-4),),
        interpolation="bspline",
        after=(Denoise(), ScaleRange(), Downsample(interpolation="bspline")),
    ),
    "patches": Preset(
        "the pipeline of patch features and autoencoders",
        spacing_mm=1.5,
        align="centre",
        size_mm=(192.0, 192.0, 192.0),
        after=(Normalise(percentiles=(1, 99)),),
    ),
}
"""Name -> preset."""


def make_plan(
    cohort: Cohort,
    *,
    preset: str = "atypia",
    spacing_mm: float | None = None,
    align: Alignment | None = None,
    template: str = MNI152,
    modality: str | None = None,
    multiple_of: int = 8,
) -> Plan:
    """Plan the preprocessing for a cohort.

    Parameters
    ----------
    cohort
        The training scans. They are looked at only when `align` is ``"none"``, or when a step
        learns from them.
    preset
        A name in `PRESETS`, or the path of a plan's JSON, which leaves nothing else to choose.
    spacing_mm
        Edge of a voxel of the working grid; None for the preset's own.
    align
        Registration to the template; ``"centre"`` only shifts; ``"none"`` for scans that share one
        space already, whose working grid then lies round all their brains; None for the preset's.
    template
        `mni152`, or the path of an image of a brain.
    modality
        Which images of the scans.
    multiple_of
        Every size of the working grid is a multiple of this, unless the preset fixes its size and
        `spacing_mm` is the preset's.

    Raises
    ------
    SettingsError
        There is no such preset, or a plan's file is given together with other choices.
    InputError
        The file is no plan.
    """
    if preset not in PRESETS:
        return _plan_of_file(preset, (spacing_mm, align)).learn(cohort, modality)
    chosen = PRESETS[preset]
    align = align or chosen.align
    find = FindBrain()
    aligning: tuple[AnyStep, ...] = ()
    if align == "none":
        low, high = _box_of_all(find, cohort, modality)
        margin = 0.0
    else:
        aligning = (Align(transform=align, template=template),)
        low, high = box_of(aligning[0].brain()[1])
        margin = MARGIN_MM
    spacing = spacing_mm or chosen.spacing_mm
    if chosen.size_mm is None:
        grid = grid_around(low - margin, high + margin, spacing, multiple_of)
    else:
        whole = 1 if spacing == chosen.spacing_mm else multiple_of
        grid = _grid_of_size(chosen, (low + high) / 2, spacing, whole)
    affine = tuple(tuple(float(v) for v in row) for row in grid.affine)
    onto = Resample(shape=grid.shape, affine=affine, interpolation=chosen.interpolation)
    plan = Plan(steps=(find, *chosen.before, *aligning, onto, *chosen.after))
    return plan.learn(cohort, modality)


def _grid_of_size(
    preset: Preset, centre_mm: NDArray[np.float64], spacing_mm: float, multiple_of: int
) -> Geometry:
    """Build the grid of a fixed field of view, before its voxels are made larger."""
    sizes = np.ceil(np.array(preset.size_mm) / spacing_mm / multiple_of - 1e-6)
    shape = (sizes * multiple_of * preset.factor).astype(int)
    fine = spacing_mm / preset.factor
    affine = np.diag([fine, fine, fine, 1.0])
    affine[:3, 3] = centre_mm - (shape - 1) / 2 * fine
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _box_of_all(
    find: FindBrain, cohort: Cohort, modality: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    boxes = []
    for scan in cohort:
        state = State(scan.image(modality), scan.brain())
        boxes.append(box_of(find.apply(state, find.measure(state)).require_brain()))
    return np.min([box[0] for box in boxes], axis=0), np.max([box[1] for box in boxes], axis=0)


def _plan_of_file(preset: str, others: tuple[object, ...]) -> Plan:
    if not (preset.endswith(".json") or Path(preset).exists()):
        raise unknown_name("preprocessing", preset, PRESETS)
    if any(other is not None for other in others):
        raise SettingsError(
            f"preprocessing {preset!r}",
            "a plan's file says spacing and alignment itself",
            "Leave spacing_mm and align out",
        )
    return Plan.read(preset)
