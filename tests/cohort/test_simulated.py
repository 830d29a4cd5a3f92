"""Simulated cohorts: lazy in memory, or written, resumed and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atypia.cohort import open_cohort, require_disjoint, simulated
from atypia.cohort.simulated import condition_of, simulated_cohort, write_simulated
from atypia.errors import LeakageError
from atypia.simulation import SimulationSettings, simulate_subject

TINY = SimulationSettings(spacing_mm=6)
TUMOUR = TINY.but(lesion="tumour")


def test_conditions() -> None:
    assert condition_of(TINY) == "healthy"
    assert condition_of(TUMOUR) == "tumour"
    assert condition_of(TINY.but(artefact="ring")) not in ("healthy", "")
    assert condition_of(TUMOUR.but(artefact="ghosting")) == "tumour+ghosting"


def test_a_cohort_in_memory() -> None:
    cohort = simulated_cohort(TUMOUR, range(2, 4))
    assert [s.id for s in cohort] == ["sim-00002_tumour", "sim-00003_tumour"]
    truth = simulate_subject(TUMOUR, 2)
    scan = cohort[0]
    np.testing.assert_array_equal(scan.image("T2w").data, truth.image.data)
    brain, lesion = scan.brain(), scan.lesion()
    assert brain is not None
    assert lesion is not None
    np.testing.assert_array_equal(brain.data, truth.brain.data)
    np.testing.assert_array_equal(lesion.data, truth.lesion.data)
    healthy = simulated_cohort(TINY, [2])
    assert healthy[0].lesion() is None
    healthy.require_healthy("training")
    with pytest.raises(LeakageError):
        require_disjoint(healthy, [s.person for s in cohort], "test", "training")


def test_written_scans_resume_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(TINY, range(2)), (TUMOUR, [5])]
    heard: list[int] = []
    cohort = write_simulated(
        jobs, tmp_path, progress=lambda task, done, total, note="": heard.append(done)
    )
    assert heard == [0, 1, 2, 3]
    again = open_cohort(tmp_path, modality="t2")
    assert [s.id for s in again] == [s.id for s in cohort]
    assert [s.condition for s in again] == ["healthy", "healthy", "tumour"]
    assert [s.person for s in again] == [s.person for s in cohort]
    truth = simulate_subject(TUMOUR, 5)
    np.testing.assert_array_equal(again[2].image().data, truth.image.data)
    lesion = again[2].lesion()
    assert lesion is not None
    np.testing.assert_array_equal(lesion.data, truth.lesion.data)

    asked = []

    def counted(settings: SimulationSettings, seed: int) -> object:
        asked.append(seed)
        return simulate_subject(settings, seed)

    monkeypatch.setattr(simulated, "simulate_subject", counted)
    Path(next(iter(again[1].images.values()))).unlink()  # type: ignore[arg-type]
    write_simulated(jobs, tmp_path)
    assert asked == [1]
    # Other settings never take the files of these.
    write_simulated([(TINY.but(spacing_mm=5.5), [0])], tmp_path)
    assert asked == [1, 0]


def test_scans_of_any_contrast_are_written_and_come_back(tmp_path: Path) -> None:
    settings = TINY.but(modality="any")
    write_simulated([(settings, range(2))], tmp_path)
    again = open_cohort(tmp_path, modality="any")
    assert [list(scan.images) for scan in again] == [["any"], ["any"]]
    again.require_healthy("training")
    truth = simulate_subject(settings, 1)
    np.testing.assert_array_equal(again[1].image("any").data, truth.image.data)
    brain = again[1].brain()
    assert brain is not None
    np.testing.assert_array_equal(brain.data, truth.brain.data)
