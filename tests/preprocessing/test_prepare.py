"""Preparing: a cache that is read, told apart and whole; workers; failures that stop nothing."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from atypia import io
from atypia.cohort import Cohort, Scan
from atypia.errors import InputError
from atypia.preprocessing import Failure, Plan, Prepared, make_plan, prepare, prepare_all
from atypia.volume import Volume
from tests.phantoms import phantom, phantom_cohort, phantom_scan

PLAN = make_plan(phantom_cohort(range(2)), spacing_mm=7.0, align="none")


def scan_on_disk(folder: Path, seed: int = 0) -> Scan:
    image, brain, _ = phantom(seed)
    io.write(image, folder / f"{seed}.nii.gz")
    io.write(brain, folder / f"{seed}_brain.nii.gz")
    return Scan(
        f"s{seed}", {"T2w": folder / f"{seed}.nii.gz"}, brain_mask=folder / f"{seed}_brain.nii.gz"
    )


def same(one: Prepared, other: Prepared) -> None:
    for field in fields(Prepared):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, Volume):
            np.testing.assert_array_equal(first.data, second.data)
            np.testing.assert_array_equal(first.affine, second.affine)
            assert (first.kind, first.space, first.source) == (
                second.kind,
                second.space,
                second.source,
            )
            assert first.data.dtype == second.data.dtype
        else:
            assert list(first) == list(second)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the sources of all images that a plan is applied to."""
    applied: list[str] = []
    apply = Plan.apply

    def counting(self: Plan, image: Volume, brain: Volume | None = None) -> Prepared:
        applied.append(image.source)
        return apply(self, image, brain)

    monkeypatch.setattr(Plan, "apply", counting)
    return applied


def test_the_second_time_the_cache_is_read(tmp_path: Path, counted: list[str]) -> None:
    scan = scan_on_disk(tmp_path / "data")
    plain = prepare(scan, PLAN)
    first = prepare(scan, PLAN, cache=tmp_path / "cache")
    assert len(counted) == 2
    second = prepare(scan, PLAN, cache=tmp_path / "cache")
    assert len(counted) == 2
    same(plain, first)
    same(first, second)
    assert isinstance(second.image.data, np.memmap)


def test_an_aligned_scan_is_the_same_from_the_cache(tmp_path: Path) -> None:
    cohort = phantom_cohort(range(1))
    plan = make_plan(cohort, spacing_mm=8.0, align="rigid")
    plain = prepare(cohort[0], plan)
    assert plain.image.space == 4
    same(plain, prepare(cohort[0], plan, cache=tmp_path))


def test_another_file_plan_or_modality_is_another_entry(tmp_path: Path, counted: list[str]) -> None:
    scan, cache = scan_on_disk(tmp_path / "data"), tmp_path / "cache"
    prepare(scan, PLAN, cache=cache)
    other_plan = PLAN.but(steps=[*PLAN.to_json()["steps"][:-1], {"step": "normalise", "limit": 1}])
    changed = prepare(scan, other_plan, cache=cache)
    assert len(counted) == 2
    assert np.abs(changed.image.data).max() == 1
    image = scan.images["T2w"]
    assert isinstance(image, Path)
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 10))
    prepare(scan, PLAN, cache=cache)
    assert len(counted) == 3
    prepare(Scan(scan.subject, scan.images), PLAN, cache=cache)
    assert len(counted) == 4
    assert len(list(cache.iterdir())) == 4
    # Whose scan it is does not matter.
    prepare(Scan("other", scan.images, brain_mask=scan.brain_mask), PLAN, cache=cache)
    assert len(counted) == 4


def test_a_failing_scan_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, data: object) -> None:
        if Path(path).name == "native_brain.npy":
            raise RuntimeError("boom")

    monkeypatch.setattr(np, "save", failing)
    with pytest.raises(RuntimeError, match="boom"):
        prepare(phantom_scan(0), PLAN, cache=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cached", [False, True])
def test_two_workers_give_the_same_as_one_and_go_on_past_bad_scans(
    tmp_path: Path, cached: bool
) -> None:
    scans = [scan_on_disk(tmp_path, seed) for seed in range(3)]
    image, _, _ = phantom(1)
    (tmp_path / "torn.nii.gz").write_bytes((tmp_path / "1.nii.gz").read_bytes()[:3000])
    scans[1:1] = [
        Scan("torn", {"T2w": tmp_path / "torn.nii.gz"}),
        Scan("absent", {"T2w": tmp_path / "absent.nii.gz"}),
    ]
    scans.append(Scan("blank", {"T2w": image.with_data(np.zeros(image.shape))}))
    cohort = Cohort(tuple(scans))
    heard: list[tuple[int, int]] = []
    runs = [
        list(
            prepare_all(
                cohort,
                PLAN,
                workers=workers,
                cache=tmp_path / str(workers) if cached else None,
                progress=lambda task, done, total, note="": heard.append((done, total)),
            )
        )
        for workers in (1, 2)
    ]
    assert heard == [(n, 6) for n in range(7)] * 2
    for found in runs:
        kinds = [type(result) for result in found]
        assert kinds == [Prepared, Failure, Failure, Prepared, Prepared, Failure]
        failures = [r for r in found if isinstance(r, Failure)]
        assert [f.scan.subject for f in failures] == ["torn", "absent", "blank"]
        assert all(isinstance(f.error, InputError) for f in failures)
        assert [f.error.problem.split()[0] for f in failures] == ["is", "no", "the"]
        assert str(tmp_path / "torn.nii.gz") in str(failures[0].error)
    for one, two in zip(*runs, strict=True):
        if isinstance(one, Prepared):
            same(one, two)
