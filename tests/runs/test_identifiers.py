"""What a header says about a person gets into no output."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

from atypia.cohort import open_cohort
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.report import write_quality_page, write_report
from atypia.runs.predicting import predict_cohort
from atypia.runs.preparing import PreparationSettings, prepare_cohort
from tests.phantoms import phantom, phantom_cohort

NAME = b"DOE^JANE"


def test_no_name_from_a_header_is_told(tmp_path: Path) -> None:
    image = phantom(9)[0]
    named = nibabel.Nifti1Image(image.data, np.array(image.affine))
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        named.header[field] = NAME
    named.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", NAME))
    scan = tmp_path / "in" / "sub-09_T2w.nii.gz"
    scan.parent.mkdir()
    nibabel.save(named, scan)
    assert NAME in gzip.decompress(scan.read_bytes())

    cohort = open_cohort(scan.parent)
    prepare_cohort(cohort, tmp_path / "prepared", PreparationSettings(spacing_mm=7, align="none"))
    write_quality_page(tmp_path / "prepared")
    detector = ZScore(ZScoreSettings.tiny()).fit(phantom_cohort(range(2)))
    predict_cohort(detector, cohort, tmp_path / "out", cache=tmp_path / "cache")
    write_report(tmp_path / "out")
    made = [p for name in ("prepared", "out", "cache") for p in (tmp_path / name).rglob("*")]
    contents = {p: p.read_bytes() for p in made if p.is_file()}
    assert len(contents) > 20
    for path, content in contents.items():
        plain = gzip.decompress(content) if path.suffix == ".gz" else content
        assert b"DOE" not in plain, path
