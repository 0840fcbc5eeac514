"""The verdict of one planned comparison: two finalists on fresh seeds, on images that had no say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablation.analyse.detections.average_precision import (
    ApMatches,
    ap_matches,
    average_precision,
    part_of,
    resamples,
)
from ablation.analyse.statistics.intervals import RESAMPLES, ImagePart, image_part
from ablation.analyse.statistics.paired import Comparison, DecisionContext, compare, decide
from ablation.analyse.verdict.sentence import of_comparison

Kept = tuple[dict[str, Any], Sequence[dict[str, Any]]]
"""COCO's ground truth and results of one run."""


@dataclass(frozen=True)
class Confirmation:
    """What fresh seeds say about a choice.

    Attributes:
        sentence: the verdict with its number, and what became of the difference seen before.
        comparison: its numbers; p_holm is p_t, for one planned comparison needs no allowance.
        before: the difference when the choice was made; NaN where it is not known.
        shrunk: before - now: what the choice had added, and luck.
    """

    sentence: str
    comparison: Comparison
    before: float
    shrunk: float


def confirm_verdict(
    focal: pd.Series,
    bce: pd.Series,
    *,
    names: tuple[str, str],
    settings: tuple[str, str],
    metric: str,
    margin: float | None,
    level: float = 0.95,
    before: float = math.nan,
    diverged: tuple[int, int] = (0, 0),
    planned: int | None = None,
    kept: Mapping[int, tuple[Kept, Kept]] | None = None,
    generator: np.random.Generator,
) -> Confirmation:
    """Compare the finalists on fresh seeds.

    Args:
        focal, bce: the metric by fresh seed, such as test/AP.
        names, settings: arm and loss for people, of both.
        margin: as declared by the study.
        before: the difference in the study that chose them.
        diverged: fresh seeds in which either diverged.
        planned: fresh seeds of each; None: as many as have a value.
        kept: seed -> what both runs detected (focal, bce); None: the interval covers other seeds only.
        generator: for the resamples of images.
    """
    common = [int(seed) for seed in focal.index if seed in bce.index]
    image = _image_part(metric, common, kept, generator)
    numbers = compare(
        focal, bce, names=(names[0], settings[0], names[1]), level=level, margin=margin, image=image
    )
    count = planned if planned is not None else max(len(focal), len(bce)) + max(diverged)
    comparison = decide(numbers, DecisionContext(margin, level, 1, diverged[0], count, diverged[1]))
    shrunk = before - comparison.difference
    text = "on fresh seeds " + of_comparison(comparison, settings[1], metric, margin)
    if math.isfinite(shrunk):
        text += f"; it was {before:+.3f} when they were chosen"
    return Confirmation(text, comparison, before, shrunk)


def _image_part(
    metric: str,
    seeds: Sequence[int],
    kept: Mapping[int, tuple[Kept, Kept]] | None,
    generator: np.random.Generator,
) -> ImagePart | None:
    part = part_of(metric)
    if kept is None or part is None or not seeds or any(seed not in kept for seed in seeds):
        return None
    runs = [tuple(ap_matches(*one) for one in kept[seed]) for seed in seeds]
    ids = runs[0][0].image_ids
    if len(ids) < 2 or any(one.image_ids != ids for pair in runs for one in pair):
        return None
    weights = resamples(len(ids), RESAMPLES, generator)

    def values(one: ApMatches) -> np.ndarray:
        return average_precision(one, weights, part)

    d = np.stack([values(one) - values(other) for one, other in runs], axis=1)
    return image_part(d, len(ids)) if np.isfinite(d).all(axis=1).sum() > 2 else None
