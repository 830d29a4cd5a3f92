"""Artefacts: stronger with severity, blind to orientation and scale, no silent no-op."""

from __future__ import annotations

import nibabel.orientations as orientations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.errors import SettingsError
from atypia.simulation import (
    ARTEFACTS,
    SimulatedSubject,
    add_artefact,
    apply_artefact,
    sample_artefact,
)
from atypia.simulation.artefacts import ALIASES
from atypia.volume import Volume

NAMES = list(ARTEFACTS)


def turned(volume: Volume, order: tuple[int, int, int], flips: tuple[int, int, int]) -> Volume:
    """Store the same image with permuted and flipped axes."""
    turn = np.stack([order, flips], axis=1)
    data = orientations.apply_orientation(volume.data, turn)
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.shape)
    return Volume(data, affine, volume.kind)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_stronger_with_severity(name: str, seed: int, healthy: SimulatedSubject) -> None:
    changes = [
        np.abs(
            add_artefact(healthy.image, name, severity, seed, healthy.brain).data
            - healthy.image.data
        ).mean()
        for severity in (1, 2, 3, 4, 5)
    ]
    assert changes[0] > 0
    assert (np.diff(changes) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_geometry_type_and_determinism(name: str, healthy: SimulatedSubject) -> None:
    first = add_artefact(healthy.image, name, 4, 5, healthy.brain)
    again = add_artefact(healthy.image, name, 4, 5, healthy.brain)
    assert first.data.dtype == np.float32
    assert first.geometry.matches(healthy.image.geometry)
    np.testing.assert_array_equal(first.data, again.data)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"smoothing"}))
def test_another_seed_gives_another_artefact(name: str, healthy: SimulatedSubject) -> None:
    one, two = (add_artefact(healthy.image, name, 4, s, healthy.brain).data for s in (1, 2))
    assert not np.array_equal(one, two)


@given(
    name=st.sampled_from(NAMES),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
@settings(max_examples=25, deadline=None)
def test_blind_to_the_storage_order(
    name: str,
    order: tuple[int, int, int],
    flips: tuple[int, int, int],
    healthy: SimulatedSubject,
) -> None:
    plain = add_artefact(healthy.image, name, 4, 2, healthy.brain)
    image, brain = (turned(v, order, flips) for v in (healthy.image, healthy.brain))
    result = add_artefact(image, name, 4, 2, brain)
    np.testing.assert_array_equal(result.data, turned(plain, order, flips).data)
    assert result.geometry.matches(image.geometry)


@pytest.mark.parametrize("name", NAMES)
def test_blind_to_the_intensity_scale(name: str, healthy: SimulatedSubject) -> None:
    plain = add_artefact(healthy.image, name, 4, 2, healthy.brain).data
    scaled = healthy.image.with_data(healthy.image.data * np.float32(0.01))
    result = add_artefact(scaled, name, 4, 2, healthy.brain).data
    np.testing.assert_allclose(result, plain * 0.01, atol=1e-5 * plain.max())


@pytest.mark.parametrize("name", NAMES)
def test_a_shifted_background_is_still_the_background(name: str, healthy: SimulatedSubject) -> None:
    plain = add_artefact(healthy.image, name, 3, 2, healthy.brain).data
    lower = healthy.image.with_data(healthy.image.data - np.float32(300))
    result = add_artefact(lower, name, 3, 2, healthy.brain).data
    np.testing.assert_allclose(result + 300, plain, atol=1e-3 * plain.max())


def test_chunks_are_missing_where_they_should(healthy: SimulatedSubject) -> None:
    heights = np.flatnonzero(healthy.brain.data.any(axis=(0, 1)))
    top = add_artefact(healthy.image, "top_chunk", 5, 1, healthy.brain).data
    assert (top[:, :, heights[-1]] == 0).all()
    low = heights[3]
    np.testing.assert_allclose(top[:, :, low], healthy.image.data[:, :, low], rtol=1e-5)
    middle = add_artefact(healthy.image, "middle_chunk", 5, 1, healthy.brain).data
    empty = [z for z in heights if not middle[:, :, z].any()]
    assert empty
    assert heights[5] < min(empty) <= max(empty) < heights[-5]


def test_works_without_a_mask_and_on_odd_anisotropic_grids() -> None:
    rng = np.random.default_rng(0)
    data = np.zeros((15, 22, 9), dtype=np.int16)
    data[3:-3, 4:-4, 1:-1] = rng.integers(100, 200, (9, 14, 7))
    volume = Volume(data, np.diag([-2.0, 1.5, 5.0, 1.0]))
    for name in NAMES:
        result = add_artefact(volume, name, 5, 1)
        assert np.isfinite(result.data).all()
        assert not np.array_equal(result.data, data)


def test_an_empty_image_stays_empty() -> None:
    volume = Volume(np.zeros((6, 6, 6), dtype=np.float32))
    assert not add_artefact(volume, "ghosting", 3, 1).data.any()


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_alias_is_the_same_artefact(alias: str, name: str, healthy: SimulatedSubject) -> None:
    one = add_artefact(healthy.image, alias, 3, 1)
    two = add_artefact(healthy.image, name, 3, 1)
    np.testing.assert_array_equal(one.data, two.data)
    assert not np.array_equal(one.data, healthy.image.data)


def test_unknown_name_and_severity_are_refused(healthy: SimulatedSubject) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'ring'"):
        add_artefact(healthy.image, "rings", 3, 1)
    with pytest.raises(SettingsError, match="between 1 and 5"):
        sample_artefact("ring", 9, np.random.default_rng(0))


def test_the_draw_does_not_depend_on_severity() -> None:
    weak, strong = (sample_artefact("ring", s, np.random.default_rng(4)) for s in (1, 5))
    assert weak.seed == strong.seed
    assert weak.strength < strong.strength


def test_the_input_is_left_alone(healthy: SimulatedSubject) -> None:
    before = healthy.image.data.copy()
    for name in NAMES:
        parameters = sample_artefact(name, 5, np.random.default_rng(0))
        apply_artefact(healthy.image, healthy.brain, parameters)
    np.testing.assert_array_equal(healthy.image.data, before)
