"""What happens when detections below a score are dropped: precision, recall, F1, false positives.

All classes are pooled: a threshold is one number for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablation.analyse.detections.matching import Floats, Matches


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
        """F1 at any thresholds; 0 above the best score, where nothing is kept."""
        kept = np.searchsorted(-self.threshold, -thresholds, side="right")
        values: Floats = np.concatenate([[0.0], self.f1])[kept]
        return values

    def false_at_recall(self, recalls: Sequence[float]) -> Floats:
        """Wrong detections per image at the highest threshold that reaches each recall; NaN: none does."""
        at = np.searchsorted(self.recall, np.asarray(recalls), side="left")
        values = np.append(self.false_per_image, np.nan)
        found: Floats = values[np.minimum(at, len(values) - 1)]
        return found


@dataclass(frozen=True)
class Best:
    """The threshold with the highest F1; of several the highest threshold. NaN without detections."""

    threshold: float
    f1: float
    precision: float
    recall: float


def threshold_curve(matches: Matches) -> ThresholdCurve:
    """Sweep the threshold over every score. Ignored objects, and what matched them, count nowhere."""
    counted = matches.counted
    score, right = counted["score"].to_numpy(), counted["matched"].to_numpy()
    # Detections with one score are kept or dropped together.
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, np.int64)
    hits = np.cumsum(right)[last].astype(np.float64)
    kept = (last + 1).astype(np.float64)
    objects = max(len(matches.objects), 1)
    return ThresholdCurve(
        threshold=score[last],
        precision=hits / kept,
        recall=hits / objects,
        f1=2 * hits / (kept + objects),
        false_per_image=(kept - hits) / max(matches.images, 1),
    )


def best_threshold(curve: ThresholdCurve) -> Best:
    """The threshold with the highest F1."""
    if not len(curve.threshold):
        return Best(np.nan, np.nan, np.nan, np.nan)
    at = int(curve.f1.argmax())
    columns = (curve.threshold, curve.f1, curve.precision, curve.recall)
    return Best(*(float(column[at]) for column in columns))
