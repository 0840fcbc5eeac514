"""Batch norm and activation on a CPU in channels_last: against float64, finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablation.model import blocks
from ablation.model.blocks import ConvBNAct
from ablation.model.norm_act import batch_statistics, convolved, norm_act

SLOPES = [None, 0.1]


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64) * 3 + 1
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_of(channels: int) -> nn.BatchNorm2d:
    """With some channels that leave Mish's linear part and some where exp(z) alone would overflow."""
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 60, channels))
        norm.bias.copy_(torch.linspace(-50, 50, channels))
    return norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 32, 208, 208), (2, 8, 5, 3), (1, 16, 1, 1), (3, 1024, 13, 13)])
def test_statistics_are_right_to_a_millionth(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """As far as float32 sums go; torch's own are 1e-4 off at the first of these sizes."""
    x = numbers(*shape, dtype=dtype)
    mean, variance = batch_statistics(x)
    exact = x.double().var((0, 2, 3), unbiased=False)
    assert ((mean - x.double().mean((0, 2, 3))).abs() <= 1e-6 * exact.sqrt() + 1e-6).all()
    assert ((variance - exact).abs() <= 1e-6 * exact).all()


def test_statistics_keep_their_digits_beside_a_large_mean() -> None:
    x = numbers(2, 4, 64, 64) + 1000
    exact = x.double().var((0, 2, 3), unbiased=False)
    assert ((batch_statistics(x)[1] - exact).abs() <= 1e-6 * exact).all()


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.01)]
)
def test_outputs_gradients_and_running_statistics(
    slope: float | None, dtype: torch.dtype, error: float
) -> None:
    x = numbers(4, 24, 60, 60, dtype=dtype).requires_grad_()
    norm, oracle = norm_of(24), norm_of(24).double()
    if dtype == torch.float64:
        norm = norm.double()
    exact = x.detach().double().requires_grad_()
    outer = numbers(4, 24, 60, 60, dtype=dtype)
    y = norm_act(x, norm, slope)
    expected = F.mish(oracle(exact)) if slope is None else F.leaky_relu(oracle(exact), slope)
    y.backward(outer)  # type: ignore[no-untyped-call]
    expected.backward(outer.double())  # type: ignore[no-untyped-call]
    assert y.dtype == dtype and torch.isfinite(y).all()
    pairs = [
        (y, expected),
        (x.grad, exact.grad),
        (norm.weight.grad, oracle.weight.grad),
        (norm.bias.grad, oracle.bias.grad),
    ]
    pairs += [(norm.running_mean, oracle.running_mean), (norm.running_var, oracle.running_var)]
    for ours, theirs in pairs:
        assert ours is not None and theirs is not None
        assert (ours.double() - theirs).abs().max() <= error * theirs.abs().max()
    assert int(norm.num_batches_tracked or 0) == 1


@pytest.mark.parametrize("activation", ["mish", "leaky"])
def test_gradients_of_a_block_by_finite_differences(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(blocks, "norm_act", lambda *given: calls.append(1) or norm_act(*given))
    block = ConvBNAct(2, 3, 3, activation=activation).double()  # type: ignore[arg-type]
    x = numbers(2, 2, 4, 4, dtype=torch.float64).requires_grad_()
    assert block.conv(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(block, (x,)) and calls


def test_few_numbers_are_convolved_in_the_other_format_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 128, 3, padding=1).to(memory_format=torch.channels_last)
    x, y = (numbers(2, 64, 2, 2).requires_grad_() for _ in range(2))
    formats = []
    monkeypatch.setattr(conv, "_conv_forward", lambda inputs, weight, bias: formats.append(
        inputs.is_contiguous()) or F.conv2d(inputs, weight, bias, padding=1))  # fmt: skip
    turned, plain = convolved(conv, x), F.conv2d(y, conv.weight, conv.bias, padding=1)
    assert formats == [True] and turned.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(turned, plain)
    turned.square().sum().backward()  # type: ignore[no-untyped-call]
    gradients = x.grad, conv.weight.grad.clone()  # type: ignore[union-attr]
    conv.zero_grad()
    plain.square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gradients, (y.grad, conv.weight.grad), rtol=1e-4, atol=1e-4)


def test_one_value_per_channel_is_refused_as_torch_refuses_it() -> None:
    for refuse in (lambda x, norm: norm_act(x, norm, 0.1), lambda x, norm: norm(x)):
        with pytest.raises(ValueError, match=r"more than (1|one) value per channel"):
            refuse(numbers(1, 4, 1, 1), norm_of(4))


@pytest.mark.parametrize("slope", SLOPES)
def test_the_gradient_of_some_channels_of_a_concatenation(slope: float | None) -> None:
    """A gradient that is a part of another tensor is read as it lies."""
    outer = numbers(2, 12, 6, 6)
    gradients = []
    for gradient in (outer[:, 4:8], outer[:, 4:8].contiguous()):
        x, norm = numbers(2, 4, 6, 6).requires_grad_(), norm_of(4)
        norm_act(x, norm, slope).backward(gradient)  # type: ignore[no-untyped-call]
        gradients.append(x.grad)
    assert torch.equal(*gradients)  # type: ignore[arg-type]


@pytest.mark.parametrize("z", [-100.0, -30.0, -1.0, 0.0, 1.0, 30.0, 100.0])
def test_mish_far_from_zero(z: float) -> None:
    """Through a batch norm of mean 0 and variance 1 that leaves z as it is: value and derivative of Mish."""
    x = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        norm.weight.fill_(0.0)
        norm.bias.fill_(z)
    y = norm_act(x, norm, None)
    y.sum().backward()  # type: ignore[no-untyped-call]
    exact = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    F.mish(exact).backward()  # type: ignore[no-untyped-call]
    assert norm.bias.grad is not None and exact.grad is not None
    assert y[0].item() == pytest.approx(F.mish(exact).item(), rel=1e-6, abs=1e-30)
    assert norm.bias.grad.item() == pytest.approx(2 * exact.grad.item(), rel=1e-5, abs=1e-6)
