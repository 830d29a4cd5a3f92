"""Layers that give the standard ones' answers in less time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_SLOPE = 1e-3
"""Nearer to 0 or to 1 than this a PReLU's gradient is computed in the plain way."""


class Convolution(nn.Conv3d):
    """A 3D convolution that does not fall into torch's slow path for one small scan on a CPU.

    torch leaves oneDNN for a plain loop when a batch holds one sample of fewer than about half a
    million values, which measured 10 to 18 times slower. Without gradients oneDNN is called by
    name; in training use two scans a step.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, X', Y', Z')`."""
        if torch.is_grad_enabled() or x.shape[0] > 1 or not onednn_by_name(x):
            return super().forward(x)
        padding: Any = self.padding
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
        )


class FewOutputsConvolution(Convolution):
    """A 3x3x3 convolution with padding 1 whose training is cheap for one or two outputs on a CPU.

    oneDNN computes sixteen output channels at a time, whether they are wanted or not. Here the 27
    taps are the rows of one matrix product, in the forward and in the backward pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, X, Y, Z)`."""
        if self.out_channels > 2 or not torch.is_grad_enabled() or not onednn_by_name(x):
            return super().forward(x)
        assert self.bias is not None
        out: Tensor = _FewOutputs.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return out


class _FewOutputs(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(x, weight)
        outputs, channels = weight.shape[:2]
        taps = weight.permute(0, 2, 3, 4, 1).reshape(-1, channels)
        answer = x.new_zeros((len(x), outputs, *x.shape[2:]))
        for one, out in zip(x, answer, strict=True):
            planes = (taps @ _columns(one)).reshape(outputs, 27, *x.shape[2:])
            for place, (there, here) in enumerate(_shifts()):
                out[(slice(None), *here)] += planes[(slice(None), place, *there)]
        return answer + bias[:, None, None, None]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        x, weight = context.saved_tensors
        outputs, channels = weight.shape[:2]
        taps = weight.permute(0, 2, 3, 4, 1).reshape(-1, channels)
        by_x, by_taps = torch.empty_like(x), torch.zeros_like(taps)
        planes = gradient.new_zeros((outputs, 27, *x.shape[2:]))
        for one, out, into in zip(x, gradient, by_x, strict=True):
            for place, (there, here) in enumerate(_shifts()):
                planes[(slice(None), place, *there)] = out[(slice(None), *here)]
            rows = planes.reshape(outputs * 27, -1)
            by_taps += rows @ _columns(one).T
            flat = into.permute(1, 2, 3, 0)
            if flat.is_contiguous():
                torch.mm(rows.T, taps, out=flat.view(-1, channels))
            else:
                flat.copy_((rows.T @ taps).view_as(flat))
        by_weight = by_taps.reshape(outputs, 3, 3, 3, channels).permute(0, 4, 1, 2, 3)
        return by_x, by_weight, gradient.sum((0, 2, 3, 4))


def _columns(one: Tensor) -> Tensor:
    """Lay `(C, X, Y, Z)` out as `(C, X Y Z)`; with channels last nothing is copied."""
    return one.permute(1, 2, 3, 0).reshape(-1, len(one)).T


def _shifts() -> list[tuple[Any, Any]]:
    """Give for each of the 27 taps where it reads, and where its answer goes."""
    reads = (slice(None, -1), slice(None), slice(1, None))
    return [
        (
            [reads[place // 9], reads[place // 3 % 3], reads[place % 3]],
            [reads[2 - place // 9], reads[2 - place // 3 % 3], reads[2 - place % 3]],
        )
        for place in range(27)
    ]


def onednn_by_name(x: Tensor) -> bool:
    """Tell whether oneDNN's convolution may be called by name: autocast does not reach it there."""
    plain = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and plain and torch.backends.mkldnn.is_available()


class DoublingConvolution(nn.Conv3d):
    """Nearest-neighbour doubling, then a 3x3x3 convolution, as one transposed convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, X, Y, Z)` to `(B, C_out, 2X, 2Y, 2Z)`."""
        if not worth_one_kernel(x):
            return super().forward(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return functional.conv_transpose3d(
            x, doubling_kernel(self.weight), self.bias, stride=2, padding=1
        )


def worth_one_kernel(x: Tensor) -> bool:
    """Tell whether a transposed convolution pays: on few voxels its larger kernel costs more."""
    return x[0, 0].numel() >= 400


class Dropout(nn.Module):
    """Set values to zero by chance, with an eighth of the random numbers.

    In training it changes its input, which must be the result of a layer that does not look at it
    again, such as a normalisation: writing a large new map costs more than the arithmetic.

    Parameters
    ----------
    probability
        Rounded to a 256th, because the chance of each value comes from one random byte.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.kept = 256 - round(256 * probability)

    def forward(self, x: Tensor) -> Tensor:
        """Drop and scale in training, pass on otherwise."""
        if not self.training or self.kept == 256:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, 1 - self.kept / 256)
        words = torch.empty(x.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[: x.numel()] < self.kept
        # In the memory order of the features, so that nothing is rearranged.
        factor = torch.empty_like(x, requires_grad=False)
        factor.as_strided((x.numel(),), (1,)).copy_(keep).mul_(256 / self.kept)
        return x * factor if x.is_leaf else x.mul_(factor)


class PReLU(nn.PReLU):
    """PReLU with one slope; its gradient by the slope is one sum instead of a map.

    With gradients it changes its input, as `Dropout` does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Keep what is positive and multiply the rest by the slope."""
        out: Tensor = _PReLU.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return out


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, slope: Tensor) -> Tensor:
        # Only with a positive slope does the result tell on which side the input was.
        context.inside = float(slope) > LEAST_SLOPE and not x.is_leaf
        if context.inside:
            context.mark_dirty(x)
            answer = functional.leaky_relu_(x, float(slope))
        else:
            answer = functional.leaky_relu(x, float(slope))
        context.save_for_backward(answer if context.inside else x, slope)
        return answer

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        kept, slope = context.saved_tensors
        by_x = torch.ops.aten.leaky_relu_backward(gradient, kept, float(slope), context.inside)
        if abs(1 - float(slope)) < LEAST_SLOPE:
            by_slope = (gradient * kept.clamp(max=0)).sum()
        else:
            # The gradient where x is negative, without another map: both differ only there.
            by_slope = (_dot(gradient, kept) - _dot(by_x, kept)) / (1 - float(slope))
        if context.inside:
            by_slope = by_slope / slope
        return by_x, by_slope.reshape(slope.shape)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Sum the products of two maps, in the order of memory, so that nothing is written."""
    order = sorted(range(first.ndim), key=first.stride, reverse=True)
    flat = [x.permute(order).reshape(-1) for x in (first, second)]
    return torch.dot(*flat)


def doubling_kernel(weight: Tensor) -> Tensor:
    """Give the 4x4x4 kernel that stands for doubling and then a 3x3x3 kernel.

    Parameters
    ----------
    weight
        `(C_out, C_in, 3, 3, 3)` of the convolution.

    Returns
    -------
    torch.Tensor
        `(C_in, C_out, 4, 4, 4)` of the transposed convolution with stride 2 and padding 1.
    """
    taps = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return torch.einsum("oixyz,ax,by,cz->ioabc", weight, taps, taps, taps)


def few_outputs(x: Tensor, convolution: nn.Conv3d) -> Tensor:
    """Give a 3x3x3 convolution's answer without padding, fast where it has one or two outputs.

    oneDNN computes sixteen output channels at a time, whether they are wanted or not. Here the 27
    taps are the rows of one matrix product, and are added up where they belong. For inference:
    it has no gradient.

    Parameters
    ----------
    x
        `(B, C, X, Y, Z)`.
    convolution
        Its padding is left out.

    Returns
    -------
    torch.Tensor
        `(B, outputs, X - 2, Y - 2, Z - 2)`.
    """
    if x.device.type != "cpu" or convolution.out_channels > 2:
        return functional.conv3d(x, convolution.weight, convolution.bias)
    batch, channels, *shape = x.shape
    inner = [size - 2 for size in shape]
    answer = x.new_zeros((batch, convolution.out_channels, *inner))
    taps = convolution.weight.permute(0, 2, 3, 4, 1).reshape(-1, channels)
    for one, out in zip(x, answer, strict=True):
        columns = one.permute(1, 2, 3, 0).reshape(-1, channels).T
        planes = (taps @ columns).reshape(convolution.out_channels, 27, *shape)
        for place in range(27):
            first = (place // 9, place // 3 % 3, place % 3)
            moved = tuple(slice(f, f + size) for f, size in zip(first, inner, strict=True))
            out += planes[:, place, *moved]
    if convolution.bias is not None:
        answer += convolution.bias[:, None, None, None]
    return answer


def halved(x: Tensor) -> Tensor:
    """Average windows of 3x3x3 voxels with stride 2 and zeros round the image, axis by axis.

    The same as torch's average pooling with padding 1, which is slow for channels-last memory.

    Parameters
    ----------
    x
        `(B, C, X, Y, Z)`, even sizes.
    """
    for axis in (2, 3, 4):
        length = x.shape[axis] // 2
        even, odd = (x.unflatten(axis, (length, 2)).select(axis + 1, i) for i in (0, 1))
        summed = even + odd
        summed.narrow(axis, 1, length - 1).add_(odd.narrow(axis, 0, length - 1))
        x = summed
    return x / 27


def padded(x: Tensor, multiple: int) -> Tensor:
    """Append zeros to `(B, C, *size)` up to the next multiple along every axis of `size`."""
    widths = [width for size in reversed(x.shape[2:]) for width in (0, -size % multiple)]
    return functional.pad(x, widths)
