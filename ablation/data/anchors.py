"""Anchors for the boxes of a data set: how well given ones fit, and k-means for new ones.

Needs neither images nor a network: everything is read from the annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import Split
from ablation.data.letterbox import Letterbox
from ablation.rng import generator

Sizes = NDArray[np.float64]
"""(n, 2) widths and heights in pixels of the network's input."""

_MOST_SIZES = 20_000
_RESTARTS = 8
_ITERATIONS = 100
_BLOCK = 4096


@dataclass(frozen=True)
class AnchorFit:
    """Anchors and how well they fit the train split's boxes.

    Attributes:
        anchors_px: (width, height) in pixels of the input, by ascending area.
        mean_best_iou: mean over boxes of the best shape IoU with an anchor, in [0, 1]; NaN without boxes.
        boxes_per_anchor: for each anchor, the boxes that it fits best.
    """

    anchors_px: list[tuple[float, float]]
    mean_best_iou: float
    boxes_per_anchor: list[int]


def letterboxed_sizes(split: Split, size_px: int) -> Sizes:
    """(n, 2) widths and heights of all boxes that are not ignored, in pixels of the input."""
    parts = [np.zeros((0, 2))]
    for example in split.examples:
        boxes = example.boxes_xyxy_px[~example.ignored].astype(np.float64)
        fitted = Letterbox.fit(example.width_px, example.height_px, size_px)
        parts.append((boxes[:, 2:] - boxes[:, :2]) * (fitted.scale_x, fitted.scale_y))
    return np.concatenate(parts)


def shape_ious(sizes: Sizes, anchors: Sizes) -> NDArray[np.float64]:
    """(n, 2), (k, 2) -> (n, k): IoU of boxes with one common centre."""
    overlap = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    union = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - overlap
    return np.asarray(overlap / np.maximum(union, 1e-12))


def fit_of(sizes: Sizes, anchors: Sizes) -> AnchorFit:
    """How well `anchors` (k, 2) fit `sizes` (n, 2)."""
    best, which = _best(sizes, anchors)
    per_anchor = np.bincount(which, minlength=len(anchors))
    return AnchorFit(
        anchors_px=[(float(width), float(height)) for width, height in anchors],
        mean_best_iou=float(best.mean()) if len(best) else float("nan"),
        boxes_per_anchor=[int(count) for count in per_anchor],
    )


def kmeans_anchors(sizes: Sizes, count: int, *, seed: int = 0, start: Sizes | None = None) -> Sizes:
    """`count` anchors for boxes of these sizes: k-means with the distance 1 - shape IoU.

    The centre of a cluster is the mean size. Because that is not the minimum of this distance, the
    best centres that were met are kept. Starts are drawn as in k-means++ (Arthur and Vassilvitskii,
    2007), with the distance in place of its square root; the best of several starts is taken, and
    never one that fits worse than `start`.

    Args:
        sizes: (n, 2); of more than 20,000 a random part is used. Without any, `start` is returned.
        count: >= 1.
        start: (count, 2), one more start.

    Returns:
        (count, 2), by ascending area.
    """
    if len(sizes) == 0:
        return np.ones((count, 2)) if start is None else np.array(start, np.float64)
    if len(sizes) > _MOST_SIZES:
        sizes = sizes[generator(seed, "kmeans sample").choice(len(sizes), _MOST_SIZES, replace=False)]
    starts = [] if start is None else [np.array(start, np.float64)]
    starts += [_spread(sizes, count, generator(seed, "kmeans", index=index)) for index in range(_RESTARTS)]
    fitted = [_lloyd(sizes, centres) for centres in starts]
    centres = max(fitted, key=lambda result: result[0])[1]
    return np.asarray(centres[np.argsort(centres.prod(axis=1), kind="stable")])


def spread_over_heads(sizes: Sizes, count: int, served: Sequence[int]) -> list[float]:
    """Anchors for boxes of these sizes, as a model's `anchors_px`: k-means, by ascending area.

    As many are fitted as the heads serve; one that no head serves would only take boxes from the
    others, so it repeats the nearest that is. Rounded to a tenth of a pixel, at least 0.1: what is
    printed and pasted is what is used.

    Args:
        sizes: (n, 2) in pixels of the input, n >= 1.
        count: anchors of the model.
        served: which of them the heads serve.

    Returns:
        [width, height, width, height, ...] of `count` anchors.
    """
    places = sorted(served)
    fitted = np.maximum(kmeans_anchors(sizes, len(places)).round(1), 0.1)
    fitted = fitted[np.argsort(fitted.prod(axis=1), kind="stable")]
    nearest = [min(range(len(places)), key=lambda k: abs(places[k] - index)) for index in range(count)]
    return [float(side) for which in nearest for side in fitted[which]]


def _spread(sizes: Sizes, count: int, rng: np.random.Generator) -> Sizes:
    """Starting centres: each drawn with a probability proportional to its distance from the others."""
    centres = [sizes[rng.integers(len(sizes))]]
    distance = np.full(len(sizes), np.inf)
    while len(centres) < count:
        distance = np.minimum(distance, 1 - shape_ious(sizes, centres[-1][None])[:, 0]).clip(0)
        total = distance.sum()
        chance = distance / total if total > 0 else None  # fewer different sizes than centres
        centres.append(sizes[rng.choice(len(sizes), p=chance)])
    return np.array(centres)


def _lloyd(sizes: Sizes, centres: Sizes) -> tuple[float, Sizes]:
    """Mean best IoU and centres, the best that were met on the way."""
    best_fit = (-1.0, centres)
    former: NDArray[np.int64] | None = None
    for _ in range(_ITERATIONS):
        best, which = _best(sizes, centres)
        if best.mean() > best_fit[0]:
            best_fit = (float(best.mean()), centres)
        if former is not None and np.array_equal(which, former):
            break
        former = which
        number = np.bincount(which, minlength=len(centres))[:, None]
        sums = np.stack([np.bincount(which, sizes[:, axis], len(centres)) for axis in (0, 1)], axis=1)
        # A cluster that lost all its boxes keeps its centre.
        centres = np.where(number > 0, sums / np.maximum(number, 1), centres)
    return best_fit


def _best(sizes: Sizes, anchors: Sizes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each size, its best IoU and the anchor that has it (the first of equals)."""
    best, which = [np.zeros(0)], [np.zeros(0, np.int64)]
    for start in range(0, len(sizes), _BLOCK):
        overlap = shape_ious(sizes[start : start + _BLOCK], anchors)
        best.append(overlap.max(axis=1))
        which.append(overlap.argmax(axis=1))
    return np.concatenate(best), np.concatenate(which)
