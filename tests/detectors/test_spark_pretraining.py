"""Pre-training: it learns, resumes, writes files that the diffusion method starts from, refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atypia import files
from atypia.detectors.diffusion import Diffusion, DiffusionSettings
from atypia.detectors.encoder_file import DESCRIPTION, WEIGHTS, load_encoder
from atypia.detectors.spark_pretraining import PretrainingSettings, learn_encoder, make_spark
from atypia.detectors.training_scans import all_prepared, divided, identified_plan
from atypia.errors import CohortError, LeakageError, ModelError, OutputError, SettingsError
from atypia.networks.resnet import ResNetEncoder
from atypia.preprocessing import prepare_all
from atypia.runs.pretraining import pretrain
from atypia.training.log import read_log
from tests.phantoms import phantom_cohort

COHORT = phantom_cohort(range(5))
FEW = {"steps": 6, "batch_size": 2, "validate_every": 3, "checkpoint_every": 2}
SETTINGS = PretrainingSettings.make({"training": FEW}, "tiny")


def diffusion(encoder: Path | None, **values: Any) -> Diffusion:
    values = {"encoder": encoder, "training": {"steps": 1, "validate_every": 1}} | values
    return Diffusion(DiffusionSettings.make(values, "tiny"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark") / "encoder"
    pretrain(COHORT, SETTINGS, folder, workers=1)
    return folder


def test_the_loss_falls() -> None:
    settings = PretrainingSettings.make({"training": {"learning_rate": 3e-3}}, "tiny")
    plan, modality, _ = identified_plan(COHORT, settings)
    scans = all_prepared(list(prepare_all(COHORT, plan, modality)), COHORT)
    before = learn_encoder(scans, settings.but(training={"steps": 1, "validate_every": 1}))
    after = learn_encoder(scans, settings)
    assert before.report.best_loss is not None
    assert after.report.best_loss is not None
    assert after.report.best_loss < 0.75 * before.report.best_loss
    assert torch.equal(after.encoder.head.weight, make_spark(settings).encoder.head.weight)


def test_the_files_and_what_they_tell(place: Path) -> None:
    made = {path.name for path in place.iterdir()}
    assert made == {WEIGHTS, DESCRIPTION, "settings.toml", "training.jsonl"}
    told = json.loads((place / DESCRIPTION).read_text())
    assert (told["format"], told["depth"], told["width"], told["inputs"]) == (1, 18, 4, 1)
    assert told["scans"] == 5
    assert told["cohort"] == "phantoms"
    assert told["modality"] == "T2w"
    assert told["people"] == sorted({scan.person for scan in COHORT})
    assert told["settings"] == SETTINGS.to_json()
    assert told["weights_sha256"] == files.sha256(place / WEIGHTS)
    log = read_log(place / "training.jsonl")
    assert [line["step"] for line in log] == list(range(1, 7))
    assert told["validation_loss"] == min(x["validation"] for x in log if "validation" in x)
    low, high = told["intensity_range"]
    assert low < high
    assert not any(name.startswith("head.") for name in load_file(place / WEIGHTS))


@pytest.mark.parametrize("stop_at", [1, 4, 5])
def test_interrupted_and_resumed_gives_the_same_bytes(
    place: Path, tmp_path: Path, stop_at: int
) -> None:
    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "train" and done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(COHORT, SETTINGS, tmp_path / "e", workers=1, progress=interrupt)
    assert not (tmp_path / "e" / DESCRIPTION).exists()
    pretrain(COHORT, SETTINGS, tmp_path / "e", workers=1)
    for name in (WEIGHTS, DESCRIPTION, "settings.toml", "training.jsonl"):
        assert (tmp_path / "e" / name).read_bytes() == (place / name).read_bytes()


def test_a_finished_run_is_kept_and_another_refused(place: Path, tmp_path: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    assert pretrain(COHORT, SETTINGS, place)["steps"] == 6
    with pytest.raises(OutputError, match="finished encoder of another run.*--overwrite"):
        pretrain(COHORT, SETTINGS.but(seed=1), place)
    with pytest.raises(OutputError, match="finished encoder"):
        pretrain(phantom_cohort(range(1, 6)), SETTINGS, place)
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == times
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="no encoder"):
        pretrain(COHORT, SETTINGS, tmp_path)


def test_overwriting_replaces_an_encoder(tmp_path: Path) -> None:
    few = SETTINGS.but(training={"steps": 1})
    first = pretrain(COHORT, few, tmp_path / "e", workers=1)
    second = pretrain(COHORT, few.but(seed=1), tmp_path / "e", workers=1, overwrite=True)
    assert first["weights_sha256"] != second["weights_sha256"]
    assert len(read_log(tmp_path / "e" / "training.jsonl")) == 1


def test_only_healthy_scans_are_learnt(tmp_path: Path) -> None:
    with pytest.raises(CohortError):
        pretrain(phantom_cohort(range(2), lesion=True), SETTINGS, tmp_path / "e")


def test_without_hidden_cells_there_is_a_remedy(tmp_path: Path) -> None:
    # A slice of 26 x 30 pixels, filled up to 32 x 32, is a single cell.
    with pytest.raises(SettingsError, match="shows 0 of 1 cells"):
        pretrain(COHORT, SETTINGS.but(cell=32), tmp_path / "e", workers=1)


def test_diffusion_starts_from_the_encoder(place: Path) -> None:
    started = {}
    for name, encoder in (("random", None), ("folder", place), ("file", place / WEIGHTS)):
        detector = diffusion(encoder)
        detector.settings = detector.settings.but(training={"learning_rate": 1e-12})
        started[name] = detector.fit(COHORT).network_.encoder
    for name, value in load_file(place / WEIGHTS).items():
        if "running" in name or "num_batches" in name:
            continue  # one training step moves them
        for start in ("folder", "file"):
            assert torch.allclose(started[start].state_dict()[name], value, atol=1e-6), name
    stem = "stem.weight"
    assert not torch.allclose(
        started["random"].state_dict()[stem], load_file(place / WEIGHTS)[stem]
    )


def test_a_wrong_shape_is_refused_and_says_what_to_set(place: Path) -> None:
    with pytest.raises(ModelError, match="--encoder-depth 18 --encoder-width 4") as error:
        diffusion(place, encoder_width=8).fit(COHORT)
    assert "depth 18, width 4" in error.value.problem
    assert "depth 18, width 8" in error.value.problem
    with pytest.raises(ModelError, match="--variant conditioned"):
        diffusion(place, variant="unconditioned").fit(COHORT)


def test_weights_without_description_are_still_checked(place: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes((place / WEIGHTS).read_bytes())
    load_encoder(tmp_path, ResNetEncoder(18, width=4))
    with pytest.raises(ModelError, match="has shape"):
        load_encoder(tmp_path, ResNetEncoder(18, width=8))


@pytest.mark.parametrize("damage", ["weights", "description", "format", "gone"])
def test_a_damaged_encoder_is_named(place: Path, tmp_path: Path, damage: str) -> None:
    for name in (WEIGHTS, DESCRIPTION):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    if damage == "weights":
        (tmp_path / WEIGHTS).write_bytes((place / WEIGHTS).read_bytes()[:-4] + b"oops")
    elif damage == "description":
        (tmp_path / DESCRIPTION).write_text("{")
    elif damage == "format":
        (tmp_path / DESCRIPTION).write_text('{"format": 99}')
    else:
        (tmp_path / WEIGHTS).unlink()
    name = WEIGHTS if damage in ("weights", "gone") else DESCRIPTION
    with pytest.raises(ModelError, match=name):
        diffusion(tmp_path).identity_of(COHORT)


def test_the_fit_depends_on_the_content_of_the_encoder(place: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes((place / WEIGHTS).read_bytes())
    before = diffusion(tmp_path).identity_of(COHORT)
    assert diffusion(tmp_path).identity_of(COHORT) == before
    pretrain(COHORT, SETTINGS.but(seed=1), tmp_path / "other", workers=1)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / "other" / WEIGHTS).read_bytes())
    assert diffusion(tmp_path).identity_of(COHORT) != before


def test_people_of_the_pretraining_may_not_calibrate(place: Path) -> None:
    detector = diffusion(place).fit(phantom_cohort(range(20, 24)))
    with pytest.raises(LeakageError):
        detector.calibrate(phantom_cohort(range(1)))


def test_the_same_scans_are_held_out_for_every_method() -> None:
    scans: list[Any] = list(range(20))
    learning, held_out = divided(scans, 0.1, 3)
    assert len(held_out) == 2
    assert sorted(learning + held_out) == scans
    assert divided(scans, 0.1, 3) == (learning, held_out)
    assert divided(scans, 0.0, 3)[1] == []
    assert divided(scans[:1], 0.1, 3) == ([0], [0])


def test_the_reference_is_the_published_one() -> None:
    reference = PretrainingSettings.make(preset="reference")
    training = reference.training
    assert (reference.encoder_depth, reference.encoder_width, reference.cell) == (50, 64, 32)
    assert reference.hidden_share == 0.65
    assert reference.preprocessing == "mhd"
    assert reference.intensity_range == (0.0, 1.0)
    assert not reference.everywhere
    assert (training.epochs, training.batch_size, training.learning_rate) == (1200, 32, 1e-4)
    assert (training.weight_decay, training.betas) == (0.05, (0.9, 0.95))
    assert training.schedule == "constant"


@pytest.mark.parametrize("preset", ["small", "reference", "tiny"])
def test_the_encoder_fits_the_diffusion_preset_of_the_same_name(preset: str) -> None:
    ours, theirs = PretrainingSettings.make(preset=preset), DiffusionSettings.make(preset=preset)
    shared = ("encoder_depth", "encoder_width", "preprocessing", "spacing_mm", "align")
    for name in (*shared, "intensity_range", "validation_share", "seed"):
        assert getattr(ours, name) == getattr(theirs, name), name
