"""The plain reading of the criterion: loops over heads, images and boxes, one number at a time.

Written from the definition and kept apart from the vectorised code on purpose: it is the oracle.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ablation.losses.base import ConfidenceLoss, ConfidenceTargets
from ablation.model.head import HeadLayout
from ablation.objective.criterion import CriterionConfig


def shape_overlap(w1: float, h1: float, w2: float, h2: float) -> float:
    inter = min(w1, w2) * min(h1, h2)
    return inter / (w1 * h1 + w2 * h2 - inter)


def overlap(a: list[float], b: list[float]) -> float:
    x = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    y = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    inter = max(x, 0.0) * max(y, 0.0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def complete_overlap(p: Tensor, t: list[float], detach: bool) -> Tensor:
    px, py, pw, ph = p.unbind()
    tx, ty, tw, th = t
    left, right = torch.clamp(px - pw / 2, min=tx - tw / 2), torch.clamp(px + pw / 2, max=tx + tw / 2)
    top, bottom = torch.clamp(py - ph / 2, min=ty - th / 2), torch.clamp(py + ph / 2, max=ty + th / 2)
    inter = torch.clamp(right - left, min=0) * torch.clamp(bottom - top, min=0)
    iou = inter / (pw * ph + tw * th - inter)
    cw = torch.clamp(px + pw / 2, min=tx + tw / 2) - torch.clamp(px - pw / 2, max=tx - tw / 2)
    ch = torch.clamp(py + ph / 2, min=ty + th / 2) - torch.clamp(py - ph / 2, max=ty - th / 2)
    distance = ((px - tx) ** 2 + (py - ty) ** 2) / (cw**2 + ch**2)
    v = 4 / math.pi**2 * (math.atan(tw / th) - torch.atan(pw / ph)) ** 2
    a = v / (1 - iou + v)
    return iou - distance - (a.detach() if detach else a) * v


def loss_of_batch(
    outputs: list[Tensor],
    images: list[list[tuple[list[float], int]]],
    layout: HeadLayout,
    loss: ConfidenceLoss,
    config: CriterionConfig,
    gain: float,
    ignore_iou: float,
    match_iou: float | None,
    size_px: tuple[int, int],
) -> dict[str, Any]:
    """The parts of the loss.

    Args:
        images: for each image, its ground truth as ([cx, cy, w, h] in pixels, label).
    """
    count = layout.num_classes
    box_sum, class_sum, cost_sum, valid_n, positive_n = [], [], [], [], []
    served = sorted({i for mask in layout.masks for i in mask})
    lost = 0
    for head, (mask, stride, output) in enumerate(zip(layout.masks, layout.strides, outputs, strict=True)):
        rows, columns = size_px[0] // stride, size_px[1] // stride
        scale = layout.scale_xy[head]
        box_part, class_part, cost_part, valids, positives = [], [], [], 0, 0
        for b, truths in enumerate(images):
            taken: dict[tuple[int, int, int], tuple[list[float], set[int]]] = {}
            for box, label in truths:
                fit = {i: shape_overlap(box[2], box[3], *layout.anchors_px[i]) for i in served}
                best = max(served, key=lambda i: (fit[i], -i))
                for a, i in enumerate(mask):
                    if i == best or (match_iou is not None and fit[i] > match_iou):
                        place = (
                            a,
                            min(max(int(box[1] / stride), 0), rows - 1),
                            min(max(int(box[0] / stride), 0), columns - 1),
                        )
                        if place in taken:
                            lost += 1
                            taken[place] = (box, taken[place][1] | {label})
                        else:
                            taken[place] = (box, {label})
            for a, i in enumerate(mask):
                for row in range(rows):
                    for column in range(columns):
                        raw = output[b, a * (5 + count) : (a + 1) * (5 + count), row, column]
                        aw, ah = layout.anchors_px[i]
                        predicted = torch.stack(
                            [
                                (column + scale * torch.sigmoid(raw[0]) - (scale - 1) / 2) * stride,
                                (row + scale * torch.sigmoid(raw[1]) - (scale - 1) / 2) * stride,
                                torch.exp(raw[2]) * aw,
                                torch.exp(raw[3]) * ah,
                            ]
                        )
                        here = predicted.detach().tolist()
                        positive = (a, row, column) in taken
                        quality = 0.0
                        if positive:
                            box, labels = taken[a, row, column]
                            quality = overlap(here, box)
                            box_part.append(1 - complete_overlap(predicted, box, config.detach_tradeoff))
                            for c in range(count):
                                y = 1.0 if c in labels else 0.0
                                y = y * (1 - config.label_smoothing) + config.label_smoothing / 2
                                p = torch.sigmoid(raw[5 + c])
                                class_part.append(-(y * torch.log(p) + (1 - y) * torch.log(1 - p)))
                            positives += 1
                        ignored = not positive and any(overlap(here, box) > ignore_iou for box, _ in truths)
                        if ignored:
                            continue
                        valids += 1
                        cell = ConfidenceTargets(
                            torch.full((1, 1, 1, 1), float(positive), dtype=raw.dtype),
                            torch.full((1, 1, 1, 1), quality, dtype=raw.dtype),
                            torch.ones(1, 1, 1, 1, dtype=torch.bool),
                        )
                        cost_part.append(loss(raw[4].view(1, 1, 1, 1), cell).sum())
        zero = outputs[0].sum() * 0
        box_sum.append(sum(box_part, zero))
        class_sum.append(sum(class_part, zero))
        cost_sum.append(sum(cost_part, zero))
        valid_n.append(valids)
        positive_n.append(positives)

    def divided(sums: list[Any], counts: list[int], balance: list[float]) -> Any:
        if config.normaliser == "images":
            return sum(w * s for s, w in zip(sums, balance, strict=True)) / len(images)
        total = sum(counts)
        return sum(
            w * s / max(n if config.by_scale else total, 1)
            for s, n, w in zip(sums, counts, balance, strict=True)
        )

    even = [1.0] * len(outputs)
    counts = positive_n if config.normaliser == "positives" else valid_n
    area = 1.0 if config.reference_px is None else size_px[0] * size_px[1] / config.reference_px**2
    parts = {
        "box": config.box_gain * divided(box_sum, positive_n, even),
        "classes": config.class_gain * divided(class_sum, positive_n, even),
        "confidence": gain
        * area
        * config.confidence_weight
        * divided(cost_sum, counts, config.balance[: len(outputs)]),
    }
    return parts | {"total": sum(parts.values()), "positives": sum(positive_n), "lost": lost}
