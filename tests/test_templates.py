"""The template: found without nilearn's slow import, on one grid, brain-sized."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from atypia import templates
from atypia.errors import MissingDependencyError
from atypia.templates import mni152


def test_the_template_is_a_brain_in_mni_space() -> None:
    template = mni152()
    assert template is mni152()
    for volume in (template.gray_matter, template.white_matter, template.brain):
        template.t1w.require_same_grid(volume)
    assert template.t1w.spacing_mm == pytest.approx((1, 1, 1))
    assert 1500e3 < template.brain.data.sum() < 2100e3
    # The anterior commissure is the origin of the space, well inside.
    i, j, k = np.round(template.brain.geometry.voxel([0, 0, 0])).astype(int)
    assert template.brain.data[i, j, k]
    with pytest.raises(ValueError, match="read-only"):
        template.t1w.data[0, 0, 0] = 1


def test_an_absent_template_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"MNI152.*pip install"):
        templates._file("t1")
