"""What a whole study is configured by, and no single run: none of it is part of a run's key."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from ablation.errors import require


@dataclass
class AnalysisConfig:
    """What a study declares about its analysis before it runs; the plan keeps it with its time.

    Attributes:
        metric: what arms are compared by, at the last epoch.
        margin: the smallest difference of the metric that matters to the user, in the metric's own
            units: 0.01 is one point of AP. Arms whose difference lies within it are equivalent.
        level: of every interval.
        family: losses whose arms are tested together; null: every arm that is no BCE.
    """

    metric: str = "val/AP"
    margin: float = 0.01
    level: float = 0.95
    family: list[str] | None = None

    def __post_init__(self) -> None:
        require("/" in self.metric, "metric", self.metric, "the name of a logged metric, such as val/AP")
        require(self.margin > 0, "margin", self.margin, "> 0")
        require(0 < self.level < 1, "level", self.level, "in (0, 1)")


@dataclass
class HalvingConfig:
    """Early stopping of hopeless arms (successive halving), for exploration only: no verdict after it.

    Attributes:
        enabled: off by default.
        rungs: rising numbers of epochs at which arms are ranked by the mean of `analysis.metric` over
            their seeds; train.eval_every must divide each.
        keep_one_in: 2 or 3: of the arms that stand, the best half or third go on, rounded up; BCE arms
            always do.
    """

    enabled: bool = False
    rungs: list[int] = field(default_factory=list)
    keep_one_in: int = 2

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise([0, *self.rungs]))
        require(rising, "rungs", self.rungs, "rising numbers of epochs, such as [10,20]")
        require(not self.enabled or bool(self.rungs), "rungs", self.rungs,
                "at least one number of epochs while halving.enabled is true")  # fmt: skip
        require(self.keep_one_in in (2, 3), "keep_one_in", self.keep_one_in, "2 or 3")
