"""Kept: what is made once, what is made again, and how much stays."""

from __future__ import annotations

from atypia.report.kept import Kept


def test_what_was_asked_for_last_is_kept_until_its_files_change() -> None:
    kept, made = Kept[str](2), []

    def get(key: str, stamp: int = 0) -> str:
        def make() -> str:
            made.append(key)
            return f"{key} {stamp}"

        return kept.get(key, stamp, make)

    assert [get("a"), get("b"), get("a")] == ["a 0", "b 0", "a 0"]
    assert made == ["a", "b"]
    get("c")  # and b, which nobody asked for since, is not kept
    assert get("a") == "a 0"
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]
    assert get("a", stamp=1) == "a 1"
    assert get("a", stamp=1) == "a 1"
    assert made[4:] == ["a"]
