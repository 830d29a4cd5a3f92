"""Brain extraction by others: deepbet on real heads, and programs that fail in every way."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.errors import AtypiaError, InputError, MissingDependencyError, SettingsError
from atypia.preprocessing import skull
from atypia.preprocessing.brain import FindBrain
from atypia.preprocessing.step import State
from atypia.volume import Array, Volume
from tests.grids import ball
from tests.phantoms import phantom

AFFINE = np.diag([6.0, 6, 6, 1])


def head() -> tuple[Volume, Volume]:
    """Make a ball of a head, too large for a brain, and the ball in it that is the brain."""
    whole = ball((32, 32, 32), AFFINE, (93, 93, 93), 88, "image")
    image = Volume(whole.data * 50, AFFINE, source="head.nii")
    return image, ball((32, 32, 32), AFFINE, (93, 93, 93), 66)


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(skull.PERMISSION, "1")


def program(folder: Path, text: str) -> str:
    """Write a program in Python; give the command that runs it."""
    file = folder / "strip.py"
    lines = "import sys\nfrom pathlib import Path\nimport nibabel\nimport numpy as np\n"
    file.write_text(lines + text)
    return f"'{sys.executable}' '{file}' -i {{image}} -o {{output}}"


STRIP = """
head = nibabel.load(sys.argv[2])
data = head.get_fdata()
places = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1) * 6.0
inside = np.linalg.norm(places - 93, axis=-1) <= 66
nibabel.save(nibabel.Nifti1Image({what}, head.affine), sys.argv[4])
"""


def found_by(find: FindBrain, image: Volume) -> tuple[str, Volume]:
    measured = find.measure(State(image))
    return measured["found_by"], find.apply(State(image), measured).require_brain()


@pytest.mark.parametrize("what", ["inside.astype(np.uint8)", "(inside * data).astype(np.float32)"])
def test_a_command_writes_a_mask_or_a_stripped_image(
    tmp_path: Path, allowed: None, what: str
) -> None:
    image, brain = head()
    find = FindBrain(engine="command", command=program(tmp_path, STRIP.format(what=what)))
    by, found = found_by(find, image)
    assert by == "command"
    np.testing.assert_array_equal(found.data, brain.data)


def test_no_command_runs_unless_the_user_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(skull.PERMISSION, raising=False)
    find = FindBrain(engine="command", command=program(tmp_path, "Path('/').exists()"))
    with pytest.raises(SettingsError, match="may not run commands.*ATYPIA_RUN_COMMANDS=1"):
        found_by(find, head()[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sys.exit('no weights')", r"head\.nii: .*exit status 1: no weights"),
        ("sys.exit(3)", r"head\.nii: .*exit status 3\."),
        ("", r"head\.nii: .*wrote no \{output\}"),
        ("Path(sys.argv[4]).write_text('x')", r"output\.nii\.gz: is damaged"),
        (STRIP.format(what="0 * inside[1:].astype(np.uint8)"), "shape.*head.nii"),
        (STRIP.format(what="0 * inside.astype(np.uint8)"), r"head\.nii: the brain is empty"),
        (STRIP.format(what="data.astype(np.float32)"), r"command cannot strip its skull.*28\d\d"),
    ],
)
def test_a_command_that_fails(tmp_path: Path, allowed: None, text: str, message: str) -> None:
    find = FindBrain(engine="command", command=program(tmp_path, text))
    with pytest.raises(InputError, match=message):
        found_by(find, head()[0])


def test_a_program_that_is_not_there(allowed: None) -> None:
    find = FindBrain(engine="command", command="no-such-tool {image} {output}")
    with pytest.raises(MissingDependencyError, match="no-such-tool.*Install no-such-tool"):
        found_by(find, head()[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "command"}, "go together"),
        ({"command": "bet {image} {output}"}, "go together"),
        ({"engine": "command", "command": "bet {image}"}, r"no \{output\}"),
        ({"engine": "command", "command": "bet {image} {output} {mask}"}, "place-holder 'mask'"),
        ({"engine": "command", "command": "bet '{image} {output}"}, "quotation"),
    ],
)
def test_a_command_is_checked_when_the_plan_is_made(values: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FindBrain.make(values)


def test_auto_keeps_masks_and_stripped_scans_and_sends_heads_to_deepbet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, brain = head()

    def fake(volume: Volume) -> Array:
        return brain.data

    monkeypatch.setattr(skull, "by_deepbet", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    find = FindBrain()
    stripped, mask, _ = phantom(0)
    assert find.measure(State(stripped, mask)) == {"found_by": "supplied"}
    assert found_by(find, stripped)[0] == "foreground"
    by, found = found_by(find, image)
    assert by == "deepbet"
    np.testing.assert_array_equal(found.data, brain.data)
    # A slab without background is no stripped brain, small as it is.
    slab = Volume(np.random.default_rng(0).random((20, 20, 5)), AFFINE)
    assert find.measure(State(slab)) == {"found_by": "deepbet"}
    # A brain as large as the head is none.
    monkeypatch.setattr(skull, "by_deepbet", lambda volume: volume.data > 0)
    with pytest.raises(InputError, match=r"head\.nii: deepbet cannot strip its skull.*28\d\d ml"):
        found_by(find, image)


def test_without_deepbet_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"head\.nii: .*skull.*pip install deepbet"):
        found_by(FindBrain(), head()[0])
    monkeypatch.setitem(sys.modules, "deepbet", None)
    skull._deepbet.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"deepbet.*pip install deepbet"):
        found_by(FindBrain(engine="deepbet"), head()[0])


def test_deepbet_without_a_brain_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def run(self, image: object) -> object:
            raise AssertionError("Not enough foreground")

    monkeypatch.setattr(skull, "_deepbet", Failing)
    with pytest.raises(AtypiaError, match=r"head\.nii: deepbet finds no brain \(Not enough"):
        found_by(FindBrain(engine="deepbet"), head()[0])


@pytest.mark.real_data
def test_deepbet_finds_the_brain_of_a_real_head_of_any_orientation(real_data: Path) -> None:
    pytest.importorskip("deepbet", reason="DEEPBET IS NOT INSTALLED: no brain extraction tested")
    image = io.read(real_data / "raw" / "ds011" / "sub-01_inplaneT2.nii.gz").canonical()
    flipped = replace(
        image,
        data=np.ascontiguousarray(image.data.transpose(2, 1, 0)[:, ::-1]),
        affine=image.affine
        @ np.array([[0, 0, 1, 0], [0, -1, 0, image.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1]]),
    )
    by, found = found_by(FindBrain(), flipped)
    assert by == "deepbet"
    size_ml = found.data.sum() * found.geometry.voxel_volume_mm3 / 1000
    assert 1300 < size_ml < 1800
    # The brain lies inside the head: its box does not touch the sides, nor does it fill the slices.
    assert not found.data[:, [0, -1]].any()
    assert not found.data[:, :, [0, -1]].any()
    assert found.data.mean() < 0.5
    flipped.require_same_grid(found)
