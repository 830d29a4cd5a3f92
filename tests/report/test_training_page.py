"""The training page: what a log says, of finished and of unfinished trainings."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from atypia import files
from atypia.errors import InputError
from atypia.report.samples import Sample, Samples
from atypia.report.training_page import read_training, training_page, write_training_page
from atypia.training import TrainingSettings, train
from tests.report.test_page import parsed

LOSSES = {1: 8.0, 2: 4.0, 3: 2.0, 4: 1.0, 5: 0.5, 6: 0.6}
VALIDATIONS = {2: 3.0, 4: 0.9, 6: 1.1}


def log_line(step: int) -> str:
    latest = [value for at, value in VALIDATIONS.items() if at <= step]
    line = {"step": step, "loss": LOSSES[step], "learning_rate": 0.001, "gradient_norm": 1.0 / step}
    return json.dumps(line | ({"validation": latest[-1]} if latest else {})) + "\n"


def write_model(folder: Path, log: bool = True) -> Path:
    files.write_json(
        folder / "detector.json",
        {
            "atypia": "0.1",
            "torch": "2",
            "method": "mask_refinement",
            "settings": {"training": {"steps": 6}, "encoder": "/data/jane_doe/encoder"},
            "trained_on": {"cohort": "co<b>hort", "scans": 9, "people": list("abcdefg")},
        },
    )
    if log:
        (folder / "training.jsonl").write_text("".join(log_line(step) for step in LOSSES))
    return folder


def write_unfinished(folder: Path, steps: int = 3) -> Path:
    place = folder / "training"
    began = time.time() - 30
    files.write_json(place / "people.json", ["a", "b"])
    files.write_json(
        place / "training.json",
        {"steps": 6, "scans": 2, "settings": {}, "began_at": began, "began_at_step": 0},
    )
    (place / "training.jsonl").write_text("".join(log_line(s) for s in LOSSES if s <= steps))
    return folder


def test_validations_are_told_from_lines_that_repeat_the_latest(tmp_path: Path) -> None:
    training = read_training(write_model(tmp_path / "m"))
    assert training.validations == list(VALIDATIONS.items())
    assert training.best == (4, 0.9)
    assert training.people == 7
    assert training.steps == training.step == 6


def test_the_page_of_a_finished_model(tmp_path: Path) -> None:
    page = write_training_page(write_model(tmp_path / "m"))
    assert page == tmp_path / "m" / "training.html"
    text = page.read_text("utf-8")
    balance = parsed(text)
    assert set(balance.links) <= set(balance.ids)
    for target in re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", text):
        assert target.startswith(("data:", "#")), target
    assert "<script" not in text
    assert 'http-equiv="refresh"' not in text
    assert "co<b>hort" not in text
    assert "jane_doe" not in text  # a folder may be named after a person
    assert "0.9 at step 4" in text
    assert "on a logarithmic axis" in text
    for chart in ("Learning rate by step", "Gradient norm by step"):
        assert chart in text
    assert text.count('<svg class="chart"') == 3


def test_a_finished_model_never_refreshes(tmp_path: Path) -> None:
    text = training_page(write_model(tmp_path / "m"), refreshing=True)
    assert 'http-equiv="refresh"' not in text


def test_an_unfinished_training_tells_how_far_it_is(tmp_path: Path) -> None:
    model = write_unfinished(tmp_path / "m")
    text = training_page(model, refreshing=True)
    assert 'http-equiv="refresh"' in text
    assert "3 of 6 (50%)" in text
    assert "<dt>people</dt><dd>2</dd>" in text
    assert "<dt>seconds a step</dt><dd>10</dd>" in text
    assert "<dt>to go</dt><dd>30 seconds</dd>" in text
    assert 'http-equiv="refresh"' not in training_page(model)


def test_a_silent_run_is_told_how_to_go_on(tmp_path: Path) -> None:
    model = write_unfinished(tmp_path / "m")
    assert "goes on from its checkpoint" not in training_page(model)
    long_ago = time.time() - 7200
    os.utime(model / "training" / "training.jsonl", (long_ago, long_ago))
    text = training_page(model)
    assert "2 hours ago" in text
    assert "goes on from its checkpoint" in text


def test_an_unfinished_run_goes_before_the_model_that_it_will_replace(tmp_path: Path) -> None:
    write_unfinished(write_model(tmp_path / "m"))
    assert not read_training(tmp_path / "m").finished


def test_a_run_without_a_step_and_a_method_without_steps_have_pages(tmp_path: Path) -> None:
    files.write_json(tmp_path / "new" / "training" / "people.json", ["a"])
    assert "No step is done yet" in training_page(tmp_path / "new")
    text = training_page(write_model(tmp_path / "plain", log=False))
    assert "learns without a training loop" in text


def test_a_line_that_was_cut_off_and_odd_values_cost_nothing_else(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    log = model / "training.jsonl"
    odd = '[1]\n{"step": 7, "loss": NaN}\n{"step": 8, "loss": 0.4, "note": "x"}\n{"step": 9, "lo'
    log.write_text(log.read_text() + odd)
    training = read_training(model)
    assert training.step == 8
    assert training.series("loss")[1] == [*LOSSES.values(), 0.4]
    assert "<svg" in training_page(model)


def test_without_a_validation_the_page_says_so(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "training.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n')
    text = training_page(model)
    assert "There is no validation" in text
    assert "best validation" not in text


def test_samples_are_shown_with_what_they_are(tmp_path: Path) -> None:
    pictures = (Sample("scan", "data:,a"), Sample("step 5", "data:,b", 0.125))
    samples = Samples("scan<1>", True, pictures, (10, 20))
    text = training_page(write_model(tmp_path / "m"), samples=samples)
    assert len(parsed(text).images) == 2
    assert "0.125" in text
    assert "The model has learnt from this person" in text
    assert "scan<1>" not in text


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_description_is_an_error_with_a_remedy(tmp_path: Path, content: str) -> None:
    write_model(tmp_path / "m")
    (tmp_path / "m" / "detector.json").write_text(content)
    with pytest.raises(InputError, match=r"detector\.json.*(Write|Fit)"):
        write_training_page(tmp_path / "m")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model folder"):
        write_training_page(tmp_path)


def test_the_loop_tells_an_unfinished_run_s_reader_how_far_it_goes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 3)

    def stop(task: str, done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    settings = TrainingSettings(steps=10, device="cpu", validate_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(
            network,
            lambda net, batch, rng: net(torch.ones(1, 3)).square().mean(),
            5,
            settings,
            seed=0,
            validation=lambda net: float(net(torch.ones(1, 3)).square().mean()),
            folder=tmp_path / "m" / "training",
            progress=stop,
        )
    training = read_training(tmp_path / "m")
    assert (training.step, training.steps, training.finished) == (4, 10, False)
    assert [step for step, _ in training.validations] == [2, 4]
    assert "4 of 10 (40%)" in training_page(tmp_path / "m")
