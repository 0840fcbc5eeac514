"""What happens when detections below a score are dropped: precision, recall, F1, false positives.

All classes are pooled: a threshold is one number for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablation.analyse.detections.matching import Floats, Matches

GRID: Floats = np.round(np.arange(0.01, 1.0, 0.01), 2)
"""The thresholds that are tried for the best one: a threshold to paste needs no more digits."""


@dataclass(frozen=True)
class ThresholdCurve:
    """One entry per distinct score, falling: what the detections with at least that score amount to.

    Attributes:
        threshold: the score.
        precision, recall, f1: in [0, 1]; F1 = 2 TP / (2 TP + FP + FN).
        false_per_image: wrong detections per image.
    """

    threshold: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    false_per_image: Floats

    def f1_at(self, thresholds: Floats) -> Floats:
        """F1 at any thresholds; 0 above the highest score, where every detection is dropped."""
        passing = np.searchsorted(-self.threshold, -thresholds, side="right")
        values: Floats = np.concatenate([[0.0], self.f1])[passing]
        return values

    def false_at_recall(self, recalls: Sequence[float]) -> Floats:
        """Wrong detections per image at the highest threshold that reaches each recall; NaN: none does."""
        first = np.searchsorted(self.recall, np.asarray(recalls), side="left")
        values: Floats = np.append(self.false_per_image, np.nan)
        return values[np.minimum(first, len(values) - 1)]


@dataclass(frozen=True)
class BestThreshold:
    """The score from which on detections are best taken.

    Attributes:
        score: the threshold of GRID with the highest F1, averaged over the curves.
        f1: that mean F1.
        low, high: the lowest and the highest of the best thresholds of each curve alone.
        curves: how many it rests on.
    """

    score: float
    f1: float
    low: float
    high: float
    curves: int


def threshold_curve(matches: Matches) -> ThresholdCurve:
    """Sweep the threshold over every score. Ignored objects, and what matched them, count nowhere."""
    counted = matches.counted
    score, right = counted["score"].to_numpy(), counted["matched"].to_numpy()
    # Detections with one score pass or fail together.
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, np.int64)
    hits = np.cumsum(right)[last].astype(np.float64)
    passing = (last + 1).astype(np.float64)
    objects = max(len(matches.objects), 1)
    return ThresholdCurve(
        threshold=score[last],
        precision=hits / passing,
        recall=hits / objects,
        f1=2 * hits / (passing + objects),
        false_per_image=(passing - hits) / max(matches.images, 1),
    )


def best_threshold(curves: Sequence[ThresholdCurve]) -> BestThreshold | None:
    """The threshold with the highest mean F1; of equally good ones the middle one.

    Well separated scores leave a range of equally good thresholds, and its middle is the safest.

    Args:
        curves: one for each run. Runs without a single detection say nothing about a threshold and are
            left out; None where no run is left.
    """
    f1 = [curve.f1_at(GRID) for curve in curves if len(curve.threshold)]
    if not f1:
        return None
    mean: Floats = np.mean(f1, axis=0)
    best = _middle_of_highest(mean)
    alone = [float(GRID[_middle_of_highest(values)]) for values in f1]
    return BestThreshold(float(GRID[best]), float(mean[best]), min(alone), max(alone), len(f1))


def _middle_of_highest(f1: Floats) -> int:
    ties = np.flatnonzero(f1 == f1.max())
    return int(ties[(len(ties) - 1) // 2])
