"""`atypia fit spark`, and a diffusion model that starts from what it wrote."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from atypia.cli import main
from tests.cli.test_errors import failing, write_phantoms


def run(*words: object) -> int:
    return main.run([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spark")
    write_phantoms(root / "healthy", range(4))
    few = ["--preset", "tiny", "--training.steps", 2, "--training.betas", 0.8, 0.9]
    words = ["fit", "spark", root / "healthy", "-o", root / "encoder", "--cache", root / "cache"]
    assert run(*words, "--workers", 1, *few) == 0
    return root


def test_it_writes_an_encoder_by_its_flags(place: Path) -> None:
    saved = tomllib.loads((place / "encoder" / "settings.toml").read_text())
    assert saved["training"]["steps"] == 2  # the flag
    assert saved["training"]["betas"] == [0.8, 0.9]
    assert saved["training"]["batch_size"] == 4  # the preset
    assert saved["training"]["weight_decay"] == 0.05  # the default
    told = json.loads((place / "encoder" / "encoder.json").read_text())
    assert told["scans"] == 4


def test_the_saved_settings_make_the_same_encoder(place: Path, tmp_path: Path, capsys) -> None:
    config = place / "encoder" / "settings.toml"
    words = ["fit", "spark", place / "healthy", "-o", tmp_path / "e", "--workers", 1]
    assert run(*words, "--config", config) == 0
    shown = capsys.readouterr().out
    assert "pre-trained on 4 scans" in shown
    assert "--encoder-depth 18 --encoder-width 4" in shown
    names = ("encoder.safetensors", "encoder.json")
    for name in names:
        assert (tmp_path / "e" / name).read_bytes() == (place / "encoder" / name).read_bytes()


def test_diffusion_takes_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "diffusion", str(place / "healthy"), "--cache", str(place / "cache")]
    words += ["--workers", "1", "--preset", "tiny", "--training.steps", "2"]
    words += ["--encoder", str(place / "encoder"), "-o"]
    assert run(*words, place / "model") == 0
    saved = tomllib.loads((place / "model" / "settings.toml").read_text())
    assert saved["encoder"] == str(place / "encoder")
    line = failing([*words, str(place / "other"), "--encoder-width", "6"], capsys)
    assert "--encoder-depth 18 --encoder-width 4" in line


def test_errors_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "spark", str(place / "healthy"), "-o", str(place / "encoder")]
    assert "--overwrite" in failing([*words, "--preset", "tiny", "--seed", "5"], capsys)
    assert "reference" in failing([*words, "--preset", "referense"], capsys)


def test_help_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", "--help")
    assert "spark" in capsys.readouterr().out
    run("fit", "spark", "--help")
    shown = capsys.readouterr().out
    for expected in ("--encoder-width", "--cell", "--training.betas", "reference", "--overwrite"):
        assert expected in shown


def test_an_encoder_of_volumes_is_taken_as_the_command_says(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "spark", place / "healthy", "-o", place / "volumes", "--workers", 1]
    words += ["--cache", place / "cache", "--preset", "tiny", "--training.steps", 2]
    assert run(*words, "--axes", 3, "--stem-stride", 2, "--cell", 4) == 0
    said = capsys.readouterr().out.partition("Next: atypia ")[2].split()
    assert said[:2] == ["fit", "memory_bank"]
    options = said[said.index("--features") :]
    fit = ["fit", "padim", place / "healthy", "-o", place / "padim", "--preset", "tiny"]
    assert run(*fit, "--workers", 1, "--cache", place / "cache", *options) == 0
    options[options.index("--network-width") + 1] = "6"
    wrong = [str(word) for word in [*fit[:4], place / "other", *fit[5:], *options]]
    line = failing(wrong, capsys)
    assert "--network-width 4" in line
