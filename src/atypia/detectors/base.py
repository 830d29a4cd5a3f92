"""Detector: the base of all methods; it owns everything but learning and scoring.

A method writes a settings class, `_fit` and `_score`. What it learns it assigns to attributes
whose names end with an underscore: arrays, numbers, and networks (made in `_build`).
"""

from __future__ import annotations

import copy
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field

from atypia import files
from atypia.calibration import Calibration, HealthyStrata, cluster_limit, require_scans
from atypia.calibration.strata import LEAST
from atypia.cohort.scan import Cohort, Scan
from atypia.cohort.splits import require_disjoint
from atypia.detectors.healthy_maps import HealthyMaps
from atypia.detectors.prediction import Finding, Prediction, apply_calibration, with_reasons
from atypia.detectors.training_scans import (
    PreparationSettings,
    all_prepared,
    begin,
    digest_of_start,
    identified_plan,
)
from atypia.detectors.unfinished import write_fit, write_known
from atypia.errors import (
    AtypiaError,
    CohortError,
    NotFittedError,
    SettingsError,
    unknown_name,
)
from atypia.preprocessing import Plan, Prepared, prepare, prepare_all
from atypia.progress import Progress, silent, track
from atypia.scoring.reasons import figures_of
from atypia.scoring.reduce import top_mean
from atypia.scoring.smooth import median_in_brain
from atypia.volume import MNI152_SPACE, Array, Geometry, Volume

if TYPE_CHECKING:
    from torch import Tensor, nn


