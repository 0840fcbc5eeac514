"""The moving average of a network's weights, which is evaluated instead of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Pairs = tuple[list[Tensor], list[Tensor]]
"""Tensors of the average, and those of the network in the same order."""


class MovingAverage(AveragedModel):
    """Exponential moving average of parameters AND buffers (batch norm's statistics belong to them).

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that a short training is not
    evaluated on its initial weights. The first update copies. Integers (batch norm's counter) are copied.

    Nothing is asked of the device: n is counted on the host as well.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self._updates: int | None = 0

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As of any module; n is that of the state."""
        self._updates = None
        return super().load_state_dict(state_dict, *args, **kwargs)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, taken: Tensor | None = None) -> None:
        """One update, after a step of the optimizer.

        Args:
            model: the network that is averaged.
            taken: () bool on the device; where it is false the step was left out, and batch norm's
                statistics of that step stay out too. None: it was taken.
        """
        n = int(self.n_averaged) if self._updates is None else self._updates
        weight = 1.0 if n == 0 else 1 - min(self.decay, (1 + n) / (10 + n))
        _move(list(self.module.parameters()), list(model.parameters()), weight)
        statistics, integers = _buffers(self.module, model)
        if taken is not None and statistics[0]:
            statistics = statistics[0], _where(taken, statistics)
        _move(*statistics, weight)
        if integers[0]:
            torch._foreach_copy_(*integers)
        self._updates = n + 1
        self.n_averaged += 1


def _buffers(average: nn.Module, model: nn.Module) -> tuple[Pairs, Pairs]:
    """Those of floats and those of integers."""
    floats: Pairs = [], []
    integers: Pairs = [], []
    for mean, current in zip(average.buffers(), model.buffers(), strict=True):
        pairs = floats if torch.is_floating_point(mean) else integers
        pairs[0].append(mean)
        pairs[1].append(current)
    return floats, integers


def _move(averages: list[Tensor], currents: list[Tensor], weight: float) -> None:
    """a + weight (c - a)."""
    if not averages:
        return
    if weight == 1.0:
        torch._foreach_copy_(averages, currents)
    else:
        torch._foreach_lerp_(averages, currents, weight)


def _where(taken: Tensor, pairs: Pairs) -> list[Tensor]:
    """The network's tensors, or the average's own where the step was not taken; a NaN would survive x 0."""
    averages, currents = (torch.cat([tensor.flatten() for tensor in part]) for part in pairs)
    chosen = torch.split(torch.where(taken, currents, averages), [tensor.numel() for tensor in pairs[0]])
    return [part.view_as(tensor) for part, tensor in zip(chosen, pairs[0], strict=True)]
