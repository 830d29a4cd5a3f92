"""Denoise: curvature flow against its equation written out, and what it does to noise."""

from __future__ import annotations

import numpy as np
import pytest

from atypia.errors import SettingsError
from atypia.preprocessing.denoise import Denoise
from atypia.preprocessing.step import State
from atypia.volume import Array, Volume


def literal_flow(u: Array, time_step: float) -> Array:
    """One step of du/dt = curvature times gradient's length, central differences, inner voxels."""
    first = np.gradient(u)
    second = [np.gradient(f) for f in first]
    plain = [np.roll(u, -1, a) - 2 * u + np.roll(u, 1, a) for a in range(3)]
    top = np.zeros_like(u)
    for a in range(3):
        for b in range(3):
            if a != b:
                top += first[a] ** 2 * plain[b] - first[a] * first[b] * second[a][b]
    size = sum(f**2 for f in first)
    return u + time_step * np.where(size > 1e-9, top / np.maximum(size, 1e-9), 0)


def test_one_step_is_the_published_equation() -> None:
    rng = np.random.default_rng(0)
    index = np.indices((12, 13, 14))
    data = (
        np.sin(index[0] / 3.0)
        + np.cos(index[1] / 4.0) * index[2]
        + rng.normal(0, 0.1, (12, 13, 14))
    )
    state = State(Volume(data.astype(np.float32)))
    found = Denoise(iterations=1).apply(state, {}).image.data
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(found[inner], literal_flow(data, 0.125)[inner], atol=1e-4)


def test_noise_shrinks_edges_stay_and_voxel_sizes_do_not_matter() -> None:
    edge = np.zeros((16, 16, 16), np.float32)
    edge[8:] = 100
    noisy = edge + np.random.default_rng(1).normal(0, 4, edge.shape).astype(np.float32)
    out = Denoise(iterations=6).apply(State(Volume(noisy)), {}).image.data
    flat = out[1:6]
    assert flat.std() < 0.7 * noisy[1:6].std()
    assert out[9:].mean() - out[:7].mean() == pytest.approx(100, abs=1)
    assert (out[8] - out[7]).mean() > 80
    assert out.dtype == np.float32
    same = Denoise(iterations=6).apply(State(Volume(noisy, np.diag([0.5, 1, 4, 1]))), {}).image
    np.testing.assert_array_equal(same.data, out)


def test_an_unstable_step_is_refused() -> None:
    with pytest.raises(SettingsError, match="time_step"):
        Denoise.make({"time_step": 0.3})
