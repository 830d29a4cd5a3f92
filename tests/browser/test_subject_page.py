"""The subject page in a browser: its viewer, its controls, and what stands without them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from atypia import files, io
from atypia.report.subject_page import write_subject_page
from tests.browser.conftest import SOFTWARE_WEBGL, Watched
from tests.report.conftest import write_run, write_scan

HEALTHY = [2.5, 3.0, 4.2]
SIZE = {"width": 1000, "height": 600}
READY = {"state": "attached", "timeout": 60_000}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Give the folder of one scan's results, its page written."""
    folder = tmp_path_factory.mktemp("subject") / "out"
    write_scan(folder, "tumour-1", "tumour")
    write_run(folder, ["tumour-1"])
    run = files.read_json(folder / "run.json")
    run["calibration"]["highest_scores"] = HEALTHY
    files.write_json(folder / "run.json", run)
    write_subject_page(folder, "tumour-1")
    write_subject_page(folder, "tumour-1", folder / "static.html", static=True)
    return folder / "scans" / "tumour-1"


@pytest.fixture(scope="module")
def opened(chromium, scan):
    """The page with its viewer: opened once, because drawing in software is slow."""
    watched = Watched(chromium(*SOFTWARE_WEBGL).new_page(viewport=SIZE))
    watched.open(scan / "index.html").wait_for_selector("html[data-ready]", **READY)
    assert watched.tab.evaluate("document.documentElement.dataset.ready") == "viewer"
    watched.tab.wait_for_selector("html[data-layers=all]", **READY)
    yield watched
    watched.tab.close()


@pytest.fixture
def tab(opened):
    """That page, put back; at the end nothing was asked for and nothing went wrong."""
    tab = opened.tab
    tab.set_viewport_size(SIZE)
    tab.emulate_media(media="screen")
    tab.evaluate(
        """() => {
            for (const input of document.querySelectorAll("input")) {
                const was = [input.checked, input.value].join();
                input.checked = input.defaultChecked;
                input.value = input.defaultValue;
                if (was === [input.checked, input.value].join()) continue;
                for (const kind of ["input", "change"]) input.dispatchEvent(new Event(kind));
            }
            document.querySelector("[data-view='3']").click();
            goTo(facts.focus);
        }"""
    )
    yield tab
    assert opened.requests == []
    assert opened.complaints == []


def slide(tab, stop):
    tab.evaluate(
        """stop => new Promise(done => {
            const slider = document.getElementById("threshold");
            slider.value = stop;
            slider.dispatchEvent(new Event("input"));
            requestAnimationFrame(() => requestAnimationFrame(done));
        })""",
        stop,
    )


def shown_mm(tab):
    """Give the crosshair's place: as the page tells it, and as niivue reckons it."""
    told = re.findall(r"[xyz] (-?[\d.]+)", tab.inner_text("#readout"))
    reckoned = tab.evaluate("Array.from(viewer.frac2mm(viewer.scene.crosshairPos)).slice(0, 3)")
    return np.array(told, float), np.array(reckoned)


def opacity(tab, key):
    return tab.evaluate("key => layers.find(l => l.key === key).volume.opacity", key)


def test_the_slider_moves_the_mask(tab, scan):
    score = io.read(scan / "score_map.nii.gz", "score").data
    brain = io.read(scan / "brain_mask.nii.gz", "mask").data
    levels, start = tab.evaluate("[facts.levels, facts.start]")
    assert levels[start] == 2.0
    assert "calibrated" in tab.inner_text("#threshold-note")
    for stop in (start, 0, 40, start + 30, len(levels) - 1):
        slide(tab, stop)
        above = int((score[brain] > np.float32(levels[stop])).sum())
        mask = tab.evaluate(
            "layers.find(l => l.key === 'flagged').volume.img.reduce((a, b) => a + b, 0)"
        )
        assert mask == above
        assert tab.inner_text("#flagged-ml") == f"{above * 2 * 2 * 5 / 1000:.2f} ml"
        healthy = sum(highest > levels[stop] for highest in HEALTHY)
        assert tab.inner_text("#healthy-share").startswith(f"{healthy} of 3 healthy scans")
    tab.click("#reset")
    assert tab.evaluate("Number(document.getElementById('threshold').value)") == start


def test_the_slider_answers_to_keys(tab):
    tab.focus("#threshold")
    before = tab.inner_text("#threshold-value")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#threshold-value") != before
    assert "ml flagged" in tab.get_attribute("#threshold", "aria-valuetext")


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_a_lesion_moves_the_crosshair_to_its_centre(tab, scan, how):
    lesion = files.read_json(scan / "scan.json")["lesions"][0]["centre_mm"]
    tab.evaluate("goTo([0, 0, 0])")
    assert (np.abs(shown_mm(tab) - np.array(lesion)).max(axis=1) > 5).all()
    if how == "click":
        tab.click("tr[data-lesion='0'] td:nth-child(2)")
    else:
        tab.focus("tr[data-lesion='0'] button")
        tab.keyboard.press("Enter")
    told, reckoned = shown_mm(tab)
    assert np.abs(told - lesion).max() <= 0.06  # told with one digit
    assert np.abs(reckoned - lesion).max() <= 0.06
    assert "score about" in tab.inner_text("#readout")


def test_the_score_at_the_crosshair_is_that_of_the_scan(tab, scan):
    score = io.read(scan / "score_map.nii.gz", "score")
    brain = io.read(scan / "brain_mask.nii.gz", "mask").data
    for voxel in ((6, 7, 4), (15, 20, 6), (3, 3, 1)):
        tab.evaluate(
            """mm => { viewer.scene.crosshairPos.set(viewer.mm2frac(mm)); tellPlace(); }""",
            score.geometry.world(voxel).tolist(),
        )
        assert brain[voxel]
        told = float(tab.inner_text("#readout").rpartition(" ")[2])
        assert told == pytest.approx(float(score.data[voxel]), abs=0.05)


