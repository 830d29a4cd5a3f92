"""Privacy: no page tells in which folder a scan, a model or a result lies."""

from __future__ import annotations

import base64
import gzip
import html
import re
from pathlib import Path

import pytest

from atypia import files
from atypia.report import write_comparison, write_quality_page, write_report, write_subject_page
from tests.report import folders
from tests.report.conftest import evaluation_of, write_run, write_scan

SECRET = "Jane_Doe_1970-01-01"
"""The folder that everything lies in, named after a person."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("privacy") / SECRET / "study"


def told(page: Path) -> list[bytes]:
    """Give a page's text, as a browser understands it, and everything that is packed into it."""
    text = page.read_text("utf-8")
    packed = re.findall(r'base64,([A-Za-z0-9+/=]+)["\s]', text)
    packed += re.findall(r'<script type="text/plain"[^>]*>([A-Za-z0-9+/=]+)</script>', text)
    contents = [base64.b64decode(one) for one in packed]
    contents = [gzip.decompress(c) if c.startswith(b"\x1f\x8b") else c for c in contents]
    for one in packed:  # any word may stand in it by chance
        text = text.replace(one, "")
    return [text.encode(), html.unescape(text).encode(), *contents]


def assert_private(page: Path) -> list[bytes]:
    parts = told(page)
    for part in parts:
        for word in (SECRET.encode(), b"Jane_Doe", b"1970-01-01"):
            at = part.find(word)
            assert at < 0, f"{page.name}: {part[max(0, at - 80) : at + 40]!r}"
    return parts


def test_the_search_sees_what_is_packed(tmp_path: Path) -> None:
    for content in (SECRET.encode(), gzip.compress(SECRET.encode())):
        text = base64.b64encode(content).decode()
        for wrapped in (
            f'<img src="data:image/webp;base64,{text}">',
            f'<script type="text/plain" id="volume-scan">{text}</script>',
            "<p>Jane&#95;Doe</p>",
        ):
            page = tmp_path / "page.html"
            page.write_text(wrapped)
            with pytest.raises(AssertionError, match=r"page\.html"):
                assert_private(page)


def test_results_and_scans(place: Path) -> None:
    folder = place / "out"
    found = [
        write_scan(folder, "healthy-1", "healthy", lesion=False),
        write_scan(folder, "tumour-1", "tumour"),
    ]
    lost = place / "lost.nii.gz"
    ids = [scan.id for scan, _ in found]
    write_run(folder, ids, [("lost", f"{lost}: no such file. Copy it again.")])
    run = files.read_json(folder / "run.json")
    run["model"] = str(place / "models" / "zscore")
    run["settings"]["encoder"] = str(place / "encoder")
    run["trained_on"]["starts"] = [str(place / "one"), str(place / "other")]
    files.write_json(folder / "run.json", run)
    files.write_json(folder / "evaluation.json", evaluation_of(found))
    text = assert_private(write_report(folder))[1]
    assert b"lost.nii.gz: no such file" in text
    parts = assert_private(write_subject_page(folder, "tumour-1"))
    assert sum(part[344:348] == b"n+1\0" for part in parts) >= 3  # volumes were unpacked
    # What can only be told as a problem: volumes that are gone, or damaged.
    (folder / "scans" / "tumour-1" / "score_map.nii.gz").write_text("no image")
    text = assert_private(write_report(folder))[1]
    assert b"No pictures:" in text


def test_a_comparison(place: Path) -> None:
    page = folders.comparison(place)
    text = assert_private(page)[1].decode()
    assert "<dt>train.0.path</dt><dd>train</dd>" in text
    assert "<dt>test.1.scans.0.image</dt><dd>p40_T2w.nii.gz</dd>" in text
    for volume in (page.parent / "examples").glob("*/score_map.nii.gz"):
        volume.write_text("no image")
    text = assert_private(write_comparison(page.parent))[1].decode()
    assert "No pictures:" in text
    for described in (page.parent / "examples").glob("*/scan.json"):
        described.write_text("{")
    assert "No pictures:" in assert_private(write_comparison(page.parent))[1].decode()


def test_a_training(place: Path) -> None:
    text = assert_private(folders.training(place))[1]
    assert b">encoder</td>" in text


def test_prepared_scans(place: Path) -> None:
    page = folders.quality(place)
    text = assert_private(page)[1]
    assert b"bad_T2w.nii.gz" in text
    next(page.parent.rglob("mosaic.webp")).unlink()
    for image in (place / "scans-to-prepare").glob("*_T2w.nii.gz"):
        image.unlink()
    assert b"No picture:" in assert_private(write_quality_page(page.parent))[1]


def test_a_power_report(place: Path) -> None:
    text = assert_private(folders.power(place))[1]
    assert b"bad_T2w.nii.gz" in text
    assert b"Planted" in text
