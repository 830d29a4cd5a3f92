"""Protocols: which scans, which methods, which folds; a comparison of methods as a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
from pydantic import Field

from atypia.cohort import Cohort, Scan, open_cohort
from atypia.cohort.corrupted import falsified
from atypia.cohort.scan import joined
from atypia.cohort.simulated import write_simulated
from atypia.cohort.splits import folds as fold_parts
from atypia.cohort.splits import split
from atypia.detectors.base import DetectorSettings
from atypia.errors import InputError, SettingsError, unknown_name
from atypia.progress import Progress, silent
from atypia.registry import METHODS, detector_class, method_named
from atypia.settings import Settings, merge, read_toml
from atypia.simulation import SimulationSettings

Parts = Mapping[str, Cohort]
"""The cohorts train, calibration and test, and validation if there is one."""


class ListedScan(Settings):
    """One scan by its files; paths are relative to the data folder."""

    subject: str
    """Pseudonym of the person, the same at every visit."""
    session: str = ""
    """Which visit, if there are several."""
    dataset: str = ""
    """In which the pseudonym is unique; the site if not given."""
    image: Path
    lesion: Path | None = None
    brain: Path | None = None
    site: str = ""


class Source(Settings):
    """Where scans come from: a folder or manifest, a list of files, or the simulator."""

    path: Path | None = None
    """A cohort, relative to the data folder."""
    layout: str | None = None
    """Of `path`, see docs/cohorts.md; recognised if not given."""
    where: dict[str, str] = Field(default_factory=dict)
    """Only the scans with these properties, such as `split` or `site`."""
    scans: tuple[ListedScan, ...] = ()
    simulate: dict[str, Any] | None = None
    """Settings of the simulator, such as `lesion`."""
    first: int = Field(0, ge=0)
    """First seed of simulated subjects; a seed is a person."""
    count: int = Field(0, ge=0)
    """How many of them."""
    condition: str | None = None
    """Name of what is wrong with these scans, instead of the cohort's own."""
    artefacts: tuple[str, ...] = ()
    """Each gives a copy of every one of these scans, falsified in this way; the clean scans
    themselves are another source. See `atypia.simulation.ARTEFACTS`; "all" for every one."""
    severity: float = Field(3.0, ge=1, le=5)
    """Of the artefacts: 1 barely visible, 3 clear, 5 gross."""

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [self.path is not None, bool(self.scans), self.simulate is not None]
        if sum(kinds) != 1:
            raise ValueError("give one of path, scans, simulate")
        if self.simulate is not None and not self.count:
            raise ValueError("simulate needs a count")
        if self.simulate is None and (self.first or self.count):
            raise ValueError("first and count belong to simulate")
        if self.path is None and (self.where or self.layout is not None):
            raise ValueError("where and layout belong to path")
        if self.artefacts and self.condition is not None:
            raise ValueError("an artefact is the condition of its copies: leave out condition")
        return self


class Contestant(Settings):
    """One method of a comparison."""

    method: str
    """Name or alias from `atypia methods`."""
    name: str = ""
    """Its name in the tables; the method's if not given."""
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    """On top of the protocol's own settings."""

    @property
    def shown(self) -> str:
        """The name in tables."""
        return self.name or method_named(self.method)


class Combination(Settings):
    """An ensemble of methods of the same comparison, which is not fitted again for it."""

    name: str
    """In the tables."""
    members: tuple[str, ...] = Field(min_length=2)
    """Names of methods of this comparison, baselines included."""
    how: Literal["mean", "max", "geometric", "voting"] = "mean"
    """See `atypia.scoring.ensemble.combine`."""


