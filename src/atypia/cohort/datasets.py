"""The public data sets whose trees are known; another one is one more `Layout` in `DATASETS`."""

from __future__ import annotations

from atypia.cohort.trees import Layout, People, Tree

ANYWHERE = r"(?:.*/)?"
"""Data sets may be opened at any folder above."""


def _brats(subject: str) -> Tree:
    case = f"{ANYWHERE}(?P<case>{subject})/"
    return Tree(
        image=rf"{case}(?P=case)[-_](?P<modality>t1|t1n|t1ce|t1c|t2|t2w|flair|t2f)",
        # One case of 2020 has a mask that was never renamed.
        lesion=rf"{case}(?:(?P=case)[-_]seg|W39_[\d.]+_Segm)",
    )


def _mslub(folder: str) -> Tree:
    case = rf"{folder}(?P<subject>patient\d+)/(?:(?P=subject)_)?"
    return Tree(
        image=f"{case}(?P<modality>FLAIR|T1W|T1WKS|T2W)",
        brain=f"{case}brainmask",
        lesion=f"{case}consensus_gt",
    )


def _wmh(folder: str) -> Tree:
    case = r"(?:.*?/)??(?P<subject>(?:(?P<site>[^/]+)/)?[^/]+)/"
    return Tree(image=f"{case}{folder}/(?P<modality>FLAIR|T1)", lesion=f"{case}wmh")


def _hcp(image: str, brain: str = "") -> Tree:
    person = rf"{ANYWHERE}(?P<subject>\d{{6}}|HC[AD]\d{{7}}_V\d_MR)/"
    return Tree(image=person + image, brain=brain and person + brain)


ATLAS = (
    rf"{ANYWHERE}(?:(?P<site>R\d+)/)?(?P<subject>sub-r\d+s\d+)/(?P<session>ses-\w+)/anat/"
    r"(?P=subject)_(?P=session)_space-MNI152NLin2009aSym_"
)
ISLES = rf"{ANYWHERE}(?P<subject>sub-strokecase\d+)/(?P<session>ses-\d+)/(?:\w+/)?"
OASIS_1 = (
    rf"{ANYWHERE}(?P<subject>OAS1_\d+)_(?P<session>MR\d+)/(?:.*/)?(?P=subject)_(?P=session)_"
    r"(?P<description>mpr)"
)
OASIS_3 = (
    rf"{ANYWHERE}(?P<subject>OAS3\d+)_MR_(?P<session>d\d+)/(?:.*/)?"
    r"sub-(?P=subject)_sess?-(?P=session)_(?:(?P<run>[\w-]+)_)?"
    r"(?P<modality>T1w|T2w|FLAIR|T2star|PD)"
)

DATASETS = {
    "brats": Layout(
        "BraTS",
        (
            _brats(r"(?P<subject>BraTS1\d_\w+?)_(?P<session>\d+)"),
            _brats(r"(?P<subject>BraTS(?:20_Training|20_Validation|2021)_\d+)"),
            _brats(r"(?P<subject>BraTS-[A-Z]+-\d+)-(?P<session>\d+)"),
        ),
        condition="tumour",
    ),
    "ixi": Layout(
        "IXI",
        (Tree(rf"{ANYWHERE}(?P<subject>IXI\d+)-(?P<site>[A-Z]+)-\d+-(?P<modality>T1|T2|PD)"),),
        condition="healthy",
        people=People(
            "IXI_ID",
            "IXI{:0>3}",
            "{subject}",
            {"age": "AGE", "sex": "SEX_ID (1=m, 2=f)"},
            {"1": "m", "2": "f"},
        ),
    ),
    "atlas": Layout(
        "ATLAS",
        (Tree(rf"{ATLAS}(?P<modality>T1w)", lesion=rf"{ATLAS}label-L_desc-T1lesion_mask"),),
        condition="stroke",
    ),
    "wmh": Layout("WMH", (_wmh("pre"), _wmh("orig")), (1,), "white_matter_lesions"),
    "isles": Layout(
        "ISLES2022",
        (
            # The mask lies on the grid of diffusion, so FLAIR is a scan of its own.
            Tree(
                rf"{ISLES}(?P=subject)_(?P=session)_(?P<modality>dwi|adc)",
                lesion=rf"{ISLES}(?P=subject)_(?P=session)_msk",
            ),
            Tree(rf"{ISLES}(?P=subject)_(?P=session)_(?P<run>(?P<modality>flair))"),
        ),
        condition="stroke",
    ),
    "mslub": Layout(
        "MSLUB",
        (
            _mslub(rf"{ANYWHERE}coregistered_resampled/"),
            _mslub(rf"{ANYWHERE}coregistered/"),
            _mslub(ANYWHERE),
        ),
        condition="white_matter_lesions",
    ),
    "oasis": Layout(
        "OASIS",
        (
            Tree(rf"{OASIS_1}.*_t88_masked_gfc"),
            Tree(rf"{OASIS_1}.*_t88_gfc"),
            Tree(rf"{OASIS_1}.*_sbj_111"),
            Tree(rf"{OASIS_1}-1_anon"),
            Tree(OASIS_3),
        ),
        people=People("ID", "{}", "{subject}_{session}", {"age": "Age", "sex": "M/F"}),
    ),
    "adni": Layout(
        "ADNI",
        (
            Tree(
                rf"{ANYWHERE}(?P<subject>\d+_S_\d+)/(?P<description>[^/]+)/"
                r"(?P<session>\d{4}-\d\d-\d\d)[^/]*/(?P<run>[IS]\d+)/[^/]*"
            ),
        ),
        people=People(
            "Image Data ID",
            "{}",
            "{run}",
            {"age": "Age", "sex": "Sex", "condition": "Group"},
            {"CN": "healthy"},
        ),
    ),
    "hcp": Layout(
        "HCP",
        (
            _hcp("T1w/(?P<modality>T[12]w)_acpc_dc_restore_brain", "T1w/brainmask_fs"),
            _hcp("T1w/(?P<modality>T[12]w)_acpc_dc_restore", "T1w/brainmask_fs"),
            _hcp(r"unprocessed/3T/T[12]w_\w+1/(?P=subject)_3T_(?P<modality>T[12]w)_\w+1"),
        ),
        condition="healthy",
    ),
}
"""Data set -> how to read it; the first whose images a folder holds is recognised."""

FLAT = Layout(
    "",
    (
        Tree(
            image=r"(?P<modality>[a-z0-9]+)(?:_[^/]*)?(?<!_highfreq)/(?P<subject>[^/]+)",
            brain=r"brainmask/(?P<subject>[^/]+)",
            lesion=r"label/(?P<subject>[^/]+)",
        ),
    ),
)
"""`MODALITY/NAME`, `brainmask/NAME` and `label/NAME`, with the same name in all of them."""
