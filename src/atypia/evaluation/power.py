"""Power: how many planted lesions of every size and contrast a calibrated detector finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from atypia.calibration import Threshold
from atypia.cohort.planted import PER_SCAN
from atypia.errors import InputError, SettingsError
from atypia.evaluation.lesion_figures import check_overlap
from atypia.evaluation.table import Column
from atypia.simulation.planting import check_lesion

DIAMETERS_MM = (6.0, 10.0, 16.0, 24.0)
CONTRASTS = (-0.3, -0.15, 0.15, 0.3)
LEVEL = 0.95
"""Of the intervals."""

POWER_COLUMNS = (
    Column("diameter", "diameter mm", "Of the ball with the lesion's volume."),
    Column("contrast", "contrast", "Change of intensity, in per cent of the brain's median."),
    Column("planted", "planted", "Lesions planted, of those asked for; fewer where none fits."),
    Column("found_before", "before", "Flagged in the clean scan already; they do not count."),
    Column("found", "found", "Lesions that the calibrated mask touches, of those that count."),
    Column("share", "share", "Of the two [95 % CI, Wilson, as if lesions were independent]."),
)


@dataclass(frozen=True)
class Cell:
    """The lesions of one diameter and contrast, of one scan or of several.

    Parameters
    ----------
    diameter_mm, contrast
        See `atypia.simulation.planting.PlantedParameters`.
    planted
        How many fitted into the brains.
    found_before
        Those at whose place the clean scan is flagged already. Nobody can tell whether they would
        have been found, so they do not count.
    found
        Those of the others that the calibrated mask finds.
    """

    diameter_mm: float
    contrast: float
    planted: int = 0
    found_before: int = 0
    found: int = 0

    @property
    def judged(self) -> int:
        """Lesions that count: planted where the clean scan is not flagged."""
        return self.planted - self.found_before

    @property
    def share(self) -> float | None:
        """Share of the lesions that count that is found; None without any."""
        return self.found / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the share; None without lesions that count.

        It takes the lesions for independent; those of one scan are not quite, so that it is
        somewhat too narrow.
        """
        from scipy.stats import binomtest

        if not self.judged:
            return None
        ends = binomtest(self.found, self.judged).proportion_ci(LEVEL, method="wilson")
        return float(ends.low), float(ends.high)

    def to_json(self) -> dict[str, Any]:
        """Give the counts and the figures by name."""
        told = {"judged": self.judged, "share": self.share, "interval": self.interval}
        return asdict(self) | told

    def plus(self, other: Cell) -> Cell:
        """Add the lesions of other scans."""
        return replace(
            self,
            planted=self.planted + other.planted,
            found_before=self.found_before + other.found_before,
            found=self.found + other.found,
        )


