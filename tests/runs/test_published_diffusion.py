"""The published experiment on a small tree: stages, leaking folds, resuming, figures over folds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atypia.cli import main
from atypia.cohort import open_cohort
from atypia.detectors import load_detector
from atypia.detectors.encoder_file import save_encoder
from atypia.errors import CohortError, LeakageError, ModelError, SettingsError
from atypia.evaluation import intervals
from atypia.networks.resnet import ResNetEncoder
from atypia.runs.published_diffusion import LABELLED, Work, diffusion_settings, train_folds
from atypia.runs.published_options import read_options
from atypia.runs.published_splits import PublishedData
from tests.runs.published_tree import grow

QUICK = """
base = 4
multipliers = [1, 1]
slices_at_once = 64
[training]
steps = 3
batch_size = 2
"""


def run(*words: object) -> int:
    return main.run([str(word) for word in words])


@pytest.fixture(scope="module", autouse=True)
def _quick_intervals() -> Iterator[None]:
    """Bootstrap intervals, which are tested elsewhere, took most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("bootstrap_interval", "bca_interval"):
            patch.setattr(intervals, name, lambda *values, **options: None)
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow(tmp_path_factory.mktemp("leaking"), leaking=True)


def flags(place: Path) -> list[str]:
    config = place / "quick.toml"
    config.write_text(QUICK)
    words = ["--folds", "2", "--preset", "tiny", "--config", str(config), "--workers", "1"]
    return [*words, "--cache", str(place / "prepared")]


