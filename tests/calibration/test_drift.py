"""Drift: false alarms, power, directions, and numbers that can tell nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from atypia.calibration import Drift, drift_of
from atypia.calibration.drift import require_enough
from atypia.errors import InputError, SettingsError


def repeated(shift: float = 0.0, spread: float = 1.0, repeats: int = 200) -> list[Drift]:
    rng = np.random.default_rng(5)
    return [
        drift_of(rng.normal(0, 1, 40).tolist(), rng.normal(shift, spread, 20).tolist())
        for _ in range(repeats)
    ]


def test_false_alarms_are_as_rare_as_asked_for() -> None:
    alarms = sum(drift.found for drift in repeated())
    assert alarms <= 8  # of 200 at 1 %: more has a probability below 1 in 5000


@pytest.mark.parametrize(
    ("shift", "spread", "direction"),
    [(1.5, 1.0, "higher"), (-1.5, 1.0, "lower"), (0.0, 30.0, "spread")],
)
def test_a_clear_drift_is_found_and_its_direction_named(
    shift: float, spread: float, direction: str
) -> None:
    drifts = repeated(shift, spread, 50)
    assert np.mean([drift.found for drift in drifts]) >= 0.9
    named = [drift.direction for drift in drifts if drift.found]
    assert np.mean([name == direction for name in named]) >= (0.8 if direction == "spread" else 1)


def test_the_sentence_says_what_it_means() -> None:
    old = [float(v) for v in range(20)]
    higher = drift_of(old, [v + 100 for v in old])
    assert higher.found
    assert higher.statistic == 1
    assert higher.sentence.startswith("Drift found: the new scans score higher than")
    assert "median 109.5 against 9.5; 20 new scans, 20 of the calibration" in higher.sentence
    assert "lesions may be missed" in drift_of(old, [v - 100 for v in old]).sentence
    same = drift_of(old, [v + 0.1 for v in old])
    assert not same.found
    assert same.sentence.startswith("No drift found")
    told = json.loads(json.dumps(higher.to_json()))
    assert told["direction"] == "higher"
    assert told["sentence"] == higher.sentence


def test_too_few_scans_are_refused_with_the_number_that_would_do() -> None:
    require_enough(4, 6)
    with pytest.raises(InputError, match=r"5 new scans: are too few.*from 4 at 1\.00%.*least 6"):
        require_enough(4, 5)
    # With six, scores that do not overlap at all are found; five would have been in vain.
    found = drift_of([1.0, 2, 3, 4], [11.0, 12, 13, 14, 15, 16])
    assert found.found
    assert found.p_value == pytest.approx(2 / math.comb(10, 6))
    with pytest.raises(InputError, match="too few"):
        drift_of([1.0, 2, 3, 4], [])
    with pytest.raises(InputError, match="Calibrate on more scans"):
        require_enough(0, 100)


def test_rates_and_scores_that_make_no_sense() -> None:
    scores = [1.0] * 30
    with pytest.raises(SettingsError, match="rate"):
        drift_of(scores, scores, rate=1)
    with pytest.raises(InputError, match="NaN"):
        drift_of(scores, [math.nan] * 30)
