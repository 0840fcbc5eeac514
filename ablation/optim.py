"""Optimizer, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ablation.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """A fused optimizer with weight decay on kernels only.

    Biases and batch norm have one dimension; decaying them pulls the objectness prior away.
    """
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of a step (0-based): a pure function, so a resumed run needs no scheduler state.

    Rises linearly over the warm-up, then falls along half a cosine to lr x lr_min_share.
    """
    warmup = min(round(config.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    total = epochs * steps_per_epoch - warmup
    share = (step - warmup) / max(total - 1, 1)
    low = config.lr * config.lr_min_share
    return low + (config.lr - low) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of parameters AND buffers (batch norm's statistics belong to them).

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that a short training is not
    evaluated on its initial weights.
    """

    @torch.no_grad()
    def update(averages: Any, currents: Any, updates: Any) -> None:
        n = float(updates)
        keep = min(decay, (1 + n) / (10 + n))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, currents, 1 - keep)
        else:
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def gradient_norm(model: nn.Module, limit: float | None) -> Tensor:
    """The norm of the whole gradient before it is clipped to `limit`; non-finite where any part is."""
    return torch.nn.utils.clip_grad_norm_(
        model.parameters(), math.inf if limit is None else limit, foreach=True
    )
