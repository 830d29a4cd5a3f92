"""What the page says of a whole cohort: its table, drift, distributions, and no private paths."""

import json
import re

import pytest

from atypia import files
from atypia.report import write_report
from atypia.report.cohort_table import FIRST_ROWS, artefacts_of, cohort_table, page_link, ranked
from atypia.report.distributions import MOST_GROUPS, by_group, distributions
from atypia.report.drift_note import drift_note
from atypia.report.results import Entry, Results, read_results
from tests.report.conftest import write_run


def entry_of(name, score=1.0, condition="healthy", problem=None, evaluated=None, **told):
    description = {
        "score": score,
        "p_value": None,
        "mask_ml": None,
        "lesions": [],
        "details": {},
        "subject": name,
        "dataset": "d",
    }
    folder = files.Path("/nowhere") / name
    if problem is not None:
        return Entry(name, "unknown", folder, {}, {}, problem)
    return Entry(name, condition, folder, description | told, evaluated or {})


def results_of(*entries, calibration=None):
    done = tuple(entry for entry in entries if entry.problem is None)
    failed = tuple(entry for entry in entries if entry.problem is not None)
    return Results(files.Path(), {"calibration": calibration}, None, done, failed)


def table_of(*entries, links=None):
    return cohort_table(results_of(*entries), links or {}, {})


def keys(table):
    return [column.key for column in table.columns]


def test_the_lowest_p_value_comes_first_then_the_highest_score():
    entries = [
        entry_of("a", 9.0, p_value=0.5),
        entry_of("b", 1.0, p_value=0.01),
        entry_of("c", 2.0, p_value=0.01),
        entry_of("bad", problem="x"),
    ]
    table = table_of(*entries)
    assert [row.id for row in table.rows] == ["c", "b", "a", "bad"]
    assert [entry.id for entry in ranked(results_of(*entries))] == ["c", "b", "a"]
    assert table.order == "lowest p-value first"
    assert table_of(entry_of("a")).order == "highest score first"


def test_a_column_without_values_is_left_out():
    assert keys(table_of(entry_of("a"))) == ["scan", "condition", "score"]
    told = entry_of(
        "a", site="A", sex="F", age=40.5, p_value=0.2, mask_ml=1.26, evaluated={"ap": 0.5}
    )
    table = table_of(told, entry_of("b"))
    assert keys(table) == [
        *("scan", "condition", "site", "sex", "age", "score", "p_value", "flagged", "lesions", "ap")
    ]
    assert table.rows[0].cells == (
        *("a", "healthy", "A", "F", "40.5", "1", "0.200", "1.3", "0", "0.500"),
    )
    assert table.rows[1].cells[2] == "-"


def test_values_to_choose_from_are_those_of_the_table():
    entries = [entry_of(name, site=name, condition="tumour") for name in "BA"]
    assert table_of(*entries).choices == {"site": ("A", "B")}


def test_flagged_counts_all_lesions_of_a_scan():
    entry = entry_of("a", mask_ml=2.0, lesions=[{}], lesion_count=7)
    (row,) = table_of(entry).rows
    assert row.flagged
    assert "7" in row.cells


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ({}, "-"),
        ({"artefact": ""}, "-"),
        ({"artefact_motion": True, "artefact_noise": False}, "motion"),
        ({"artefacts": ["ghosting", "bias_field"]}, "ghosting, bias field"),
        ({"artefacts": {"motion": True, "noise": 0.12345, "spike": 0}}, "motion, noise 0.123"),
        ({"outcome": "artefact"}, "-"),
    ],
)
def test_artefact_flags(details, told):
    assert artefacts_of(details) == told


def test_only_the_first_rows_stand_in_the_page_and_the_others_are_data():
    table = table_of(*(entry_of(f"s{i:04}", mask_ml=0.0) for i in range(FIRST_ROWS + 2)))
    assert len(table.first) == FIRST_ROWS
    assert [row["cells"][0] for row in table.others] == ["s0200", "s0201"]
    assert table.others[0].keys() == {"cells"}


def test_a_link_only_leads_to_a_page_that_is_there(results):
    place = results / "scans" / "tumour-1"
    assert page_link(place) == ""
    (place / "index.html").write_text("x")
    assert page_link(place) == "scans/tumour-1/index.html"
    assert 'href="scans/tumour-1/index.html"' in write_report(results).read_text("utf-8")
    elsewhere = write_report(results, results.parent / "page.html").read_text("utf-8")
    assert "index.html" not in elsewhere


CALIBRATED = {"subject_scores": [1.0 + 0.01 * i for i in range(40)]}


def test_drift_is_looked_for_among_healthy_scans():
    entries = [entry_of(f"h{i}", 3.0 + 0.01 * i) for i in range(10)]
    entries += [entry_of("t", 1.0, condition="tumour")]
    note = drift_note(results_of(*entries, calibration=CALIBRATED))
    assert note.found
    assert note.among == "10 scans labelled healthy"
    assert note.sentence.startswith("Drift found: the new scans score higher")


def test_drift_counts_a_person_once():
    entries = [entry_of(f"h{i}", 1.0 + 0.01 * i, subject="one") for i in range(10)]
    note = drift_note(results_of(*entries, calibration=CALIBRATED))
    assert note.among == "1 scan labelled healthy (one a person)"
    assert note.sentence.startswith("Not tested: 1 new scans: are too few")