@dataclass(frozen=True)
class Design:
    """What is planted, and what counts as found.

    Parameters
    ----------
    diameters_mm, contrasts
        See `atypia.simulation.planting.PlantedParameters`; every pair of them is a cell.
    lesions_per_scan
        Asked for, at once in one scan.
    least_overlap
        Share of a lesion's voxels that the mask must hold; one voxel is enough for 0.
    seed
        Of places and forms, and of the scans that are drawn.

    Raises
    ------
    SettingsError
        A lesion, number or share that cannot be.
    """

    diameters_mm: tuple[float, ...] = DIAMETERS_MM
    contrasts: tuple[float, ...] = CONTRASTS
    lesions_per_scan: int = PER_SCAN
    least_overlap: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("diameters_mm", "contrasts"):
            values = tuple(dict.fromkeys(map(float, getattr(self, name))))
            if not values:
                raise SettingsError(name, "is empty", "Give at least one")
            object.__setattr__(self, name, values)
        for cell in self.cells:
            check_lesion(cell.diameter_mm, cell.contrast)
        check_overlap(self.least_overlap)
        if self.lesions_per_scan < 1:
            raise SettingsError("lesions_per_scan", f"{self.lesions_per_scan}", "Give 1 or more")
        if self.seed < 0:
            raise SettingsError("seed", f"{self.seed} is below 0", "Give 0 or more")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells, without a lesion yet, by diameter and then contrast."""
        return tuple(Cell(d, c) for d in self.diameters_mm for c in self.contrasts)


@dataclass(frozen=True)
class Power:
    """Which planted lesions a detector finds at its calibration.

    Parameters
    ----------
    method, modality
        Of the detector.
    cohort
        Name of the healthy cohort.
    threshold
        Of the calibration, with its provenance.
    scans
        Names of the scans that count in all cells.
    calibrated
        How many of them are of people who calibrated the detector.
    clean_components
        Components of the mask of every scan as it is, without a lesion: all false.
    cells
        By diameter, then contrast.
    design
        What was planted.
    failed
        Scan -> why it counts in no cell.
    """

    method: str
    modality: str
    cohort: str
    threshold: Threshold
    scans: tuple[str, ...]
    calibrated: int
    clean_components: tuple[int, ...]
    cells: tuple[Cell, ...]
    design: Design
    failed: Mapping[str, str] = field(default_factory=dict)

    def cell(self, diameter_mm: float, contrast: float) -> Cell:
        """Give the cell of a diameter and a contrast.

        Raises
        ------
        SettingsError
            They are not among those that were asked for.
        """
        for cell in self.cells:
            if (cell.diameter_mm, cell.contrast) == (diameter_mm, contrast):
                return cell
        where = f"{diameter_mm:g} mm at {contrast:+g}"
        raise SettingsError(where, "was not planted", "Take a pair of its design")

    @property
    def sentences(self) -> tuple[str, ...]:
        """What must stand beside the figures: threshold, scans, and false alarms without lesion."""
        total, flagged = sum(self.clean_components), sum(n > 0 for n in self.clean_components)
        least = self.design.least_overlap
        needed = f"{least:.0%} of it" if least else "one voxel of it"
        count = len(self.scans)
        return (
            f"{self.method} on {self.modality}, threshold {self.threshold.value:.4g} "
            f"({self.threshold.provenance}).",
            f"{count} scans of {self.cohort}; {self.calibrated} of {count} scans also calibrated.",
            f"Clean, {flagged} of {count} scans are flagged somewhere, in {total} components, all "
            "false. A lesion planted where the clean scan is flagged already does not count.",
            f"A lesion is found when the mask holds {needed}.",
        )

    def rows(self) -> list[dict[str, Any]]:
        """Give one row a cell, for `POWER_COLUMNS`."""
        asked = self.design.lesions_per_scan * len(self.scans)
        return [
            {
                "diameter": f"{cell.diameter_mm:g}",
                "contrast": percent(cell.contrast),
                "planted": f"{cell.planted}/{asked}",
                "found_before": cell.found_before,
                "found": f"{cell.found}/{cell.judged}",
                "share": {"mean": cell.share, "interval": cell.interval},
            }
            for cell in self.cells
        ]

    def to_json(self) -> dict[str, Any]:
        """Give everything as plain values."""
        plain = {name: value for name, value in vars(self).items() if name != "cells"}
        return plain | {
            "threshold": asdict(self.threshold),
            "scans": list(self.scans),
            "clean_components": list(self.clean_components),
            "design": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.design).items()
            },
            "failed": dict(self.failed),
            "cells": [cell.to_json() for cell in self.cells],
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Power:
        """Make it again of what `to_json` gave.

        Raises
        ------
        InputError
            Something is missing or unknown.
        """
        derived = ("judged", "share", "interval")
        try:
            cells = [
                Cell(**{k: v for k, v in cell.items() if k not in derived})
                for cell in told["cells"]
            ]
            changed = {
                "threshold": Threshold(**told["threshold"]),
                "scans": tuple(told["scans"]),
                "clean_components": tuple(told["clean_components"]),
                "cells": tuple(cells),
                "design": Design(**told["design"]),
            }
            # The file also tells the version that wrote it.
            plain = {name: value for name, value in told.items() if name != "atypia"}
            return cls(**{**plain, **changed})
        except (KeyError, TypeError) as error:
            problem = f"is no power report of this version ({error})"
            raise InputError("power report", problem, "Run `atypia power` again") from error


def percent(contrast: float) -> str:
    """Show a contrast, e.g. ``"+30 %"``."""
    return f"{100 * contrast:+g} %"
