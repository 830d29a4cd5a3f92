import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from atypia import files, io
from atypia.errors import InputError, SettingsError
from atypia.report import subject_page as module
from atypia.report.niivue import Bundle
from atypia.report.results import read_results
from atypia.report.subject_page import subject_page, write_subject_page
from tests.report.conftest import CALIBRATION, write_run, write_scan

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balance(HTMLParser):
    """Checks that every tag is closed in order, and gathers what is looked for."""

    def __init__(self):
        super().__init__()
        self.open, self.all, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.all.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [values for name, values in self.all if name == tag]


def parsed(text):
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    return balance


def facts_of(text):
    return json.loads(re.search(r'id="viewer-facts">(.*?)</script>', text)[1])


def changed(folder, scan, **values):
    path = folder / "scans" / scan / "scan.json"
    files.write_json(path, files.read_json(path) | values)


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch):
    """The true viewer is tested in a browser; here it would only be slow to search."""
    monkeypatch.setattr(module, "viewer_bundle", lambda: Bundle("let stub;", "a stub"))


@pytest.fixture(scope="module")
def page(untouched):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "viewer_bundle", lambda: Bundle("let stub;", "a stub"))
        return subject_page(untouched, "tumour-1")


def test_the_page_refers_to_nothing_outside_and_forbids_it(page):
    for target in re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']+)""", page):
        assert target.startswith(("data:", "#")), target
    assert not re.search(r"url\(|@import|https?://", page)
    policy = next(m["content"] for m in parsed(page).of("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "*" not in policy


def test_tags_are_balanced_ids_unique_and_controls_named(page):
    found = parsed(page)
    ids = [values["id"] for _, values in found.all if "id" in values]
    assert len(ids) == len(set(ids))
    for values in found.of("input"):
        labelled = "aria-label" in values or values.get("type") == "checkbox"
        assert labelled or f'for="{values["id"]}"' in page
    assert all(image["alt"] for image in found.of("img"))
    assert found.of("canvas")[0]["aria-label"]


def test_the_viewer_comes_with_its_licence(page, untouched):
    assert "Copyright (c) 2021, Niivue" in page
    assert "Niivue" not in subject_page(untouched, "tumour-1", static=True)


def test_the_page_stands_beside_the_scans_volumes(results, tmp_path):
    place = write_subject_page(results, "tumour-1")
    assert place == results / "scans" / "tumour-1" / "index.html"
    there = write_subject_page(read_results(results), "tumour-1", tmp_path / "x" / "y.html")
    assert there.read_text("utf-8") == place.read_text("utf-8")


def test_the_static_page_has_pictures_and_no_script(untouched):
    text = subject_page(untouched, "tumour-1", static=True)
    found = parsed(text)
    assert found.of("script") == found.of("canvas") == found.of("button") == []
    assert "script-src" not in text
    assert len(found.of("img")) == 4


def test_the_page_tells_score_lesions_threshold_and_provenance(page):
    assert f"2 ({CALIBRATION.provenance})" in page
    assert "Threshold curve, knee at 80 %" in page
    assert "among the healthy calibration scans" in page
    assert "3 healthy scans of the healthy ones" in page
    assert "mask refined" in page
    assert page.count("data-lesion=") == 1
    assert "training.steps" in page


def test_the_script_knows_where_every_lesion_lies(page, untouched):
    facts = facts_of(page)
    affine = np.array(facts["affine"])
    described = files.read_json(untouched / "scans" / "tumour-1" / "scan.json")
    found = [affine[:3, :3] @ voxel + affine[:3, 3] for voxel in facts["lesions"]]
    np.testing.assert_allclose(found, [x["centre_mm"] for x in described["lesions"]], atol=1e-3)


def test_the_slider_starts_at_the_calibrated_threshold(page):
    facts = facts_of(page)
    assert facts["levels"][facts["start"]] == 2.0
    assert facts["calibrated"] is True
    assert facts["healthyHighest"] == []  # a calibration of an older version


def test_the_slider_reaches_the_highest_healthy_score(results):
    run = files.read_json(results / "run.json")
    run["calibration"]["highest_scores"] = [3.0, 40.0, 7.0]
    files.write_json(results / "run.json", run)
    facts = facts_of(subject_page(results, "tumour-1"))
    assert facts["healthyHighest"] == [3.0, 40.0, 7.0]
    assert facts["levels"][-1] == 40.0


def test_without_calibration_the_slider_starts_high_and_says_so(tmp_path):
    folder = tmp_path / "out"
    scan, prediction = write_scan(folder, "one", "", calibrated=False)
    write_run(folder, [scan.id], calibrated=False)
    text = subject_page(folder, scan.id)
    parsed(text)
    facts = facts_of(text)
    assert "not calibrated" in text
    assert 'id="lesions"' not in text
    assert 'id="healthy-share"' not in text
    inside = prediction.score_map.data[prediction.brain.data]
    shares = [(inside > level).mean() for level in facts["levels"]]
    assert shares[facts["start"]] <= 0.005 < shares[facts["start"] - 1]


def test_no_path_is_on_the_page(results):
    run = files.read_json(results / "run.json")
    run |= {"model": "/home/jane doe/model", "trained_on": {"start": ["/home/jane doe/a.pt"]}}
    run["settings"] = {"weights": {"file": "C:\\Users\\jane doe\\w.pt"}}
    files.write_json(results / "run.json", run)
    changed(results, "tumour-1", details={"source": "/home/jane doe/b.nii", "rounds": 2})
    for static in (True, False):
        text = subject_page(results, "tumour-1", static=static)
        assert "jane doe" not in text
        assert str(results.parent) not in text
        assert "w.pt" in text
        assert "<code>model</code>" in text


def test_names_are_escaped(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "plain", "<img src=x>")
    write_run(folder, [scan.id])
    changed(folder, scan.id, details={"outcome": "</script><i>", "n": "<i>"})
    text = subject_page(folder, scan.id)
    assert "<img src=x" not in text
    assert "<i>" not in text
    parsed(text)


def test_a_truth_that_is_gone_is_told_and_left_out(results):
    changed(results, "tumour-1", lesion_mask=str(results / "gone.nii.gz"))
    text = subject_page(results, "tumour-1")
    assert "its file was gone" in text
    assert 'data-layer="truth"' not in text


def test_places_in_the_template_are_shown_where_known(results, page):
    assert "template x, y, z" not in page
    path = results / "scans" / "tumour-1" / "scan.json"
    lesion = files.read_json(path)["lesions"][0]
    changed(results, "tumour-1", lesions=[lesion | {"template_mm": [-26.0, -20.0, 28.0]}])
    assert "left, white matter" in subject_page(results, "tumour-1")


def test_a_scan_in_template_space_has_its_places_there(results):
    from dataclasses import replace

    path = results / "scans" / "tumour-1" / "score_map.nii.gz"
    io.write(replace(io.read(path, "score"), space=4), path)
    assert "template x, y, z" in subject_page(results, "tumour-1")


def test_an_unknown_scan_is_refused_with_the_nearest_name(untouched):
    with pytest.raises(SettingsError, match="tumour-1"):
        subject_page(untouched, "tumor-1")


def test_a_failed_scan_and_a_damaged_one_are_refused(results):
    with pytest.raises(InputError, match="no such file"):
        subject_page(results, "lost-1")
    (results / "scans" / "tumour-1" / "score_map.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="score_map"):
        subject_page(results, "tumour-1")


def test_the_page_tells_artefact_or_lesion_with_its_reasons(results):
    place = results / "scans" / "tumour-1" / "scan.json"
    told = files.read_json(place)
    assert "Artefact or lesion?" not in subject_page(results, "tumour-1", static=True)
    reason = {"code": "focus", "kind": "lesion", "p_value": 0.0244, "text": "One <place>."}
    files.write_json(place, told | {"verdict": "lesion", "reasons": [reason]})
    page = subject_page(results, "tumour-1", static=True)
    section = page.split('id="reasons"')[1].split("</section>")[0]
    assert "Artefact or lesion? <small>lesion</small>" in section
    assert "One &lt;place&gt;." in section
    assert "p = 0.024 among 3 healthy scans; focus" in section
    files.write_json(place, told | {"verdict": "nothing unusual", "reasons": []})
    assert "No figure of the whole scan is unusual" in subject_page(
        results, "tumour-1", static=True
    )
