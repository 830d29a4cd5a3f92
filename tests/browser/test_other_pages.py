"""Comparison, training, quality and power pages in a browser: closed to the network, in order."""

from __future__ import annotations

import itertools

import pytest

from tests.report import folders

PAGES = ("comparison", "training", "quality", "power")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    return {name: getattr(folders, name)(folder) for name in PAGES}


@pytest.fixture(params=PAGES)
def tab(request, page, pages):
    """Each page opened; at the end nothing was asked for and nothing went wrong."""
    yield page.open(pages[request.param])
    assert page.requests == []
    assert page.complaints == []


def test_it_tells_what_it_is_and_its_parts_follow_each_other(tab):
    what, dash, _ = tab.title().rpartition(" – atypia")
    assert dash
    assert set(what.split()) & set(tab.inner_text("h1").split())
    assert tab.get_attribute("html", "lang") == "en"
    levels = tab.eval_on_selector_all(
        "h1, h2, h3, h4, h5, h6", "all => all.map(one => Number(one.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert len(levels) > 2
    steps = [after - before for before, after in itertools.pairwise(levels)]
    assert max(steps) <= 1
    parts = tab.eval_on_selector_all("main > section", "all => all.map(one => one.id)")
    led_to = tab.eval_on_selector_all("nav a", "all => all.map(a => a.hash.slice(1))")
    assert len(parts) > 1
    assert set(led_to) <= set(tab.eval_on_selector_all("[id]", "all => all.map(one => one.id)"))


def test_the_first_key_leads_past_the_top(tab):
    assert tab.eval_on_selector(".skip", "a => a.getBoundingClientRect().right") < 0
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.eval_on_selector(".skip", "a => a.getBoundingClientRect().left") >= 0
    tab.keyboard.press("Enter")
    target = tab.get_attribute(".skip", "href").removeprefix("#")
    assert tab.evaluate("document.querySelector(':target').id") == target


def test_every_picture_says_what_it_shows(tab):
    assert tab.locator("img, svg").count() > 0
    unnamed = tab.evaluate(
        """() => [
            ...[...document.images].filter((one) => !one.alt.trim()),
            ...[...document.querySelectorAll("svg")].filter((one) =>
                !one.parentElement.closest("svg") &&
                !(one.role === "img" && one.ariaLabel?.trim())),
        ].map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    broken = "[...document.images].filter((one) => one.naturalWidth === 0).length"
    assert tab.evaluate(broken) == 0


def test_what_scrolls_sideways_can_be_reached_and_has_a_name(tab):
    unnamed = tab.eval_on_selector_all(
        ".scroll",
        """all => all.filter((one) => one.tabIndex !== 0 || one.role !== "region" ||
            !one.ariaLabel?.trim()).length""",
    )
    assert unnamed == 0
    outside = "all => all.filter((one) => !one.closest('.scroll')).length"
    assert tab.eval_on_selector_all("main table", outside) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(tab, scheme):
    """Contrast of at least 4.5, as the accessibility guidelines (WCAG 2.1, AA) ask for."""
    tab.emulate_media(color_scheme=scheme)
    contrasts = tab.evaluate(
        """() => ["h1", ".read", ".over", "nav a", "td"].flatMap((which) => {
            const one = document.querySelector(which);
            if (!one) return [];
            const light = (colour) => {
                const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
                    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const paper = light(getComputedStyle(document.body).backgroundColor);
            const ink = light(getComputedStyle(one).color);
            return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
        })"""
    )
    assert len(contrasts) >= 4
    assert min(contrasts) >= 4.5


def test_on_a_phone_nothing_but_tables_is_wider_than_the_page(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for summary in tab.locator("summary").all():
        summary.click()
    too_wide = tab.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((one) => {
            if (one.closest("svg") !== null && one.tagName !== "svg") return false;
            if (one.closest(".scroll, nav")?.contains(one.parentElement)) return false;
            return one.getBoundingClientRect().right > 390.5;
        }).map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert too_wide == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", PAGES)
def test_the_page_forbids_what_it_does_not_need(page, pages, name):
    tab = page.open(pages[name])
    policy = tab.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    assert {"script-src", "connect-src", "font-src", "frame-src"}.isdisjoint(rules)
    assert tab.get_attribute("meta[name=referrer]", "content") == "no-referrer"
    tab.evaluate(
        """() => {
            const image = new Image();
            image.src = "https://example.org/x.png";
            const script = document.createElement("script");
            script.textContent = "window.reached = true";
            document.body.append(image, script);
        }"""
    )
    assert tab.evaluate("fetch('https://example.org/x').then(() => 'sent', () => 'held')") == "held"
    assert tab.evaluate("window.reached === undefined")
    assert sum("Content Security Policy" in one for one in page.complaints) >= 3
