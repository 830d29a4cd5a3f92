"""SparK pre-training of the encoder: validation losses of diffusion from it, and from chance.

The encoder learns to paint hidden cells of slices of healthy simulated T2w brains at 4 mm; a small
conditioned diffusion then learns on the same scans twice, from that encoder and from the untrained
one, with equal steps, seed, slices, times and noise. With each seed other scans are held out, and
the encoder has not seen them either.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from atypia.cohort import Cohort
from atypia.cohort.simulated import write_simulated
from atypia.detectors.diffusion import Diffusion, DiffusionSettings
from atypia.detectors.spark_pretraining import PretrainingSettings
from atypia.runs.pretraining import pretrain
from atypia.simulation import SimulationSettings
from atypia.training.log import read_log
from benchmarks import timing

SEEDS = (0, 1, 2)
OUTPUT = Path("benchmark-output/spark")
STARTS = ("pretrained", "random")


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Pre-train, then train from both starts; the quick run is one seed and few steps."""
    folder = OUTPUT / ("quick" if quick else "full")
    healthy = SimulationSettings(modality="T2w", spacing_mm=4.0)
    plan = [(healthy, range(6 if quick else 24))]
    cohort = write_simulated(plan, folder / "scans", workers=1)
    steps, every = (24, 8) if quick else (120, 24)
    started, clock = time.process_time(), time.monotonic()
    found = {
        seed: _compared(seed, cohort, folder, steps, every, quick)
        for seed in SEEDS[: 1 if quick else None]
    }
    rows = []
    for step in range(every, steps + 1, every):
        losses = {name: [each[name][step] for each in found.values()] for name in STARTS}
        gains = [random - ours for ours, random in zip(*losses.values(), strict=True)]
        rows.append(
            {
                "step": step,
                **{name: statistics.mean(values) for name, values in losses.items()},
                "lower_by": statistics.mean(gains),
                "lower_by_least": min(gains),
                "lower_by_most": max(gains),
                "spread_of_random": statistics.stdev(losses["random"]) if len(gains) > 1 else None,
            }
        )
    figures = {
        "seeds": list(found),
        "pretraining": {seed: each["pretraining"] for seed, each in found.items()},
        "losses": {seed: {n: each[n] for n in STARTS} for seed, each in found.items()},
        "cpu_s": round(time.process_time() - started, 1),
        "seconds": round(time.monotonic() - clock, 1),
    }
    return rows, json.loads(json.dumps(figures))


def _compared(
    seed: int, cohort: Cohort, folder: Path, steps: int, every: int, quick: bool
) -> dict[str, Any]:
    """Pre-train with one seed, then train from both starts: validation losses by step."""
    common = {"spacing_mm": 4.0, "align": "none", "validation_share": 0.25, "seed": seed}
    masked = 40 if quick else 160
    settings = PretrainingSettings.make(
        common | {"training": {"steps": masked, "validate_every": masked // 4}}
    )
    place, cache = folder / f"encoder-{settings.digest()[:6]}", folder / "prepared"
    used, told = timing.cpu_seconds(
        lambda: pretrain(cohort, settings, place, cache=cache, workers=1)
    )
    log = read_log(place / "training.jsonl")
    pretraining = {
        "steps": told["steps"],
        "cpu_s": round(used, 1),
        "first_validation": next(line["validation"] for line in log if "validation" in line),
        "best_validation": told["validation_loss"],
    }
    small = DiffusionSettings.make(
        common
        | {
            "base": 16,
            "blocks": 1,
            "training": {
                "steps": steps,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "validate_every": every,
            },
        }
    )
    starts = {"pretrained": small.but(encoder=place), "random": small}
    result: dict[str, Any] = {"pretraining": pretraining}
    for name, chosen in starts.items():
        logs = folder / f"diffusion-{name}-{chosen.digest()[:6]}"
        Diffusion(chosen).fit(cohort, folder=logs, cache=cache)
        lines = read_log(logs / "training.jsonl")
        result[name] = {n["step"]: n["validation"] for n in lines if n["step"] % every == 0}
    return result
