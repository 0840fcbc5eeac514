"""Pascal VOC's AP written a second time, in the plain loops of the kit's VOCevaldet.m and VOCap.m."""

from __future__ import annotations

import math
from typing import Any

IOU = 0.5


def voc_ap(truth: dict[str, Any], results: list[dict[str, Any]], inclusive: bool) -> dict[str, float]:
    """AP50_voc and AP50_voc_class/<name>; a class without objects that count has none."""
    values: dict[str, float] = {}
    for category in truth["categories"]:
        ap = _class_ap(truth, results, category["id"], 1 if inclusive else 0)
        if not math.isnan(ap):
            values[f"AP50_voc_class/{category['name']}"] = ap
    if values:
        values["AP50_voc"] = math.fsum(values.values()) / len(values)
    return values


def _class_ap(truth: dict[str, Any], results: list[dict[str, Any]], category: int, extra: int) -> float:
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    positives = 0
    for note in truth["annotations"]:
        if note["category_id"] == category:
            objects[note["image_id"]].append(
                {"box": note["bbox"], "difficult": note["iscrowd"], "used": False}
            )
            positives += not note["iscrowd"]
    if not positives:
        return math.nan
    place = {image["id"]: position for position, image in enumerate(truth["images"])}
    rows = [row for row in results if row["category_id"] == category]
    rows.sort(key=lambda row: (-row["score"], place[row["image_id"]]))
    true, false = 0, 0
    curve: list[tuple[float, float]] = []
    for row in rows:
        best, largest = None, -math.inf
        for candidate in objects[row["image_id"]]:
            overlap = _overlap(row["bbox"], candidate["box"], extra)
            if overlap > largest:
                best, largest = candidate, overlap
        if best is not None and largest >= IOU and best["difficult"]:
            continue
        if best is not None and largest >= IOU and not best["used"]:
            best["used"] = True
            true += 1
        else:
            false += 1
        curve.append((true / positives, true / (true + false)))
    return _area(curve)


def _overlap(a: list[float], b: list[float], extra: int) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]) + extra
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) + extra
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] + extra) * (a[3] + extra) + (b[2] + extra) * (b[3] + extra) - shared)


def _area(curve: list[tuple[float, float]]) -> float:
    """Between recalls 0 and 1: precision, made falling from the right, times each step of recall."""
    recall = [0.0, *(r for r, _ in curve), 1.0]
    precision = [0.0, *(p for _, p in curve), 0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return math.fsum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))
