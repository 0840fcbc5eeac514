"""What is in a data set: counts, faults, box sizes, and how well anchors fit them.

Needs neither images nor a network: everything is read from the annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.data.dataset import DetectionData, Fault, Split
from ablation.data.letterbox import Letterbox
from ablation.rng import generator

Sizes = NDArray[np.float64]
"""(n, 2) widths and heights in pixels of the network's input."""

_MOST_SIZES = 20_000
_RESTARTS = 8
_ITERATIONS = 100
_BLOCK = 4096


@dataclass(frozen=True)
class SplitAudit:
    """One split.

    Attributes:
        images, boxes: counts; `boxes` includes the ignored ones.
        ignored: boxes that are neither trained on nor counted in evaluation.
        images_without_boxes: images with no box at all.
        boxes_per_class: class name -> boxes, every class of the data set included.
        images_per_class: class name -> images with at least one.
        faults: what was wrong and what was done about it.
        sizes_px: (boxes - ignored, 2) letterboxed sizes of the boxes that can be trained on.
    """

    images: int
    boxes: int
    ignored: int
    images_without_boxes: int
    boxes_per_class: dict[str, int]
    images_per_class: dict[str, int]
    faults: list[Fault]
    sizes_px: Sizes


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


@dataclass(frozen=True)
class HeadCells:
    """The cells of one head over a split, at the assigner's rules.

    Attributes:
        stride: input pixels per cell.
        positives, ignored, negatives: they sum to images x anchors x rows x columns.
    """

    stride: int
    positives: int
    ignored: int
    negatives: int


@dataclass(frozen=True)
class SplitCells:
    """What an assigner makes of a split.

    Attributes:
        images: how many were looked at; all of the split, or a sample.
        boxes: boxes in them that are trained on.
        heads: one entry per head, coarsest stride first.
        matches_lost: pairs of box and anchor lost because a later box took the same cell and anchor.
        boxes_lost: boxes that are left with no cell of their own.
    """

    images: int
    boxes: int
    heads: list[HeadCells]
    matches_lost: int
    boxes_lost: int

    @property
    def positives(self) -> int:
        """Positives of all heads."""
        return sum(head.positives for head in self.heads)

    @property
    def others(self) -> int:
        """Negatives and ignored cells of all heads."""
        return sum(head.negatives + head.ignored for head in self.heads)


@dataclass(frozen=True)
class Audit:
    """A data set as `ablation check` shows it.

    Attributes:
        name: the format's name.
        classes: in the order of their labels.
        fingerprint: of train and val, as in a run's key.
        size_px: side of the square input that sizes are stated for.
        splits: "train", "val" and, where it was asked for, "test".
        faults: those between splits.
        given, fitted: the model's anchors, and by k-means on the train split as many as heads serve.
        cells: split -> what the assigner makes of it; empty if it was not computed.
        unserved_px: those of the model's anchors that no head serves (YOLOv4-tiny has one): boxes that
            they fit best go to the next best.
        anchors_px: what `model.anchors=auto` makes of the train split; empty without boxes.
    """

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    size_px: int
    splits: dict[str, SplitAudit]
    faults: list[Fault]
    given: AnchorFit
    fitted: AnchorFit
    cells: dict[str, SplitCells] = field(default_factory=dict)
    unserved_px: list[tuple[float, float]] = field(default_factory=list)
    anchors_px: list[float] = field(default_factory=list)

    @property
    def all_faults(self) -> list[Fault]:
        """Those between splits and those of each split."""
        return [*self.faults, *(fault for split in self.splits.values() for fault in split.faults)]

    def to_json(self) -> dict[str, Any]:
        """Everything but the single box sizes, as plain values; NaN becomes null."""
        result = asdict(self)
        for name, split in result["splits"].items():
            split["sizes_px"] = _quantiles(self.splits[name].sizes_px)
        for key in ("given", "fitted"):
            value = result[key]["mean_best_iou"]
            result[key]["mean_best_iou"] = None if np.isnan(value) else value
        return result


