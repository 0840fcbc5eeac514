"""The six error types of TIDE and what each costs in AP at IoU .5.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115,
with its foreground IoU .5 and background IoU .1. A wrong detection (see matching.py) is,
by its largest IoU with the objects of its own class (s) and of other classes (o) in its image:

    localisation     .1 <= s < .5
    classification   else, o >= .5
    duplicate        else, s >= .5: a better detection has matched the object
    background       else, both below .1
    both             else: .1 <= o < .5

An object is missed where no detection matches it and no localisation or classification error points at it.
The definitions overlap; this order decides. Objects to be ignored take no part.

The cost of a type is AP with that type alone put right, minus AP: localisation and classification
errors become right (the best of those that point at an undetected object; the others are removed),
duplicate, background and both are removed, missed objects need not be detected. The costs do not add up
to 1 - AP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.analyse.detections.matching import BOX, Floats, Matches, box_iou, precision_at_recalls, rows_by

TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
BACKGROUND = 0.1
FOREGROUND = 0.5


@dataclass(frozen=True)
class Errors:
    """What is wrong with the detections of one run.

    Attributes:
        counts: type -> how many detections (missed: objects) have it.
        cost: type -> gain in AP at IoU .5, in [0, 1], were it put right.
        ap: AP at IoU .5.
    """

    counts: dict[str, int]
    cost: dict[str, float]
    ap: float


def errors(matches: Matches) -> Errors:
    """Sort the errors of a run and price them.

    Args:
        matches: at IoU .5, see detections.match.
    """
    counted = matches.counted
    category, score = counted["category_id"].to_numpy(), counted["score"].to_numpy()
    right = counted["matched"].to_numpy()
    kind, target = _kinds(matches)
    objects = matches.objects
    undetected = ~objects["detected"].to_numpy()
    pointed = np.zeros(len(objects), np.bool_)
    pointed[target[target >= 0]] = True
    missed = undetected & ~pointed
    object_class = objects["category_id"].to_numpy()
    raw = _mean_ap(category, score, right, object_class)
    cost, counts = {}, {}
    for name in TYPES:
        of_type = kind == name
        counts[name] = int(missed.sum()) if name == "missed" else int(of_type.sum())
        if name == "missed":
            fixed = _mean_ap(category, score, right, object_class[~missed])
        else:
            gained = np.zeros(len(kind), np.bool_)
            if name in ("classification", "localisation"):
                gained = _first_of_each(of_type, target, undetected)
            remaining = ~of_type | gained
            moved = np.where(gained, object_class[target] if len(object_class) else 0, category)
            fixed = _mean_ap(moved[remaining], score[remaining], (right | gained)[remaining], object_class)
        cost[name] = fixed - raw
    return Errors(counts, cost, raw)


def _kinds(matches: Matches) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """For each detection of matches.counted its type ("" where right), and the object it points at or -1.

    The object is a row of matches.objects; only localisation and classification errors point at one.
    """
    counted, objects = matches.counted, matches.objects
    kind = np.full(len(counted), "", dtype="<U14")
    target = np.full(len(counted), -1, np.int64)
    boxes, truth_boxes = counted[BOX].to_numpy(), objects[BOX].to_numpy()
    category, truth_category = counted["category_id"].to_numpy(), objects["category_id"].to_numpy()
    objects_of = rows_by(objects, "image_id")
    wrong = ~counted["matched"].to_numpy()
    for image, all_rows in rows_by(counted, "image_id").items():
        rows = all_rows[wrong[all_rows]]
        in_image = objects_of.get(image, np.zeros(0, np.int64))
        if not in_image.size:
            kind[rows] = "background"
            continue
        overlap = box_iou(boxes[rows], truth_boxes[in_image])
        same = category[rows][:, None] == truth_category[in_image][None]
        s, o = np.where(same, overlap, -1.0), np.where(same, -1.0, overlap)
        best_s, best_o = s.max(1), o.max(1)
        near = (best_s >= BACKGROUND) & (best_s < FOREGROUND)
        confused = ~near & (best_o >= FOREGROUND)
        twice = ~near & ~confused & (best_s >= FOREGROUND)
        nothing = ~near & ~confused & ~twice & (np.maximum(best_s, best_o) < BACKGROUND)
        kind[rows] = np.select(
            [near, confused, twice, nothing],
            ["localisation", "classification", "duplicate", "background"],
            "both",
        )
        target[rows] = np.select([near, confused], [in_image[s.argmax(1)], in_image[o.argmax(1)]], -1)
    return kind, target


def _first_of_each(
    of_type: NDArray[np.bool_], target: NDArray[np.int64], undetected: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Of the errors of one type (best score first), the first that points at each undetected object."""
    gained = np.zeros(len(of_type), np.bool_)
    rows = np.flatnonzero(of_type)
    rows = rows[undetected[target[rows]]]
    _, first = np.unique(target[rows], return_index=True)
    gained[rows[first]] = True
    return gained


def _mean_ap(
    category: NDArray[np.int64], score: Floats, right: NDArray[np.bool_], object_class: NDArray[np.int64]
) -> float:
    """AP, the mean over classes. A class with nothing (left) to find and nothing wrong is left out."""
    order = np.argsort(-score, kind="stable")
    category, right = category[order], right[order]
    values = []
    for name in np.union1d(category, object_class):
        of_class, objects = right[category == name], int((object_class == name).sum())
        if objects:
            values.append(float(precision_at_recalls(of_class, objects).mean()))
        elif len(of_class):
            values.append(0.0)
    return float(np.mean(values)) if values else 1.0
