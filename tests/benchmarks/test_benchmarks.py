"""The command of the benchmarks: listing, unknown names, README. Running them takes longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_listing_names_each_benchmark_with_one_line() -> None:
    done = command()
    assert done.returncode == 0
    assert not done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert {"imports", "metrics", "simulation"} <= set(lines)
    for name, description in lines.items():
        assert len(description) > 20, name


def test_unknown_name_is_one_line_with_the_known_ones() -> None:
    done = command("importz")
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert "importz" in done.stderr
    known = (
        "artefacts, coreset, diffusion, implicit_field, implicit_field_lesions, imports, "
        "lesions, mahalanobis, mask_refinement, members, metrics, patch_features, "
        "patch_score_map, predict, preprocessing, real_t1, reasons, restorations, screenshots, "
        "shipped, simplex, simulation, spark, weights"
    )
    assert known in done.stderr


def test_readme_has_a_section_for_each_benchmark() -> None:
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for line in command().stdout.splitlines():
        assert f"python -m benchmarks {line.split()[0]}" in readme
