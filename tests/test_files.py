"""Atomic writing: whole or not at all, and what was there survives a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atypia import files
from atypia.errors import InputError, OutputError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.nii.gz"
    for text in ("first", "second"):
        with files.replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.name.endswith("c.nii.gz")
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert names(path.parent) == ["c.nii.gz"]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="boom"), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_a_folder_replaces_a_folder_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with files.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["model"]


def test_a_failing_block_keeps_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError, match="boom"), files.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        raise RuntimeError("boom")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["model"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".partial." in self.name:
            raise OSError(5, "disk trouble")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with (
        pytest.raises(OutputError, match="disk trouble"),
        files.replacing(path) as temporary,
    ):
        temporary.mkdir()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("below", ["x.json", "deep/x.json"])
def test_a_path_below_a_file_cannot_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("here")
    path = tmp_path / "file" / below
    with pytest.raises(OutputError, match="cannot be written") as caught:
        files.write_text(path, "text")
    assert str(path) in str(caught.value)
    assert "another output" in caught.value.remedy
    assert names(tmp_path) == ["file"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(OutputError):
        files.write_text(tmp_path / "place", "text")
    assert names(tmp_path) == ["place"]
    assert (tmp_path / "place").is_dir()


def test_json_keeps_words_of_all_languages_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    value = {"name": "Gehirn-Übersicht", "values": [1, 2.5, None]}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert "Übersicht" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="nan"):
        files.write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: no such file"):
        files.read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json: cannot be read as JSON"):
        files.read_json(tmp_path / "bad.json")
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(InputError, match=r"latin\.json"):
        files.read_json(tmp_path / "latin.json")
    with pytest.raises(InputError, match="cannot be read"):
        files.read_json(tmp_path)


def test_digest_tells_where_a_part_ends() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc") != files.digest("abc")
    assert files.digest("a", b"b") == files.digest(b"a", "b")
    assert len(files.digest("a")) == 16