class DetectorSettings(PreparationSettings):
    """What every detector can be told."""

    median_size: int = Field(3, ge=1)
    """Edge in voxels of the median filter on score maps, the same for every method; 1 for none."""
    top_share: float = Field(0.01, gt=0, le=1)
    """Share of the brain's highest scores whose mean is the subject-level score."""
    subject_score: str = "top_mean"
    """The score that ranks scans: top_mean or mean of the score map; mean_error, final_mask_ml or
    final_mask_share where the method has them."""
    seed: int = Field(0, ge=0)
    """Same seed and scans, same result."""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Prepared healthy scans and where the method may keep its unfinished work.

    Parameters
    ----------
    scans
        On one working grid, in the order of the cohort.
    grid
        The working grid.
    folder
        For checkpoints and logs; None to keep everything in memory.
    identity
        Digest of scans, plan and settings: a checkpoint belongs to one identity.
    progress
        Listener.
    """

    scans: Sequence[Prepared]
    grid: Geometry
    folder: Path | None = None
    identity: str = ""
    progress: Progress = silent

    def mean(self) -> Array:
        """Average the scans: the mean healthy brain, float32 `(X, Y, Z)`."""
        total = np.zeros(self.grid.shape)
        for scan in self.scans:
            total += scan.image.data
        return (total / len(self.scans)).astype(np.float32)

    def common_brain(self) -> Array:
        """Voxels that belong to the brain in at least half of the scans, `(X, Y, Z)` boolean."""
        covered = np.zeros(self.grid.shape)
        for scan in self.scans:
            covered += scan.brain.data
        return covered >= len(self.scans) / 2

    def note(self, detector: Detector) -> None:
        """Keep what is known before a network is trained, without which snapshots say nothing."""
        if self.folder is not None:
            write_known(detector, self.folder, self.identity)


class Detector(ABC):
    """Base class of all anomaly detectors.

    Parameters
    ----------
    settings
        An instance of the method's `settings_class`; its defaults when None.
    """

    method: ClassVar[str]
    """Name in the registry."""
    settings_class: ClassVar[type[DetectorSettings]]

    def __init__(self, settings: DetectorSettings | None = None) -> None:
        self.settings = settings if settings is not None else self.settings_class()
        if not isinstance(self.settings, self.settings_class):
            raise SettingsError(
                self.method,
                f"settings of type {type(self.settings).__name__}",
                f"Give {self.settings_class.__name__}",
            )
        self.plan: Plan | None = None
        self.calibration: Calibration | None = None
        self.trained_on: dict[str, Any] = {}

    # -- what a method writes ---------------------------------------------------------------

    def _build(self) -> None:
        """Make the networks (attributes ending in `_`) that `_fit` trains and `load` fills."""
        return

    @abstractmethod
    def _fit(self, training: TrainingSet) -> None:
        """Learn from healthy scans."""

    @abstractmethod
    def _score(self, prepared: Prepared) -> Finding:
        """Score one scan; must not depend on any other scan."""

    def _score_alone(self, prepared: Prepared) -> Finding:
        """Give only what the score map and `subject_score` need; override it where that saves."""
        return self._score(prepared)

    def _restore_alone(self, prepared: Prepared) -> Array | None:
        """Restore one scan `(X, Y, Z)`, in the intensities of the prepared one; None if it cannot.

        Override it with what needs only the network and what `TrainingSet.note` kept, and pictures
        can be shown while the network learns.
        """
        return self._score_alone(prepared).restoration

    def _take_codes(self, weights: Mapping[str, Tensor]) -> None:
        """Take from a snapshot what is trained beside the network that restores."""
        return

    def _learnt_before(self) -> tuple[list[str], list[str]]:
        """Give digests of the weights that `_fit` starts from, and the people behind them."""
        return [], []

    def _provenance(self) -> dict[str, Any]:
        """Give what `_build` must know, beside the settings, to fill a saved model (JSON)."""
        return {}

    def encoder(self) -> nn.Module | None:
        """Give the network whose feature maps another method may use; None if there is none.

        It has `features`, `channels`, `strides`, `offsets` and `axes` as
        `atypia.networks.resnet.ResNetEncoder` has them.
        """
        return None

    # -- what the base owns -----------------------------------------------------------------

    def fit(
        self,
        cohort: Cohort,
        *,
        folder: Path | None = None,
        cache: Path | None = None,
        workers: int | None = 1,
        start: Path | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Learn what healthy looks like.

        Parameters
        ----------
        cohort
            Healthy scans.
        folder
            Where unfinished training is kept and resumed from; None to train in memory.
        cache
            Folder of prepared scans that other fits and predictions share.
        workers
            Processes that prepare scans; None for one a core.
        start
            A snapshot or checkpoint of another run with the same network: training goes on from
            its step (needs `folder`).
        progress
            Listener.

        Returns
        -------
        Detector
            Itself.

        Raises
        ------
        CohortError
            Empty cohort, a scan labelled abnormal, or scans that cannot be read (all are named).
        """
        cohort.require_healthy("training")
        if start is not None:
            self._require_start(folder)
        plan, modality, identity = self._plan_for(cohort, start)
        people = {scan.person for scan in cohort} | set(self._learnt_before()[1])
        if folder is not None:
            people |= begin(folder, identity, start, people)
            write_fit(self, folder, plan, modality, identity, people)
        results = prepare_all(
            cohort, plan, modality, cache=cache, workers=workers, progress=progress
        )
        prepared = all_prepared(list(results), cohort)
        self.plan = plan
        # What an earlier fit has told must not shape this one.
        self.trained_on = {}
        self._build()
        self._fit(TrainingSet(prepared, plan.grid, folder, identity, progress))
        self.calibration = None
        self.trained_on = {
            "cohort": cohort.name,
            "scans": len(cohort),
            "modality": modality,
            "identity": identity,
            "people": sorted(people),
            **self._provenance(),
        }
        return self

    def predict(
        self,
        scan: Scan | Volume | str | Path,
        *,
        calibration: Calibration | None = None,
        cache: Path | None = None,
    ) -> Prediction:
        """Find what deviates in one scan.

        Parameters
        ----------
        scan
            A scan, a volume, or the path of an image.
        calibration
            Replaces the detector's own.
        cache
            Folder of prepared scans.

        Returns
        -------
        Prediction
            With a mask, p-value, verdict and lesions if there is a calibration.
        """
        scan = Scan.of(scan)
        plan, prepared = self._prepared(scan, cache)
        finding = self._score(prepared)
        score_map, scores, smooth = self._finish(scan, prepared, finding)
        prediction = Prediction(
            scan=scan,
            score_map=score_map,
            brain=prepared.native_brain,
            score=self._chosen(scores),
            scores=scores,
            restoration=_native_restoration(plan, prepared, finding),
            own_mask=_native_mask(plan, prepared, finding),
            details=finding.details,
        )
        calibration = calibration or self.calibration
        judged = apply_calibration(prediction, calibration)
        if calibration is not None and calibration.figures:
            judged = with_reasons(judged, calibration, _figures(prepared, smooth))
        return _placed_in_template(judged, plan, prepared)

    def score_map(self, scan: Scan | Volume | str | Path) -> Volume:
        """Give the anomaly score of every voxel, on the scan's own grid."""
        return self._scored(Scan.of(scan))[0]

    def score(self, scan: Scan | Volume | str | Path) -> float:
        """Give the subject-level anomaly score."""
        return self._scored(Scan.of(scan))[1]

    def calibrate(
        self,
        healthy: Cohort,
        *,
        voxel_fpr: float = 0.005,
        smallest_mm3: float = 0.0,
        scan_fpr: float | None = None,
        extrapolate: bool = False,
        stratify: Sequence[str] = (),
        stratum_least: int = LEAST,
        cache: Path | None = None,
        progress: Progress = silent,
    ) -> Calibration:
        """Learn what healthy scans score; the result is kept and given back.

        Parameters
        ----------
        healthy
            Healthy scans of subjects that were not used for training.
        voxel_fpr
            Share of healthy brain voxels that may be flagged.
        smallest_mm3
            Flagged components smaller than this are dropped from masks.
        scan_fpr
            Share of healthy scans in which anything may be found; components not larger than the
            size that this asks for are dropped from masks. It needs `1 / scan_fpr - 1` scans.
        extrapolate
            Tell p-values below `1 / (1 + n)`, and reach a `scan_fpr` for which the scans are too
            few, by fitted tails: estimates, marked as such. It needs 50 scans.
        stratify
            Compare subject-level scores within strata of these: site, sex, age.
        stratum_least
            Healthy scans that a stratum must have; a scan of another is compared with all.

        Raises
        ------
        LeakageError
            A subject was used for training.
        CohortError
            No scan, or a scan labelled abnormal.
        SettingsError
            Too few scans for `scan_fpr` or for tails, or an unknown name in `stratify`.
        """
        if not len(healthy):
            raise CohortError(healthy.name, "has no scans", "Give at least one healthy scan")
        self._fitted_plan()
        # All that can be refused is refused before the first scan is scored.
        require_scans(len(healthy), scan_fpr, extrapolate)
        strata = HealthyStrata.of(healthy.scans, stratify, stratum_least) if stratify else None
        healthy.require_healthy("calibration")
        require_disjoint(healthy, self.trained_on["people"], "calibration", "training")
        scores, figures = [], []
        with tempfile.TemporaryDirectory(prefix="atypia-") as folder:
            maps = HealthyMaps(Path(folder))
            for scan in track(healthy.scans, f"calibrate {self.method}", progress):
                _, prepared = self._prepared(scan, cache)
                finding = self._score_alone(prepared)
                score_map, found, smooth = self._finish(scan, prepared, finding)
                maps.add(score_map, prepared.native_brain)
                scores.append(self._chosen(found))
                figures.append(_figures(prepared, smooth))
            levels = maps.levels(voxel_fpr, progress)
        cluster_mm3, extrapolated = None, False
        if scan_fpr is not None:
            cluster_mm3, extrapolated = cluster_limit(levels.largest_mm3, scan_fpr, extrapolate)
        self.calibration = Calibration(
            voxel_threshold=levels.threshold,
            voxel_fpr=voxel_fpr,
            subject_scores=tuple(scores),
            flagged_share=levels.flagged_share,
            people=tuple(sorted({scan.person for scan in healthy})),
            cohort=healthy.name,
            detector=self.digest(),
            smallest_mm3=smallest_mm3,
            largest_mm3=levels.largest_mm3,
            highest_scores=levels.highest,
            ladder=levels.ladder,
            scan_fpr=scan_fpr,
            cluster_mm3=cluster_mm3,
            cluster_extrapolated=extrapolated,
            extrapolate=extrapolate,
            figures={name: tuple(each[name] for each in figures) for name in figures[0]},
            strata=strata,
        )
        return self.calibration

    def but(self, **settings: Any) -> Self:
        """Copy the fitted detector with other settings for scoring; its calibration is dropped.

        Settings that shape what was learnt (`_learnt_settings`) cannot be changed.
        """
        fixed = self._learnt_settings() & set(settings)
        if fixed:
            raise SettingsError(self.method, f"{', '.join(sorted(fixed))} is learnt", "Fit again")
        other = copy.copy(self)
        other.settings = self.settings.but(**settings)
        other.calibration = None
        return other

    def _learnt_settings(self) -> set[str]:
        """Name the settings that shaped what was learnt."""
        return {"preprocessing", "spacing_mm", "align", "modality"}

    def _require_start(self, folder: Path | None) -> None:
        """Refuse to start from a snapshot where nothing would come of it."""
        if "training" not in self.settings_class.model_fields:
            raise SettingsError(self.method, "has no training to start", "Leave out --start")
        if folder is None:
            raise SettingsError("start", "needs a folder for the training", "Give one")

    def digest(self) -> str:
        """Sixteen digits that change with what was learnt and how scans are scored."""
        return files.digest(self.trained_on.get("identity", ""), self.settings.digest())

    def identity_of(self, cohort: Cohort, start: Path | None = None) -> str:
        """Digest of method, settings, plan, scans and start: the same one means the same fit."""
        return self._plan_for(cohort, start)[2]

    def _plan_for(self, cohort: Cohort, start: Path | None = None) -> tuple[Plan, str, str]:
        digests, _ = self._learnt_before()
        if start is not None:
            digests = [*digests, digest_of_start(start)]
        return identified_plan(cohort, self.settings, self.method, *digests)

    def _prepared(self, scan: Scan, cache: Path | None) -> tuple[Plan, Prepared]:
        plan = self._fitted_plan()
        modality = scan.modality(self.trained_on["modality"])
        return plan, prepare(scan, plan, modality, cache)

    def _scored(self, scan: Scan, cache: Path | None = None) -> tuple[Volume, float, Volume]:
        """Give native score map, subject-level score and native brain mask, and nothing else."""
        _, prepared = self._prepared(scan, cache)
        score_map, scores, _ = self._finish(scan, prepared, self._score_alone(prepared))
        return score_map, self._chosen(scores), prepared.native_brain

    def _finish(
        self, scan: Scan, prepared: Prepared, finding: Finding
    ) -> tuple[Volume, dict[str, float], Array]:
        """Smooth a method's score, bring it to the scan's grid, and reduce it to numbers.

        Gives score map, scores, and the smoothed score on the working grid.
        """
        brain = prepared.brain.data
        smooth = median_in_brain(finding.score, brain, self.settings.median_size)
        if not np.isfinite(smooth).all():
            raise AtypiaError(
                f"scan {scan.id}", f"{self.method} gave scores that are not finite", "Report this"
            )
        score_map = self._fitted_plan().to_native(
            prepared.image.with_data(smooth, "score"), prepared
        )
        scores = {
            "top_mean": top_mean(smooth, brain, self.settings.top_share),
            "mean": float(smooth[brain].mean(dtype=np.float64)),
            **finding.scores,
        }
        if finding.mask is not None:
            # Alignment may scale the brain: a volume means what it is in the scan itself.
            share = float(finding.mask[brain].mean())
            native = prepared.native_brain
            scores["final_mask_share"] = share
            scores["final_mask_ml"] = (
                share * float(native.data.sum()) * native.geometry.voxel_volume_mm3 / 1000
            )
        return score_map, scores, smooth

    def _chosen(self, scores: dict[str, float]) -> float:
        name = self.settings.subject_score
        if name not in scores:
            raise unknown_name(f"subject score of {self.method}", name, scores)
        return scores[name]

    def _working_grid(self) -> Geometry:
        """Give the grid on which scans are scored; known from the plan on."""
        assert self.plan is not None
        return self.plan.grid

    def _fitted_plan(self) -> Plan:
        if self.plan is None or not self.trained_on:
            raise NotFittedError(self.method, "has not learnt anything yet", "Call fit first")
        return self.plan


