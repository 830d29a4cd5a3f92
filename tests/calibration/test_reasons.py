"""Reasons: their p-values against literal counts, what they promise, and older calibrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia import files
from atypia.calibration import Calibration, Reason, can_tell, reasons_of, verdict_of
from atypia.calibration.reasons import LEVEL
from atypia.errors import SettingsError
from atypia.scoring.reasons import FIGURES
from tests.calibration.test_calibration import calibration

ARTEFACT = [name for name, figure in FIGURES.items() if figure.kind == "artefact"]
LESION = [name for name, figure in FIGURES.items() if figure.kind == "lesion"]


def drawn(scans: int, seed: int) -> np.ndarray:
    """Draw skewed, correlated figures, one row a scan."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(scans, 1))
    return np.asarray(np.exp(rng.normal(size=(scans, len(FIGURES)))) + shared)


def judged(pool: np.ndarray, new: int, level: float = LEVEL) -> tuple[Reason, ...]:
    healthy = np.delete(pool, new, axis=0)
    figures = dict(zip(FIGURES, pool[new], strict=True))
    return reasons_of(figures, dict(zip(FIGURES, healthy.T, strict=True)), level)


@given(st.integers(19, 45), st.integers(0, 10**6))
def test_of_exchangeable_scans_at_most_the_promised_share_gets_a_reason(n: int, seed: int) -> None:
    # Whichever of the scans is the new one: exact for any pool, not only on average.
    pool = drawn(n + 1, seed)
    verdicts = [{reason.kind for reason in judged(pool, new)} for new in range(n + 1)]
    for kind in ("artefact", "lesion"):
        assert sum(kind in kinds for kinds in verdicts) <= LEVEL * (n + 1) + 1e-9


def test_p_values_against_a_literal_count() -> None:
    pool = drawn(31, 5)
    pool[7, 1] += 30
    pool[7, FIGURES_AT["noise"]] -= 20
    found = {reason.code: reason.p_value for reason in judged(pool, 7, 0.3)}
    unusual = np.zeros(pool.shape)
    for row in range(31):
        others = np.delete(pool, row, axis=0)
        z = (pool[row] - others.mean(0)) / others.std(0, ddof=1)
        two_sided = [bool(figure.low) for figure in FIGURES.values()]
        unusual[row] = np.where(two_sided, np.abs(z), z)
    literal = {}
    for number, (name, figure) in enumerate(FIGURES.items()):
        same = [i for i, other in enumerate(FIGURES.values()) if other.kind == figure.kind]
        p = float(np.mean(unusual[:, same].max(1) >= unusual[7, number]))
        if p <= 0.3:
            low = bool(figure.low) and pool[7, number] < np.delete(pool, 7, 0)[:, number].mean()
            literal[f"{name}_low" if low else name] = p
    assert {"kspace_point", "noise_low"} <= set(found)
    assert found == pytest.approx(literal)


FIGURES_AT = {name: number for number, name in enumerate(FIGURES)}


def test_the_most_unusual_figure_comes_first_and_artefacts_before_lesions() -> None:
    pool = drawn(41, 2)
    pool[0, [FIGURES_AT["focus"], FIGURES_AT["shading"]]] += 60
    pool[0, FIGURES_AT["slice_jump_y"]] += 200
    found = judged(pool, 0)
    assert [reason.code for reason in found] == ["slice_jump_y", "shading", "focus"]
    assert {reason.p_value for reason in found} == {1 / 41}
    assert verdict_of(found) == "artefact and lesion"
    assert verdict_of(found[:2]) == "artefact"
    assert verdict_of(found[2:]) == "lesion"
    assert verdict_of(()) == "nothing unusual"
    assert Reason.from_json(found[0].to_json()) == found[0]


def test_a_low_value_counts_only_where_it_means_something() -> None:
    pool = drawn(41, 3)
    pool[0, FIGURES_AT["shading"]] -= 100
    assert not judged(pool, 0)
    pool[0, FIGURES_AT["rim"]] -= 100
    (reason,) = judged(pool, 0)
    assert (reason.code, reason.text) == ("rim_low", f"{FIGURES['rim'].low}.")


def test_too_few_healthy_scans_tell_nothing() -> None:
    pool = drawn(19, 4)
    pool[0] += 1000
    healthy = dict(zip(FIGURES, pool[1:].T, strict=True))
    assert not can_tell(healthy)
    assert not judged(pool, 0)
    assert not can_tell({})


def test_equal_healthy_figures_give_no_reason_for_the_same_value() -> None:
    pool = np.ones((30, len(FIGURES)))
    assert not judged(pool, 0)
    pool[0, 0] = 1.5
    assert [reason.code for reason in judged(pool, 0)] == [next(iter(FIGURES))]


def test_figures_are_kept_and_an_older_file_has_none(tmp_path: Path) -> None:
    made = calibration(figures={"noise": (1.0, 2.0, 3.0, 4.0)})
    made.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == made
    old = files.read_json(tmp_path / "calibration.json")
    del old["figures"]
    files.write_json(tmp_path / "old.json", old)
    loaded = Calibration.load(tmp_path / "old.json")
    assert not loaded.figures
    assert not reasons_of({"noise": 9.0}, loaded.figures)


def test_one_value_a_scan_is_asked_for() -> None:
    with pytest.raises(SettingsError, match="3 values for 4 scans"):
        calibration(figures={"noise": (1.0, 2.0, 3.0)})
