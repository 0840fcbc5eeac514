"""Optimizer, learning-rate schedule and the norm of the gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ablation.config import OptimConfig
from ablation.training.eager_optimizers import SGD, AdamW


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
        return AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    nesterov = config.nesterov and config.momentum > 0
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)


def scaled_to_batch(config: OptimConfig, batch_size: int) -> OptimConfig:
    """The same settings with the peak rate for this batch: lr x batch_size / reference_batch, clipped.

    Without a reference_batch they are returned as they are.
    """
    if config.reference_batch is None:
        return config
    rate = config.lr * batch_size / config.reference_batch
    low = 0.0 if config.lr_low is None else config.lr_low
    high = math.inf if config.lr_high is None else config.lr_high
    return replace(config, lr=min(max(rate, low), high))


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of a step (0-based): a pure function, so a resumed run needs no scheduler state.

    With n = step + 1 and a warm-up of W steps:

        n <= W:  start + (lr - start) (n / W)^warmup_power,   start = lr x warmup_start
        cosine:  low + (lr - low) (1 + cos(pi share)) / 2,    low = lr x lr_min_share
        steps:   lr x factor^k,  k milestones lie at or before step / total

    share rises from 0 at the first step after the warm-up to 1 at the last step before the flat end.
    """
    whole = epochs * steps_per_epoch
    warmup = min(_warmup_steps(config, steps_per_epoch, epochs), whole - 1)
    if step < warmup:
        start, power = config.lr * config.warmup_start, config.warmup_power
        return start + (config.lr - start) * math.pow(step + 1, power) / math.pow(warmup, power)
    if config.schedule == "steps":
        passed = sum(step >= milestone * whole for milestone in config.milestones)
        return config.lr * config.factor**passed
    total = whole - round(config.flat_share * whole) - warmup
    share = min((step - warmup) / max(total - 1, 1), 1.0)
    low = config.lr * config.lr_min_share
    return low + (config.lr - low) * (1 + math.cos(math.pi * share)) / 2


def _warmup_steps(config: OptimConfig, steps_per_epoch: int, epochs: int) -> int:
    if config.warmup_steps is not None:
        return config.warmup_steps
    length = config.warmup_epochs
    if config.warmup_share is not None:
        length = min(length, max(config.warmup_share * epochs, 1.0))
    return round(length * steps_per_epoch)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def gradient_norm(model: nn.Module, limit: float | None) -> Tensor:
    """The norm of the whole gradient before it is clipped to `limit`; non-finite where any part is."""
    return torch.nn.utils.clip_grad_norm_(
        model.parameters(), math.inf if limit is None else limit, foreach=True
    )
