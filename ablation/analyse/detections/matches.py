"""Which detections COCO's evaluation matched, kept so that AP can be recomputed for any set of images.

AP is no mean over images: detections of all images are ranked together. So a resample of images needs
AP computed anew, and that needs only each detection's score, image and match, which do not change.
Matching is pycocotools' own; what is done here is its accumulation, for many weighted sets at once.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ablation.errors import DataError

IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""COCO's ten thresholds of overlap."""
RECALLS = np.linspace(0, 1, 101)
"""COCO's recall levels; AP is the mean precision over them. The same numbers to the last bit."""
CHUNK = 4_000_000
"""Weights of single detections held at once; bounds the memory to some 100 MB."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ClassMatches:
    """One class of one run; detections in order of falling score, ties in COCO's order.

    Attributes:
        name: of the class.
        truths: (images,) objects that count, in each image.
        image: (detections,) the position of each detection's image in Matches.image_ids.
        score: (detections,).
        matched, ignored: (10, detections) at each of IOUS: whether an object was found, and whether
            the detection counts neither as right nor as wrong (it found a crowd).
    """

    name: str
    truths: NDArray[np.int64]
    image: NDArray[np.int64]
    score: Floats
    matched: Bools
    ignored: Bools


@dataclass(frozen=True)
class Matches:
    """All classes of one run on one set of images.

    Attributes:
        image_ids: every image of the ground truth, rising; images without objects included.
        classes: in the order of the ground truth's categories.
    """

    image_ids: tuple[int, ...]
    classes: tuple[ClassMatches, ...]


@dataclass(frozen=True)
class Part:
    """Which part of the table AP is taken over.

    Attributes:
        ious: positions in IOUS.
        name: of the only class, or None: the mean over the classes that have objects.
    """

    ious: tuple[int, ...]
    name: str | None = None


def part_of(metric: str) -> Part | None:
    """The part that a metric's name stands for; None where it cannot be computed from matches.

    Known are AP, AP50, AP75, AP_class/NAME and AP50_class/NAME, after a split's name: val/AP50.
    """
    _, _, short = metric.partition("/")
    kind, _, name = short.partition("/")
    ious = {"AP": tuple(range(10)), "AP50": (0,), "AP75": (5,)}
    if kind in ious and not name:
        return Part(ious[kind])
    if kind in ("AP_class", "AP50_class") and name:
        return Part(ious[kind.removesuffix("_class")], name)
    return None


def match(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> Matches:
    """COCO's matching of detections to objects, all sizes, the 100 best detections of an image.

    Args:
        ground_truth: COCO's dictionary: images, annotations, categories.
        results: COCO's result format; may be empty.

    Raises:
        DataError: a detection lies in an image that the ground truth does not have.
    """
    known = {image["id"] for image in ground_truth["images"]}
    strange = next((row["image_id"] for row in results if row["image_id"] not in known), None)
    if strange is not None:
        raise DataError(f"a detection lies in image {strange}, which the ground truth does not have")
    # pycocotools prints its progress, and writes into what it is given.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(ground_truth)
        found = (
            truth.loadRes(copy.deepcopy(list(results)))
            if results
            else _coco({**ground_truth, "annotations": []})
        )
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.catIds = [category["id"] for category in ground_truth["categories"]]
        evaluation.evaluate()
    image_ids = tuple(int(image) for image in evaluation.params.imgIds)
    count = len(image_ids)
    # evaluate() may sort the categories it was given, so their names follow its order, not ours.
    names = {category["id"]: str(category["name"]) for category in ground_truth["categories"]}
    classes = [
        _one_class(names[category], evaluation.evalImgs[k * count : (k + 1) * count])
        for k, category in enumerate(evaluation.params.catIds)
    ]
    return Matches(image_ids, tuple(classes))


def _coco(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = copy.deepcopy(content)
    coco.createIndex()
    return coco


def _one_class(name: str, images: Sequence[dict[str, Any] | None]) -> ClassMatches:
    """pycocotools' entries of one class, None where an image has neither object nor detection."""
    truths = np.array(
        [0 if one is None else int((np.asarray(one["gtIgnore"]) == 0).sum()) for one in images], np.int64
    )
    pairs = [(position, one) for position, one in enumerate(images) if one is not None]
    lengths = [len(one["dtScores"]) for _, one in pairs]
    image = np.repeat([position for position, _ in pairs], lengths).astype(np.int64)
    score = np.concatenate([np.zeros(0), *(np.asarray(one["dtScores"], float) for _, one in pairs)])
    empty = np.zeros((len(IOUS), 0), bool)
    matched = np.concatenate([empty, *(np.asarray(one["dtMatches"]) > 0 for _, one in pairs)], axis=1)
    ignored = np.concatenate([empty, *(np.asarray(one["dtIgnore"]) > 0 for _, one in pairs)], axis=1)
    order = np.argsort(-score, kind="mergesort")
    return ClassMatches(name, truths, image[order], score[order], matched[:, order], ignored[:, order])


def average_precision(matches: Matches, weights: NDArray[Any], part: Part | None = None) -> Floats:
    """AP of weighted sets of images, as COCO would compute it on a set with each image that often.

    An image of weight 2 is two equal images. Precision at each of the 101 recall levels is the
    highest precision at that recall or above; AP is their mean over levels, thresholds and classes.
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
    for one in matches.classes:
        if chosen.name is not None and one.name != chosen.name:
            continue
        step = max(1, CHUNK // max(len(one.score), 1))
        for start in range(0, len(counts), step):
            rows = slice(start, start + step)
            values = _of_class(one, counts[rows], chosen.ious)
            there = np.isfinite(values)
            total[rows] += np.where(there, values, 0)
            classes[rows] += there
    mean: Floats = np.divide(total, classes, out=np.full(len(counts), np.nan), where=classes > 0)
    return mean


def _of_class(one: ClassMatches, weights: Floats, ious: Sequence[int]) -> Floats:
    """(sets,) AP of one class; NaN where a set has none of its objects.

    Only true positives are looked at: recall rises nowhere else, and between two of them precision
    only falls, so the highest precision to the right of a point is always at a true positive. Each
    contributes its precision as often as it reaches new recall levels.
    """
    objects = weights @ one.truths
    each = weights[:, one.image]
    seen = np.cumsum(each, axis=1)
    total = np.zeros(len(weights))
    for t in ious:
        hits = np.flatnonzero(one.matched[t] & ~one.ignored[t])
        if not len(hits):
            continue
        right = np.cumsum(each[:, hits], axis=1)
        counted = seen[:, hits]
        if one.ignored[t].any():
            counted = counted - np.cumsum(each * one.ignored[t], axis=1)[:, hits]
        precision = right / (counted + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = right / objects[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")
        total += (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    values: Floats = np.where(objects > 0, total / (len(RECALLS) * len(ious)), np.nan)
    return values


def resamples(images: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(count, images) how often each image occurs in a bootstrap resample of all of them."""
    drawn: NDArray[np.int64] = generator.multinomial(images, np.full(images, 1 / images), size=count)
    return drawn
