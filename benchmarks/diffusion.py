"""Restoring slices with the diffusion model, and a training step: plain ways against ours.

The plain way is float32 in the usual order of memory: all slices of the scan as one batch, the
encoder asked again for each sample. Ours asks the encoder once, embeds each time once, and goes
through the slices in smaller batches with channels last. `bare_ratio` compares ours with nothing
but the network's forwards on the same batches. Both use one thread and the same random weights
(what a forward costs does not depend on them). `noise_share` is what simplex noise takes of a
training step. The full run has the reference's network.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.tables import table

SEED = 0
BARE_ASKED, STEP_ASKED, NOISE_ASKED = 1.15, 3.0, 0.05
FULL = {"preset": "mahalanobis", "side": 96, "slices": 8, "samples": 10, "batch": 4}
QUICK = {"preset": "small", "side": 64, "slices": 8, "samples": 4, "batch": 8}


def run(quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time both ways in processes of their own; `--quick` has the small network."""
    size = QUICK if quick else FULL
    plain, ours = (timing.task(__name__, task, size) for task in ("plain", "ours"))
    bare = timing.task(__name__, "bare", size)
    steps = timing.task(__name__, "steps", size)
    row = {
        "network": size["preset"],
        "slices": size["slices"],
        "samples": size["samples"],
        "plain_cpu_s": plain["cpu_s"],
        "ours_cpu_s": ours["cpu_s"],
        "bare_cpu_s": bare["cpu_s"],
        "plain_mb": plain["own_mb"],
        "ours_mb": ours["own_mb"],
        "plain_step_cpu_s": steps["plain_cpu_s"],
        "ours_step_cpu_s": steps["ours_cpu_s"],
        "noise_cpu_s": steps["noise_cpu_s"],
    }
    print(table([row]) + "\n")
    figures = {
        "cpu_ratio": plain["cpu_s"] / ours["cpu_s"],
        "memory_ratio": plain["own_mb"] / ours["own_mb"],
        "bare_ratio": ours["cpu_s"] / bare["cpu_s"],
        "training_step_ratio": steps["plain_cpu_s"] / steps["ours_cpu_s"],
        "noise_share": steps["noise_cpu_s"] / steps["ours_cpu_s"],
        "asked": {
            "bare_ratio": BARE_ASKED,
            "training_step_ratio": STEP_ASKED,
            "noise_share": NOISE_ASKED,
        },
        "size": size,
        "row": row,
    }
    return [{k: v for k, v in figures.items() if k.endswith(("ratio", "share"))}], figures


# -- what the child processes do ------------------------------------------------------------


def ours(size: dict[str, Any]) -> None:
    """Restore with the detector."""
    detector, prepared = _detector(size), _scan(size)
    detector.network_(*_warm(size))
    _measure(lambda: detector.restorations(prepared))


def bare(size: dict[str, Any]) -> None:
    """Do the network's forwards on the same batches and nothing else."""
    import torch

    detector = _detector(size)
    detector.network_(*_warm(size))
    at_once = detector.settings.slices_at_once
    batches = torch.zeros(size["slices"], 1, size["side"], size["side"]).split(at_once)
    times = torch.tensor([499])

    def forwards() -> None:
        for batch in batches:
            context = detector.network_.context(batch)
            for _ in range(size["samples"]):
                detector.network_.denoiser(batch, times, context)

    with torch.inference_mode():
        _measure(forwards)


def plain(size: dict[str, Any]) -> None:
    """Restore as published: sample by sample, all slices at once, in the usual memory order."""
    import torch

    from atypia.diffusion.noise import draw_noise
    from atypia.diffusion.schedule import cosine
    from atypia.training.loop import seeded
    from atypia.training.slices import slices_of

    detector = _detector(size)
    detector.network_.denoiser.memory_format = torch.contiguous_format
    clean = slices_of(_scan(size).image.data)
    detector.network_(*_warm(size))
    schedule, rng = cosine(1000), seeded(SEED)
    times = torch.full((len(clean),), 498)

    def restore() -> None:
        image = 2 * clean - 1
        for _ in range(size["samples"]):
            noise = draw_noise("simplex_shared", tuple(image.shape), rng)
            noisy = schedule.add_noise(image, noise, times)
            detector.network_(noisy, times, clean)

    with torch.inference_mode():
        _measure(restore)


def steps(size: dict[str, Any]) -> None:
    """Time a training step, both ways, and drawing its simplex noise."""
    import torch

    from atypia.diffusion.noise import draw_noise
    from atypia.training.loop import seeded

    clean = torch.rand(size["batch"], 1, size["side"], size["side"])
    found = {}
    for name, memory in (("plain", torch.contiguous_format), ("ours", torch.channels_last)):
        detector = _detector(size)
        detector.network_.denoiser.memory_format = memory
        network = detector.network_.train()
        optimizer = torch.optim.AdamW(network.parameters())

        def step(detector: Any = detector, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            times = torch.randint(1000, (len(clean),))
            detector._error(detector.network_, clean, times, seeded(SEED)).backward()
            optimizer.step()

        step()
        found[f"{name}_cpu_s"] = min(timing.cpu_seconds(step)[0] for _ in range(2))
    shape = (size["batch"], 1, size["side"], size["side"])
    draw_noise("simplex", shape, seeded(SEED))
    draws = [timing.cpu_seconds(lambda: draw_noise("simplex", shape, seeded(SEED))) for _ in "123"]
    found["noise_cpu_s"] = min(cpu_s for cpu_s, _ in draws)
    print(json.dumps(found))


TASKS = {"ours": ours, "bare": bare, "plain": plain, "steps": steps}


def _detector(size: dict[str, Any]) -> Any:
    from atypia.detectors.diffusion import Diffusion, DiffusionSettings

    settings = DiffusionSettings.make(
        {"samples": size["samples"], "test_times": (498,), "seed": SEED}, size["preset"]
    )
    detector = Diffusion(settings)
    detector._build()
    detector.network_.eval()
    detector.range_ = np.array([0.0, 1.0])
    return detector


def _scan(size: dict[str, Any]) -> Any:
    from atypia.preprocessing import Prepared
    from atypia.volume import Volume

    shape = (size["side"], size["side"], size["slices"])
    image = Volume(np.random.default_rng(SEED).random(shape, dtype=np.float32), np.eye(4))
    brain = image.with_data(np.ones(shape, dtype=bool), "mask")
    return Prepared(image, brain, brain, ())


def _warm(size: dict[str, Any]) -> tuple[Any, Any, Any]:
    import torch

    slices = torch.zeros(1, 1, size["side"], size["side"])
    return slices, torch.tensor([499]), slices


def _measure(work: Any) -> None:
    before = timing.forget_peak()
    cpu_s, _ = timing.cpu_seconds(work)
    print(json.dumps({"cpu_s": cpu_s, "own_mb": timing.memory_mb("VmHWM") - before}))
