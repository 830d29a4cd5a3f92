"""The decoder of implicit fields: the published one, and its quick form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atypia.networks.implicit_decoder import (
    FixedDecoder,
    ImplicitDecoder,
    positional_encoding,
)
from tests.oracles.ifl import literal_encoding, literal_forward

SMALL = {"code_length": 12, "width": 64, "depth": 5, "skip": 3, "octaves": 4}


def decoder(**values) -> ImplicitDecoder:
    torch.manual_seed(0)
    made = ImplicitDecoder(7, **{**SMALL, **values}).eval()
    for layer in made.hidden:
        if hasattr(layer, "parametrizations"):
            # Fresh weights have magnitudes equal to their norms: folding would show nothing.
            torch.nn.init.uniform_(layer.parametrizations.weight.original0, 0.5, 2)
    return made


def test_the_reference_has_its_number_of_parameters() -> None:
    reference = ImplicitDecoder(10)
    assert sum(p.numel() for p in reference.parameters()) == 1_847_698
    assert reference.hidden[3].out_features == 196
    assert reference.hidden[4].in_features == 512


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.integers(1, 10))
@settings(max_examples=30, deadline=None)
def test_encoding(point: list[float], octaves: int) -> None:
    place = torch.tensor(point, dtype=torch.float64)
    encoded = positional_encoding(place, octaves)
    torch.testing.assert_close(encoded, literal_encoding(place, octaves))
    assert float(encoded.square().sum()) == pytest.approx(3 * octaves)


@pytest.mark.parametrize("values", [{}, {"skip": 1}, {"skip": 4}, {"depth": 2, "skip": 1}])
def test_it_is_the_literal_network(values: dict) -> None:
    made = decoder(**values).double()
    points = 2 * torch.rand(2, 3, 3, dtype=torch.float64) - 1
    codes = torch.randn(2, 12, dtype=torch.float64)
    found = made(points, codes)
    for subject in range(2):
        for place in range(3):
            expected = literal_forward(made, points[subject, place], codes[subject])
            torch.testing.assert_close(found[subject, place], expected)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("values", [{}, {"skip": 1}, {"skip": 4}, {"depth": 2, "skip": 1}])
def test_folded_and_unfolded_agree(values: dict, normalised: bool) -> None:
    made = decoder(normalised=normalised, **values)
    fixed = FixedDecoder(made)
    points, codes = 2 * torch.rand(3, 50, 3) - 1, torch.randn(3, 12)
    torch.testing.assert_close(fixed(points, codes), made(points, codes), rtol=1e-5, atol=1e-5)
    parts = torch.cat(list(fixed.decode(points[1], codes[1], at_once=7)))
    torch.testing.assert_close(parts, made(points, codes)[1], rtol=1e-5, atol=1e-5)
    weights = torch.randn(3, 50, 7)
    gradients = []
    for answer in (made, fixed):
        leaf = codes.clone().requires_grad_()
        (answer(points, leaf) * weights).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_shapes_that_cannot_be_are_refused() -> None:
    for values in ({"skip": 0}, {"skip": 5}, {"width": 36}):
        with pytest.raises(ValueError, match="skip"):
            ImplicitDecoder(7, **{**SMALL, **values})


def test_training_drops_and_scoring_does_not() -> None:
    made = decoder(dropout=0.5)
    points, codes = torch.rand(1, 20, 3), torch.randn(1, 12)
    torch.testing.assert_close(made(points, codes), made(points, codes))
    made.train()
    assert not torch.equal(made(points, codes), made(points, codes))
