"""The protocols that come with the package: settings, parts from small trees, and one whole run."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from atypia import io
from atypia.cli.main import run
from atypia.errors import CohortError
from atypia.registry import detector_class
from atypia.runs.comparing import compare_methods
from atypia.runs.protocol import Parts, Protocol, ready_made
from tests.phantoms import phantom

DOCS = Path(__file__).parents[2] / "docs" / "published-protocols.md"
COMMAND = re.compile(r"^#     (atypia .*)$", re.MULTILINE)
HEADER = ",img_name,age,label,img_path,mask_path,seg_path\n"
ARTEFACTS = (
    *("top_chunk", "middle_chunk", "bias_field", "spike", "ghosting", "gaussian_noise", "zipper"),
    *("periodic_line", "ring"),  # in the reference's documentation, but not in its code
)


@dataclass(frozen=True)
class Expected:
    """What a published protocol makes of its small tree: scans of each part, in every fold."""

    train: int
    calibration: int
    test: dict[str, int]
    validation: dict[str, int] = field(default_factory=dict)
    folds: int = 1


EXPECTED = {
    "itermask3d_segmentation": Expected(14, 3, {"healthy": 3, "tumour": 4, "stroke": 2}),
    "itermask3d_artefacts": Expected(14, 3, {"healthy": 3} | dict.fromkeys(ARTEFACTS, 3)),
    "cddpm_mhd": Expected(
        train=14,
        calibration=2,
        test={"healthy": 4, "tumour": 3, "multiple sclerosis": 2},
        validation={"tumour": 2, "multiple sclerosis": 1},
        folds=5,
    ),
    "ifl": Expected(8, 1, {"healthy": 1, "tumour": 4}, {"tumour": 1}),
    "patch_pipeline": Expected(6, 2, {"healthy": 2, "lesion": 3}),
}


def touch(root: Path, *names: str) -> None:
    """Put empty files: a cohort is told by names and tables alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def grow_flat(root: Path, names: Sequence[str], truth: bool) -> None:
    """Put a folder as IterMask3D's code wants it."""
    masks = ("label",) if truth else ("brainmask",)
    for kind in ("flair", "flair_highfreq", *masks):
        touch(root, *(f"{kind}/{name}.nii.gz" for name in names))


def grow_itermask3d(root: Path) -> None:
    """Put twenty healthy people, four with a tumour, two with a stroke."""
    grow_flat(root / "ADNI", [f"002_S_{n:04d}" for n in range(20)], truth=False)
    grow_flat(root / "BRATS", [f"BraTS2021_{n:05d}" for n in range(4)], truth=True)
    grow_flat(root / "ISLES", ["1", "2"], truth=True)


def grow_published_splits(root: Path) -> None:
    """Put the tree of cDDPM: IXI, tables of which some list a scan twice, and the ill."""
    touch(root, *(f"Train/ixi/t2/IXI{n:03d}-Guys-{n + 700:04d}_t2.nii.gz" for n in range(20)))
    touch(root, "Train/ixi/t1/IXI099-HH-0799_t1.nii.gz")
    healthy = ",IXI000-Guys-0700_t1.nii.gz,60,0,/Train/ixi/t1/IXI000-Guys-0700_t1.nii.gz,,\n"
    tables = {"IXI_train_fold0": HEADER + healthy * 2, "IXI_test": HEADER + healthy}
    ill = {"Brats21_val": 2, "Brats21_test": 3, "MSLUB_val": 1, "MSLUB_test": 2}
    for table, count in ill.items():
        dataset, rows = table.split("_")[0], [HEADER]
        for number in range(count):
            name = f"{table.replace('_', '')}{number}"
            paths = {
                kind: f"/Test/{dataset}/{kind}/{name}_{kind}.nii.gz"
                for kind in ("t1", "t2", "mask", "seg")
            }
            touch(root, *(path.lstrip("/") for kind, path in paths.items() if kind != "t1"))
            rows.append(f",{name},,1,{paths['t1']},{paths['mask']},{paths['seg']}\n")
        tables[table] = "".join(rows)
    (root / "splits").mkdir()
    for table, text in tables.items():
        (root / "splits" / f"{table}.csv").write_text(text)


def grow_ifl(root: Path) -> None:
    """Put HCP and BraTS 2018 as they are downloaded."""
    for person in range(100, 110):
        files = [f"T{k}w_acpc_dc_restore_brain" for k in (1, 2)] + ["brainmask_fs"]
        touch(root, *(f"HCP/{person}307/T1w/{file}.nii.gz" for file in files))
    for number, grade in enumerate(("HGG", "HGG", "HGG", "LGG", "LGG")):
        case = f"Brats18_CBICA_A{number}_1"
        names = ("t1", "t1ce", "t2", "flair", "seg")
        touch(root, *(f"BRATS18/{grade}/{case}/{case}_{name}.nii.gz" for name in names))


def grow_own(root: Path) -> None:
    """Put plain folders: ten healthy people, and three with a lesion mask."""
    touch(root, *(f"healthy/h{n}.nii.gz" for n in range(10)))
    touch(root, *(f"patients/p{n}{end}.nii.gz" for n in range(3) for end in ("", "_lesion_mask")))


GROW = {
    "itermask3d_segmentation": grow_itermask3d,
    "itermask3d_artefacts": grow_itermask3d,
    "cddpm_mhd": grow_published_splits,
    "ifl": grow_ifl,
    "patch_pipeline": grow_own,
}


def commands(name: str) -> list[str]:
    """Give the commands that the comment of a protocol says."""
    return COMMAND.findall(ready_made()[name])


def split_as_told(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands of a protocol's comment but the last, which is the comparison itself."""
    *before, comparison = commands(name)
    assert comparison.startswith(f"atypia benchmark {name} --data . ")
    monkeypatch.chdir(root)
    for command in before:
        assert run(shlex.split(command)[1:]) == 0


def people(parts: Parts, name: str) -> set[str]:
    return {scan.person for scan in parts[name]}


@pytest.mark.parametrize("name", ready_made())
def test_all_settings_are_valid(name: str) -> None:
    mine = Protocol.read(name)
    for method, settings in mine.contestants().values():
        detector = detector_class(method)(settings)
        assert detector.settings.to_json()["modality"] == mine.modality
        # What a model folder stores must be read again.
        assert type(settings).make(settings.to_json()) == settings


@pytest.mark.parametrize("name", GROW)
def test_a_small_tree_gives_the_parts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GROW[name](tmp_path)
    split_as_told(name, tmp_path, monkeypatch)
    mine, expected = Protocol.read(name), EXPECTED[name]
    folds = mine.parts(tmp_path / "scans", tmp_path, workers=1)
    assert len(folds) == expected.folds
    for parts in folds:
        assert len(parts["train"]) == expected.train
        assert len(parts["calibration"]) == expected.calibration
        assert Counter(scan.condition for scan in parts["test"]) == expected.test
        chosen = Counter(scan.condition for scan in parts.get("validation", ()))
        assert chosen == expected.validation
        assert set(chosen) <= set(expected.test)  # a threshold is for the condition it is of
        for first, second in combinations(parts, 2):
            assert not people(parts, first) & people(parts, second)
        for part in parts.values():
            for scan in part:
                assert scan.modality(mine.modality) in (mine.modality, "image")


def test_everybody_healthy_is_tested_in_one_of_five_folds(tmp_path: Path) -> None:
    grow_published_splits(tmp_path)
    folds = Protocol.read("cddpm_mhd").parts(tmp_path / "scans", tmp_path, workers=1)
    tested = [s.subject for parts in folds for s in parts["test"] if s.condition == "healthy"]
    assert sorted(tested) == [f"IXI{n:03d}-Guys-{n + 700:04d}" for n in range(20)]
    ill = [[s.id for s in parts["test"] if s.condition != "healthy"] for parts in folds]
    assert all(names == ill[0] for names in ill)


def test_what_is_ill_has_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("itermask3d_segmentation", "cddpm_mhd", "ifl", "patch_pipeline"):
        root = tmp_path / name
        GROW[name](root)
        split_as_told(name, root, monkeypatch)
        parts = Protocol.read(name).parts(root / "scans", root, workers=1)[0]
        for scan in [*parts["test"], *parts.get("validation", ())]:
            assert (scan.lesion_mask is not None) == (scan.condition != "healthy"), scan.id


def test_artefacts_are_copies_of_the_clean_test_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_itermask3d(tmp_path)
    split_as_told("itermask3d_artefacts", tmp_path, monkeypatch)
    (parts,) = Protocol.read("itermask3d_artefacts").parts(tmp_path / "scans", tmp_path, workers=1)
    clean = {scan.subject for scan in parts["test"] if scan.condition == "healthy"}
    for kind in ARTEFACTS:
        copies = [scan for scan in parts["test"] if scan.condition == kind]
        assert {scan.subject for scan in copies} == clean
        assert all(scan.id.endswith(f"{kind}-3") for scan in copies)


def test_a_patient_among_the_healthy_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download of ADNI without --where: the protocol must not call its patients healthy."""
    for n in range(20):
        touch(tmp_path, f"ADNI/002_S_{n:04d}/Axial_FLAIR/2011-01-0{n % 9 + 1}/I{n}/scan.nii.gz")
    rows = "".join(f"I{n},{'AD' if n % 2 else 'CN'},M,70\n" for n in range(20))
    (tmp_path / "ADNI" / "search.csv").write_text(f"Image Data ID,Group,Sex,Age\n{rows}")
    split_as_told("itermask3d_segmentation", tmp_path, monkeypatch)
    grow_flat(tmp_path / "BRATS", ["a"], truth=True)
    grow_flat(tmp_path / "ISLES", ["b"], truth=True)
    mine = Protocol.read("itermask3d_segmentation")
    (parts,) = mine.parts(tmp_path / "scans", tmp_path, workers=1)
    with pytest.raises(CohortError, match="labelled with AD"):
        parts["train"].require_healthy("fit")


@pytest.mark.parametrize("name", GROW)
def test_the_page_says_what_the_protocol_says(name: str) -> None:
    page = DOCS.read_text(encoding="utf-8")
    for command in commands(name):
        assert command in page
    assert f"| `{name}` |" in page


SMALL_TRAINING = {"epochs": None, "steps": 2, "batch_size": 1, "validate_every": 1}
SMALL: dict[str, dict[str, Any]] = {
    "IterMask3D as published": {"channels": (4, 4, 4, 4, 4), "phase_a": "coarse_to_fine"},
    "mask refinement, corrected": {"channels": (8, 8)},
}


def shrunk(mine: Protocol) -> Protocol:
    """Give a protocol of mask refinement at 6 mm, with small networks and hardly any training."""
    rules = {"wavelength_mm": 24.0, "percent_step": 20.0, "most_rounds": 1}
    changes: dict[str, Any] = {"training": SMALL_TRAINING, **rules}
    methods = [one.but(settings=changes | SMALL[one.shown]).model_dump() for one in mine.methods]
    return mine.but(methods=methods, settings={"spacing_mm": 6.0, "align": "none"})


def test_the_detection_of_artefacts_runs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(7):
        image, brain, _ = phantom(seed)
        for kind, volume in (("flair", image), ("brainmask", brain)):
            touch(tmp_path, f"ADNI/{kind}/p{seed}.nii.gz")
            io.write(volume, tmp_path / f"ADNI/{kind}/p{seed}.nii.gz")
    split_as_told("itermask3d_artefacts", tmp_path, monkeypatch)
    mine = shrunk(Protocol.read("itermask3d_artefacts"))
    out = compare_methods(mine, tmp_path / "out", data=tmp_path, workers=1)
    assert not out.failures
    rows = out.results["evaluation"]["detection"]
    assert {row["condition"] for row in rows} == set(ARTEFACTS)
    published = {row["score_name"] for row in rows if row["method"] == "IterMask3D as published"}
    assert "final_mask_ml" in published
    assert not out.results["ranks"]  # there are no labels of voxels to rank by