def test_arrows_move_the_crosshair_by_a_voxel(tab):
    tab.evaluate("goTo([8, 8, 4])")
    tab.focus("#canvas")
    for key, step in (("ArrowRight", [2, 0, 0]), ("ArrowUp", [0, 2, 0]), ("PageUp", [0, 0, 5])):
        before = shown_mm(tab)[1]
        tab.keyboard.press(key)
        np.testing.assert_allclose(shown_mm(tab)[1] - before, step, atol=0.01)
    turned = "[viewer.scene.renderAzimuth, viewer.scene.crosshairPos[0]]"
    azimuth, place = tab.evaluate(turned)
    tab.keyboard.press("Shift+ArrowRight")
    assert tab.evaluate(turned) == [azimuth + 5, place]


def test_a_click_into_a_view_moves_the_crosshair(tab):
    before = tab.inner_text("#readout")
    box = tab.locator("#canvas").bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2)
    assert tab.inner_text("#readout") != before


def test_layers_are_switched_and_faded(tab):
    for key, shown, strength in (("restoration", False, 1.0), ("truth", True, 0.9)):
        assert opacity(tab, key) == (strength if shown else 0)
        tab.click(f"[data-layer={key}]")
        assert opacity(tab, key) == (0 if shown else strength)
    tab.check("[data-layer=score]")
    tab.evaluate(
        """() => {
            const slider = document.querySelector("[data-opacity=score]");
            slider.value = 25;
            slider.dispatchEvent(new Event("input"));
        }"""
    )
    assert opacity(tab, "score") == 0.25


def test_a_hidden_layer_comes_when_it_is_asked_for(page, scan):
    """The viewer is ready without it; here it never gets idle."""
    page.tab.add_init_script("window.requestIdleCallback = () => 0;")
    tab = page.open(scan / "index.html")
    tab.wait_for_selector("html[data-ready=viewer]", **READY)
    keys = tab.evaluate("layers.map(l => l.key)")
    there = "viewer.volumes.map(v => v.name.split('.')[0])"
    assert tab.evaluate(there) == [key for key in keys if key != "restoration"]
    flagged = "layerOf('flagged').volume.img.reduce((a, b) => a + b, 0)"
    before = tab.evaluate(flagged)
    tab.check("[data-layer=restoration]")
    assert tab.evaluate(f"layerOf('restoration').arriving.then(() => {there})") == keys
    assert opacity(tab, "restoration") == 1.0
    assert tab.evaluate(flagged) == before > 0
    assert page.requests == page.complaints == []


def test_what_is_drawn_changes_with_the_layers(tab):
    """The score map's colours must reach the screen, not only niivue's numbers."""

    def colourful():
        return tab.evaluate(
            """() => {
                viewer.drawScene();
                const { width, height } = viewer.canvas;
                const pixels = new Uint8Array(4 * width * height);
                viewer.gl.readPixels(0, 0, width, height, 6408, 5121, pixels);
                let count = 0;
                for (let i = 0; i < pixels.length; i += 4)
                    count += Math.abs(pixels[i] - pixels[i + 2]) > 60;
                return count;
            }"""
        )

    for key in ("flagged", "own", "truth"):
        tab.uncheck(f"[data-layer={key}]")
    plain = colourful()
    tab.check("[data-layer=flagged]")
    flagged = colourful()
    slide(tab, 0)
    everything = colourful()
    assert plain < flagged < everything


def test_views_are_chosen(tab):
    tab.click("[data-view='0']")
    assert tab.get_attribute("[data-view='0']", "aria-pressed") == "true"
    assert tab.get_attribute("[data-view='3']", "aria-pressed") == "false"
    assert tab.evaluate("viewer.opts.sliceType") == 0


def test_paper_gets_the_still_pictures(tab):
    assert not tab.is_visible("#stills")
    tab.emulate_media(media="print")
    assert tab.is_visible("#stills")
    assert not tab.is_visible("#viewer")


def test_a_phone_shows_no_sideways_scrolling(tab):
    tab.set_viewport_size({"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_webgl_the_pictures_are_shown(page_without_webgl, scan):
    tab = page_without_webgl.open(scan / "index.html")
    tab.wait_for_selector("html[data-ready=stills]", **READY)
    assert tab.is_visible("#stills img >> nth=0")
    assert "WebGL 2" in tab.inner_text("#no-viewer")
    assert not tab.is_visible("#viewer")
    assert page_without_webgl.requests == page_without_webgl.complaints == []


def test_without_scripts_the_pictures_are_shown(chromium, scan):
    tab = chromium().new_page(java_script_enabled=False)
    tab.goto((scan / "index.html").as_uri())
    assert tab.is_visible("#stills img >> nth=0")
    assert tab.is_visible("#no-viewer")
    assert not tab.is_visible("#viewer")
    tab.close()


def test_the_static_page_opens_without_a_complaint(page, scan):
    tab = page.open(scan.parent.parent / "static.html")
    assert tab.is_visible("#stills img >> nth=0")
    assert tab.evaluate("document.scripts.length") == 0
    assert page.requests == page.complaints == []


def test_the_page_can_ask_for_nothing(page, scan):
    """Its policy holds a request back, whatever a script would try."""
    tab = page.open(scan / "index.html")
    tab.wait_for_selector("html[data-ready]", **READY)
    blocked = "fetch('https://example.org/x').then(() => 'sent', () => 'blocked')"
    assert tab.evaluate(blocked) == "blocked"
    assert any("Content Security Policy" in text for text in page.complaints)
