"""Going on from a snapshot or an unfinished run, with other settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atypia.detectors.implicit_field import ImplicitField, ImplicitFieldSettings
from atypia.errors import ModelError, OutputError, SettingsError
from atypia.registry import detector_class
from atypia.runs.fitting import fit_model
from atypia.training.log import read_log
from tests.phantoms import phantom_cohort

SCANS = range(3)


def settings(**values) -> ImplicitFieldSettings:
    training = {"epochs": 6, "batch_size": 1, "snapshot_epochs": 2, **values}
    return ImplicitFieldSettings.make({"training": training}, preset="tiny")


def fitted(place: Path, start: Path | None = None, seeds=SCANS, **values) -> ImplicitField:
    model = fit_model(
        "implicit_field", settings(**values), phantom_cohort(seeds), place, workers=1, start=start
    )
    assert isinstance(model, ImplicitField)
    return model


def test_going_on_from_a_snapshot_is_the_unbroken_run(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole")
    snapshot = tmp_path / "whole" / "snapshots" / "epoch-0004.safetensors"
    again = fitted(tmp_path / "again", snapshot)
    np.testing.assert_array_equal(again.codes_, whole.codes_)
    for name, weight in whole.network_.state_dict().items():
        assert np.array_equal(again.network_.state_dict()[name], weight), name
    # It did only the last two of six epochs, and is a run of its own.
    steps = [entry["step"] for entry in read_log(tmp_path / "again" / "training.jsonl")]
    assert steps == list(range(13, 19))
    assert again.digest() != whole.digest()
    # The same command gives the finished model back.
    assert fitted(tmp_path / "again", snapshot).trained_on == again.trained_on


def test_more_epochs_at_another_rate(tmp_path: Path) -> None:
    fitted(tmp_path / "short", epochs=2)
    snapshot = tmp_path / "short" / "snapshots" / "epoch-0002.safetensors"
    values = {"learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 0}
    longer = fitted(tmp_path / "long", snapshot, epochs=4, **values)
    log = read_log(tmp_path / "long" / "training.jsonl")
    assert [entry["step"] for entry in log] == list(range(7, 13))
    assert log[-1]["learning_rate"] == pytest.approx(1e-4, rel=1e-3)
    assert longer.trained_on["people"] == sorted(scan.person for scan in phantom_cohort(SCANS))


def test_whoever_the_snapshot_has_seen_counts_as_seen(tmp_path: Path) -> None:
    fitted(tmp_path / "first", epochs=2)
    snapshot = tmp_path / "first" / "snapshots" / "epoch-0002.safetensors"
    others = range(10, 13)
    model = fitted(tmp_path / "second", snapshot, seeds=others, epochs=3)
    people = {scan.person for seeds in (SCANS, others) for scan in phantom_cohort(seeds)}
    assert set(model.trained_on["people"]) == people
    # and in the next run that starts from this one.
    kept = tmp_path / "second" / "snapshots" / "epoch-0002.safetensors"
    assert not kept.exists()  # it began behind that epoch
    (snapshot.parent / "people.json").unlink()
    with pytest.raises(ModelError, match="whom it has learnt from"):
        fitted(tmp_path / "third", snapshot, epochs=3)


def test_a_folder_of_another_run_keeps_telling_of_its_people(tmp_path: Path) -> None:
    """Else its checkpoint could be started from without the people behind it."""
    from atypia.training.loop import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atypia.detectors.implicit_field.train", _stopping(train))
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "first")
    unfinished = tmp_path / "first" / "training"
    people = (unfinished / "people.json").read_text()
    with pytest.raises(OutputError, match="another output"):
        fitted(tmp_path / "first", seeds=range(10, 13))
    assert (unfinished / "people.json").read_text() == people
    model = fitted(tmp_path / "second", unfinished / "checkpoint.safetensors", range(10, 13))
    assert {scan.person for scan in phantom_cohort(SCANS)} <= set(model.trained_on["people"])


def _stopping(train):
    """Train, but stop like a killed run after the first checkpoint."""

    def stopped(*arguments, **options):
        def progress(name, done, *_):
            if name == "train" and done >= 4:
                raise KeyboardInterrupt

        settings = arguments[3].but(checkpoint_every=3)
        return train(*arguments[:3], settings, **(options | {"progress": progress}))

    return stopped


def test_snapshots_of_an_overwritten_model_are_gone(tmp_path: Path) -> None:
    fitted(tmp_path / "model")
    fit_model(
        "implicit_field",
        settings(epochs=2),
        phantom_cohort(range(10, 13)),
        tmp_path / "model",
        workers=1,
        overwrite=True,
    )
    kept = sorted(p.name for p in (tmp_path / "model" / "snapshots").iterdir())
    assert kept == ["epoch-0002.safetensors", "people.json"]


def test_a_start_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    fitted(tmp_path / "first", epochs=2)
    snapshot = tmp_path / "first" / "snapshots" / "epoch-0002.safetensors"
    with pytest.raises(SettingsError, match="Ask for more"):
        fitted(tmp_path / "second", snapshot, seeds=range(10, 13), epochs=2)
    with pytest.raises(OutputError, match="output folder"):
        fitted(tmp_path / "first", snapshot, epochs=4)
    kind = detector_class("padim")
    with pytest.raises(SettingsError, match="no training"):
        fit_model(
            "padim",
            kind.settings_class.tiny(),
            phantom_cohort(SCANS),
            tmp_path / "padim",
            workers=1,
            start=snapshot,
        )
    with pytest.raises(SettingsError, match="folder"):
        ImplicitField(settings()).fit(phantom_cohort(SCANS), start=snapshot)


def test_a_start_that_does_not_fit_is_named(tmp_path: Path) -> None:
    fitted(tmp_path / "first", epochs=2)
    snapshot = tmp_path / "first" / "snapshots" / "epoch-0002.safetensors"
    with pytest.raises(ModelError, match="another network"):
        fitted(tmp_path / "fewer", snapshot, seeds=range(2), epochs=3)
    with pytest.raises(ModelError, match="epoch-9999"):
        fitted(tmp_path / "none", snapshot.with_name("epoch-9999.safetensors"))
    snapshot.write_bytes(snapshot.read_bytes()[:100])
    with pytest.raises(ModelError, match="no whole checkpoint"):
        fitted(tmp_path / "damaged", snapshot, epochs=3)
