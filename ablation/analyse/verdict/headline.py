"""Best focal loss against best-tuned BCE: the comparison that the study is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ablation.analyse.statistics.image_resampling import ImageLevel
from ablation.analyse.statistics.intervals import ImagePart
from ablation.analyse.statistics.optimism import Optimism, of_choice
from ablation.analyse.statistics.paired import Comparison, DecisionContext, compare, decide
from ablation.analyse.tables.settings import BASELINE_LOSS


@dataclass(frozen=True)
class ArmRuns:
    """The runs of one arm that are data.

    Attributes:
        arm, setting, loss: as in the arms table.
        values: the metric by seed.
        run_ids: the run by seed.
        diverged, planned: seeds in which it diverged, and which it should have.
    """

    arm: str
    setting: str
    loss: str
    values: pd.Series
    run_ids: Mapping[int, str]
    diverged: int
    planned: int


@dataclass(frozen=True)
class Headline:
    """The best arm of another loss against the best arm of BCE, both chosen on validation.

    Attributes:
        focal, bce: the arms; focal is any arm whose loss is not BCE.
        comparison: their paired difference with its verdict; p_holm allows for the choice.
        optimism: how much of the difference is expected to be owed to the choice.
        corrected: the difference less the optimism; NaN where that cannot be given.
        arms: how many were chosen from: (focal, BCE).
        tuned: what was varied in BCE's arms: 'pos_weight', 'gain'; empty: BCE was not tuned.
    """

    focal: str
    bce: str
    bce_setting: str
    comparison: Comparison
    optimism: Optimism
    corrected: float
    arms: tuple[int, int]
    tuned: tuple[str, ...]


def headline(
    arms: list[ArmRuns], level: float, margin: float | None, images: ImageLevel,
    generator: np.random.Generator, tuned: tuple[str, ...], known: Mapping[tuple[str, str], Comparison],
) -> Headline | None:  # fmt: skip
    """Choose the best arm of either side by its mean, and compare them.

    A choice among k arms makes the largest look better than it is: "better" is judged by p times the
    number of focal arms, "worse" by p times the number of BCE arms (Bonferroni); the interval is not
    widened, and the optimism is given beside it. Arms that diverged in some seed are chosen only where
    there is no other.

    Args:
        arms: all arms of the study.
        known: (arm, against) -> verdicts that were already drawn; a comparison has only one.

    Returns:
        None where one side has no run that counts.
    """
    focal = _eligible([one for one in arms if one.loss != BASELINE_LOSS])
    bce = _eligible([one for one in arms if one.loss == BASELINE_LOSS])
    if not focal or not bce:
        return None
    frame = pd.DataFrame({one.arm: one.values for one in [*focal, *bce]})
    common = frame.dropna()
    means = (common if len(common) else frame).mean()
    best, opponent = _best(focal, means), _best(bce, means)
    optimism = of_choice(
        common[[one.arm for one in focal]].to_numpy(float),
        common[[one.arm for one in bce]].to_numpy(float),
        generator,
    )
    comparison = known.get((best.arm, opponent.arm))
    if comparison is None:
        numbers = compare(
            best.values, opponent.values, names=(best.arm, best.setting, opponent.arm), level=level,
            margin=margin, image=image_of(best, opponent, images),
        )  # fmt: skip
        size = len(focal) if numbers.difference > 0 else len(bce)
        numbers = replace(numbers, p_holm=min(numbers.p_t * size, 1.0))  # NaN stays NaN
        about = DecisionContext(margin, level, size, best.diverged, best.planned, opponent.diverged)
        comparison = decide(numbers, about)
    return Headline(
        best.arm, opponent.arm, opponent.setting, comparison, optimism,
        comparison.difference - optimism.value, (len(focal), len(bce)), tuned,
    )  # fmt: skip


def image_of(one: ArmRuns, other: ArmRuns, images: ImageLevel) -> ImagePart | None:
    """The images' part of the difference of two arms over their common seeds; None without."""
    common = [seed for seed in one.values.index if seed in other.values.index]
    return images.part([one.run_ids[seed] for seed in common], [other.run_ids[seed] for seed in common])


def _eligible(arms: list[ArmRuns]) -> list[ArmRuns]:
    there = [one for one in arms if len(one.values)]
    return [one for one in there if not one.diverged] or there


def _best(arms: list[ArmRuns], means: pd.Series) -> ArmRuns:
    # Of equal means the first by name, so that the order of the records does not matter.
    return min(arms, key=lambda one: (-float(means[one.arm]), one.arm))
