"""Cheaper layers give the standard ones' answers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from atypia.networks.layers import (
    DoublingConvolution,
    Dropout,
    FewOutputsConvolution,
    PReLU,
    doubling_kernel,
    few_outputs,
    worth_one_kernel,
)


@pytest.mark.parametrize("size", [4, 8])
def test_doubling_and_convolving_is_one_transposed_convolution(size: int) -> None:
    torch.manual_seed(0)
    layer = DoublingConvolution(5, 7, 3, padding=1).double()
    x = torch.randn(2, 5, size, size, size + 1, dtype=torch.float64, requires_grad=True)
    assert worth_one_kernel(x) == (size == 8)
    doubled = functional.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = functional.conv3d(doubled, layer.weight, layer.bias, padding=1)
    found = functional.conv_transpose3d(
        x, doubling_kernel(layer.weight), layer.bias, stride=2, padding=1
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer(x), expected)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), (x, layer.weight), retain_graph=True)
    got = torch.autograd.grad((layer(x) * weights).sum(), (x, layer.weight))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
def test_few_outputs_have_the_standard_gradients(outputs: int, memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = FewOutputsConvolution(6, outputs, 3, padding=1)
    x = torch.randn(2, 6, 5, 7, 4).contiguous(memory_format=memory).requires_grad_()
    expected = functional.conv3d(x, layer.weight, layer.bias, padding=1)
    found = layer(x)
    assert "FewOutputs" in type(found.grad_fn).__name__
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(expected)
    parameters = (x, layer.weight, layer.bias)
    wanted = torch.autograd.grad((expected * weights).sum(), parameters)
    got = torch.autograd.grad((found * weights).sum(), parameters)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("slope", [0.25, -0.3, 1.0, 0.0])
@pytest.mark.parametrize("result", [False, True], ids=["of a leaf", "of a result, in place"])
def test_prelu_has_the_standard_gradients(slope: float, result: bool) -> None:
    ours, standard = PReLU().double(), nn.PReLU().double()
    for layer in (ours, standard):
        nn.init.constant_(layer.weight, slope)
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    gradients = []
    for layer in (ours, standard):
        leaf = x.clone().requires_grad_()
        answer = layer(leaf * 1 if result else leaf)
        (answer * torch.arange(answer.numel()).reshape(answer.shape)).sum().backward()
        gradients.append((answer.detach(), leaf.grad, layer.weight.grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
def test_dropout_drops_its_share_and_keeps_the_mean(memory: torch.memory_format) -> None:
    torch.manual_seed(1)
    layer = Dropout(0.2)
    x = torch.ones(2, 16, 20, 20, 21).contiguous(memory_format=memory)
    answer = layer(x)
    share = float((answer == 0).double().mean())
    assert share == pytest.approx(51 / 256, abs=0.005)
    assert float(answer.mean()) == pytest.approx(1, abs=0.01)
    assert answer.unique().tolist() == pytest.approx([0.0, 256 / 205])
    # Neighbouring values are dropped independently of each other.
    dropped = (answer == 0).double()
    both = float((dropped[..., 1:] * dropped[..., :-1]).mean())
    assert both == pytest.approx(share**2, abs=0.005)
    assert torch.equal(layer.eval()(x), x)


def test_dropout_in_place_has_the_gradient_of_what_it_kept() -> None:
    torch.manual_seed(1)
    leaf = torch.rand(2, 3, 8, 8, 8).add(0.1).requires_grad_()
    result = leaf * 1
    answer = Dropout(0.3)(result)
    assert answer.data_ptr() == result.data_ptr()
    answer.sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, answer.detach() / leaf.detach())
    assert float(leaf.grad.max()) == pytest.approx(256 / 179)
    assert float(leaf.grad.min()) == 0


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_convolution_to_few_channels_is_the_same_convolution(outputs: int) -> None:
    torch.manual_seed(2)
    layer = nn.Conv3d(6, outputs, 3, padding=1)
    x = torch.randn(2, 6, 5, 7, 4).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        expected = functional.conv3d(x, layer.weight, layer.bias)
        torch.testing.assert_close(few_outputs(x, layer), expected, rtol=1e-4, atol=1e-5)
