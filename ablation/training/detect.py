"""From a network's raw outputs to detections: decoding, non-maximum suppression, top scores."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablation.boxes import cxcywh_to_xyxy
from ablation.data.opencv import cv2
from ablation.model.head import FIRST_CLASS, OBJECTNESS, CellGrid, HeadLayout, decode_boxes, flatten_outputs


@dataclass(frozen=True)
class DetectionSettings:
    """Which of a network's boxes become detections.

    Attributes:
        score_threshold: a score must be above it; in [0, 1).
        nms_iou: a box is dropped where its IoU with a better one of its class is above it; (0, 1].
        max_detections: kept for each image after suppression, >= 1.
        max_candidates: pairs of box and class of each image that enter suppression, >= 1.
    """

    score_threshold: float = 0.001
    nms_iou: float = 0.5
    max_detections: int = 100
    max_candidates: int = 1000


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best score first.

    Attributes:
        boxes_xyxy_px: (n, 4) float32, in pixels of the network's input; may reach beyond it.
        scores: (n,) float32 in [0, 1]: objectness times class probability.
        labels: (n,) int64, indices into the classes.
        objectness: (n,) float32 in [0, 1]: the confidence that the study is about.
    """

    boxes_xyxy_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    objectness: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def decode(outputs: list[Tensor], layout: HeadLayout, grid: CellGrid) -> tuple[Tensor, Tensor]:
    """Raw heads -> boxes_xyxy_px (B, cells, 4) and scores (B, cells, classes).

        score = sigmoid(objectness) sigmoid(class),   both float32

    Cells are ordered head, anchor, row, column, as in CellGrid; boxes are pixels of the input.
    """
    return _decode_flat(flatten_outputs(outputs, layout), grid)


def _decode_flat(raw: Tensor, grid: CellGrid) -> tuple[Tensor, Tensor]:
    boxes = cxcywh_to_xyxy(decode_boxes(raw, grid))
    scores = raw[..., OBJECTNESS : OBJECTNESS + 1].sigmoid() * raw[..., FIRST_CLASS:].sigmoid()
    return boxes, scores


@torch.no_grad()
def detect(
    outputs: list[Tensor],
    layout: HeadLayout,
    grid: CellGrid,
    settings: DetectionSettings = DetectionSettings(),
) -> list[Detections]:
    """The detections of each image of a batch.

    Every pair of cell and class is a candidate, so one box can be detected as two classes (the seed
    method takes each cell's best class only). Of each image the `max_candidates` best candidates
    above the threshold go into non-maximum suppression, which bounds its time: an untrained
    network puts every cell above .001. Suppression is per class; the `max_detections` best
    remain. Equal scores are ordered by cell, then class, at every step, so that the result is
    the same on every run.

    Args:
        outputs: one tensor per head, any float precision.
    """
    raw = flatten_outputs(outputs, layout)
    boxes, scores = _decode_flat(raw, grid)
    flat = scores.flatten(1)
    # Candidates that are not finite (a network that diverged) compare false here and drop out.
    comparable = torch.where(boxes.isfinite().all(-1, keepdim=True), scores, -1.0).flatten(1)
    comparable = comparable.nan_to_num(-1.0)
    leading = comparable.topk(min(settings.max_candidates, flat.shape[1]), dim=1, sorted=True).values
    # By value, not by topk's indices: which of two equal scores topk picks is not defined.
    chosen = (comparable >= leading[:, -1:]) & (comparable > settings.score_threshold)
    image, pair = chosen.nonzero(as_tuple=True)
    cell = pair // layout.num_classes
    columns = (
        image,
        pair % layout.num_classes,
        boxes[image, cell],
        flat[image, pair],
        raw[image, cell, OBJECTNESS].sigmoid(),
    )
    images, labels, boxes_px, values, objectness = (column.cpu().numpy() for column in columns)
    bounds = np.searchsorted(images, np.arange(len(raw) + 1))
    detections = []
    for start, end in pairwise(bounds.tolist()):
        order = start + np.argsort(-values[start:end], kind="stable")[: settings.max_candidates]
        remaining = suppress(boxes_px[order], values[order], labels[order], settings.nms_iou)
        best = order[remaining[: settings.max_detections]]
        detections.append(Detections(boxes_px[best], values[best], labels[best], objectness[best]))
    return detections


def suppress(
    boxes_xyxy_px: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    nms_iou: float,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression per class: indices of the boxes that stay, best first.

    A box stays unless a box of its class with a better score (or an equal one and a smaller
    index) stayed whose IoU with it is above `nms_iou`.

    Args:
        boxes_xyxy_px: (n, 4), finite.
        scores: (n,), >= 0.
        labels: (n,).
        nms_iou: in (0, 1].
    """
    if len(scores) == 0:
        return np.zeros(0, np.int64)
    corners = boxes_xyxy_px.astype(np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # OpenCV drops scores that are not above its threshold: every box that comes here is to compete.
    remaining = cv2.dnn.NMSBoxesBatched(xywh.tolist(), scores.tolist(), labels.tolist(), -1.0, nms_iou)
    return np.asarray(remaining, np.int64).reshape(-1)
