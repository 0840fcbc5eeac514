"""Batch norm and activation on a CPU for tensors in channels_last: exact statistics, few passes over memory.

torch's own batch norm sums the squares of a channel in plain float32 in this format, 1e-4 off for 4 images of
416 px, and its Mish takes three exponentials. Both are written here with tensor operations on pieces that
stay in the cache.

The backward pass is torch's, whose sums over a channel stay in plain float32: gradients of weight and bias
are 1e-5 off for 4 images of 416 px and 1e-4 for 16, against 1e-6 of torch in the other format.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PIECE = 131_072
"""Numbers in a piece: 512 KiB of float32, half of a core's second-level cache."""


def norm_act(x: Tensor, norm: nn.BatchNorm2d, slope: float | None) -> Tensor:
    """act(norm(x)) in train mode, and the update of norm's running statistics.

    Args:
        x: (B, C, H, W) in channels_last on a CPU.
        slope: of LeakyReLU; None: Mish.
    """
    mean, variance = batch_statistics(x)
    _update_running(norm, mean, variance, x.numel() // x.shape[1])
    output: Tensor
    if slope is None:
        output = _NormMish.apply(x, norm.weight, norm.bias, mean, variance, norm.eps)  # type: ignore[no-untyped-call]
    else:
        output = _NormLeaky.apply(  # type: ignore[no-untyped-call]
            x, norm.weight, norm.bias, mean, variance, norm.eps, slope
        )
    return output


def takes(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Whether `norm_act` is to be used: train mode, on a CPU, in channels_last."""
    return norm.training and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(x) in the memory format of x.

    On a CPU kernels and their gradients are turned to the format of x. Where there are many more weights than
    numbers in x, turning x and the output costs less.
    """
    # Training first: an export traces with a batch of any size, which must not be compared.
    turn = conv.training and x.device.type == "cpu" and 4 * x.numel() < conv.weight.numel()
    if turn and x.is_contiguous(memory_format=torch.channels_last):
        return conv(x.contiguous()).contiguous(memory_format=torch.channels_last)  # type: ignore[no-any-return]
    return conv(x)  # type: ignore[no-any-return]


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) in channels_last, or some channels of such a tensor, -> (B H W, C), the same memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What numbers of that type are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _length(rows: Tensor) -> int:
    """Rows of a piece."""
    return max(1, min(rows.shape[0], PIECE // rows.shape[1]))


@torch.no_grad()
def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) mean and biased variance of each channel, right to about 1e-7 of the variance.

    Each piece's mean m_i and sum of squared distances from it are taken in float32, and combined in float64:

        mean = sum n_i m_i / n,   variance = (sum M_i + sum n_i (m_i - mean)^2) / n
    """
    rows = _rows(x)
    length, wide = _length(rows), _wide(x.dtype)
    buffer = torch.empty(length, rows.shape[1], dtype=wide)
    sums, squares, counts = [], [], []
    for piece in torch.split(rows, length):
        numbers = buffer[: len(piece)].copy_(piece)
        total = numbers.sum(0)
        sums.append(total)
        counts.append(len(piece))
        numbers.sub_(total / len(piece))
        numbers.mul_(numbers)
        squares.append(numbers.sum(0))
    if len(sums) == 1:
        return sums[0] / counts[0], squares[0] / counts[0]
    count = torch.tensor(counts, dtype=torch.float64)[:, None]
    total64 = torch.stack(sums).double()
    mean = total64.sum(0) / len(rows)
    between = (count * (total64 / count - mean).square_()).sum(0)
    variance = (torch.stack(squares).double().sum(0) + between) / len(rows)
    return mean.to(wide), variance.to(wide)


@torch.no_grad()
def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """As torch's batch norm does: with the unbiased variance, by norm.momentum."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    assert norm.num_batches_tracked is not None
    if count == 1:  # as torch's batch norm
        raise ValueError("batch norm needs more than one value per channel: a larger batch or larger images")
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    unbiased = variance * (count / (count - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> Any:
    """Batch norm's gradients with respect to x, weight and bias."""
    inverse = (variance + eps).rsqrt()
    return torch.ops.aten.native_batch_norm_backward(
        gradient, x, weight, None, None, mean, inverse, True, eps, [True, True, True]
    )


class _NormLeaky(torch.autograd.Function):
    """LeakyReLU(norm(x)), of which only x and the output are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        slope: float,
    ) -> Tensor:
        output = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        F.leaky_relu_(output, slope)
        ctx.save_for_backward(x, weight, mean, variance, output)
        ctx.eps, ctx.slope = eps, slope
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, mean, variance, output = ctx.saved_tensors
        inner = torch.empty_like(output)
        torch.ops.aten.leaky_relu_backward.grad_input(gradient, output, ctx.slope, True, grad_input=inner)
        return (*_gradients(inner, x, weight, mean, variance, ctx.eps), None, None, None, None)


class _NormMish(torch.autograd.Function):
    """Mish(norm(x)), of which only x is kept.

    With p = sigmoid(z) and h = p - p^2 / 2, tanh(softplus(z)) is h / (1 - h): one exponential, which cannot
    overflow, and no digits lost where z is very negative.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        scale = weight.to(mean.dtype) * (variance + eps).rsqrt()
        shift = torch.addcmul(bias.to(mean.dtype), mean, scale, value=-1)
        output = torch.empty_like(x, memory_format=torch.channels_last)
        rows, results = _rows(x), _rows(output)
        length = _length(rows)
        buffers = torch.empty(2, length, rows.shape[1], dtype=mean.dtype)
        for piece, result in zip(torch.split(rows, length), torch.split(results, length), strict=True):
            z, h = buffers[0, : len(piece)], buffers[1, : len(piece)]
            z.copy_(piece)
            torch.addcmul(shift, z, scale, out=z)
            torch.sigmoid(z, out=h)
            h.addcmul_(h, h, value=-0.5)
            z.mul_(h)
            result.copy_(z.div_(h.neg_().add_(1)))
        ctx.save_for_backward(x, weight, mean, variance, scale, shift)
        ctx.eps = eps
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """With s = sigmoid(-z) and t = s^2, Mish' is 2 u - 1 + 4 z (1 - s) t u^2, where u = 1 / (1 + t)."""
        x, weight, mean, variance, scale, shift = ctx.saved_tensors
        inner = torch.empty_like(x)
        minus_scale, minus_shift = -scale, -shift
        length = _length(_rows(x))
        buffers = torch.empty(4, length, x.shape[1], dtype=mean.dtype)
        pieces = (torch.split(_rows(tensor), length) for tensor in (x, gradient, inner))
        for piece, outer, result in zip(*pieces, strict=True):
            z, s, t, u = buffers[:, : len(piece)]
            z.copy_(piece)
            torch.addcmul(minus_shift, z, minus_scale, out=z)  # -z
            torch.sigmoid(z, out=s)
            torch.mul(s, s, out=t)
            torch.add(t, 1, out=u)
            u.reciprocal_()
            z.mul_(s.sub_(1))  # z (1 - s)
            z.mul_(t.mul_(u)).mul_(u)
            u.add_(z, alpha=2)
            s.copy_(outer)
            t.copy_(s).neg_()
            result.copy_(t.addcmul_(s, u, value=2))
        return (*_gradients(inner, x, weight, mean, variance, ctx.eps), None, None, None)
