import html
import re
from html.parser import HTMLParser

import pytest

from atypia import files
from atypia.errors import InputError
from atypia.report import page as page_module
from atypia.report import write_report
from tests.report.conftest import CALIBRATION, write_run, write_scan

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balance(HTMLParser):
    """Checks that every tag is closed in order, and gathers what is looked for."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.ids, self.links = [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        if values.get("href", "").startswith("#"):
            self.links.append(values["href"][1:])
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    return balance


def shown(results):
    return write_report(results).read_text("utf-8")


@pytest.fixture(scope="module")
def page(untouched, tmp_path_factory):
    """The page of results that nothing is wrong with."""
    return write_report(untouched, tmp_path_factory.mktemp("page") / "x.html").read_text("utf-8")


def test_the_page_is_one_file_without_outside_references(page):
    page = re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)
    for target in re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", page):
        assert target.startswith(("data:", "#")), target
    assert re.findall(r"url\(|@import|<script src|<link|https?://", page) == []
    assert page.count("default-src 'none'") == 1


def test_the_page_stands_in_the_results_folder(tmp_path):
    write_run(tmp_path, [])
    assert write_report(tmp_path) == tmp_path / "report.html"


def test_the_page_can_be_written_elsewhere(tmp_path):
    write_run(tmp_path, [])
    path = write_report(tmp_path, tmp_path / "deep" / "page.html")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    assert path.parent == tmp_path / "deep"


def test_tags_are_balanced_and_every_link_leads_somewhere(page):
    balance = parsed(page)
    assert len(balance.ids) == len(set(balance.ids))
    assert set(balance.links) <= set(balance.ids)


def test_every_scan_is_shown_with_its_outcome_and_threshold(page):
    for name in ("healthy-1", "tumour-1", "stroke-1"):
        assert f"<h4>{name}</h4>" in page
    assert page.count('class="outcome">mask refined') == 3
    assert f"2 ({CALIBRATION.provenance})" in page
    assert "the healthy ones" in page
    assert "0.250 (the lowest there can be)" in page
    assert "Threshold curve, knee at 80 %" in page
    assert "Largest lesions found" in page


def test_every_picture_is_described(page):
    images = parsed(page).images
    assert len(images) == 3 * 4 + 3  # thumbnails in the table
    assert all(image["alt"] and image["src"].startswith("data:image/webp") for image in images)


def test_conditions_are_grouped_and_healthy_comes_last(page):
    groups = re.findall(r'class="group">([a-z ]+) <small>', page)
    assert groups == ["tumour", "stroke", "healthy"]


def test_failed_scans_are_listed_with_the_reason(page):
    assert "lost-1" in page
    assert "no such file &amp; so on" in page
    assert 'href="#problems"' in page


def test_oracles_are_labelled_and_never_best(page):
    cells = re.findall(r'<(?:td|th)[^>]*class="oracle[^"]*"[^>]*>(.*?)</(?:td|th)>', page)
    assert "oracle Dice" in cells
    assert len(cells) > 2
    assert not any("<strong>" in cell for cell in cells)
    assert "Muted oracle columns" in page
    assert re.search(r"<td[^>]*><strong>1\.000</strong>", page)
    assert "zscore *" in page


def test_every_threshold_of_the_tables_tells_its_provenance(page):
    table = page.split("the threshold of every method</h3>")[1].split("</table>")[0]
    assert table.count(CALIBRATION.provenance) == 2


def test_names_are_escaped(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "plain", "<script>alert(1)</script>")
    write_run(folder, [scan.id], [("<script>alert(2)</script>", "<img src=x>")])
    place = folder / "scans" / scan.id / "scan.json"
    description = files.read_json(place)
    description["details"] = {"outcome": "<script>alert(3)</script>", "n": "<i>"}
    files.write_json(place, description)
    text = shown(folder)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "<b>bold" not in text
    assert html.escape("<script>alert(3)</script>") in text
    parsed(text)


def test_without_evaluation_and_calibration(tmp_path):
    folder = tmp_path / "out"
    scan, _ = write_scan(folder, "one", "", calibrated=False)
    write_run(folder, [scan.id], calibrated=False)
    text = shown(folder)
    assert "not calibrated" in text
    assert 'id="evaluation"' not in text
    assert "unknown" in text
    assert len(parsed(text).images) == 4 + 1


def test_a_damaged_evaluation_is_reported(results):
    (results / "evaluation.json").write_text("{")
    text = shown(results)
    assert 'id="evaluation"' not in text
    assert "cannot be read as JSON" in text


@pytest.mark.parametrize("change", ["score", "threshold"])
def test_an_evaluation_of_other_results_is_not_shown(results, change):
    place = results / "scans" / "tumour-1" / "scan.json"
    description = files.read_json(place)
    if change == "score":
        description["score"] += 1
    else:
        description["threshold"]["value"] *= 2
    files.write_json(place, description)
    text = shown(results)
    assert "belongs to other results" in text
    assert "Lesions, voxel by voxel" not in text
    assert "Dice" not in text


@pytest.mark.parametrize("name", ["score_map.nii.gz", "mask.nii.gz", "brain_mask.nii.gz"])
def test_a_broken_volume_costs_only_its_own_pictures(results, name):
    (results / "scans" / "tumour-1" / name).write_bytes(b"no image")
    (results / "scans" / "tumour-1" / "thumbnail.webp").unlink(missing_ok=True)
    text = shown(results)
    assert len(parsed(text).images) == 2 * (4 + 1)
    assert "1 scan has no thumbnail; the first, tumour-1" in text
    assert "<b>No pictures:</b>" in text
    assert "no known" in text or "damaged" in text
    assert "<h4>tumour-1</h4>" in text


def test_a_missing_image_and_a_damaged_description_are_reported(results):
    path = results / "scans" / "tumour-1" / "scan.json"
    files.write_json(path, files.read_json(path) | {"image": "/nowhere/image.nii.gz"})
    (results / "scans" / "stroke-1" / "scan.json").write_text("[]")
    text = shown(results)
    assert "<dd>image.nii.gz: no such file" in text
    assert "nowhere" not in text
    assert "<h4>stroke-1</h4>" not in text
    assert "stroke-1" in text.split('id="problems"')[1]
    assert "<h4>healthy-1</h4>" in text


def test_all_scans_failed(tmp_path):
    folder = tmp_path / "out"
    write_run(folder, [], [("a", "broken")])
    text = shown(folder)
    assert "No scan was finished" in text
    parsed(text)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="atypia predict"):
        write_report(tmp_path)


def test_more_scans_than_pictures(results, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_PICTURES", 2)
    monkeypatch.setattr(page_module, "PICTURES_OF_MANY", 1)
    text = shown(results)
    balance = parsed(text)
    assert len(balance.images) == 4 + 3
    assert "Pictures of 1 of 3 scans" in text
    assert "healthy-1" in text
    assert set(balance.links) <= set(balance.ids)
