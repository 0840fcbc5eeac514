"""Matching by the rules of Pascal VOC's development kit, at IoU .5.

Detections of a class are taken by falling score over all images. Each looks at the object of its class
and image that it overlaps most (of equals the first). Below IoU .5 it is a false positive; a difficult
object is neither right nor wrong; an object that a better detection has taken is a false positive, even
where another object overlaps enough. COCO's rules differ: a detection there takes the best object that is
free, and only the 100 best detections of an image count. Crowds of COCO are treated as difficult objects.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, and the
kit's VOCevaldet.m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.analyse.detections.average_precision import ApMatches, ClassMatches, require_known_images

IOU = 0.5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def voc_matches(
    ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], inclusive: bool = True
) -> ApMatches:
    """Match every detection at IoU .5; average_precision with Part.voc makes AP of it.

    Args:
        ground_truth: COCO's dictionary; `iscrowd` marks difficult objects.
        results: COCO's result format; may be empty.
        inclusive: corners are pixels that belong to the box, so that a side is x2 - x1 + 1 (the kit's
            convention); False: corners are edges, a side is x2 - x1, as for COCO's AP.

    Raises:
        DataError: a detection lies in an image that the ground truth does not have.
    """
    require_known_images(ground_truth, results)
    image_ids = np.array(sorted({image["id"] for image in ground_truth["images"]}), np.int64)
    names = {int(category["id"]): str(category["name"]) for category in ground_truth["categories"]}
    category_ids = np.array(sorted(names), np.int64)
    annotations = [item for item in ground_truth["annotations"] if item["category_id"] in names]
    detections = [item for item in results if item["category_id"] in names]
    crowd = np.array([bool(item.get("iscrowd")) for item in annotations], np.bool_)
    truth_image, truth_class = _positions(annotations, image_ids, category_ids)
    score = np.array([item["score"] for item in detections], np.float64)
    image, label = _positions(detections, image_ids, category_ids)
    order = np.lexsort((image, -score))  # of equal scores COCO's order: by image, then as they come
    score, image, label = score[order], image[order], label[order]
    truth = _largest_overlap(
        image * len(category_ids) + label,
        _boxes(detections)[order],
        truth_image * len(category_ids) + truth_class,
        _boxes(annotations),
        1.0 if inclusive else 0.0,
    )
    hit = truth >= 0
    ignored = np.zeros(len(score), np.bool_)
    ignored[hit] = crowd[truth[hit]]
    matched = np.zeros(len(score), np.bool_)
    _, first = np.unique(truth[hit], return_index=True)
    matched[np.flatnonzero(hit)[first]] = True
    matched &= ~ignored
    classes = []
    for position, category in enumerate(category_ids.tolist()):
        rows = label == position
        counts = truth_image[(truth_class == position) & ~crowd]
        truths = np.bincount(counts, minlength=len(image_ids)).astype(np.int64)
        classes.append(
            ClassMatches(
                names[category], truths, image[rows], score[rows], matched[None, rows], ignored[None, rows]
            )
        )
    return ApMatches(tuple(image_ids.tolist()), tuple(classes))


def _positions(items: Sequence[dict[str, Any]], image_ids: Ints, category_ids: Ints) -> tuple[Ints, Ints]:
    """The positions of each item's image and class."""
    images = np.array([item["image_id"] for item in items], np.int64)
    categories = np.array([item["category_id"] for item in items], np.int64)
    return np.searchsorted(image_ids, images), np.searchsorted(category_ids, categories)


def _boxes(items: Sequence[dict[str, Any]]) -> Floats:
    """(n, 4) x, y, width, height."""
    return np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)


def _largest_overlap(key: Ints, boxes: Floats, truth_key: Ints, truth_boxes: Floats, extra: float) -> Ints:
    """(n,) the object with the same key that each box overlaps most, if by IOU or more; else -1.

    Args:
        key, truth_key: image and class of each box and of each object.
        extra: added to every side, in pixels.
    """
    by_key = np.argsort(truth_key, kind="stable")
    first = np.searchsorted(truth_key[by_key], key, side="left")
    counts = np.searchsorted(truth_key[by_key], key, side="right") - first
    # All pairs of a box and an object with its key: the pairs of one box follow one another.
    box = np.repeat(np.arange(len(key)), counts)
    begin = np.cumsum(counts) - counts
    truth = by_key[np.repeat(first - begin, counts) + np.arange(len(box))]
    overlap = _iou(boxes[box], truth_boxes[truth], extra)
    largest = np.maximum.reduceat(overlap, begin[counts > 0]) if len(box) else overlap
    candidates = np.flatnonzero((overlap == np.repeat(largest, counts[counts > 0])) & (overlap >= IOU))
    matched, position = np.unique(box[candidates], return_index=True)
    result = np.full(len(key), -1, np.int64)
    result[matched] = truth[candidates[position]]
    return result


def _iou(a: Floats, b: Floats, extra: float) -> Floats:
    """(n, 4), (n, 4) as x, y, width, height -> (n,) IoU of each pair with `extra` pixels added to sides."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = (high - low + extra).clip(min=0).prod(axis=1)
    union = (a[:, 2:] + extra).prod(axis=1) + (b[:, 2:] + extra).prod(axis=1) - shared
    overlap: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap
