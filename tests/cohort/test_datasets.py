"""Trees of known data sets: who, which images, which masks, told by empty files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.cohort import Cohort, Scan, open_cohort
from atypia.cohort.datasets import DATASETS
from atypia.cohort.manifest import read_manifest, write_manifest
from atypia.cohort.scan import Labels
from atypia.cohort.trees import recognised
from atypia.errors import CohortError
from atypia.volume import Volume

Told = dict[str, dict[str, str]]

BRATS21 = "BraTS2021_00007/BraTS2021_00007"
BRATS20 = "MICCAI/BraTS20_Training_355"
BRATS18 = "HGG/Brats18_2013_2_1/Brats18_2013_2_1"
BRATS23 = "BraTS-GLI-00003-001/BraTS-GLI-00003-001"
ATLAS = "Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym"
ISLES = "sub-strokecase0001/ses-0001"
MSLUB = "cross_sectional/coregistered_resampled/patient01"
OAS1 = "disc1/OAS1_0001_MR1"
OAS3 = "OAS30001_MR_d0129/anat"
ADNI = "ADNI/002_S_0295"

TREES: dict[str, tuple[str, str, Told]] = {
    "brats 2018": (
        "brats",
        f"{BRATS18}_t1.nii.gz {BRATS18}_t1ce.nii.gz {BRATS18}_t2.nii.gz {BRATS18}_flair.nii.gz "
        f"{BRATS18}_seg.nii.gz",
        {
            "Brats18_2013_2_1": {
                "T1w": f"{BRATS18}_t1.nii.gz",
                "T1c": f"{BRATS18}_t1ce.nii.gz",
                "T2w": f"{BRATS18}_t2.nii.gz",
                "FLAIR": f"{BRATS18}_flair.nii.gz",
                "lesion": f"{BRATS18}_seg.nii.gz",
            }
        },
    ),
    "brats 2020": (
        "brats",
        f"{BRATS20}/BraTS20_Training_355_flair.nii {BRATS20}/W39_1998.09.19_Segm.nii",
        {
            "BraTS20_Training_355": {
                "FLAIR": f"{BRATS20}/BraTS20_Training_355_flair.nii",
                "lesion": f"{BRATS20}/W39_1998.09.19_Segm.nii",
            }
        },
    ),
    "brats 2021": (
        "brats",
        f"{BRATS21}_t2.nii.gz {BRATS21}_seg.nii.gz",
        {"BraTS2021_00007": {"T2w": f"{BRATS21}_t2.nii.gz", "lesion": f"{BRATS21}_seg.nii.gz"}},
    ),
    "brats 2023": (
        "brats",
        " ".join(f"{BRATS23}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg")),
        {
            "BraTS-GLI-00003_001": {
                "T1w": f"{BRATS23}-t1n.nii.gz",
                "T1c": f"{BRATS23}-t1c.nii.gz",
                "T2w": f"{BRATS23}-t2w.nii.gz",
                "FLAIR": f"{BRATS23}-t2f.nii.gz",
                "lesion": f"{BRATS23}-seg.nii.gz",
            }
        },
    ),
    "ixi": (
        "ixi",
        "IXI-T1/IXI002-Guys-0828-T1.nii.gz IXI-T2/IXI002-Guys-0828-T2.nii.gz "
        "IXI-T1/IXI002-Guys-0828-T1_brain_mask.nii.gz IXI-T1/IXI035-IOP-0873-T1.nii.gz "
        "IXI-MRA/IXI002-Guys-0828-MRA.nii.gz IXI-DTI/IXI002-Guys-0828-DTI-00.nii.gz",
        {
            "IXI002": {
                "T1w": "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
                "T2w": "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
                "brain": "IXI-T1/IXI002-Guys-0828-T1_brain_mask.nii.gz",
            },
            "IXI035": {"T1w": "IXI-T1/IXI035-IOP-0873-T1.nii.gz"},
        },
    ),
    "atlas": (
        "atlas",
        f"{ATLAS}_T1w.nii.gz {ATLAS}_label-L_desc-T1lesion_mask.nii.gz "
        f"{ATLAS.replace('r001s001', 'r001s002')}_T1w.nii.gz Training/dataset_description.json",
        {
            "sub-r001s001_ses-1": {
                "T1w": f"{ATLAS}_T1w.nii.gz",
                "lesion": f"{ATLAS}_label-L_desc-T1lesion_mask.nii.gz",
            },
            "sub-r001s002_ses-1": {"T1w": f"{ATLAS.replace('r001s001', 'r001s002')}_T1w.nii.gz"},
        },
    ),
    "wmh": (
        "wmh",
        "Amsterdam/GE3T/100/pre/FLAIR.nii.gz Amsterdam/GE3T/100/pre/T1.nii.gz "
        "Amsterdam/GE3T/100/orig/FLAIR.nii.gz Amsterdam/GE3T/100/orig/3DT1.nii.gz "
        "Amsterdam/GE3T/100/wmh.nii.gz Utrecht/0/orig/FLAIR.nii.gz Utrecht/0/wmh.nii.gz",
        {
            "GE3T-100": {
                "FLAIR": "Amsterdam/GE3T/100/pre/FLAIR.nii.gz",
                "T1w": "Amsterdam/GE3T/100/pre/T1.nii.gz",
                "lesion": "Amsterdam/GE3T/100/wmh.nii.gz = 1",
            },
            "Utrecht-0": {
                "FLAIR": "Utrecht/0/orig/FLAIR.nii.gz",
                "lesion": "Utrecht/0/wmh.nii.gz = 1",
            },
        },
    ),
    "isles": (
        "isles",
        f"{ISLES}/dwi/sub-strokecase0001_ses-0001_dwi.nii.gz "
        f"{ISLES}/dwi/sub-strokecase0001_ses-0001_ADC.nii.gz "
        f"{ISLES}/anat/sub-strokecase0001_ses-0001_FLAIR.nii.gz dataset_description.json "
        f"derivatives/{ISLES}/sub-strokecase0001_ses-0001_msk.nii.gz",
        {
            "sub-strokecase0001_ses-0001": {
                "dwi": f"{ISLES}/dwi/sub-strokecase0001_ses-0001_dwi.nii.gz",
                "adc": f"{ISLES}/dwi/sub-strokecase0001_ses-0001_ADC.nii.gz",
                "lesion": f"derivatives/{ISLES}/sub-strokecase0001_ses-0001_msk.nii.gz",
            },
            "sub-strokecase0001_ses-0001_FLAIR": {
                "FLAIR": f"{ISLES}/anat/sub-strokecase0001_ses-0001_FLAIR.nii.gz"
            },
        },
    ),
    "mslub": (
        "mslub",
        f"{MSLUB}/FLAIR.nii.gz {MSLUB}/T1W.nii.gz {MSLUB}/T1WKS.nii.gz {MSLUB}/brainmask.nii.gz "
        f"{MSLUB}/consensus_gt.nii.gz cross_sectional/raw/patient01/FLAIR.nii.gz "
        "cross_sectional/coregistered/patient01/FLAIR.nii.gz",
        {
            "patient01": {
                "FLAIR": f"{MSLUB}/FLAIR.nii.gz",
                "T1w": f"{MSLUB}/T1W.nii.gz",
                "T1c": f"{MSLUB}/T1WKS.nii.gz",
                "brain": f"{MSLUB}/brainmask.nii.gz",
                "lesion": f"{MSLUB}/consensus_gt.nii.gz",
            }
        },
    ),
    "mslub, names with the patient": (
        "mslub",
        "patient02/patient02_FLAIR.nii.gz patient02/patient02_consensus_gt.nii.gz",
        {
            "patient02": {
                "FLAIR": "patient02/patient02_FLAIR.nii.gz",
                "lesion": "patient02/patient02_consensus_gt.nii.gz",
            }
        },
    ),
    "oasis 1": (
        "oasis",
        f"{OAS1}/RAW/OAS1_0001_MR1_mpr-1_anon.nii.gz {OAS1}/RAW/OAS1_0001_MR1_mpr-2_anon.nii.gz "
        f"{OAS1}/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.nii.gz "
        f"{OAS1}/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.nii.gz "
        "disc1/OAS1_0002_MR2/RAW/OAS1_0002_MR2_mpr-1_anon.nii.gz",
        {
            "OAS1_0001_MR1": {
                "T1w": f"{OAS1}/PROCESSED/MPRAGE/T88_111/"
                "OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.nii.gz"
            },
            "OAS1_0002_MR2": {"T1w": "disc1/OAS1_0002_MR2/RAW/OAS1_0002_MR2_mpr-1_anon.nii.gz"},
        },
    ),
    "oasis 3": (
        "oasis",
        f"{OAS3}1/NIFTI/sub-OAS30001_ses-d0129_acq-TSE_T2w.nii.gz "
        f"{OAS3}2/sub-OAS30001_sess-d0129_run-01_T1w.nii.gz "
        f"{OAS3}3/sub-OAS30001_ses-d0129_run-02_T1w.nii.gz "
        f"{OAS3}4/sub-OAS30001_ses-d0129_FLAIR.nii.gz",
        {
            "OAS30001_d0129_acq-TSE": {
                "T2w": f"{OAS3}1/NIFTI/sub-OAS30001_ses-d0129_acq-TSE_T2w.nii.gz"
            },
            "OAS30001_d0129_run-01": {"T1w": f"{OAS3}2/sub-OAS30001_sess-d0129_run-01_T1w.nii.gz"},
            "OAS30001_d0129_run-02": {"T1w": f"{OAS3}3/sub-OAS30001_ses-d0129_run-02_T1w.nii.gz"},
            "OAS30001_d0129": {"FLAIR": f"{OAS3}4/sub-OAS30001_ses-d0129_FLAIR.nii.gz"},
        },
    ),
    "adni": (
        "adni",
        f"{ADNI}/MPR__GradWarp__N3__Scaled/2006-04-18_08_20_30.0/I45108/ADNI_MPR_I45108.nii "
        f"{ADNI}/Sagittal_3D_FLAIR/2012-05-10_15_44_50.0/I304790/a.dcm "
        f"{ADNI}/Sagittal_3D_FLAIR/2012-05-10_15_44_50.0/I304790/b.dcm "
        f"{ADNI}/HighResHippo/2012-05-10_15_44_50.0/I304799/a.dcm",
        {
            "002_S_0295_2006-04-18_I45108": {
                "T1w": f"{ADNI}/MPR__GradWarp__N3__Scaled/2006-04-18_08_20_30.0/I45108/"
                "ADNI_MPR_I45108.nii"
            },
            "002_S_0295_2012-05-10_I304790": {
                "FLAIR": f"{ADNI}/Sagittal_3D_FLAIR/2012-05-10_15_44_50.0/I304790"
            },
        },
    ),
    "hcp": (
        "hcp",
        "100307/T1w/T1w_acpc_dc_restore.nii.gz 100307/T1w/T1w_acpc_dc_restore_brain.nii.gz "
        "100307/T1w/T2w_acpc_dc_restore_brain.nii.gz 100307/T1w/brainmask_fs.nii.gz "
        "100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz "
        "100408/unprocessed/3T/T2w_SPC1/100408_3T_T2w_SPC1.nii.gz",
        {
            "100307": {
                "T1w": "100307/T1w/T1w_acpc_dc_restore_brain.nii.gz",
                "T2w": "100307/T1w/T2w_acpc_dc_restore_brain.nii.gz",
                "brain": "100307/T1w/brainmask_fs.nii.gz",
            },
            "100408": {"T2w": "100408/unprocessed/3T/T2w_SPC1/100408_3T_T2w_SPC1.nii.gz"},
        },
    ),
    "flat": (
        "flat",
        "flair/a.nii.gz flair/b.nii.gz flair_highfreq/a.nii.gz t2_3std/a.nii.gz "
        "t2_3std_highfreq/a.nii.gz brainmask/a.nii.gz label/a.nii.gz label/c.nii.gz",
        {
            "a": {
                "FLAIR": "flair/a.nii.gz",
                "T2w": "t2_3std/a.nii.gz",
                "brain": "brainmask/a.nii.gz",
                "lesion": "label/a.nii.gz",
            },
            "b": {"FLAIR": "flair/b.nii.gz"},
        },
    ),
}


def grow(root: Path, files: str) -> Path:
    for name in files.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def told(cohort: Cohort, root: Path) -> Told:
    """Give what a cohort says as text."""

    def text(source: object) -> str:
        labels = ""
        if isinstance(source, Labels):
            labels, source = f" = {' '.join(map(str, source.values))}", source.path
        assert isinstance(source, Path)
        return source.relative_to(root).as_posix() + labels

    def one(scan: Scan) -> dict[str, str]:
        files = {**scan.images, "brain": scan.brain_mask, "lesion": scan.lesion_mask}
        return {name: text(file) for name, file in files.items() if file is not None}

    return {scan.id: one(scan) for scan in cohort}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_recognised_and_read(tmp_path: Path, name: str) -> None:
    layout, files, expected = TREES[name]
    root = grow(tmp_path / "root", files)
    assert told(open_cohort(root), root) == expected
    assert told(open_cohort(root, layout), root) == expected
    if layout != "flat":
        above = open_cohort(tmp_path, layout)
        assert told(above, root) == expected
        assert {s.dataset for s in above} == {DATASETS[layout].name}


@pytest.mark.parametrize("name", TREES)
def test_a_modality_is_a_filter(tmp_path: Path, name: str) -> None:
    _, files, expected = TREES[name]
    root = grow(tmp_path / "root", files)
    modality = next(iter(next(iter(expected.values()))))
    masks = ("brain", "lesion")
    assert told(open_cohort(root, modality=modality), root) == {
        scan: {kind: file for kind, file in files.items() if kind in (modality, *masks)}
        for scan, files in expected.items()
        if modality in files
    }


@pytest.mark.parametrize("name", TREES)
def test_only_one_data_set_is_recognised(tmp_path: Path, name: str) -> None:
    layout, files, _ = TREES[name]
    root = grow(tmp_path / "root", files)
    fitting = [n for n, one in DATASETS.items() if recognised(root, {n: one})]
    assert fitting == ([] if layout == "flat" else [layout])


def test_people_sites_and_conditions(tmp_path: Path) -> None:
    root = grow(tmp_path, TREES["ixi"][1])
    (root / "IXI.csv").write_text(
        'IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,AGE\n2,2,164,35.8\n35,1,180,\n99,1,1,1\n'
    )
    (root / "other.csv").write_text("a,b\n1,2\n")
    first, second = open_cohort(root)
    assert (first.age, first.sex, first.site, first.condition) == (35.8, "f", "Guys", "healthy")
    assert (second.age, second.sex, second.site) == (None, "m", "IOP")
    (root / "IXI.csv").write_bytes(b"\xff")
    with pytest.raises(CohortError, match=r"IXI\.csv: cannot be read"):
        open_cohort(root)


def test_groups_of_adni(tmp_path: Path) -> None:
    root = grow(tmp_path, TREES["adni"][1])
    (root / "search.csv").write_text(
        "Image Data ID,Group,Sex,Age\nI45108,CN,M,84\nI304790,AD,F,70\n"
    )
    assert [(s.condition, s.age) for s in open_cohort(root)] == [("healthy", 84.0), ("AD", 70.0)]


def test_only_the_first_label_of_wmh_is_the_lesion(tmp_path: Path) -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0, 0], labels[1] = 1, 2
    root = grow(tmp_path / "wmh", "Utrecht/0/pre/FLAIR.nii.gz")
    io.write(Volume(labels), root / "Utrecht" / "0" / "wmh.nii.gz")
    (scan,) = open_cohort(root)
    write_manifest(Cohort((scan,)), tmp_path / "list.tsv")
    for one in (scan, read_manifest(tmp_path / "list.tsv")[0]):
        lesion = one.lesion()
        assert lesion is not None
        assert lesion.kind == "mask"
        assert lesion.data.sum() == 1
    assert (scan.site, scan.condition) == ("Utrecht", "white_matter_lesions")


def test_twins_are_refused(tmp_path: Path) -> None:
    grow(tmp_path, "a/IXI002-Guys-0828-T1.nii.gz b/IXI002-Guys-0828-T1.nii.gz")
    with pytest.raises(CohortError, match="second T1w of one scan. Keep one"):
        open_cohort(tmp_path)


def test_images_at_the_top_make_a_plain_folder(tmp_path: Path) -> None:
    grow(tmp_path, "a_T1w.nii.gz t1/b.nii.gz")
    assert [s.id for s in open_cohort(tmp_path)] == ["a"]
    assert [s.id for s in open_cohort(tmp_path, "flat")] == ["b"]
