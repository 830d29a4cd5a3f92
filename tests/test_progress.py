"""Progress: told from zero to the end, and silent by default."""

from __future__ import annotations

from atypia.progress import silent, track


def test_track_tells_after_each_item() -> None:
    heard: list[tuple[str, int, int]] = []

    def listen(task: str, done: int, total: int, note: str = "") -> None:
        heard.append((task, done, total))

    seen = []
    for item in track("ab", "read", listen):
        seen.append((item, heard[-1][1]))
    assert seen == [("a", 0), ("b", 1)]
    assert heard == [("read", 0, 2), ("read", 1, 2), ("read", 2, 2)]


def test_silence(capsys) -> None:  # type: ignore[no-untyped-def]
    assert list(track([1, 2], "read", silent)) == [1, 2]
    assert capsys.readouterr() == ("", "")
