"""Schedule, decay and moving average against their definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ablation.config import OptimConfig
from ablation.training.moving_average import MovingAverage
from ablation.training.optim import build_optimizer, gradient_norm, learning_rate


def test_the_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    config = OptimConfig(lr=0.1, warmup_epochs=2, lr_min_share=0.01)
    rates = [learning_rate(config, step, 5, 10) for step in range(50)]
    assert rates[:10] == pytest.approx([0.01 * (k + 1) for k in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.001)
    middle = 0.001 + 0.099 * (1 + math.cos(math.pi * 13 / 39)) / 2
    assert rates[23] == pytest.approx(middle)
    assert all(a >= b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_kernels_decay(name: str) -> None:
    """With a gradient of zero a step moves what decays, and nothing else."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.1, weight_decay=0.5))
    before = {key: value.clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {"0.weight"}


def test_the_average_follows_its_recursion_and_carries_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, decay=0.9)
    expected = None
    for n in range(30):
        with torch.no_grad():
            model[0].weight += n
        model(torch.randn(4, 2, generator=torch.Generator().manual_seed(n)))
        average.update_parameters(model)
        keep = min(0.9, (1 + n) / (10 + n))
        current = torch.cat([model[0].weight.detach().flatten(), model[1].running_mean])
        expected = current.clone() if expected is None else expected * keep + current * (1 - keep)
    averaged = torch.cat([average.module[0].weight.detach().flatten(), average.module[1].running_mean])
    torch.testing.assert_close(averaged, expected)
    assert int(average.module[1].num_batches_tracked) == 30


def test_one_bad_gradient_makes_the_norm_non_finite_and_a_good_one_is_clipped() -> None:
    model = nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([0.0])
    assert float(gradient_norm(model, 1.0)) == pytest.approx(5.0)
    assert float(model.weight.grad.norm()) == pytest.approx(1.0, rel=1e-4)
    model.bias.grad = torch.tensor([float("nan")])
    assert not torch.isfinite(gradient_norm(model, None))
