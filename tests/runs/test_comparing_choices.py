"""What a comparison may have besides: labelled validation, ensembles, artefacts, FROC curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atypia.detectors.ensemble import Ensemble
from atypia.detectors.model_folder import load_detector
from atypia.errors import LeakageError, SettingsError
from atypia.report import write_comparison
from atypia.runs.comparing import compare_methods
from atypia.runs.protocol import Protocol

TEXT = """
summary = "Baselines, and two of them together"
modality = "T2w"
settings = { spacing_mm = 6.0, align = "none" }
methods = [{ method = "zscore" }]

[[ensembles]]
name = "both"
members = ["zscore", "prior_residual"]

[[train]]
simulate = { spacing_mm = 6.0 }
count = 3

[[calibration]]
simulate = { spacing_mm = 6.0 }
first = 5000
count = 4

[[validation]]
simulate = { spacing_mm = 6.0, lesion = "tumour" }
first = 7000
count = 2

[[test]]
simulate = { spacing_mm = 6.0 }
first = 9000
count = 2

[[test]]
simulate = { spacing_mm = 6.0 }
first = 9000
count = 2
artefacts = ["spike", "gaussian_noise"]

[[test]]
simulate = { spacing_mm = 6.0, lesion = "tumour" }
first = 10000
count = 2

