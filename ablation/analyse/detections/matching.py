"""Which detections are right at one IoU: the matching of pycocotools, as a table.

Within an image and a class, detections are taken by falling score; each takes the free object that it
overlaps most, if by at least `iou`. What matches only a crowd (an object to be ignored) is neither
right nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablation.analyse.detections.average_precision import RECALLS
from ablation.analyse.detections.run_files import RunArtifacts

Floats = NDArray[np.float64]

MAX_DETECTIONS = 100
"""COCO's AP uses this many of the best detections of an image and class."""


@dataclass(frozen=True)
class Matches:
    """Detections of one run matched to the objects at one IoU.

    Attributes:
        detections: one row each, by image, class and falling score: image_id, category_id, score,
            objectness (NaN where the results have none), box (4 columns x1, y1, x2, y2), matched,
            ignored (bool), truth_id (0: none), iou (with its object; 0: none).
        truths: one row per object: id, image_id, category_id, ignored, box as above, detected (bool).
        images: number of images, those without objects included.
        classes: category id -> name.
    """

    detections: pd.DataFrame
    truths: pd.DataFrame
    images: int
    classes: dict[int, str]

    @property
    def counted(self) -> pd.DataFrame:
        """The detections that are right or wrong, best score first over all images; ties keep their order."""
        detections = self.detections[~self.detections["ignored"]]
        return detections.iloc[np.argsort(-detections["score"].to_numpy(), kind="stable")]

    @property
    def objects(self) -> pd.DataFrame:
        """The objects that are to be found."""
        return self.truths[~self.truths["ignored"]]


BOX = ["x1", "y1", "x2", "y2"]


def match(ground_truth: dict[str, Any], results: list[dict[str, Any]], iou: float = 0.5) -> Matches:
    """Match detections to objects.

    Args:
        ground_truth: COCO's images, annotations, categories.
        results: COCO's result format; `objectness` is used where it is there.
        iou: in (0, 1]; an overlap of exactly this matches.
    """
    truths = _truths(ground_truth)
    detections = _results(results)
    truth_rows_of = rows_by(truths, "image_id", "category_id")
    taken = np.zeros(len(truths), np.bool_)
    matched, ignored = np.zeros(len(detections), np.bool_), np.zeros(len(detections), np.bool_)
    truth_id, best_iou = np.zeros(len(detections), np.int64), np.zeros(len(detections))
    truth_boxes, crowd = truths[BOX].to_numpy(), truths["ignored"].to_numpy()
    ids, boxes = truths["id"].to_numpy(), detections[BOX].to_numpy()
    for key, rows in rows_by(detections, "image_id", "category_id").items():
        if key not in truth_rows_of:
            continue
        truth_rows = truth_rows_of[key]
        table = box_iou(boxes[rows], truth_boxes[truth_rows], crowd[truth_rows])
        for row, values in zip(rows.tolist(), table, strict=True):
            hit = _best(values, taken[truth_rows], crowd[truth_rows], iou)
            if hit is None:
                continue
            truth_row = truth_rows[hit]
            taken[truth_row] = True
            truth_id[row], best_iou[row] = ids[truth_row], values[hit]
            matched[row], ignored[row] = not crowd[truth_row], crowd[truth_row]
    detections = detections.assign(matched=matched, ignored=ignored, truth_id=truth_id, iou=best_iou)
    names = {int(item["id"]): str(item["name"]) for item in ground_truth["categories"]}
    truths = truths.assign(detected=taken & ~crowd)
    return Matches(detections, truths, len(ground_truth["images"]), dict(sorted(names.items())))


def matches_of(artifacts: RunArtifacts, run_id: str) -> Matches | None:
    """A run's detections on val matched at IoU .5, made once; None where it kept none."""

    def make() -> Matches | None:
        truth, results = artifacts.ground_truth(run_id), artifacts.detections(run_id)
        return None if truth is None or results is None else match(truth, results)

    return artifacts.made("matches at 0.5", run_id, make)


