import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from atypia.errors import MissingDependencyError
from atypia.report import niivue


@pytest.fixture
def nilearn_in(tmp_path, monkeypatch):
    """Let nilearn be a folder of the test's."""
    spec = ModuleSpec("nilearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return tmp_path


def test_the_installed_viewer_is_found():
    bundle = niivue.viewer_bundle()
    assert "Niivue" in bundle.script
    assert "</script" not in bundle.script.lower()
    assert bundle.origin.startswith("niivue.umd.js of nilearn ")


def test_a_viewer_that_moved_is_found(nilearn_in):
    (nilearn_in / "elsewhere").mkdir()
    (nilearn_in / "elsewhere" / "niivue.umd.js").write_text("moved")
    assert niivue.viewer_bundle().script == "moved"


def test_without_a_viewer_the_error_tells_what_to_install(nilearn_in):
    with pytest.raises(MissingDependencyError, match=r"pip install 'nilearn.*static"):
        niivue.viewer_bundle()


@pytest.mark.parametrize("text", ["a</SCRIPT>b", "a<!--b"])
def test_a_script_that_would_break_the_page_is_refused(nilearn_in, text):
    (nilearn_in / "niivue.umd.js").write_text(text)
    with pytest.raises(MissingDependencyError, match="cannot be embedded"):
        niivue.viewer_bundle()
