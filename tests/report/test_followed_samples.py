"""Samples of a fit that still runs: each snapshot restores once, as it will when it is finished."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atypia import files
from atypia.cli import main, viewing
from atypia.cohort.scan import Scan
from atypia.detectors.unfinished import FIT, KNOWN, write_fit
from atypia.errors import AtypiaError, InputError, ModelError
from atypia.registry import detector_class
from atypia.report.samples import FollowedSamples, Samples, samples_of
from atypia.report.site import Site
from atypia.runs.fitting import fit_model
from tests.cli.test_errors import failing, write_phantoms
from tests.phantoms import phantom_cohort, phantom_scan
from tests.report.test_page import parsed
from tests.report.test_training_page import write_unfinished

FEW = {"steps": 6, "validate_every": 3, "snapshot_epochs": 1}


def fit(method: str, model: Path, at_step: Callable[[int], None], **training: Any) -> None:
    """Fit a tiny model; `at_step` is called after each step, its snapshot included."""
    kind = detector_class(method).settings_class
    settings = kind.make({"training": {**FEW, **training}}, "tiny")

    def progress(task: str, done: int, total: int, note: str = "") -> None:
        if task == "train":
            at_step(done)

    cohort = phantom_cohort(range(3))
    fit_model(method, settings, cohort, model, workers=1, baselines=False, progress=progress)


class Killed(BaseException):
    """Ends a fit from within."""


def killed_at(last: int) -> Callable[[int], None]:
    def at_step(step: int) -> None:
        if step >= last:
            raise Killed

    return at_step


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit that was killed after its second snapshot; not to be changed."""
    model = tmp_path_factory.mktemp("killed") / "model"
    with pytest.raises(Killed):
        fit("mask_refinement", model, killed_at(5))
    return model


@pytest.fixture
def model(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "model"))


def titles(samples: Samples) -> list[str]:
    return [picture.title for picture in samples.pictures]


def scan() -> Scan:
    return phantom_scan(50, lesion=True)


