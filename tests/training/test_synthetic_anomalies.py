"""Synthetic anomalies: confined, pointed at where they show, of every kind, sized in mm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from atypia.training import synthetic_anomalies
from atypia.training.loop import seeded
from atypia.training.synthetic_anomalies import (
    KINDS,
    VISIBLE,
    SyntheticAnomalies,
    corrupt,
    smooth_field,
    soft_region,
)

MM = (4.0, 4.0, 4.0)
ALWAYS = SyntheticAnomalies(none_share=0, smallest_mm=10.0)


def scan(size: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball with two tissues and texture, normalised."""
    axis = (torch.arange(size) - (size - 1) / 2) / (0.45 * size)
    squares = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    brain = squares < 1
    image = (squares < 0.4) * 1.5 + 0.3 * torch.randn(brain.shape, generator=seeded(0))
    inside = image[brain]
    return (image - inside.mean()) / inside.std() * brain, brain


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Gather every region that is drawn, and the scan after it."""
    gathered: list[tuple[torch.Tensor, torch.Tensor]] = []
    change = synthetic_anomalies._changed

    def listening(image, region, brain, rng):
        found = change(image, region, brain, rng)
        gathered.append((region, found))
        return found

    monkeypatch.setattr(synthetic_anomalies, "_changed", listening)
    return gathered


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stays_in_the_brain_and_near_its_region(
    kind: str, monkeypatch: pytest.MonkeyPatch, told
) -> None:
    monkeypatch.setattr(synthetic_anomalies, "KINDS", (kind,))
    image, brain = scan()
    before = image.clone()
    shown = 0
    for k in range(12):
        told.clear()
        found, where = corrupt(image, brain, MM, ALWAYS, seeded(1, k))
        assert torch.isfinite(found).all()
        assert not found[~brain].any()
        assert not where[~brain].any()
        # What no region reaches stays; pushed tissue is fetched from outside, but put inside.
        reached = torch.stack([region for region, _ in told]).amax(0) > 1e-6
        grown = torch.nn.functional.max_pool3d(reached[None, None].float(), 3, 1, 1)[0, 0] > 0
        torch.testing.assert_close(found[~grown], image[~grown], rtol=0, atol=2e-5)
        shown += int(where.any())
    assert torch.equal(image, before)
    assert shown >= 9


def test_where_is_every_visible_difference(told) -> None:
    image, brain = scan()
    for k in range(20):
        told.clear()
        found, where = corrupt(image, brain, MM, SyntheticAnomalies(), seeded(2, k))
        visible = np.abs(found.numpy() - image.numpy()) > VISIBLE
        np.testing.assert_array_equal(where.numpy(), visible & brain.numpy())
        if told:
            assert torch.equal(told[-1][1], found)
        else:
            assert torch.equal(found, image)


def test_an_offset_is_the_region_times_one_number(monkeypatch: pytest.MonkeyPatch, told) -> None:
    monkeypatch.setattr(synthetic_anomalies, "KINDS", ("offset",))
    image, brain = scan()
    signs = set()
    for k in range(12):
        told.clear()
        found, _ = corrupt(image, brain, MM, ALWAYS.but(most=1), seeded(3, k))
        ((region, _),) = told
        middle = region > 0.2
        factors = (found - image)[middle] / region[middle]
        assert float(factors.std()) < 1e-4
        assert 0.5 * 0.3 <= float(factors.mean().abs()) <= 2.5
        signs.add(bool(factors.mean() > 0))
    assert signs == {True, False}


def test_every_kind_and_number_is_drawn(monkeypatch: pytest.MonkeyPatch, told) -> None:
    drawn: list[str] = []

    class Listening(tuple):
        def __getitem__(self, index):
            drawn.append(super().__getitem__(index))
            return drawn[-1]

    monkeypatch.setattr(synthetic_anomalies, "KINDS", Listening(KINDS))
    image, brain = scan(16)
    numbers = []
    for k in range(150):
        told.clear()
        corrupt(image, brain, (8.0, 8.0, 8.0), ALWAYS, seeded(4, k))
        numbers.append(len(told))
    shares = [drawn.count(kind) / len(drawn) for kind in KINDS]
    np.testing.assert_allclose(shares, 1 / len(KINDS), atol=0.07)
    np.testing.assert_allclose([numbers.count(n) / 150 for n in (1, 2, 3)], 1 / 3, atol=0.12)


def test_some_scans_stay_as_they_are() -> None:
    image, brain = scan(12)
    settings = SyntheticAnomalies(none_share=0.4)
    same = []
    for k in range(200):
        found, where = corrupt(image, brain, (10.0, 10.0, 10.0), settings, seeded(5, k))
        same.append(torch.equal(found, image))
        assert not (same[-1] and where.any())
    assert np.mean(same) == pytest.approx(0.4, abs=0.1)
    for share in (0.0, 1.0):
        found, where = corrupt(image, brain, MM, SyntheticAnomalies(none_share=share), seeded(6))
        assert torch.equal(found, image) == (share == 1)
    found, where = corrupt(image, torch.zeros_like(brain), MM, ALWAYS, seeded(6))
    assert torch.equal(found, image)
    assert not where.any()


def test_same_generator_same_anomalies() -> None:
    image, brain = scan()
    one, other, third = (corrupt(image, brain, MM, ALWAYS, seeded(7, k)) for k in (0, 0, 1))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], third[0])


def test_regions_have_their_size_in_mm_on_any_grid() -> None:
    settings = SyntheticAnomalies(smallest_mm=14.0, largest_mm=14.0)
    medians = []
    for size, step in ((64, 2.0), (32, 4.0)):
        brain = torch.ones((size,) * 3, dtype=torch.bool)
        volumes = [
            float((soft_region(brain, (step,) * 3, settings, seeded(8, k)) > 0.5).sum()) * step**3
            for k in range(120)
        ]
        medians.append(np.median(volumes))
    assert medians[0] == pytest.approx(medians[1], rel=0.2)
    ball = 4 / 3 * math.pi * 14**3
    # Regions that the grid cuts off are smaller, those whose axes are drawn long larger.
    assert 0.5 * ball < medians[0] < 2 * ball


def test_sizes_are_as_often_small_as_large() -> None:
    settings = SyntheticAnomalies(smallest_mm=6.0, largest_mm=24.0)
    brain = torch.ones((36,) * 3, dtype=torch.bool)
    volumes = [
        float((soft_region(brain, (3.0,) * 3, settings, seeded(9, k)) > 0.5).sum()) * 27
        for k in range(150)
    ]
    middle = 4 / 3 * math.pi * 12**3
    assert np.mean(np.array(volumes) < middle) == pytest.approx(0.5, abs=0.15)


def test_a_region_is_soft_and_lies_in_the_brain() -> None:
    _, brain = scan()
    for k in range(20):
        region = soft_region(brain, MM, ALWAYS, seeded(10, k))
        assert float(region.min()) >= 0
        assert float(region.max()) <= 1
        assert not region[~brain].any()
        assert ((region > 0.1) & (region < 0.9)).any()


def test_smooth_noise_has_unit_spread_and_bumps_in_mm() -> None:
    shape = torch.Size((40, 20, 10))
    for bump in (10.0, 30.0):
        fields = torch.stack(
            [smooth_field(shape, (2.0, 4.0, 8.0), bump, seeded(11, k)) for k in range(40)]
        )
        assert float(fields.std()) == pytest.approx(1, abs=0.05)
        # 8 mm are 4, 2 and 1 voxels: along every axis a field changes equally.
        changes = [
            float((fields[:, 4:] - fields[:, :-4]).std()),
            float((fields[:, :, 2:] - fields[:, :, :-2]).std()),
            float((fields[..., 1:] - fields[..., :-1]).std()),
        ]
        assert max(changes) < 1.25 * min(changes)