def test_drift_among_scans_of_which_nothing_is_known_says_so():
    entries = [entry_of(f"u{i}", 1.1 + 0.03 * i, condition="unknown") for i in range(10)]
    note = drift_note(results_of(*entries, calibration=CALIBRATED))
    assert "all 10 scans; none is labelled healthy" in note.among
    assert "only meaningful for scans that look healthy" in note.among
    assert note.sentence.startswith("No drift found")


def test_no_drift_note_on_lesions_or_without_a_calibration():
    ill = entry_of("t", condition="tumour")
    note = drift_note(results_of(ill, calibration=CALIBRATED))
    assert (note.among, note.found) == ("", False)
    assert "no scan of this run is labelled healthy" in note.sentence
    assert drift_note(results_of(ill)) is None


def test_scores_are_drawn_by_what_is_known_in_two_groups():
    entries = [entry_of(f"s{i}", float(i), site="A", sex="FM"[i % 2]) for i in range(6)]
    assert [one.name for one in distributions(results_of(*entries))] == ["sex"]
    aged = [entry_of(f"s{i}", float(i), age=15.0 * i) for i in range(4)] + [entry_of("s9")]
    (by_age,) = distributions(results_of(*aged))
    assert re.findall(r">([^<]*) \(\d+\)</text>", by_age.chart) == [
        *("0-9", "10-19", "30-39", "40-49", "unknown")
    ]


def test_ages_are_sorted_into_the_bins_of_the_calibration():
    strata = {"age_edges": [20.0, 40.0, 60.0]}
    calibration = {"subject_scores": [1.0], "strata": strata}
    aged = [entry_of(f"s{i}", 1.0, age=float(i)) for i in (10, 20, 40, 41, 70)]
    (by_age,) = distributions(results_of(*aged, calibration=calibration))
    assert re.findall(r">([^<]* \(\d+\))</text>", by_age.chart) == [
        *("calibration (1)", "below 20 (1)", "20-40 (2)", "40-60 (1)", "above 60 (1)")
    ]


def test_many_scans_are_drawn_as_a_box_and_many_groups_are_cut():
    chart = by_group({"A": [float(i) for i in range(2000)]}, [1.0, 2.0], "Scores")
    assert chart.count('class="box"') == 1
    assert chart.count("<circle") < 40
    assert "median 1e+03, middle half 500 to 1.5e+03" in chart
    sites = [entry_of(f"s{i}", float(i), site=f"site {i}") for i in range(MOST_GROUPS + 3)]
    (by_site,) = distributions(results_of(*sites))
    assert by_site.title == "Scores by site; 3 more groups with lower medians are not drawn"


def test_no_folder_is_told_by_the_page(results):
    secret = "/data/Jane Doe 1970-01-01"
    for name in ("tumour-1", "stroke-1"):
        place = results / "scans" / name / "scan.json"
        told = files.read_json(place)
        told["details"] |= {"outcome": f"{secret}/x was read", "weights": f"{secret}/weights.pt"}
        told |= {"image": f"{secret}/scan.nii.gz", "lesion_mask": f"{secret}/lesion.nii.gz"}
        files.write_json(place, told)
    (results / "scans" / "stroke-1" / "score_map.nii.gz").unlink()
    run = files.read_json(results / "run.json") | {"model": f"{secret}/model"}
    run["settings"]["encoder"] = {"file": f"{secret}/encoder.pt"}
    run["items"][-1]["error"] = f"{secret}/lost.nii: no such file. Look beside {secret}/old.nii."
    files.write_json(results / "run.json", run)
    (results / "evaluation.json").write_text("{")
    text = write_report(results).read_text("utf-8")
    for word in ("Jane", "Doe", "1970", "/data", str(results.parent), results.parent.name + "/"):
        assert word not in text, word
    for kept in ("weights.pt", "encoder.pt", "lost.nii: no such file. Look beside old.nii."):
        assert kept in text


def test_data_cannot_end_its_element(tmp_path):
    write_run(tmp_path, [], [(f"s{i}", "</script><b>&") for i in range(FIRST_ROWS + 1)])
    text = write_report(tmp_path).read_text("utf-8")
    (data,) = re.findall(r'<script type="application/json" id="others">(.*?)</script>', text)
    assert json.loads(data) == [
        {"cells": [f"s{FIRST_ROWS}", "failed: </script><b>&"], "failed": True}
    ]


def test_what_is_not_needed_of_thousands_of_scans_is_not_kept(results):
    steps = []
    found = read_results(
        results,
        keep=lambda told: {name: told[name] for name in ("score", "threshold")},
        progress=lambda task, done, total, note="": steps.append((task, done, total)),
    )
    assert [set(entry.description) for entry in found.done] == [{"score", "threshold"}] * 3
    assert steps == [("results", i, 4) for i in range(5)]


def test_reasons_for_an_artefact_stand_with_the_methods_flags_and_verdicts_can_be_chosen():
    noise = {"code": "noise", "kind": "artefact", "p_value": 0.02, "text": "Noise."}
    place = {"code": "focus", "kind": "lesion", "p_value": 0.02, "text": "A place."}
    entries = [
        entry_of("a", verdict="artefact and lesion", reasons=[noise, place]),
        entry_of("b", verdict="lesion", reasons=[place]),
        entry_of("c"),
    ]
    table = table_of(*entries)
    assert table.choices == {"verdict": ("artefact and lesion", "lesion")}
    shown = {row.id: row.cells[keys(table).index("artefacts")] for row in table.rows}
    assert shown == {"a": "noise", "b": "-", "c": "-"}
    assert artefacts_of({"artefacts": ["ghosting"]}, [noise, place]) == "noise, ghosting"
