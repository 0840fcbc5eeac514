from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ablation.model.blocks import ConvBNAct, SpatialPyramid, scaled_channels, scaled_count, upsample


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(32, 1.0, 32), (1024, 0.25, 256), (32, 0.125, 8), (64, 0.01, 8), (128, 0.33, 40), (100, 1.0, 104)],
)
def test_channels_are_multiples_of_eight(channels: int, width: float, expected: int) -> None:
    assert scaled_channels(channels, width) == expected


@pytest.mark.parametrize(
    ("depth", "expected"), [(1.0, [1, 2, 8, 4]), (0.33, [1, 1, 3, 1]), (2, [2, 4, 16, 8])]
)
def test_block_counts(depth: float, expected: list[int]) -> None:
    assert [scaled_count(count, depth) for count in (1, 2, 8, 4)] == expected


@pytest.mark.parametrize("size", [3, 7, 16])
def test_pyramid_equals_direct_pools_in_darknets_order(size: int) -> None:
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    direct = [F.max_pool2d(x, kernel, 1, kernel // 2) for kernel in (13, 9, 5)]
    assert torch.equal(SpatialPyramid()(x), torch.cat([*direct, x], 1))


def test_upsample_repeats_cells() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert upsample(x)[0, 0].tolist() == expected


@pytest.mark.parametrize(("activation", "at_minus_one"), [("mish", -0.303401), ("leaky", -0.1)])
def test_activation_values(activation: str, at_minus_one: float) -> None:
    block = ConvBNAct(1, 1, 1, activation=activation).eval()  # type: ignore[arg-type]
    torch.nn.init.ones_(block.conv.weight)
    x = torch.full((1, 1, 1, 1), -1.0) * (1 + 1e-5) ** 0.5  # batch norm divides by sqrt(1 + eps)
    assert block(x).item() == pytest.approx(at_minus_one, abs=1e-6)


def test_gradients_of_the_in_place_activation() -> None:
    """LeakyReLU overwrites batch norm's output; the gradient must be the one of finite differences."""
    generator = torch.Generator().manual_seed(0)
    block = ConvBNAct(2, 3, 3, activation="leaky").double()
    x = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
