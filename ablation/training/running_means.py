"""The mean of every logged value over an epoch."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningMeans:
    """Sums over the steps so far. They stay on the device and are read once, by `means`."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._taken: Tensor | None = None
        self._steps = 0

    def add(self, values: dict[str, Tensor], taken: Tensor | None = None) -> None:
        """Add one step.

        Args:
            values: () float32 each, the same names at every step.
            taken: () bool; false: the step is not in the means. None: it is.
        """
        stacked = torch.stack([value.detach() for value in values.values()]).double()
        if taken is not None:
            stacked = torch.where(taken, stacked, 0.0)
            self._taken = taken.long() if self._taken is None else self._taken + taken
        self._names = list(values)
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._steps += 1

    def means(self) -> dict[str, float]:
        """The mean of each value over the steps taken, and the share of the others where that was told.

        Where no step was taken there is no mean of anything.
        """
        if self._sums is None:
            return {}
        taken = self._steps if self._taken is None else int(self._taken)
        sums = zip(self._names, self._sums.tolist(), strict=True)
        means = {name: total / taken for name, total in sums} if taken else {}
        return means if self._taken is None else means | {"skipped_steps": 1 - taken / self._steps}