def rows_by(table: pd.DataFrame, *names: str) -> dict[tuple[int, ...], NDArray[np.int64]]:
    """The positions of the rows with each combination of the integers in those columns, rising."""
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(zip(*(table[name].tolist() for name in names), strict=True)):
        rows_of.setdefault(key, []).append(row)
    return {key: np.array(rows, np.int64) for key, rows in rows_of.items()}


def _best(values: Floats, taken: NDArray[np.bool_], crowd: NDArray[np.bool_], iou: float) -> int | None:
    """The object that a detection takes: among equals the last, as in pycocotools."""
    threshold = min(iou, 1 - 1e-10)
    for free in (~taken & ~crowd, crowd):
        candidates = np.flatnonzero(free & (values >= threshold))
        if candidates.size:
            best = values[candidates].max()
            return int(candidates[values[candidates] == best][-1])
    return None


def box_iou(a_xyxy: Floats, b_xyxy: Floats, crowd: NDArray[np.bool_] | None = None) -> Floats:
    """(n, 4), (m, 4) -> (n, m) IoU; with a crowd, the share of the first box that lies in it."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    size = (high - low).clip(min=0)
    shared = size[..., 0] * size[..., 1]
    area_a = (a_xyxy[:, 2] - a_xyxy[:, 0]) * (a_xyxy[:, 3] - a_xyxy[:, 1])
    area_b = (b_xyxy[:, 2] - b_xyxy[:, 0]) * (b_xyxy[:, 3] - b_xyxy[:, 1])
    union = area_a[:, None] + area_b[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], area_a[:, None], union)
    overlap: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def _corners(boxes_xywh: list[list[float]]) -> Floats:
    boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _truths(ground_truth: dict[str, Any]) -> pd.DataFrame:
    items = ground_truth["annotations"]
    table = pd.DataFrame(_corners([item["bbox"] for item in items]), columns=BOX)
    for name in ("id", "image_id", "category_id"):
        table.insert(0, name, np.array([item[name] for item in items], np.int64))
    return table.assign(ignored=np.array([bool(item.get("iscrowd")) for item in items], np.bool_))


def _results(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Sorted by image, class and falling score, the MAX_DETECTIONS best of each; ties keep their order."""
    table = pd.DataFrame(_corners([item["bbox"] for item in results]), columns=BOX)
    table.insert(0, "objectness", np.array([item.get("objectness", np.nan) for item in results], np.float64))
    table.insert(0, "score", np.array([item["score"] for item in results], np.float64))
    for name in ("category_id", "image_id"):
        table.insert(0, name, np.array([item[name] for item in results], np.int64))
    order = np.lexsort(
        (np.arange(len(table)), -table["score"].to_numpy(), table["category_id"], table["image_id"])
    )
    table = table.iloc[order].reset_index(drop=True)
    return table[table.groupby(["image_id", "category_id"]).cumcount() < MAX_DETECTIONS].reset_index(
        drop=True
    )


def precision_at_recalls(right: NDArray[np.bool_], objects: int) -> Floats:
    """(101,) interpolated precision of one class at RECALLS, as COCO's AP reads it.

    Args:
        right: of each detection, best score first.
        objects: how many there are to find, > 0.
    """
    precision = np.zeros(len(RECALLS))
    if len(right) == 0:
        return precision
    hits = np.cumsum(right)
    recall = hits / objects
    envelope = np.maximum.accumulate((hits / np.arange(1, len(right) + 1))[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    reached = at < len(right)
    precision[reached] = envelope[at[reached]]
    return precision


def precision_curves(matches: Matches) -> dict[int, Floats]:
    """Category id -> (101,) precision at RECALLS; a class without objects has none."""
    objects = matches.objects["category_id"].value_counts()
    counted = matches.counted
    category, right = counted["category_id"].to_numpy(), counted["matched"].to_numpy()
    present = [category_id for category_id in matches.classes if category_id in objects.index]
    return {
        category_id: precision_at_recalls(right[category == category_id], int(objects[category_id]))
        for category_id in present
    }