def audit(
    data: DetectionData,
    *,
    size_px: int,
    anchors_px: Sequence[tuple[float, float]],
    masks: Sequence[Sequence[int]] | None = None,
    test: Split | None = None,
) -> Audit:
    """Count what is in a data set and fit anchors to its train split.

    Args:
        size_px: side of the square input; images are letterboxed into it.
        anchors_px: the model's anchors at that size.
        masks: the anchors that each head serves; None: one head serves all. As many as are served
            are fitted by k-means.
        test: the test split, where it may be looked at.
    """
    splits: dict[str, Split] = {"train": data.train, "val": data.val}
    if test is not None:
        splits["test"] = test
    audits = {name: audit_split(split, data.classes, size_px) for name, split in splits.items()}
    sizes = audits["train"].sizes_px
    given = sorted(anchors_px, key=lambda anchor: anchor[0] * anchor[1])
    heads = [range(len(given))] if masks is None else masks
    served = sorted({index for mask in heads for index in mask})
    fitted, made = np.array(given, np.float64).reshape(-1, 2), list[float]()
    if len(sizes):
        made = spread_over_heads(sizes, len(given), served)
        fitted = np.array(made).reshape(-1, 2)[served]
    return Audit(
        name=data.name,
        classes=tuple(data.classes),
        fingerprint=data.fingerprint(),
        size_px=size_px,
        splits=audits,
        faults=list(data.faults),
        given=fit_of(sizes, np.array(given, np.float64).reshape(-1, 2)),
        fitted=fit_of(sizes, fitted),
        unserved_px=[anchor for index, anchor in enumerate(anchors_px) if index not in served],
        anchors_px=made,
    )


def audit_split(split: Split, classes: Sequence[str], size_px: int) -> SplitAudit:
    """Count one split."""
    counts = split.counts()
    images: Counter[int] = Counter()
    for example in split.examples:
        images.update(set(example.labels.tolist()))
    return SplitAudit(
        images=len(split),
        boxes=counts.total(),
        ignored=sum(int(example.ignored.sum()) for example in split.examples),
        images_without_boxes=sum(len(example.labels) == 0 for example in split.examples),
        boxes_per_class=_named(counts, classes),
        images_per_class=_named(images, classes),
        faults=list(split.faults),
        sizes_px=letterboxed_sizes(split, size_px),
    )


def _named(counts: Mapping[int, int], classes: Sequence[str]) -> dict[str, int]:
    return {name: int(counts.get(label, 0)) for label, name in enumerate(classes)}


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
    kept = (-1.0, centres)
    former: NDArray[np.int64] | None = None
    for _ in range(_ITERATIONS):
        best, which = _best(sizes, centres)
        if best.mean() > kept[0]:
            kept = (float(best.mean()), centres)
        if former is not None and np.array_equal(which, former):
            break
        former = which
        number = np.bincount(which, minlength=len(centres))[:, None]
        sums = np.stack([np.bincount(which, sizes[:, axis], len(centres)) for axis in (0, 1)], axis=1)
        # A cluster that lost all its boxes keeps its centre.
        centres = np.where(number > 0, sums / np.maximum(number, 1), centres)
    return kept


def _best(sizes: Sizes, anchors: Sizes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each size, its best IoU and the anchor that has it (the first of equals)."""
    best, which = [np.zeros(0)], [np.zeros(0, np.int64)]
    for start in range(0, len(sizes), _BLOCK):
        overlap = shape_ious(sizes[start : start + _BLOCK], anchors)
        best.append(overlap.max(axis=1))
        which.append(overlap.argmax(axis=1))
    return np.concatenate(best), np.concatenate(which)


def _quantiles(sizes: Sizes) -> dict[str, dict[str, float]]:
    if len(sizes) == 0:
        return {}
    levels = {"min": 0, "p10": 10, "median": 50, "p90": 90, "max": 100}
    columns = {"width": sizes[:, 0], "height": sizes[:, 1]}
    return {
        name: {key: round(float(np.percentile(values, level)), 3) for key, level in levels.items()}
        for name, values in columns.items()
    }
