"""What is in a data set: counts, faults, box sizes, and how well anchors fit them.

Needs neither images nor a network: everything is read from the annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ablation.data.anchors import AnchorFit, Sizes, fit_of, letterboxed_sizes, spread_over_heads
from ablation.data.dataset import DetectionData, Fault, Split


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
        model_fit, kmeans_fit: the model's anchors, and as many as its heads serve by k-means on the
            train split.
        cells: split -> what the assigner makes of it; empty if it was not computed.
        unserved_px: those of the model's anchors that no head serves (YOLOv4-tiny has one): boxes that
            they fit best go to the next best.
        has_test: whether there is a test split, which `ablation confirm` needs.
        anchors_px: what `model.anchors=auto` makes of the train split; empty without boxes.
    """

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    size_px: int
    splits: dict[str, SplitAudit]
    faults: list[Fault]
    model_fit: AnchorFit
    kmeans_fit: AnchorFit
    cells: dict[str, SplitCells] = field(default_factory=dict)
    unserved_px: list[tuple[float, float]] = field(default_factory=list)
    anchors_px: list[float] = field(default_factory=list)
    has_test: bool = True

    @property
    def all_faults(self) -> list[Fault]:
        """Those between splits and those of each split."""
        return [*self.faults, *(fault for split in self.splits.values() for fault in split.faults)]

    def to_json(self) -> dict[str, Any]:
        """Everything but the single box sizes, as plain values; NaN becomes null."""
        result = asdict(self)
        for name, split in result["splits"].items():
            split["sizes_px"] = _quantiles(self.splits[name].sizes_px)
        # Readers of check.json know the two fits by these names.
        for attribute, key in (("model_fit", "given"), ("kmeans_fit", "fitted")):
            result[key] = result.pop(attribute)
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
    ordered = sorted(anchors_px, key=lambda anchor: anchor[0] * anchor[1])
    heads = [range(len(ordered))] if masks is None else masks
    served = sorted({index for mask in heads for index in mask})
    fitted, made = np.array(ordered, np.float64).reshape(-1, 2), list[float]()
    if len(sizes):
        made = spread_over_heads(sizes, len(ordered), served)
        fitted = np.array(made).reshape(-1, 2)[served]
    return Audit(
        name=data.name,
        classes=tuple(data.classes),
        fingerprint=data.fingerprint(),
        size_px=size_px,
        splits=audits,
        faults=list(data.faults),
        model_fit=fit_of(sizes, np.array(ordered, np.float64).reshape(-1, 2)),
        kmeans_fit=fit_of(sizes, fitted),
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


def _quantiles(sizes: Sizes) -> dict[str, dict[str, float]]:
    if len(sizes) == 0:
        return {}
    levels = {"min": 0, "p10": 10, "median": 50, "p90": 90, "max": 100}
    columns = {"width": sizes[:, 0], "height": sizes[:, 1]}
    return {
        name: {key: round(float(np.percentile(values, level)), 3) for key, level in levels.items()}
        for name, values in columns.items()
    }
