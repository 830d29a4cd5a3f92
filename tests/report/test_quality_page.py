"""The quality page: offline, outliers first, outlines where they belong, bad scans named."""

from __future__ import annotations

import base64
import html
import io as memory
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atypia import io
from atypia.cohort import open_cohort
from atypia.report import write_quality_page
from atypia.report.pictures import FOUND
from atypia.runs.preparing import PreparationSettings, open_prepared, prepare_cohort
from tests.phantoms import phantom
from tests.report.test_page import parsed


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven phantoms, of which one is far too small and one cannot be read."""
    root = tmp_path_factory.mktemp("quality")
    for seed in range(6):
        image, brain, _ = phantom(seed)
        if seed == 2:
            brain = brain.with_data(brain.data & (np.arange(brain.shape[2]) > 11))
        io.write(image, root / "in" / f"p{seed}_T2w.nii.gz")
        io.write(brain, root / "in" / f"p{seed}_brain_mask.nii.gz")
    (root / "in" / "bad<b>_T2w.nii.gz").write_text("no image")
    settings = PreparationSettings(spacing_mm=7.0, align="none")
    prepare_cohort(open_cohort(root / "in"), root / "out", settings)
    write_quality_page(root / "out")
    return root / "out"


def test_the_page_is_well_formed_offline_and_without_scripts(prepared: Path) -> None:
    text = (prepared / "quality.html").read_text("utf-8")
    balance = parsed(text)
    assert set(balance.links) <= set(balance.ids)
    assert len(balance.images) == 6
    for target in re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", text):
        assert target.startswith(("data:", "#")), target
    assert "<script" not in text
    assert str(prepared.parent / "in" / "p0") not in text  # where good scans lie is not told
    assert "bad<b>" not in text
    assert html.escape("bad-b-") in text


def test_outliers_come_first_with_words(prepared: Path) -> None:
    text = (prepared / "quality.html").read_text("utf-8")
    names = re.findall(r"<h4>(.*?)</h4>", text)
    assert names[0] == "p2"
    assert sorted(names) == [f"p{n}" for n in range(6)]
    assert re.search(r"brain volume [\d.]+ is far below the others", html.unescape(text))
    assert "<b>1</b> outlier<" in text
    assert "damaged, truncated or not NIfTI" in text


def test_the_outline_runs_round_the_mask(prepared: Path) -> None:
    opened = open_prepared(prepared)
    place = opened.folders[[s.id for s in opened.cohort].index("p2")]
    with Image.open(place / "mosaic.webp") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    colour = np.array([int(FOUND[i : i + 2], 16) for i in (1, 3, 5)])
    # The picture is compressed: orange is where red is far above blue.
    orange = (pixels[..., 0] - pixels[..., 2]) > (colour[0] - colour[2]) / 3
    assert 300 < orange.sum() < 0.2 * orange.size
    page = (prepared / "quality.html").read_text("utf-8")
    uri = re.search(r'src="data:image/webp;base64,([^"]+)"', page)
    assert uri is not None
    with Image.open(memory.BytesIO(base64.b64decode(uri[1]))) as shown:
        assert shown.size == (pixels.shape[1], pixels.shape[0])


def test_pictures_are_kept_and_a_lost_scan_costs_one(prepared: Path) -> None:
    opened = open_prepared(prepared)
    stamps = [(f / "mosaic.webp").stat().st_mtime_ns for f in opened.folders]
    (opened.folders[0] / "mosaic.webp").unlink()
    image = opened.cohort[0].images["T2w"]
    assert isinstance(image, Path)
    content = image.read_bytes()
    image.unlink()
    text = write_quality_page(prepared).read_text("utf-8")
    assert "No picture:" in text
    image.write_bytes(content)
    assert "No picture:" not in write_quality_page(prepared).read_text("utf-8")
    again = [(f / "mosaic.webp").stat().st_mtime_ns for f in opened.folders]
    assert again[1:] == stamps[1:]
