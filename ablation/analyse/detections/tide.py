"""The six error types of TIDE and what each costs in AP at IoU .5.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115,
with its foreground IoU .5 and background IoU .1. A detection that is not right (see detections.py) is,
by its largest IoU with the objects of its own class (s) and of other classes (o) in its image:

    localisation     .1 <= s < .5
    classification   else, o >= .5
    duplicate        else, s >= .5: the object has been found by a better detection
    background       else, both below .1
    both             else: .1 <= o < .5

An object is missed where nothing found it and no localisation or classification error points at it.
The definitions overlap; this order decides. Objects to be ignored take no part.

The cost of a type is AP with that type alone put right, minus AP: localisation and classification
errors become right (the best of those that point at an object which nothing found; the others go),
duplicate, background and both go, missed objects need not be found. The costs do not add up to 1 - AP.
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
    unfound = ~objects["found"].to_numpy()
    pointed = np.zeros(len(objects), np.bool_)
    pointed[target[target >= 0]] = True
    missed = unfound & ~pointed
    object_class = objects["category_id"].to_numpy()
    raw = _mean_ap(category, score, right, object_class)
    cost, counts = {}, {}
    for name in TYPES:
        own = kind == name
        counts[name] = int(missed.sum()) if name == "missed" else int(own.sum())
        if name == "missed":
            fixed = _mean_ap(category, score, right, object_class[~missed])
        else:
            gained = np.zeros(len(kind), np.bool_)
            if name in ("classification", "localisation"):
                gained = _first_of_each(own, target, unfound)
            kept = ~own | gained
            moved = np.where(gained, object_class[target] if len(object_class) else 0, category)
            fixed = _mean_ap(moved[kept], score[kept], (right | gained)[kept], object_class)
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
    there = rows_by(objects, "image_id")
    wrong = ~counted["matched"].to_numpy()
    for image, all_rows in rows_by(counted, "image_id").items():
        rows = all_rows[wrong[all_rows]]
        own = there.get(image, np.zeros(0, np.int64))
        if not own.size:
            kind[rows] = "background"
            continue
        overlap = box_iou(boxes[rows], truth_boxes[own])
        same = category[rows][:, None] == truth_category[own][None]
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
        target[rows] = np.select([near, confused], [own[s.argmax(1)], own[o.argmax(1)]], -1)
    return kind, target


def _first_of_each(
    own: NDArray[np.bool_], target: NDArray[np.int64], unfound: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Of the errors `own` (best score first), the first that points at each object nothing found."""
    gained = np.zeros(len(own), np.bool_)
    rows = np.flatnonzero(own)
    rows = rows[unfound[target[rows]]]
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
        own, objects = right[category == name], int((object_class == name).sum())
        if objects:
            values.append(float(precision_at_recalls(own, objects).mean()))
        elif len(own):
            values.append(0.0)
    return float(np.mean(values)) if values else 1.0
