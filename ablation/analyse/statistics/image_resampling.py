"""AP of every run on the same resampled images, from the runs' stored detections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablation.analyse.detections.average_precision import (
    ApMatches,
    Part,
    ap_matches,
    average_precision,
    part_of,
    resamples,
)
from ablation.analyse.detections.voc import voc_matches
from ablation.analyse.statistics.intervals import RESAMPLES, ImagePart, image_part
from ablation.errors import AblationError

MOST_RUNS = 150
"""Matching a run's detections takes up to half a second; beyond this only some arms get an image part."""
TOLERANCE = 1e-6
"""By how much AP computed from the stored detections may differ from the logged value."""


class DetectionSource(Protocol):
    """The stored detections of each run's last evaluation."""

    def ground_truth(self, run_id: str) -> dict[str, Any] | None:
        """COCO's dictionary, None where none is stored."""

    def detections(self, run_id: str) -> Sequence[dict[str, Any]] | None:
        """COCO's results, None where none are stored."""


@dataclass(frozen=True)
class ImageLevel:
    """AP of runs on resampled images.

    Attributes:
        images: how many there are; 0 where nothing could be resampled.
        resampled: run_id -> (resamples,) AP; every run on the same resamples.
        missing: run_id -> why that run has none.
    """

    images: int = 0
    resampled: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def part(self, arm: Iterable[str], baseline: Iterable[str]) -> ImagePart | None:
        """The images' part of the difference of two lists of runs, paired in order; None without."""
        pairs = list(zip(arm, baseline, strict=True))
        if not pairs or any(run not in self.resampled for pair in pairs for run in pair):
            return None
        d = np.stack([self.resampled[a] - self.resampled[b] for a, b in pairs], axis=1)
        return image_part(d, self.images) if np.isfinite(d).all(axis=1).sum() > 2 else None


def image_level(
    runs: pd.DataFrame,
    metric: str,
    detections: DetectionSource | None,
    generator: np.random.Generator,
    count: int = RESAMPLES,
) -> ImageLevel:
    """Resample the images of a study once, and compute every run's AP on each resample.

    A run is left out, with the reason, where it has no stored detections, where they belong to other
    images or objects than those of the other runs, or where they do not give the logged value.

    Args:
        runs: rows with run_id and the metric; see table.runs_table.
        metric: of the val or test split; one that average_precision.part_of does not know has no image
            part.
        detections: on the split of the metric; None: no run has any.
        count: number of resamples.
    """
    part = part_of(metric)
    if detections is None or part is None or not metric.startswith(("val/", "test/")):
        return ImageLevel()
    resampled: dict[str, NDArray[np.float64]] = {}
    missing: dict[str, str] = {}
    weights: NDArray[np.int64] | None = None
    first: ApMatches | None = None
    for run_id, logged in zip(runs["run_id"], runs[metric].astype(float), strict=True):
        matches = _matches(detections, run_id, part, logged)
        if isinstance(matches, str):
            missing[run_id] = matches
            continue
        if first is None or weights is None:
            if len(matches.image_ids) < 2:
                missing[run_id] = "one image has no spread"
                continue
            first, images = matches, len(matches.image_ids)
            # The first row is the set itself: each image once.
            weights = np.vstack([np.ones((1, images), np.int64), resamples(images, count, generator)])
        elif not _same_truth(first, matches):
            missing[run_id] = "its ground truth is not that of the other runs"
            continue
        values = average_precision(matches, weights, part)
        if not abs(values[0] - logged) <= TOLERANCE:
            missing[run_id] = f"its detections give {metric} {values[0]:.6f}, not the logged {logged:.6f}"
            continue
        resampled[run_id] = values[1:]
    return ImageLevel(0 if first is None else len(first.image_ids), resampled, missing)


def _matches(detections: DetectionSource, run_id: str, part: Part, logged: float) -> ApMatches | str:
    """The matches of a run, or the reason why there are none.

    Of the two conventions of Pascal VOC's boxes (train.voc_inclusive, which the record of a run made
    elsewhere lacks) it is the one that gives the logged value.
    """
    try:
        truth, results = detections.ground_truth(run_id), detections.detections(run_id)
        if truth is None or results is None:
            return "its detections are not stored"
        if not part.voc:
            return ap_matches(truth, results)
        matches = voc_matches(truth, results)
        once = np.ones(len(matches.image_ids))
        agrees = abs(average_precision(matches, once, part)[0] - logged) <= TOLERANCE
        return matches if agrees else voc_matches(truth, results, inclusive=False)
    except (AblationError, KeyError, TypeError, ValueError) as error:
        return f"its detections cannot be read ({type(error).__name__}: {error})"


def _same_truth(first: ApMatches, second: ApMatches) -> bool:
    if first.image_ids != second.image_ids or len(first.classes) != len(second.classes):
        return False
    pairs = zip(first.classes, second.classes, strict=True)
    return all(a.name == b.name and np.array_equal(a.truths, b.truths) for a, b in pairs)
