"""`atypia view`: the URL it prints answers, Ctrl-C is a good end, and mistakes are one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from atypia.cli import main, viewing
from tests.cli.test_errors import failing
from tests.report.conftest import write_run, write_scan
from tests.report.test_training_page import write_model, write_unfinished


def test_the_printed_url_answers_and_ctrl_c_ends_well(tmp_path: Path) -> None:
    write_unfinished(tmp_path / "m")
    command = [sys.executable, "-m", "atypia", "view", str(tmp_path / "m"), "--no-browser"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A runner in the background may have told its children to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        try:
            assert run.stdout is not None
            url = run.stdout.readline().split()[0]
            with urllib.request.urlopen(url, timeout=30) as page:
                assert "3 of 6" in page.read().decode()
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=30)
        finally:
            run.kill()
    assert run.returncode == 0, said
    assert said == ""


def test_a_browser_is_opened_only_where_there_is_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "m")
    opened: list[str] = []
    monkeypatch.setattr(viewing.webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", interrupted)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main.run(["view", str(tmp_path / "m")]) == 0
    assert opened == []
    monkeypatch.setitem(os.environ, "DISPLAY", ":0")
    assert main.run(["view", str(tmp_path / "m"), "--no-browser"]) == 0
    assert opened == []
    assert main.run(["view", str(tmp_path / "m")]) == 0
    assert opened[0].startswith("http://127.0.0.1:")


def test_results_are_drawn_before_the_page_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, _ = write_scan(tmp_path / "out", "healthy-1", "healthy", lesion=False)
    write_run(tmp_path / "out", [scan.id])
    thumbnail = tmp_path / "out" / "scans" / scan.id / "thumbnail.webp"

    def interrupted(*_: object) -> None:
        assert thumbnail.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", interrupted)
    command = ["view", str(tmp_path / "out"), "--no-browser", "--workers", "1"]
    assert main.run(command) == 0
    assert capsys.readouterr().err == ""
    # Results that cannot be shown have pages beside them that can.
    (tmp_path / "out" / "run.json").write_text("{}")
    assert main.run(command) == 0
    assert "was not written by this version" in capsys.readouterr().err


def test_mistakes_are_one_line_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no results" in failing(["view", str(tmp_path)], capsys)
    write_unfinished(tmp_path / "m")
    line = failing(["view", str(tmp_path / "m"), "--port", "99999"], capsys)
    assert "Choose another" in line
    scan = ["--scan", str(tmp_path / "none.nii.gz")]
    assert "no such file" in failing(["view", str(tmp_path / "m"), *scan], capsys)
