"""kill -9 during `atypia fit`, then the same command again: it equals an unbroken run."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_errors import write_phantoms


def command(cohort: Path, model: Path) -> list[str]:
    settings = ["--preset", "tiny", "--training.steps", "60", "--training.checkpoint-every", "5"]
    where = [str(cohort), "-o", str(model), "--workers", "1"]
    return [sys.executable, "-m", "atypia", "fit", "mask_refinement", *where, *settings]


def weights(model: Path) -> str:
    return hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest()


def wait_for(path: Path, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert path.exists(), "training never wrote a checkpoint"


def test_killed_three_times_equals_unbroken(tmp_path: Path) -> None:
    cohort = write_phantoms(tmp_path / "cohort", range(6))
    subprocess.run(command(cohort, tmp_path / "unbroken"), check=True, capture_output=True)

    model = tmp_path / "killed"
    log = model / "training" / "training.jsonl"
    chance = random.Random(os.getpid())
    steps_at_kill = []
    for _ in range(3):
        process = subprocess.Popen(command(cohort, model), stderr=subprocess.DEVNULL)
        wait_for(model / "training" / "checkpoint.safetensors", process)
        before = log.read_text().count("\n") if log.exists() else 0
        goal = before + chance.randint(2, 12)
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            if log.exists() and log.read_text().count("\n") >= min(goal, 55):
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        steps_at_kill.append(log.read_text().count("\n") if log.exists() else None)
    assert not (model / "detector.json").exists(), f"was never killed in time: {steps_at_kill}"

    done = subprocess.run(command(cohort, model), check=True, capture_output=True, text=True)
    assert "fitted on 6 scans" in done.stdout
    assert weights(model) == weights(tmp_path / "unbroken"), f"killed at steps {steps_at_kill}"
    first, second = ((tmp_path / n / "training.jsonl").read_text() for n in ("killed", "unbroken"))
    assert first == second


@pytest.mark.parametrize("moment", ["before training", "after"])
def test_repeating_the_command_is_safe(moment: str, tmp_path: Path) -> None:
    from atypia.cli import main

    cohort = write_phantoms(tmp_path / "cohort", range(2))
    words = ["fit", "zscore", str(cohort), "-o", str(tmp_path / "m"), "--preset", "tiny"]
    if moment == "before training":
        (tmp_path / "m" / "training" / "prepared").mkdir(parents=True)
    assert main.run([*words, "--workers", "1"]) == 0
    before = weights(tmp_path / "m")
    assert main.run([*words, "--workers", "1"]) == 0
    assert weights(tmp_path / "m") == before