@pytest.fixture(scope="module")
def done(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    common = flags(out)
    assert run("published", "train", tree, "seed=3", "-o", out / "out", *common) == 0
    assert run("published", "evaluate", tree, "-o", out / "out", *common) == 0
    return out / "out"


def rows(output: Path) -> dict[tuple[str, str, str], dict[str, object]]:
    found = json.loads((output / "results.json").read_text())["results"]
    return {(row["set"], row["method"], row["figure"]): row for row in found}


def test_the_stages_give_figures_over_folds(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    assert results["folds"] == [0, 1]
    assert results["missing"] == []
    assert results["warnings"] == []
    assert results["without_labelled_validation"] == ["MSLUB"]
    assert results["settings"]["test_times"] == [249, 499, 749]
    assert load_detector(done / "fold1" / "model").settings.seed == 3
    found = rows(done)
    sets = {(name, method) for name, method, _ in found}
    assert {name for name, _ in sets} == {"Brats21", "MSLUB", "healthy"}
    assert {method for _, method in sets} >= {"diffusion", "zscore *"}
    row = found["Brats21", "diffusion", "ap"]
    assert row["mean"] == pytest.approx(np.mean(row["folds"]))
    assert row["sd"] == pytest.approx(np.std(row["folds"], ddof=1))
    assert ("MSLUB", "diffusion", "labelled_dice") not in found
    assert ("healthy", "diffusion", "flagged") in found


def test_thresholds_tell_where_they_come_from(done: Path) -> None:
    thresholds = json.loads((done / "results.json").read_text())["thresholds"]
    healthy = [one for one in thresholds["healthy"] if one["method"] == "diffusion"]
    assert [one["provenance"] for one in healthy] == ["healthy n=2, voxel FPR 0.50%"] * 2
    assert {one["provenance"] for one in thresholds["labelled"]} == {LABELLED}
    assert {one["set"] for one in thresholds["labelled"]} == {"Brats21"}
    page = (done / "results.md").read_text()
    assert "labelled Dice" in page
    assert "oracle Dice" in page
    assert "No labelled validation table, hence no labelled Dice: MSLUB." in page


def test_no_threshold_of_the_validation_scans_is_better(done: Path, tree: Path) -> None:
    """The labelled threshold is the best of all for the pooled scans that chose it."""
    model = load_detector(done / "fold0" / "model")
    (scan,) = open_cohort(tree, "split_csv", "T2w").where(split="Brats21_val")
    found = model.but(test_times=(249, 499, 749), samples=2).predict(scan)
    thresholds = json.loads((done / "fold0" / "evaluation.json").read_text())["labelled"]
    (chosen,) = (one["value"] for one in thresholds if one["method"] == "diffusion")
    truth = scan.lesion()
    assert truth is not None
    scores, ill = found.score_map.data, truth.data
    cuts = np.quantile(scores[found.brain.data], np.linspace(0, 1, 400))
    dice = [2 * (ill & (scores > c)).sum() / (ill.sum() + (scores > c).sum()) for c in cuts]
    ours = 2 * (ill & (scores > chosen)).sum() / (ill.sum() + (scores > chosen).sum())
    assert ours >= max(dice) - 1e-3


def test_the_table_of_all_figures(done: Path) -> None:
    with (done / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {(x["set"], x["method"], x["figure"]) for x in lines} == set(rows(done))
    assert all(len(line["folds"].split()) == 2 for line in lines if line["sd"])


def test_a_finished_fold_is_kept_and_a_missing_one_done(done: Path, tree: Path) -> None:
    stamps = [(done / f"fold{k}" / "evaluation.json").stat().st_mtime_ns for k in (0, 1)]
    before = (done / "results.json").read_text()
    (done / "fold1" / "evaluation.json").unlink()
    common = flags(done.parent)
    assert run("published", "train", tree, "seed=3", "-o", done, *common) == 0
    assert run("published", "evaluate", tree, "-o", done, *common) == 0
    after = [(done / f"fold{k}" / "evaluation.json").stat().st_mtime_ns for k in (0, 1)]
    assert after[0] == stamps[0]
    assert after[1] != stamps[1]
    assert (done / "results.json").read_text() == before


def test_models_are_evaluated_by_the_rules_of_another_experiment(
    done: Path, tree: Path, tmp_path: Path
) -> None:
    words = ["num_mc_samples=2", "mh_regu=0.02", "testsets=[Brats21]", "threshold=0.25"]
    where = ["-o", tmp_path / "mhd", "--models", done, "--folds", 1, "--workers", 1]
    where += ["--cache", done.parent / "prepared"]
    assert run("published", "evaluate", tree, *words, *where, "--experiment", "mhd") == 0
    results = json.loads((tmp_path / "mhd" / "results.json").read_text())
    assert results["experiment"] == "mhd"
    assert results["settings"]["test_times"] == [498]
    assert results["settings"]["rules"]["ridge"] == 0.02
    assert results["settings"]["samples"] == 2
    assert {one["provenance"] for one in results["thresholds"]["labelled"]} == {"given"}
    row = rows(tmp_path / "mhd")["Brats21", "diffusion", "ap"]
    assert row["sd"] is None
    assert ("healthy", "diffusion", "flagged") not in rows(tmp_path / "mhd")  # not asked for
    with pytest.raises(SettingsError, match="needs a patched network"):
        run("published", "evaluate", tree, *where, "--experiment", "pddpm")


def test_a_bad_test_scan_is_named_and_its_fold_done_again(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = grow(tmp_path / "tree")
    bad = other / "Data/Test/MSLUB/t2/S030_t2.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[:2000])
    words = ["testsets=MSLUB,IXI", "-o", tmp_path / "out", "--models", done, "--folds", 1]
    words += ["--workers", 1, "--preset", "tiny"]
    assert run("published", "evaluate", other, *words) == 1
    shown = capsys.readouterr()
    assert "FAILED: fold 0: S030_MSLUB_test" in shown.out
    assert "fold 0, S030_MSLUB_test" in shown.err
    assert ("healthy", "diffusion", "flagged") in rows(tmp_path / "out")
    bad.write_bytes(good)
    assert run("published", "evaluate", other, *words) == 0
    assert ("MSLUB", "diffusion", "ap") in rows(tmp_path / "out")


def data(tree: Path, leaking: str, **options: object) -> PublishedData:
    return PublishedData(tree, "T2w", (0, 1), leaking, **options)  # type: ignore[arg-type]


def test_leaking_folds_are_refused_by_name(leaking: Path) -> None:
    with pytest.raises(LeakageError) as error:
        data(leaking, "refuse").read()
    assert "fold 1: IXI_train_fold1 and IXI_val_fold1 share S003" in str(error.value)
    assert "fold 1: IXI_train_fold1 and IXI_test share S011" in str(error.value)
    assert "fold 0" not in str(error.value)
    assert "--leaking drop" in error.value.remedy


def test_leaking_people_are_dropped_from_earlier_parts(leaking: Path) -> None:
    (first, second), _ = data(leaking, "drop").read()
    assert [scan.subject for scan in first.train] == ["S000", "S001", "S002", "S003"]
    assert [scan.subject for scan in second.train] == ["S002", "S004", "S006"]
    assert [scan.subject for scan in second.healthy] == ["S003", "S007"]
    assert len(second.tests["IXI"]) == 2
    assert second.shared == (
        "fold 1: IXI_train_fold1 and IXI_val_fold1 share S003",
        "fold 1: IXI_train_fold1 and IXI_test share S011",
    )


def test_leaking_folds_are_kept_with_a_warning(leaking: Path, tmp_path: Path) -> None:
    parts = data(leaking, "keep").read()[0]
    assert [len(fold.train) for fold in parts] == [4, 5]
    words = [*flags(tmp_path), "testsets=Brats21,IXI", "start_fold=1", "-o", tmp_path / "out"]
    keep = ["published", "evaluate", leaking, *words, "--leaking"]
    train = [word for word in words if word != "testsets=Brats21,IXI"]
    assert run("published", "train", leaking, *train, "--leaking", "keep") == 0
    assert run(*keep, "keep") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["folds"] == [1]
    assert len(results["warnings"]) == 2
    page = (tmp_path / "out" / "results.md").read_text()
    assert page.count("WARNING: figures are too good") == 2
    assert "IXI_train_fold1 and IXI_test share S011" in page
    with pytest.raises(LeakageError, match="used for training"):
        run(*keep, "drop")  # the tables may be cleaned; what the model has seen may not


def test_what_is_missing_is_told(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no table IXI_train_fold2.csv with T2w scans"):
        PublishedData(tree, "T2w", (2,)).read()
    with pytest.raises(SettingsError, match="Did you mean 'Brats21'"):
        data(tree, "refuse", test_sets=("Brats",)).read()
    (tree / "Data" / "splits" / "MSLUB_test.csv").rename(tmp_path / "kept.csv")
    try:
        assert data(tree, "refuse").read()[1] == ("MSLUB",)
    finally:
        (tmp_path / "kept.csv").rename(tree / "Data" / "splits" / "MSLUB_test.csv")
    assert [len(p.train) for p in data(tree, "refuse", sample=True).read()[0]] == [4, 4]


def test_a_pretrained_encoder_is_taken_from_its_fold(tree: Path, tmp_path: Path) -> None:
    options = read_options([], "train")
    values = {"base": 4, "multipliers": [1, 1], "training": {"steps": 1}}
    settings = diffusion_settings(options, "T2w", "tiny", values)
    work = Work(tmp_path)
    one = PublishedData(tree, "T2w", (0,))
    with pytest.raises(ModelError, match="there is no pre-trained encoder"):
        train_folds(one, settings, work, pretrained=True)
    encoder = ResNetEncoder(settings.encoder_depth, 1, settings.context, settings.encoder_width)
    save_encoder(encoder, tmp_path / "fold0" / "spark", {})
    done = train_folds(one, settings.but(training={"batch_size": 2}), work, validate_every_epochs=2)
    assert list(done.values()) == [tmp_path / "fold0" / "spark"]
    trained = load_detector(tmp_path / "fold0" / "model")
    assert trained.settings.training.validate_every == 2  # one step for three scans
    assert trained.settings.encoder == tmp_path / "fold0" / "spark"


def test_the_encoder_is_pretrained(tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("atypia.runs.pretraining", reason="NO SPARK PRE-TRAINING in this version")
    (tmp_path / "few.toml").write_text("[training]\nsteps = 2\nbatch_size = 2\n")
    common = ["--folds", 1, "--preset", "tiny", "--config", tmp_path / "few.toml", "--workers", 1]
    out = tmp_path / "out"
    assert run("published", "spark", tree, "mask_ratio=0.5", "-o", out, *common) == 0
    assert (out / "fold0" / "spark" / "encoder.safetensors").exists()
    words = ["pretrained_encoder=True", "-o", out, *common]
    assert run("published", "train", tree, *words) == 0
    assert load_detector(out / "fold0" / "model").settings.encoder == out / "fold0" / "spark"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mode=t1", "--modality", "T2w"], "a key says T1w"),
        (["--folds", "1", "start_fold=1"], "counts from fold 0 on"),
        (["earlyStopping=True"], "had no effect in the reference. Leave it out. Set patience"),
        (["num_workers=4"], "Use --workers"),
        (["perc_low=2", "--config", "CONFIG"], "stand beside preprocessing in --config"),
    ],
)
def test_wrong_words(words: list[str], message: str, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('preprocessing = "atypia"\n')
    words = [str(tmp_path / "c.toml") if word == "CONFIG" else word for word in words]
    with pytest.raises(SettingsError) as error:
        run("published", "train", tree, *words, "-o", tmp_path / "out")
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()
