"""AP of weighted sets of images, such as bootstrap resamples, from one matching of the detections.

AP is not a mean over images: the detections of all images are ranked together. So a resample of images
needs AP computed again, and for that only each detection's score, image and match, which do not change.
pycocotools matches; this file repeats its accumulation for many weighted sets of images at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.analyse.detections.coco import coco_eval
from ablation.errors import DataError

IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""COCO's ten thresholds of overlap."""
CHUNK = 4_000_000
"""Weights of single detections held at once; limits the memory to about 100 MB."""

Floats = NDArray[np.float64]
RECALLS: Floats = np.linspace(0, 1, 101)
"""COCO's recall levels; AP is the mean precision over them. Equal to pycocotools' to the last bit."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ClassMatches:
    """One class of one run; detections in order of falling score, ties in COCO's order.

    Attributes:
        name: of the class.
        truths: (images,) objects that count, in each image.
        image: (detections,) the position of each detection's image in ApMatches.image_ids.
        score: (detections,).
        matched, ignored: (10, detections) at each of IOUS, (1, detections) by Pascal VOC's rules: whether
            an object was found, and whether the detection counts neither as right nor as wrong (it
            found a crowd or a difficult object).
    """

    name: str
    truths: NDArray[np.int64]
    image: NDArray[np.int64]
    score: Floats
    matched: Bools
    ignored: Bools


@dataclass(frozen=True)
class ApMatches:
    """All classes of one run on one set of images, matched by COCO's rules or by Pascal VOC's.

    Attributes:
        image_ids: every image of the ground truth, rising; images without objects included.
        classes: in the order of the ground truth's categories.
    """

    image_ids: tuple[int, ...]
    classes: tuple[ClassMatches, ...]


@dataclass(frozen=True)
class Part:
    """Which part of the table AP is taken over, and by whose rules.

    Attributes:
        ious: positions in IOUS.
        name: of the only class, or None: the mean over the classes that have objects.
        voc: Pascal VOC's AP at IoU .5, of the matches that voc.voc_matches makes: the area below the
            interpolated precision at every recall, in place of its mean at 101 recall levels.
    """

    ious: tuple[int, ...]
    name: str | None = None
    voc: bool = False


def part_of(metric: str) -> Part | None:
    """The part that a metric's name stands for; None where it cannot be computed from matches.

    Known are AP, AP50, AP75, AP50_voc, AP_class/NAME, AP50_class/NAME and AP50_voc_class/NAME, after a
    split's name: val/AP50.
    """
    _, _, short = metric.partition("/")
    kind, _, name = short.partition("/")
    parts = {"AP": Part(tuple(range(10))), "AP50": Part((0,)), "AP75": Part((5,)), "AP50_voc": VOC}
    if kind in parts and not name:
        return parts[kind]
    if kind in ("AP_class", "AP50_class", "AP50_voc_class") and name:
        return replace(parts[kind.removesuffix("_class")], name=name)
    return None


VOC = Part((0,), voc=True)
"""Pascal VOC's AP, the mean over the classes."""


