"""Box formats, IoU and complete IoU (CIoU), on torch tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre and size -> (..., 4) corners, in the same unit."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:4] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def area(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) -> (...): width times height; a box with x2 < x1 has area 0."""
    size = (boxes_xyxy[..., 2:4] - boxes_xyxy[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast: (..., 4), (..., 4) -> (...), in [0, 1].

    Two boxes of area 0 have IoU 0.
    """
    # Coordinate by coordinate: planes of numbers are several times faster than pairs of them.
    left_a, top_a, right_a, bottom_a = a_xyxy.unbind(-1)
    left_b, top_b, right_b, bottom_b = b_xyxy.unbind(-1)
    width = (torch.minimum(right_a, right_b) - torch.maximum(left_a, left_b)).clamp(min=0)
    height = (torch.minimum(bottom_a, bottom_b) - torch.maximum(top_a, top_b)).clamp(min=0)
    intersection = width * height
    union = area(a_xyxy) + area(b_xyxy) - intersection
    return intersection / union.clamp(min=EPSILON)


def shape_iou(sizes_a: Tensor, sizes_b: Tensor) -> Tensor:
    """IoU of boxes with one common centre: (..., 2), (..., 2) sizes that broadcast -> (...)."""
    overlap = torch.minimum(sizes_a, sizes_b).clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    union = sizes_a[..., 0] * sizes_a[..., 1] + sizes_b[..., 0] * sizes_b[..., 1] - intersection
    return intersection / union.clamp(min=EPSILON)


def ciou(
    predicted_cxcywh: Tensor, target_cxcywh: Tensor, detach_tradeoff: bool = True
) -> tuple[Tensor, Tensor]:
    """Complete IoU of matched boxes (Zheng et al., arXiv 1911.08287) and their plain IoU.

        CIoU = IoU - d^2 / c^2 - a v,
        v = 4 / pi^2 (atan(w_t / h_t) - atan(w_p / h_p))^2,   a = v / (1 - IoU + v)

    where d is the distance of the centres and c the diagonal of the smallest enclosing box.

    Args:
        predicted_cxcywh, target_cxcywh: (..., 4), one unit, sizes >= 0.
        detach_tradeoff: the paper treats `a` as a constant in the gradient; the seed method
            does not, which False reproduces.

    Returns:
        (...) CIoU in (-2, 1] and (...) IoU in [0, 1].
    """
    p, t = cxcywh_to_xyxy(predicted_cxcywh), cxcywh_to_xyxy(target_cxcywh)
    overlap = iou(p, t)
    enclosing = torch.maximum(p[..., 2:4], t[..., 2:4]) - torch.minimum(p[..., :2], t[..., :2])
    diagonal2 = enclosing.square().sum(-1).clamp(min=EPSILON)
    distance2 = (predicted_cxcywh[..., :2] - target_cxcywh[..., :2]).square().sum(-1)
    size_p = predicted_cxcywh[..., 2:4].clamp(min=EPSILON)
    size_t = target_cxcywh[..., 2:4].clamp(min=EPSILON)
    angle = torch.atan2(size_t[..., 0], size_t[..., 1]) - torch.atan2(size_p[..., 0], size_p[..., 1])
    v = (4 / math.pi**2) * angle.square()
    tradeoff = v / (1 - overlap + v).clamp(min=EPSILON)
    if detach_tradeoff:
        tradeoff = tradeoff.detach()
    return overlap - distance2 / diagonal2 - tradeoff * v, overlap
