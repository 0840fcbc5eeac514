"""Our optimizers are torch's own, without its compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from ablation.training import eager_optimizers

PROGRAM = """
import sys, torch
from ablation.training.eager_optimizers import {name}
weight = torch.nn.Parameter(torch.ones(3))
optimizer = {name}([weight], lr=0.1, fused=True)
optimizer.zero_grad()
weight.square().sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
step = {{"SGD": 0.2, "AdamW": 0.1 + 0.1 * 0.01}}["{name}"]  # lr x gradient of 2; lr x (1 + weight decay)
assert torch.allclose(weight, torch.full((3,), 1 - step)), weight
sys.exit(" ".join(name for name in sys.modules if name in ("torch._dynamo", "sympy")) or 0)
"""


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_step_leaves_the_compiler_out(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=name)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("AdamW", {"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.1}),
    ],
)
def test_the_weights_and_the_state_are_those_of_torch_to_the_bit(name: str, settings: dict[str, Any]) -> None:
    ends = []
    for module in (torch.optim, eager_optimizers):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = getattr(module, name)(model.parameters(), fused=True, **settings)
        for _ in range(5):
            optimizer.zero_grad(set_to_none=True)
            model(torch.randn(4, 5)).square().sum().backward()
            optimizer.step()
            assert torch.is_grad_enabled()
        states = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
        ends.append([*model.parameters(), *(value for value in states if isinstance(value, torch.Tensor))])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