def ap_matches(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> ApMatches:
    """COCO's matching of the 100 best detections of an image and class to objects of any size.

    Args:
        ground_truth: COCO's dictionary: images, annotations, categories.
        results: COCO's result format; may be empty.

    Raises:
        DataError: a detection lies in an image that the ground truth does not have.
    """
    require_known_images(ground_truth, results)
    category_ids = [category["id"] for category in ground_truth["categories"]]
    evaluation = coco_eval(ground_truth, results, category_ids, all_sizes=False)
    evaluated = tuple(int(image) for image in evaluation.params.imgIds)
    count = len(evaluated)
    # evaluate() may sort the categories it was given, so their names follow its order, not ours.
    names = {category["id"]: str(category["name"]) for category in ground_truth["categories"]}
    classes = [
        _class_matches(names[category], evaluation.evalImgs[k * count : (k + 1) * count])
        for k, category in enumerate(evaluation.params.catIds)
    ]
    return ApMatches(evaluated, tuple(classes))


def require_known_images(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """Refuse detections in an image that the ground truth does not have.

    Raises:
        DataError: naming the first.
    """
    image_ids = {image["id"] for image in ground_truth["images"]}
    unknown = next((row["image_id"] for row in results if row["image_id"] not in image_ids), None)
    if unknown is not None:
        raise DataError(f"a detection lies in image {unknown}, which the ground truth does not have")


def _class_matches(name: str, evaluated: Sequence[dict[str, Any] | None]) -> ClassMatches:
    """pycocotools' entries of one class, one per image; None where an image has no object or detection."""
    truths = [0 if entry is None else int((np.asarray(entry["gtIgnore"]) == 0).sum()) for entry in evaluated]
    entries = [(position, entry) for position, entry in enumerate(evaluated) if entry is not None]
    lengths = [len(entry["dtScores"]) for _, entry in entries]
    image = np.repeat([position for position, _ in entries], lengths).astype(np.int64)
    score = np.concatenate([np.zeros(0), *(np.asarray(entry["dtScores"], float) for _, entry in entries)])
    empty = np.zeros((len(IOUS), 0), bool)
    matched = np.concatenate([empty, *(np.asarray(entry["dtMatches"]) > 0 for _, entry in entries)], axis=1)
    ignored = np.concatenate([empty, *(np.asarray(entry["dtIgnore"]) > 0 for _, entry in entries)], axis=1)
    order = np.argsort(-score, kind="mergesort")
    return ClassMatches(
        name,
        np.array(truths, np.int64),
        image[order],
        score[order],
        matched[:, order],
        ignored[:, order],
    )


def average_precision(matches: ApMatches, weights: NDArray[Any], part: Part | None = None) -> Floats:
    """AP of weighted sets of images, as COCO would compute it on a set with each image that often.

    An image of weight 2 is two equal images. Precision at each of the 101 recall levels is the
    highest precision at that recall or above; AP is their mean over levels, thresholds and classes.
    Pascal VOC's is the area below the same highest precision over all recalls (`Part.voc`).
    A class without objects in a set is left out of that set's mean, as COCO leaves it out (-1);
    so is a set without any object: NaN. Tied scores within one image stay together: all copies of
    the first, then all of the second (COCO's order of ties is that of the files).

    Args:
        weights: (sets, images), >= 0, counts of the images in each set; ones give COCO's own AP.
        part: which thresholds and class; None: all.

    Returns:
        (sets,) AP in [0, 1].
    """
    chosen = part or Part(tuple(range(len(IOUS))))
    counts = np.atleast_2d(np.asarray(weights, np.float64))
    total = np.zeros(len(counts))
    classes = np.zeros(len(counts))
    for class_matches in matches.classes:
        if chosen.name is not None and class_matches.name != chosen.name:
            continue
        step = max(1, CHUNK // max(len(class_matches.score), 1))
        for start in range(0, len(counts), step):
            rows = slice(start, start + step)
            values = _class_ap(class_matches, counts[rows], chosen)
            defined = np.isfinite(values)
            total[rows] += np.where(defined, values, 0)
            classes[rows] += defined
    mean: Floats = np.divide(total, classes, out=np.full(len(counts), np.nan), where=classes > 0)
    return mean


def _class_ap(matches: ClassMatches, weights: Floats, part: Part) -> Floats:
    """(sets,) AP of one class; NaN where a set has none of its objects.

    Only true positives matter: recall rises only there, and between two of them precision falls, so
    the highest precision to the right of a point is always at a true positive. COCO's AP takes its
    precision once for every recall level that it is the first to reach, VOC's by how much it adds to recall.
    """
    objects = weights @ matches.truths
    each = weights[:, matches.image]
    seen = np.cumsum(each, axis=1)
    total = np.zeros(len(weights))
    for t in part.ious:
        hits = np.flatnonzero(matches.matched[t] & ~matches.ignored[t])
        if not len(hits):
            continue
        right = np.cumsum(each[:, hits], axis=1)
        counted = seen[:, hits]
        if matches.ignored[t].any():
            counted = counted - np.cumsum(each * matches.ignored[t], axis=1)[:, hits]
        precision = right / (counted + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = right / objects[:, None]
        reached = recall if part.voc else np.searchsorted(RECALLS, recall, side="right")
        total += (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    levels = 1 if part.voc else len(RECALLS)
    values: Floats = np.where(objects > 0, total / (levels * len(part.ious)), np.nan)
    return values


def resamples(images: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(count, images) how often each image occurs in a bootstrap resample of all of them."""
    drawn: NDArray[np.int64] = generator.multinomial(images, np.full(images, 1 / images), size=count)
    return drawn
