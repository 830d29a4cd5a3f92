"""Ensemble: the score maps of several detectors as one, on a scale that healthy scores set.

Each member's score is replaced by the share of held-out healthy scores that it reaches, and these
shares are combined (`atypia.scoring.ensemble`). The members are fitted together, or are models that
have been fitted before (`Ensemble.of`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atypia import __version__, files
from atypia.cohort.scan import Cohort
from atypia.cohort.splits import require_disjoint
from atypia.detectors.base import Detector, TrainingSet
from atypia.detectors.members import METHOD, PREPARATION, EnsembleSettings, settings_of, shared_plan
from atypia.detectors.prediction import Finding
from atypia.errors import AtypiaError, CohortError, ModelError
from atypia.preprocessing import Plan, Prepared, prepare
from atypia.progress import Progress, silent, track
from atypia.registry import detector_class
from atypia.scoring.ensemble import HealthyQuantiles, combine
from atypia.volume import Array

MOST = 5_000_000
"""Healthy scores of a member that are kept in memory, as many from each scan; of more, so many are
drawn by chance: 5 of them then lie above the highest share of `LEVELS` below 1."""


class Ensemble(Detector):
    """Several detectors as one, by the ranks of their scores among healthy ones."""

    method = METHOD
    settings_class = EnsembleSettings
    settings: EnsembleSettings

    members_: dict[str, Detector]
    """Name -> fitted detector, all with the plan of the ensemble."""
    healthy_: Array
    """`(members, 1192)`, what healthy scans score by each: see `HealthyQuantiles`."""

    @classmethod
    def of(
        cls,
        members: Mapping[str, Detector],
        healthy: Cohort,
        *,
        how: str = "mean",
        rate: float = 0.05,
        cache: Path | None = None,
        progress: Progress = silent,
        **settings: Any,
    ) -> Ensemble:
        """Compose fitted detectors; nothing is fitted again.

        The people of `healthy` count as learnt from: `trained_on["people"]` holds them and those
        of all members. Their own scores set the scale, so they would rank lower on it than new
        healthy people do, and p-values would be too small; `calibrate` therefore takes others.

        Parameters
        ----------
        members
            Name -> fitted detector, two at least, with one plan and modality. They stay as they
            are; calibrations of theirs play no part.
        healthy
            Healthy scans of people whom no member has learnt from.
        how, rate
            As in `EnsembleSettings`.
        cache
            Folder of prepared scans.
        progress
            Listener.
        settings
            Other settings of the ensemble, such as `median_size` or `top_share`.

        Raises
        ------
        NotFittedError
            A member has not been fitted.
        SettingsError
            Plans or modalities differ, a member is an ensemble, or a setting does not fit.
        LeakageError
            A member has learnt from somebody in `healthy`.
        CohortError
            No scan, or a scan labelled abnormal.
        """
        plan, modality = shared_plan(members)
        if not len(healthy):
            raise CohortError(healthy.name, "has no scans", "Give at least one healthy scan")
        healthy.require_healthy("an ensemble")
        for name, member in members.items():
            require_disjoint(healthy, member.trained_on["people"], "healthy", f"training of {name}")
        ensemble = cls(settings_of(members, {"how": how, "rate": rate, **settings}))
        ensemble.plan = plan
        ensemble.members_ = {name: copy.copy(member) for name, member in members.items()}
        for member in ensemble.members_.values():
            member.calibration = None
        prepared = (
            prepare(scan, plan, scan.modality(modality), cache)
            for scan in track(healthy.scans, "healthy scores", progress)
        )
        ensemble._learn_healthy(prepared, len(healthy))
        people = {scan.person for scan in healthy}
        ensemble.trained_on = {
            "cohort": healthy.name,
            "scans": len(healthy),
            "modality": modality,
            "identity": cls.identity_of_members(members, healthy, how, rate),
            "people": sorted(people.union(*(m.trained_on["people"] for m in members.values()))),
            **ensemble._provenance(),
        }
        return ensemble

    @staticmethod
    def identity_of_members(
        members: Mapping[str, Detector], healthy: Cohort, how: str = "mean", rate: float = 0.05
    ) -> str:
        """Give the identity that `of` would give, without scoring a scan.

        It is a digest of the members' names and digests, of the healthy scans, `how` and `rate`;
        as that of any detector it does not tell how scans are scored: see `digest`.

        Raises
        ------
        NotFittedError, SettingsError
            As in `of`.
        """
        _, modality = shared_plan(members)
        prints = [scan.fingerprint(modality) for scan in healthy]
        digests = [f"{name} {member.digest()}" for name, member in members.items()]
        return files.digest(__version__, *digests, how, str(rate), *prints)

    # -- what the base asks for -------------------------------------------------------------

    def _build(self) -> None:
        told = self.trained_on.get("members")
        self.members_ = self._unfitted() if told is None else self._told(told)
        for member in self.members_.values():
            member.plan = self.plan
            member._build()

    def _fit(self, training: TrainingSet) -> None:
        learning, held_out = _divided_by_person(
            training.scans, self._people, self.settings.held_out_share, self.settings.seed
        )
        for number, (name, member) in enumerate(self.members_.items()):
            # Names are free; folders are not.
            folder = None if training.folder is None else training.folder / "members" / f"{number}"
            self.members_[name] = self._fitted(name, member, learning, training, folder)
        scans = track(held_out, "healthy scores", training.progress)
        self._learn_healthy(scans, len(held_out))

    def _score(self, prepared: Prepared) -> Finding:
        return self._combined(prepared, restored=True)

    def _score_alone(self, prepared: Prepared) -> Finding:
        return self._combined(prepared, restored=False)

    def _learnt_before(self) -> tuple[list[str], list[str]]:
        digests: list[str] = []
        people: list[str] = []
        for member in self._unfitted().values():
            of_member = member._learnt_before()
            digests += of_member[0]
            people += of_member[1]
        return digests, people

    def _provenance(self) -> dict[str, Any]:
        return {
            "members": {
                name: {
                    "method": member.method,
                    "settings": member.settings.to_json(),
                    # The ensemble tells the people of all, in the place where they are looked for.
                    "trained_on": {k: v for k, v in member.trained_on.items() if k != "people"},
                }
                for name, member in self.members_.items()
            }
        }

    def _learnt_settings(self) -> set[str]:
        return super()._learnt_settings() | {"members", "held_out_share", "seed"}

    def _plan_for(self, cohort: Cohort, start: Path | None = None) -> tuple[Plan, str, str]:
        plan, modality, identity = super()._plan_for(cohort, start)
        # A training set tells neither, and members are told the one and divided by the other.
        self._modality, self._people = modality, [scan.person for scan in cohort]
        return plan, modality, identity

    # -- members ----------------------------------------------------------------------------

    def _unfitted(self) -> dict[str, Detector]:
        """Make the members that the settings ask for."""
        shared = {name: getattr(self.settings, name) for name in PREPARATION}
        made: dict[str, Detector] = {}
        for member in self.settings.members:
            kind = detector_class(member.method)
            values = {"seed": self.settings.seed} | member.settings | shared
            made[member.name] = kind(kind.settings_class.make(values, member.preset))
        return made

    def _told(self, told: Mapping[str, Any]) -> dict[str, Detector]:
        """Make the members of a saved ensemble, with all settings that they had when fitted."""
        made: dict[str, Detector] = {}
        for name, one in told.items():
            try:
                kind = detector_class(one["method"])
                member = kind(kind.settings_class.make(one["settings"]))
                member.trained_on = one["trained_on"] | {"people": self.trained_on["people"]}
            except (AtypiaError, KeyError, TypeError) as error:
                problem = f"does not fit this version of atypia ({error})"
                raise ModelError(f"member {name}", problem, "Fit the ensemble again") from error
            made[name] = member
        return made

    def _fitted(
        self,
        name: str,
        member: Detector,
        learning: Sequence[Prepared],
        training: TrainingSet,
        folder: Path | None,
    ) -> Detector:
        """Fit one member, or take it from the folder of the training that was interrupted."""
        # Here, because whoever reads model folders knows every method.
        from atypia.detectors.model_folder import load_detector, save_detector

        identity = files.digest(training.identity, name)
        if folder is not None:
            try:
                there = load_detector(folder / "fitted")
            except ModelError:
                pass
            else:
                if there.trained_on["identity"] == identity:
                    return there

        def progress(task: str, done: int, total: int, note: str = "") -> None:
            training.progress(f"{name}: {task}", done, total, note)

        member._fit(TrainingSet(learning, training.grid, folder, identity, progress))
        member.trained_on = {
            "scans": len(learning),
            "modality": self._modality,
            "identity": identity,
            "people": sorted({*self._people, *member._learnt_before()[1]}),
            **member._provenance(),
        }
        if folder is not None:
            save_detector(member, folder / "fitted")
        return member

    # -- scores -----------------------------------------------------------------------------

    def _learn_healthy(self, scans: Iterable[Prepared], count: int) -> None:
        """Learn what each member gives in the brains of healthy scans, one scan in memory."""
        drawn: list[list[Array]] = [[] for _ in self.members_]
        most = max(1, MOST // count)
        for index, prepared in enumerate(scans):
            places = np.flatnonzero(prepared.brain.data)
            if len(places) > most:
                rng = np.random.default_rng([self.settings.seed, 23, index])
                places = rng.choice(places, most, replace=False)
            for values, member in zip(drawn, self.members_.values(), strict=True):
                values.append(member._score_alone(prepared).score.ravel()[places])
        learnt = [HealthyQuantiles.learn(np.concatenate(values)) for values in drawn]
        self.healthy_ = np.stack([one.quantiles for one in learnt])

    def _combined(self, prepared: Prepared, restored: bool) -> Finding:
        maps, restoration = [], None
        for member in self.members_.values():
            if restored and restoration is None:
                found = member._score(prepared)
                restoration = found.restoration
            else:
                found = member._score_alone(prepared)
            # What a member gives outside the brain means nothing.
            maps.append(np.where(prepared.brain.data, found.score, 0))
        healthy = [HealthyQuantiles(quantiles) for quantiles in self.healthy_]
        score = combine(maps, healthy, self.settings.how, self.settings.rate)
        return Finding(score, restoration)


def _divided_by_person(
    scans: Sequence[Prepared], people: Sequence[str], share: float, seed: int
) -> tuple[list[Prepared], list[Prepared]]:
    """Divide scans by chance, all of a person on one side, so that a share of people is held out.

    At least one person is; a single one serves for both.
    """
    everyone = sorted(set(people))
    order = np.random.default_rng([seed, 7]).permutation(len(everyone))
    kept = {everyone[i] for i in order[: max(1, round(share * len(everyone)))]}
    learning = [scan for scan, who in zip(scans, people, strict=True) if who not in kept]
    held_out = [scan for scan, who in zip(scans, people, strict=True) if who in kept]
    return learning or held_out, held_out