@pytest.mark.parametrize("method", ["mask_refinement", "diffusion", "implicit_field"])
def test_each_snapshot_restores_once_and_as_when_it_is_finished(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored: list[object] = []
    kind = detector_class(method)
    real = kind._restore_alone

    def counted(self: Any, prepared: Any) -> Any:
        restored.append(prepared)
        return real(self, prepared)

    monkeypatch.setattr(kind, "_restore_alone", counted)
    model = tmp_path / "model"
    following = FollowedSamples(model, scan())
    seen: list[Samples] = []

    def look(step: int) -> None:
        # Snapshots come after whole passes; a look in between finds nothing new.
        if len(list((model / "training" / "snapshots").glob("*"))):
            following.restore()
            seen.append(following.so_far())
            assert len(restored) == len(seen[-1].pictures) - 1

    fit(method, model, look)
    assert len({len(samples.pictures) for samples in seen}) > 2
    steps = titles(seen[-1])[1:]
    following.restore()
    assert titles(following.so_far()) == ["scan", *steps, "kept"]
    assert len(restored) == len(steps) + 1  # only those that were kept were new
    assert len({id(prepared) for prepared in restored}) == 1  # it was prepared once

    finished = samples_of(model, scan())
    assert finished == following.so_far()
    errors = [picture.error for picture in finished.pictures]
    assert errors[0] is None
    assert len(set(errors[1:-1])) == len(steps)  # each with weights of its own
    for samples in seen:
        shown = len(samples.pictures)
        assert samples.pictures == finished.pictures[:shown]
    assert not (model / "training").exists()


def test_a_killed_fit_shows_what_it_has_kept_and_goes_on(model: Path) -> None:
    before = samples_of(model, scan())
    assert titles(before) == ["scan", "step 2", "step 4"]
    assert not before.learnt_from
    assert samples_of(model, phantom_scan(0)).learnt_from
    fit("mask_refinement", model, lambda step: None)
    assert not (model / "training").exists()
    assert samples_of(model, scan()).pictures[:3] == before.pictures


def test_a_fit_that_will_replace_a_model_goes_before_it(model: Path) -> None:
    fit("mask_refinement", model, lambda step: None)
    kind = detector_class("mask_refinement").settings_class
    settings = kind.make({"channels": (4, 4), "training": FEW}, "tiny")

    def kill(task: str, done: int, total: int, note: str = "") -> None:
        if task == "train" and done == 3:
            raise Killed

    with pytest.raises(Killed):
        fit_model(
            "mask_refinement", settings, phantom_cohort(range(3)), model, workers=1,
            overwrite=True, baselines=False, progress=kill,
        )  # fmt: skip
    assert titles(samples_of(model, scan())) == ["scan", "step 2"]


def test_snapshots_of_another_fit_and_half_written_ones_are_left_out(model: Path) -> None:
    training = model / "training"
    snapshots = training / "snapshots"
    (snapshots / ".1a2b.partial.epoch-0003.safetensors").write_bytes(b"half")
    assert titles(samples_of(model, scan())) == ["scan", "step 2", "step 4"]
    # Killed before its first checkpoint, it was begun again with other settings.
    told = files.read_json(training / FIT)
    files.write_json(training / FIT, told | {"identity": "another"})
    with pytest.raises(ModelError, match="has no snapshot yet"):
        samples_of(model, scan())


def test_why_there_is_nothing_is_told(model: Path, tmp_path: Path) -> None:
    training = model / "training"
    told = files.read_json(training / "training.json")

    def problem(wanted: str, kind: type[AtypiaError] = ModelError) -> None:
        with pytest.raises(kind, match=wanted):
            samples_of(model, scan())

    for snapshot in (training / "snapshots").glob("*"):
        snapshot.unlink()
    problem("has no snapshot yet. Wait for the first, at step 2")
    none = told | {"settings": told["settings"] | {"snapshot_epochs": None}}
    files.write_json(training / "training.json", none)
    problem("keeps no snapshots while it learns.*snapshot-epochs")
    late = told | {"settings": told["settings"] | {"snapshot_epochs": 4}}
    files.write_json(training / "training.json", late)
    problem("keeps no snapshots while it learns")
    (training / "training.json").unlink()
    problem("has no snapshot yet. Wait until the training has begun")
    with pytest.raises(InputError, match="no such file"):
        samples_of(model, tmp_path / "none.nii.gz")
    detector = detector_class("zscore")()
    fitted = detector.fit(phantom_cohort(range(2)))
    write_fit(detector, training, fitted._fitted_plan(), "T2w", "i", {"a"})
    problem("zscore makes no restorations. Leave out the scan", InputError)
    method = {"method": "patch_autoencoder", "settings": {}}
    files.write_json(training / FIT, files.read_json(training / FIT) | method)
    problem("patch_autoencoder makes no restorations before it is finished")
    files.write_json(training / FIT, files.read_json(training / FIT) | {"method": "none"})
    problem("does not fit this version")
    for content in ("[]", "{", "{}"):
        (training / FIT).write_text(content)
        problem("is damaged|does not fit")
    (training / FIT).unlink()
    problem("an older version began this fit")


def test_what_is_known_is_of_the_same_fit(model: Path) -> None:
    from atypia.detectors.unfinished import load_unfinished

    training = model / "training"
    detector = load_unfinished(training)
    assert detector.prior_.any()  # type: ignore[attr-defined]
    assert not detector.network_.training  # type: ignore[attr-defined]
    told = files.read_json(training / FIT)
    files.write_json(training / FIT, told | {"identity": "another"})
    assert not hasattr(load_unfinished(training), "prior_")
    (training / KNOWN).write_bytes(b"no")
    with pytest.raises(ModelError, match="cannot be read"):
        load_unfinished(training)
    (training / KNOWN).unlink()
    assert not hasattr(load_unfinished(training), "prior_")


def until_quiet(site: Site) -> str:
    """Ask for the page until nothing is awaited any more."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        answer = site.answer("/")
        assert answer.status == 200, answer.text
        if "is being restored" not in answer.text:
            return answer.text
        assert 'http-equiv="refresh"' in answer.text
        time.sleep(0.05)
    raise AssertionError("it never ends")


def steps_of(text: str) -> list[int]:
    return [step for step in range(1, 9) if f"<figcaption>step {step} " in text]


def test_the_page_of_a_running_fit_gains_pictures(model: Path, tmp_path: Path) -> None:
    later = Path(shutil.move(model / "training" / "snapshots" / "epoch-0002.safetensors", tmp_path))
    following = FollowedSamples(model, scan())
    site = Site(model, following.followed)
    text = until_quiet(site)
    assert steps_of(text) == [2]
    assert len(parsed(text).images) == 2
    assert "mask_refinement" in text  # the method is known, and all of its settings
    assert "wavelength_mm" in text
    assert 'http-equiv="refresh"' in text  # it is looked at again
    shutil.copy2(later, model / "training" / "snapshots")
    assert steps_of(until_quiet(site)) == [2, 4]
    # A snapshot that cannot be read costs its own picture, and neither the page nor the others.
    broken = model / "training" / "snapshots" / "epoch-0003.safetensors"
    broken.write_bytes(b"no")
    text = until_quiet(site)
    assert steps_of(text) == [2, 4]
    assert "is no whole snapshot" in text
    assert str(tmp_path) not in text  # a folder may be named after a person
    broken.unlink()
    fit("mask_refinement", model, lambda step: None)
    text = until_quiet(site)
    assert steps_of(text) == [2, 4, 6]
    assert "<figcaption>kept " in text
    assert 'http-equiv="refresh"' not in text
    assert "is no whole snapshot" not in text


def test_an_unforeseen_error_is_a_notice(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr(detector_class("mask_refinement"), "_restore_alone", fails)
    text = until_quiet(Site(model, FollowedSamples(model, scan()).followed))
    assert "The scan cannot be restored (MemoryError: too much)" in text
    assert len(parsed(text).images) == 1  # the scan


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "others", range(50, 51))
    return next((tmp_path / "others").glob("*_T2w.nii.gz"))


def test_commands_show_what_there_is(
    model: Path,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["report", str(model), "--scan", str(image)]) == 0
    text = (model / "training.html").read_text("utf-8")
    assert steps_of(text) == [2, 4]
    assert 'http-equiv="refresh"' not in text
    twice = ["report", str(model), "--scan", str(image), "--scan", str(image)]
    assert "one scan" in failing(twice, capsys)
    assert "is for results" in failing(["report", str(model), "--static"], capsys)

    pages: list[str] = []

    def served(server: Any) -> None:
        pages.append(until_quiet(server.site))
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", served)
    monkeypatch.setattr(viewing, "_has_screen", lambda: False)
    assert main.run(["view", str(model), "--scan", str(image)]) == 0
    assert steps_of(pages[-1]) == [2, 4]
    # What time may mend is told, and does not keep the curves away.
    write_unfinished(tmp_path / "older")
    capsys.readouterr()
    assert main.run(["view", str(tmp_path / "older"), "--scan", str(image)]) == 0
    assert "an older version began this fit" in capsys.readouterr().err
    assert "an older version began this fit" in pages[-1]
    assert "3 of 6" in pages[-1]
    line = failing(["report", str(tmp_path / "older"), "--scan", str(image)], capsys)
    assert "Wait until it is finished" in line
