"""Which arm of a study the others are compared with: one rule for the report and for the forecast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ablation.analyse.tables.settings import BASELINE_LOSS


@dataclass(frozen=True)
class RunSetting:
    """What decides whether a run's arm is the baseline.

    Attributes:
        arm, loss: names.
        pos_weight: BCE's weight of positives; None: it has none.
        gain: factor of the confidence term.
    """

    arm: str
    loss: str
    pos_weight: float | None
    gain: float

    @property
    def is_plain_bce(self) -> bool:
        """BCE whose positives and negatives weigh the same."""
        return self.loss == BASELINE_LOSS and self.pos_weight in (None, 1)


def baseline_of(runs: Iterable[RunSetting]) -> str | None:
    """The baseline: loss bce, pos_weight 1 or null.

    Where several arms are that, those with the gain that most runs of other losses have (of equally
    frequent gains the smallest); among them the arm named exactly 'bce', else the first by name.

    Returns:
        None where the study has no plain BCE.
    """
    runs = list(runs)
    plain = [run for run in runs if run.is_plain_bce]
    if not plain:
        return None
    others = [run for run in runs if run.loss != BASELINE_LOSS] or plain
    frequency = Counter(run.gain for run in others)
    usual = min(frequency, key=lambda gain: (-frequency[gain], gain))
    names = {run.arm for run in plain if run.gain == usual} or {run.arm for run in plain}
    return BASELINE_LOSS if BASELINE_LOSS in names else min(names)
