"""What the intervals of a study cover: other seeds, or other seeds and other images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablation.analyse.statistics.image_resampling import MOST_RUNS, ImageLevel
from ablation.analyse.statistics.paired import Comparison
from ablation.errors import counted


def coverage(comparisons: Sequence[Comparison]) -> str:
    """What the differences' intervals cover, for people: 'other seeds and other images'."""
    compared, without_images = _compared(comparisons)
    if not compared or len(without_images) == len(compared):
        return "other seeds"
    return "other seeds, and in some arms other images" if without_images else "other seeds and other images"


def coverage_limit(comparisons: Sequence[Comparison], images: ImageLevel, valid_runs: int) -> list[str]:
    """Which intervals do not cover other images, and why; empty where all do."""
    compared, without_images = _compared(comparisons)
    if not without_images:
        return []
    reason = next(iter(images.missing.values()), "there are no detections to resample")
    if len(without_images) == len(compared):
        return [f"Intervals cover other seeds, but not other images of the same kind: {reason}."]
    if valid_runs > MOST_RUNS:
        reason = f"in a study of more than {MOST_RUNS} runs only the best arms' images are resampled"
    arms = counted(len(without_images), "arm")
    return [f"The intervals of {arms} cover other seeds, but not other images: {reason}."]


def _compared(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """The comparisons that have an interval, and those of them whose interval covers seeds only."""
    compared = [comparison for comparison in comparisons if comparison.n_pairs > 1]
    return compared, [comparison for comparison in compared if not math.isfinite(comparison.image_se)]
