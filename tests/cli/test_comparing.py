"""`atypia benchmark`: the list, a whole run, and a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.cli.main import main, run

TEXT = """
summary = "The baselines and one more"
modality = "T2w"
settings = { spacing_mm = 6.0, align = "none" }
methods = [{ method = "memory_bank", preset = "tiny" }]
train = [{ simulate = { spacing_mm = 6.0 }, count = 3 }]
calibration = [{ simulate = { spacing_mm = 6.0 }, first = 50, count = 1 }]
test = [{ simulate = { spacing_mm = 6.0, lesion = "tumour" }, first = 60, count = 1 }]
"""


def test_the_ready_made_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark"]) == 0
    assert "quick" in capsys.readouterr().out


def test_a_run_ends_with_tables_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(TEXT)
    words = ["benchmark", str(tmp_path / "mine.toml"), "-o", str(tmp_path / "out")]
    assert run([*words, "--workers", "1"]) == 0
    said = capsys.readouterr().out
    for word in ("memory_bank", "zscore *", "Ranks", "healthy n=1", "index.html"):
        assert word in said
    for name in ("index.html", "benchmark.json", "benchmark.csv", "benchmark.md"):
        assert (tmp_path / "out" / name).exists()


def test_an_unknown_protocol_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", "simulatde"])
    assert caught.value.code == 2
    assert "simulated" in capsys.readouterr().err