def _native_restoration(plan: Plan, prepared: Prepared, finding: Finding) -> Volume | None:
    if finding.restoration is None:
        return None
    data = plan.restore_intensity(finding.restoration, prepared).astype(np.float32)
    native = plan.to_native(prepared.image.with_data(data), prepared)
    return native.with_data(np.where(prepared.native_brain.data, native.data, 0))


def _placed_in_template(prediction: Prediction, plan: Plan, prepared: Prepared) -> Prediction:
    """Tell where in the template the lesions lie, if the scan was registered to it."""
    if prepared.image.space != MNI152_SPACE:
        return prediction
    world = plan.world_of(prepared)
    lesions = []
    for lesion in prediction.lesions:
        x, y, z = (float(v) for v in (world @ [*lesion.centre_mm, 1.0])[:3])
        lesions.append(replace(lesion, template_mm=(x, y, z)))
    return replace(prediction, lesions=tuple(lesions))


def _figures(prepared: Prepared, smooth: Array) -> dict[str, float]:
    """Measure what tells an artefact from a lesion."""
    image = prepared.image
    return figures_of(image.data, smooth, prepared.brain.data, image.spacing_mm)


def _native_mask(plan: Plan, prepared: Prepared, finding: Finding) -> Volume | None:
    if finding.mask is None:
        return None
    return plan.to_native(prepared.image.with_data(finding.mask, "mask"), prepared)
