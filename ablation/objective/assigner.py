"""Assignment: anchors and ground truth -> positives, negatives, and the ignore mask.

For the whole batch at once, without a loop over images or boxes and without asking the device for
a number. The rules are YOLOv4's; which of them hold is a setting, the same for every arm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ablation.boxes import EPSILON, area, cxcywh_to_xyxy, iou, shape_iou
from ablation.errors import require
from ablation.model.head import CellGrid, HeadLayout

PAIRS = 65_536
"""Pairs of a cell and a ground truth whose IoU is taken at a time on a CPU: 256 KiB a buffer."""


@dataclass
class AssignerConfig:
    """Which cells learn to be objects.

    Attributes:
        ignore_iou: in (0, 1]; a negative whose decoded box overlaps any ground truth of its image
            by more than this is ignored. The seed method has 0.5, Darknet 0.7.
        match_iou: null: a ground truth goes to its best anchor only (seed method). A number in
            (0, 1): also to every anchor whose shape IoU exceeds it (Darknet: 0.213).
    """

    ignore_iou: float = 0.5
    match_iou: float | None = None

    def __post_init__(self) -> None:
        require(0 < self.ignore_iou <= 1, "ignore_iou", self.ignore_iou, "in (0, 1]")
        threshold = self.match_iou
        require(threshold is None or 0 < threshold < 1, "match_iou", threshold, "in (0, 1), or null")


@dataclass(frozen=True)
class Assignment:
    """The assignment of a batch.

    A *match* pairs one ground truth with one anchor of one head; there are M = objects x anchors
    possible ones per image, of which few are real. Keeping all M with a mask keeps shapes fixed.

    Attributes:
        matched: (batch, M) bool, the real matches: one per positive cell.
        cell: (batch, M) int64, the match's cell, an index into the cells of CellGrid.
        boxes_cxcywh_px: (batch, M, 4), the ground truth of each match.
        classes: (batch, M, classes) float, 1 for every class of the ground truths in that cell.
        head: (M,) int64, the head of each match.
        positive: (batch, cells) bool.
        ignored: (batch, cells) bool, neither positive nor negative; disjoint from positive.
        lost: () int64, matches lost because a later box took the same cell and anchor.
    """

    matched: Tensor
    cell: Tensor
    boxes_cxcywh_px: Tensor
    classes: Tensor
    head: Tensor
    positive: Tensor
    ignored: Tensor
    lost: Tensor


class Assigner:
    """Assigns ground truth to the anchors of `layout` by the rules of `config`."""

    def __init__(self, config: AssignerConfig, layout: HeadLayout, device: torch.device) -> None:
        self.config = config
        self.layout = layout
        self.device = device
        heads = [(h, i) for h, mask in enumerate(layout.masks) for i in mask]
        self._head = torch.tensor([h for h, _ in heads], device=device)
        self._anchor = torch.tensor([i for _, i in heads], device=device)
        self._anchors_px = torch.tensor(layout.anchors_px, dtype=torch.float32, device=device)
        # An anchor that no head serves can match nothing: the box falls back to the next best.
        served = torch.zeros(len(layout.anchors_px), dtype=torch.bool)
        served[[i for _, i in heads]] = True
        self._served = served.to(device)

    @torch.no_grad()
    def __call__(
        self,
        boxes_cxcywh_px: Tensor,
        labels: Tensor,
        present: Tensor,
        predicted_cxcywh_px: Tensor,
        grid: CellGrid,
    ) -> Assignment:
        """Assign a batch.

        Args:
            boxes_cxcywh_px: (batch, objects, 4) ground truth in input pixels, zero-padded.
            labels: (batch, objects) int64 in [0, classes).
            present: (batch, objects) bool, False for padding.
            predicted_cxcywh_px: (batch, cells, 4) decoded boxes, for the ignore mask.
            grid: the cells.
        """
        batch, objects, _ = boxes_cxcywh_px.shape
        pairs = self._head.numel()
        claimed = self._claimed_anchors(boxes_cxcywh_px, present)
        cell = self._cells(boxes_cxcywh_px, grid).flatten(1)
        claimed = claimed.flatten(1)

        # The later box wins a cell: matches are numbered in the order of the boxes.
        number = torch.arange(objects * pairs, device=cell.device).expand(batch, -1)
        winner = torch.full(predicted_cxcywh_px.shape[:2], -1, device=cell.device)
        winner.scatter_reduce_(1, cell, torch.where(claimed, number, -1), "amax")
        winner_of = winner.gather(1, cell)
        matched = claimed & (winner_of == number)

        count = self.layout.num_classes
        classes = torch.zeros(batch, objects * pairs * count, device=cell.device)
        label = labels[:, :, None].expand(-1, -1, pairs).flatten(1)
        classes.scatter_reduce_(1, winner_of.clamp(min=0) * count + label, claimed.float(), "amax")

        positive = winner >= 0
        overlap = self._best_overlap(predicted_cxcywh_px, boxes_cxcywh_px, present, grid)
        return Assignment(
            matched=matched,
            cell=cell,
            boxes_cxcywh_px=boxes_cxcywh_px[:, :, None, :].expand(-1, -1, pairs, -1).flatten(1, 2),
            classes=classes.view(batch, -1, count),
            head=self._head.repeat(objects),
            positive=positive,
            ignored=(overlap > self.config.ignore_iou) & ~positive,
            lost=claimed.sum() - matched.sum(),
        )

    def _claimed_anchors(self, boxes: Tensor, present: Tensor) -> Tensor:
        """(batch, objects, pairs) bool: which anchors each box asks for."""
        overlap = shape_iou(boxes[:, :, None, 2:4], self._anchors_px)
        overlap = torch.where(self._served, overlap, -1.0)
        best = overlap.argmax(-1, keepdim=True)
        claimed = best == self._anchor
        if self.config.match_iou is not None:
            claimed = claimed | (overlap[..., self._anchor] > self.config.match_iou)
        return claimed & present[:, :, None]

    def _cells(self, boxes: Tensor, grid: CellGrid) -> Tensor:
        """(batch, objects, pairs) int64: the cell that holds each box's centre, for each anchor."""
        parts, first = [], 0
        for (anchors, rows, columns), stride in zip(grid.shapes, self.layout.strides, strict=True):
            # A centre exactly on the right or lower border belongs to the last cell.
            column = (boxes[..., 0] / stride).long().clamp(0, columns - 1)
            row = (boxes[..., 1] / stride).long().clamp(0, rows - 1)
            anchor = torch.arange(anchors, device=boxes.device) * rows * columns
            parts.append(first + anchor + (row * columns + column)[..., None])
            first += anchors * rows * columns
        return torch.cat(parts, dim=-1)

    def _best_overlap(self, predicted: Tensor, boxes: Tensor, present: Tensor, grid: CellGrid) -> Tensor:
        """(batch, cells): the largest IoU of each decoded box with a ground truth of its image."""
        if predicted.device.type == "cpu":
            images = zip(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(boxes), present, strict=True)
            return torch.stack([largest_iou(each, truth[exists]) for each, truth, exists in images])
        # Padding becomes a box of area 0, which overlaps nothing.
        truth = torch.where(present[..., None], cxcywh_to_xyxy(boxes), 0.0)[:, None]
        parts = []
        # Head by head, so that the (batch, cells, objects) intermediate stays small.
        for part in cxcywh_to_xyxy(predicted).split(grid.sizes, dim=1):
            parts.append(iou(part[:, :, None], truth).amax(-1))
        return torch.cat(parts, dim=1)


def largest_iou(predicted_xyxy: Tensor, truth_xyxy: Tensor) -> Tensor:
    """`iou(predicted[:, None], truth).amax(1)` to the last bit, (cells,); 0 without a ground truth.

    A few ground truths at a time, in buffers that stay in the cache.
    """
    planes = predicted_xyxy.t().contiguous()
    cells, size = planes.shape[1], area(predicted_xyxy)
    largest = torch.zeros(cells)
    if len(truth_xyxy) == 0:
        return largest
    at_a_time = max(1, PAIRS // cells)
    buffers = torch.empty(3, min(at_a_time, len(truth_xyxy)), cells)
    for part in truth_xyxy.split(at_a_time):
        overlap, height, other = buffers[:, : len(part)]
        for axis, extent in ((0, overlap), (1, height)):
            torch.minimum(planes[axis + 2], part[:, axis + 2, None], out=extent)
            extent.sub_(torch.maximum(planes[axis], part[:, axis, None], out=other)).clamp_(min=0)
        overlap.mul_(height)
        union = torch.add(size, area(part)[:, None], out=other).sub_(overlap).clamp_(min=EPSILON)
        torch.maximum(largest, overlap.div_(union).amax(0), out=largest)
    return largest
