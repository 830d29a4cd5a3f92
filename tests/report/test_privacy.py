"""Privacy: whatever folders are called, of a path in a text only the last part is told."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atypia.report.privacy import file_name, setting_without_folders, without_folders


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/Jane Doe/scan 1.nii: no such file", "scan 1.nii: no such file"),
        ("data/Jane Doe/a.nii: lies beside /x/Jane Doe/b.nii.", "a.nii: lies beside b.nii."),
        ("/a/b.nii and /c/Jane Doe/d.nii differ", "b.nii and d.nii differ"),
        ("/a/flair and /c/Jane Doe/t1 differ", "flair and t1 differ"),
        ("/a/model: has no run.json. See and/or ask", "model: has no run.json. See and/or ask"),
        ("/a/model: is unfinished, and/or old", "model: is unfinished, and/or old"),
        (r"C:\Users\Jane Doe\a.nii: broken", "a.nii: broken"),
        (r"no grid of C:\Users\Jane Doe\a.nii", "no grid of a.nii"),
        (r"\\server\Jane\a.nii", "a.nii"),
        (r"scan a: reads Jane\a twice", "scan a: a twice"),
        ("~/Jane/a.nii is gone", "a.nii is gone"),
        ("file:///Jane/a.nii is gone", "a.nii is gone"),
        ("could not open s3://bucket/Jane/a", "could not open a"),
        ("see '/Jane Doe/a.nii' (or \"/Jane/b.nii\")", "see 'a.nii' (or \"b.nii\")"),
        ('image: no file "/data/O\'Brien Jane/a.nii.gz")', 'image: no file "a.nii.gz")'),
        ("sub-1: /data/Doe (Jane)/a.nii.gz is bad", "sub-1: a.nii.gz is bad"),
        ("sub-1: /data/Doe, Jane/a.nii.gz is bad", "sub-1: a.nii.gz is bad"),
        ("sub-1: /data/Doe: Jane/a.nii: is bad", "sub-1: a.nii: is bad"),
        ("sub-1: /data/x.nii old/Jane/a is bad", "sub-1: x.nii a is bad"),
        ("sub-1: /data/Jane/1/2", "sub-1: 2"),
        ("sub-1: ../Jane Doe/a.nii.gz is bad", "sub-1: a.nii.gz is bad"),
        ("sub-1: [Errno 2] No such file: 'Jane Doe/flair'", "sub-1: [Errno 2] No such file: "
         "'flair'"),
        ("Jane Doe/flair: holds no scans", "flair: holds no scans"),
        # Words before a relative path may be part of it.
        ("sub-1: reads old Jane/a.nii twice. Check it.", "sub-1: a.nii twice. Check it."),
        ("sub-1: models/Jane Doe/zscore is bad", "sub-1: zscore is bad"),
        ("sub-1: O'Brien Jane/a.nii is bad", "sub-1: a.nii is bad"),
        ("/a/Jane/b.nii: one\n/c/Jane/d.nii: two\n", "b.nii: one\nd.nii: two\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_paths_in_texts_lose_their_folders(text: str, told: str) -> None:
    assert without_folders(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "sub-1: 3 of 4 and/or none, 5 mm/s. Check it.",
        "scan 1/3: n/a, or 1/2.5 of it",
        "MS/NMO",
        "GE / Siemens",
        "the scan's score isn't 0.5; `atypia fit` says 'why'",
    ],
)
def test_words_with_a_stroke_stay(text: str) -> None:
    assert without_folders(text) == text


# One that ends with a blank and signs looks like the beginning of another path.
names = (
    st.text("Aé1'\"`(),;:=[]{}<>|&.- _", min_size=1, max_size=12)
    .map(lambda name: f"Q{name.strip()}")
    .filter(lambda name: not re.search(r"\s\W*\w?\W*$", name))
)


@given(st.lists(names, min_size=1, max_size=4), st.sampled_from("/\\"))
def test_whatever_a_folder_is_called_it_is_not_told(folders: list[str], separator: str) -> None:
    root = "C:\\" if separator == "\\" else "/"
    path = root + "".join(name + separator for name in folders) + "x.nii.gz"
    texts = [f"{path}: is bad", f"scan 1: cannot be read (no file {path!r})", f"of '{path}'."]
    texts += [f"{path} and {path} differ", f"scan 1: '{path}' -> '{path}'", f"x={path}, twice"]
    for text in texts:
        assert "Q" not in without_folders(text), text
        assert "x.nii.gz" in without_folders(text), text
    for value in (path, f"0.5, {path}", f"{path}, {path}", f"{{'encoder': {path!r}}}"):
        assert "Q" not in setting_without_folders(value), value


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    for part in ("/ ", "/word ", "word ", "a.b-", "/", "a/", "'a", "~a", "x: ", "1/", ".nii", "a:"):
        text = "a: " + part * (200_000 // len(part))
        start = time.process_time()
        without_folders(text)
        setting_without_folders(text)
        assert time.process_time() - start < 2, part


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("/Jane Doe/a, /Jane/c", "a, c"),
        ("0.5, /Jane/c, 3", "0.5, c, 3"),
        ("/data/Doe, Jane/x", "x"),
        ("Doe, Jane/x", "x"),
        ("{'encoder': '/Jane/enc'}, {'start': '/a/Jane/b c'}", "{'encoder': 'enc'}, {'start': "
         "'b c'}"),
        ("memory_bank, 1/3", "memory_bank, 1/3"),
        ("0.5", "0.5"),
    ],
)  # fmt: skip
def test_settings_lose_their_folders(value: str, told: str) -> None:
    assert setting_without_folders(value) == told


def test_a_file_s_name_is_what_comes_last() -> None:
    assert file_name("/models/Jane Doe/zscore/") == "zscore"
    assert file_name(r"D:\Jane\zscore") == "zscore"