[[test]]
simulate = { spacing_mm = 6.0, lesion = "stroke" }
first = 11000
count = 1
"""


def protocol(folder: Path, *changes: tuple[str, str]) -> Protocol:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "mine.toml").write_text(text)
    return Protocol.read(folder / "mine.toml")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("comparison")
    return folder, compare_methods(protocol(folder), folder, workers=1).results


def test_labels_of_other_scans_choose_a_threshold_for_their_condition(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    folder, results = compared
    rows = {(r["condition"], r["method"]): r for r in results["evaluation"]["lesions"]}
    methods = {method for _, method in rows}
    assert methods == {"zscore *", "both", "intensity *", "prior_residual *"}
    for method in methods:
        assert rows["tumour", method]["labelled_dice"]["mean"] is not None
        assert rows["tumour", method]["pooled_labelled_dice"] is not None
        # No scan with a stroke was there to choose from.
        assert rows["stroke", method]["labelled_dice"]["mean"] is None
    # The scans that chose are not judged.
    tested = {row["scan"] for row in results["evaluation"]["scans"]}
    assert not [name for name in tested if "07000" in name]
    assert results["scans"][0]["validation"] == 2
    text = (folder / "benchmark.md").read_text()
    assert "labelled Dice" in text
    assert "labelled validation n=2, best pooled Dice" in text


def test_an_ensemble_is_scaled_and_calibrated_by_different_people(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = compared
    (place,) = (folder / "fold-0" / "models").glob("both-*")
    both = load_detector(place)
    assert isinstance(both, Ensemble)
    assert both.calibration is not None
    assert len(both.calibration.people) == 2
    assert not set(both.calibration.people) & set(both.trained_on["people"])
    assert len(both.trained_on["people"]) == 3 + 2


def test_nothing_is_done_twice(
    compared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, results = compared

    def never(*_: object, **__: object) -> None:
        raise AssertionError("must not be called")

    monkeypatch.setattr("atypia.detectors.base.Detector._scored", never)
    monkeypatch.setattr("atypia.detectors.base.Detector.calibrate", never)
    monkeypatch.setattr("atypia.detectors.base.Detector.predict", never)
    monkeypatch.setattr(Ensemble, "of", never)
    again = compare_methods(protocol(folder), folder, workers=1).results
    assert json.dumps(again["evaluation"]) == json.dumps(results["evaluation"])


def test_artefacts_are_copies_of_their_own_condition(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    _, results = compared
    scans = [row for row in results["evaluation"]["scans"] if row["method"] == "zscore"]
    kinds = ("spike", "gaussian_noise", "healthy")
    count = {c: sum(row["condition"] == c for row in scans) for c in kinds}
    assert count == {"spike": 2, "gaussian_noise": 2, "healthy": 2}
    ranked = {row["condition"] for row in results["evaluation"]["subjects"]}
    assert {"spike", "gaussian_noise", "tumour"} <= ranked


def test_froc_curves_are_drawn_and_can_be_left_out(
    compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, results = compared
    rows = {(r["condition"], r["method"]): r for r in results["evaluation"]["froc"]}
    curve = rows["tumour", "both"]
    assert (curve["scans"], curve["lesions"]) == (2, 2)
    assert len(curve["rates"]) == len(curve["recall"]) == 26
    assert curve["rates"] == sorted(curve["rates"], reverse=True)
    page = write_comparison(folder).read_text()
    assert "lesions found over false components" in page
    assert "Lesions by size" in page
    without = compare_methods(
        protocol(folder, ("summary =", "froc = false\nsummary =")), folder, workers=1
    )
    assert without.results["evaluation"]["froc"] == []


def test_examples_are_chosen_by_rule(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, results = compared
    best = results["ranks"][0]["method"].removesuffix(" *")
    told = [(one["condition"], one["which"]) for one in results["examples"]]
    assert told == [("tumour", "best"), ("tumour", "worst"), ("stroke", "best")]
    rows = [r for r in results["evaluation"]["scans"] if r["method"] == best]
    tumours = sorted((r["ap"], r["scan"]) for r in rows if r["condition"] == "tumour")
    assert (results["examples"][0]["ap"], results["examples"][0]["scan"]) == tumours[-1]
    page = write_comparison(folder).read_text()
    assert page.count("<article>") == 3
    assert "chosen by that rule" in page
    assert "No pictures" not in page
    (folder / "examples" / "00" / "scan.json").unlink()
    assert write_comparison(folder).read_text().count("No pictures") == 1
    compare_methods(protocol(folder), folder, workers=1)
    assert "No pictures" not in write_comparison(folder).read_text()


def test_with_folds_an_example_is_of_the_fold_that_gave_its_figures(tmp_path: Path) -> None:
    changes = [
        ('[[train]]\nsimulate = { spacing_mm = 6.0 }\ncount = 3\n', ""),
        ('[[calibration]]\nsimulate = { spacing_mm = 6.0 }\nfirst = 5000\ncount = 4\n',
         '[[healthy]]\nsimulate = { spacing_mm = 6.0 }\ncount = 8\n'),
        ("summary =", "folds = 2\ncalibration_share = 0.5\nsummary ="),
        ('artefacts = ["spike", "gaussian_noise"]', ""),
        ("first = 9000\ncount = 2\n\n\n", "first = 9100\ncount = 1\n\n"),
    ]  # fmt: skip
    results = compare_methods(protocol(tmp_path, *changes), tmp_path, workers=1).results
    best = results["ranks"][0]["method"].removesuffix(" *")
    for one in results["examples"]:
        rows = [r for r in results["evaluation"]["scans"]
                if (r["scan"], r["method"]) == (one["scan"], best)]  # fmt: skip
        assert len({r["threshold"] for r in rows}) == 2
        shown = json.loads((tmp_path / "examples" / one["place"] / "scan.json").read_text())
        assert shown["threshold"]["value"] == rows[0]["threshold"]
        assert (one["ap"], one["dice"]) == (rows[0]["ap"], rows[0]["dice"])


def test_an_ensemble_is_told_how_every_method_scores(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = compared
    told = ('align = "none" }', 'align = "none", median_size = 1, top_share = 0.05 }')
    compare_methods(protocol(folder, told), folder, workers=1)
    models = [load_detector(place) for place in (folder / "fold-0" / "models").glob("both-*")]
    assert sorted((m.settings.median_size, m.settings.top_share) for m in models) == [
        (1, 0.05), (3, 0.01)
    ]  # fmt: skip


def test_an_ensemble_needs_somebody_to_calibrate_it(
    compared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atypia.runs.comparing._ready", None)
    few = protocol(compared[0], ("first = 5000\ncount = 4", "first = 5000\ncount = 1"))
    with pytest.raises(SettingsError, match="ensemble both.*two calibrating people"):
        compare_methods(few, compared[0], workers=1)


@pytest.mark.parametrize(
    ("first", "sides"),
    [(1, "validation cohort.*training"), (5001, "validation.*calibration"), (10001, "test.*valid")],
)
def test_validation_is_of_other_people(
    tmp_path: Path, compared: tuple[Path, dict[str, Any]], first: int, sides: str
) -> None:
    with pytest.raises(LeakageError, match=sides):
        mine = protocol(tmp_path, ("first = 7000", f"first = {first}"))
        compare_methods(mine, compared[0], workers=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"prior_residual"]', '"padim"]'), "padim is no method here"),
        (('name = "both"', 'name = "zscore"'), "one name"),
        (('name = "both"', 'name = "padim"'), "name of a method"),
        (('artefacts = ["spike"', 'condition = "y"\nartefacts = ["spike"'), "condition"),
        (('["zscore", "prior_residual"]', '["zscore"]'), "members"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        protocol(tmp_path, change)
