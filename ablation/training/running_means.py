"""The mean of every logged value over an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class RunningMeans:
    """Sums over the steps so far. They stay on the device and are read once, by `means`."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one step."""
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def means(self) -> dict[str, float]:
        """The mean of each value over the steps."""
        return {name: float(value) / self.count for name, value in self.sums.items()}