class Protocol(Settings):
    """A comparison of methods."""

    summary: str
    """What is compared, in a sentence."""
    modality: str
    seed: int = 0
    voxel_fpr: float = Field(0.005, gt=0, lt=1)
    """Share of healthy brain voxels that the calibrated thresholds may flag."""
    smallest_mm3: float = Field(0.0, ge=0)
    """Smaller components are dropped from masks."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of every method, such as `spacing_mm`."""
    methods: tuple[Contestant, ...] = Field(min_length=1)
    """The baselines are always there besides."""
    ensembles: tuple[Combination, ...] = ()
    """Half of the calibration people set the scale of the members' scores, the others calibrate."""
    froc: bool = True
    """Count lesions and false components over thresholds: a curve, for some computing time."""
    train: tuple[Source, ...] = ()
    calibration: tuple[Source, ...] = ()
    test: tuple[Source, ...] = Field(min_length=1)
    """Abnormal scans, and healthy ones that nothing was learnt from."""
    validation: tuple[Source, ...] = ()
    """Scans with labels, of other people, which choose a second threshold for their condition: the
    one of the highest pooled Dice. Its figures stand beside those of the calibrated one."""
    healthy: tuple[Source, ...] = ()
    """Instead of train and calibration: scans that are divided by person."""
    folds: int = Field(0, ge=0)
    """Number of folds; each tests its share of `healthy` beside all of `test`. 0: no folds, all of
    `healthy` trains or calibrates."""
    calibration_share: float = Field(0.25, gt=0, lt=1)
    """Share of the healthy people that are not tested who calibrate."""

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        if self.folds == 1 or (self.folds and not self.healthy):
            raise ValueError("folds needs two or more, and scans under healthy")
        if self.healthy and (self.train or self.calibration):
            raise ValueError("healthy scans are divided: leave train and calibration")
        if not self.healthy and not (self.train and self.calibration):
            raise ValueError("give train and calibration, or healthy")
        names = [one.shown for one in self.methods] + [one.name for one in self.ensembles]
        if len(set(names)) < len(names):
            raise ValueError("two methods have one name; give them a name each")
        known = [one.shown for one in self.methods] + [n for n, m in METHODS.items() if m.baseline]
        for team in self.ensembles:
            if strangers := set(team.members) - set(known):
                told = ", ".join(sorted(strangers))
                raise ValueError(f"{team.name}: {told} is no method here; known: {known}")
            if team.name in METHODS and team.name != "ensemble":
                raise ValueError(f"{team.name} is the name of a method; choose another")
        for one in self.methods:
            is_baseline = one.shown in METHODS and METHODS[one.shown].baseline
            if is_baseline and method_named(one.method) != one.shown:
                raise ValueError(f"{one.shown} is a baseline; give {one.method} another name")
        return self

    @classmethod
    def read(cls, place: str | Path) -> Protocol:
        """Read a protocol: a ready-made one by its name, or a TOML file.

        Raises
        ------
        InputError
            The file is missing or not TOML.
        SettingsError
            A key or value is wrong, or there is no protocol of that name.
        """
        path = Path(place)
        if path.suffix != ".toml":
            known = ready_made()
            if str(place) not in known:
                raise unknown_name("protocol", str(place), known)
            values = tomllib.loads(known[str(place)])
        else:
            values = read_toml(path)
        with _written_in(f"protocol {place}"):
            return cls.make(values)

    def contestants(self) -> dict[str, tuple[str, DetectorSettings]]:
        """Give method and settings by the name in the tables, the baselines last."""
        shared = {"modality": self.modality, "seed": self.seed, **self.settings}
        found = {}
        for one in self.methods:
            kind = detector_class(one.method).settings_class
            values = merge(shared, one.settings)
            with _written_in(f"protocol {self.summary!r}, method {one.shown}"):
                found[one.shown] = (method_named(one.method), kind.make(values, one.preset))
        for name, line in METHODS.items():
            if line.baseline and name not in found:
                kind = detector_class(name).settings_class
                known = {k: v for k, v in shared.items() if k in kind.model_fields}
                found[name] = (name, kind.make(known))
        return found

    def parts(
        self,
        folder: Path,
        data: Path,
        workers: int | None = None,
        progress: Progress = silent,
    ) -> list[Parts]:
        """Open or simulate the cohorts of every fold.

        Parameters
        ----------
        folder
            Gets simulated scans.
        data
            Paths of the protocol are relative to it.

        Returns
        -------
        list
            Train, calibration and test of each fold, and validation if there is one; one fold
            without `folds`.

        Raises
        ------
        InputError, CohortError
            A source cannot be read.
        """

        def opened(name: str, sources: tuple[Source, ...]) -> Cohort:
            cohorts = [
                self._opened(source, folder / name / str(place), data, workers, progress)
                for place, source in enumerate(sources)
            ]
            return replace(joined(*cohorts), name=name)

        test = opened("test", self.test)
        more = {"validation": opened("validation", self.validation)} if self.validation else {}
        if not self.healthy:
            train, calibration = (
                opened("train", self.train),
                opened("calibration", self.calibration),
            )
            return [{"train": train, "calibration": calibration, "test": test, **more}]
        healthy = opened("healthy", self.healthy)
        # A scan has the same name in every fold, also one whose twin only one fold tests.
        test = Cohort(joined(healthy, test).scans[len(healthy) :], test.name)
        shares = {"train": 1 - self.calibration_share, "calibration": self.calibration_share}
        if not self.folds:
            return [{**split(healthy, shares, self.seed), "test": test, **more}]
        return [
            {**parts, "test": replace(joined(parts["test"], test), name="test"), **more}
            for parts in fold_parts(healthy, self.folds, shares, self.seed)
        ]

    def _opened(
        self, source: Source, folder: Path, data: Path, workers: int | None, progress: Progress
    ) -> Cohort:
        if source.simulate is not None:
            with _written_in(f"protocol {self.summary!r}, {folder.parent.name} {folder.name}"):
                settings = SimulationSettings.make({"modality": self.modality, **source.simulate})
            seeds = range(source.first, source.first + source.count)
            cohort = write_simulated(
                [(settings, seeds)], folder, workers=workers, progress=progress
            )
        elif source.path is not None:
            cohort = open_cohort(data / source.path, source.layout, self.modality)
            cohort = cohort.where(**source.where) if source.where else cohort
        else:
            cohort = Cohort(tuple(self._listed(scan, data) for scan in source.scans), "listed")
        if source.artefacts:
            return falsified(cohort, source.artefacts, source.severity)
        if source.condition is None:
            return cohort
        return Cohort(tuple(replace(s, condition=source.condition) for s in cohort), cohort.name)

    def _listed(self, scan: ListedScan, data: Path) -> Scan:
        if not (data / scan.image).exists():
            remedy = "Name the folder of the scans with --data, or mend the protocol"
            raise InputError(data / scan.image, "does not exist", remedy)
        return Scan(
            subject=scan.subject,
            images={self.modality: data / scan.image},
            lesion_mask=None if scan.lesion is None else data / scan.lesion,
            brain_mask=None if scan.brain is None else data / scan.brain,
            session=scan.session,
            site=scan.site,
            dataset=scan.dataset or scan.site,
        )


@contextmanager
def _written_in(place: str) -> Iterator[None]:
    """Let an error of settings tell where they were written."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(place, f"{error.where}: {error.problem}", error.remedy) from error


def ready_made() -> dict[str, str]:
    """Give the protocols that come with the package: name -> TOML text."""
    places = resources.files("atypia.runs").joinpath("protocols").iterdir()
    return {
        place.name.removesuffix(".toml"): place.read_text(encoding="utf-8")
        for place in sorted(places, key=lambda place: place.name)
        if place.name.endswith(".toml")
    }
