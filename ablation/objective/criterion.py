"""Box + class + confidence: ONE mask, ONE normaliser and an explicit gain for every arm.

A confidence loss returns what each cell costs; everything that turns this into a number to
minimise happens here, so no arm can reduce differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ablation.boxes import ciou
from ablation.errors import require
from ablation.losses.base import ConfidenceLoss, ConfidenceTargets
from ablation.losses.bce import BCE
from ablation.model.head import (
    FIRST_CLASS,
    OBJECTNESS,
    CellGrid,
    HeadLayout,
    decode_boxes,
    flatten_outputs,
)
from ablation.objective.assigner import Assigner, Assignment

NORMALISERS = ("positives", "valid_cells", "images")


@dataclass
class CriterionConfig:
    """How the three terms are reduced and weighted. A choice of the study, never of a loss.

    Attributes:
        normaliser: what the confidence term is divided by: "positives" (as RetinaNet does) or
            "valid_cells" (positives and negatives; the seed method's mean). Box and class are
            divided by positives with either. "images" (Darknet): every term is a sum over cells,
            divided by the images of the batch.
        by_scale: divide each head by its own count and sum the heads (seed method), or pool them.
        balance: weight of each head's confidence, coarsest stride first.
        box_gain, class_gain: factors of the box term (sum of 1 - CIoU) and of the class term (sum
            over positives and classes of BCE).
        confidence_weight: factor of the confidence term, the same for every arm.
        reference_px: null, or N: the confidence term is also multiplied by (input area) / N^2.
        confidence_gain: the arm's own factor of its confidence term; the tuned BCE sweeps it.
        gain_of: factors that belong to a loss by its name, applied on top (the seed method
            multiplies focal by 10). A loss that is not named has 1.
        match_bce: true: the gain is further multiplied by the constant that gives this arm's
            confidence gradient, at the initial weights, the size of plain BCE's.
        calibration_batches: batches that constant is measured on.
        detach_tradeoff: CIoU's trade-off weight is a constant in the gradient (paper) or not (seed).
        label_smoothing: in [0, 1): class targets become y (1 - e) + e / 2.
    """

    normaliser: str = "positives"
    by_scale: bool = False
    balance: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    box_gain: float = 2.0
    class_gain: float = 1.0
    confidence_weight: float = 1.0
    reference_px: int | None = None
    confidence_gain: float = 1.0
    gain_of: dict[str, float] = field(default_factory=dict)
    match_bce: bool = False
    calibration_batches: int = 4
    detach_tradeoff: bool = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        require(self.normaliser in NORMALISERS, "normaliser", self.normaliser, f"one of {NORMALISERS}")
        for name in ("box_gain", "class_gain", "confidence_weight", "confidence_gain"):
            require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        require(self.calibration_batches >= 1, "calibration_batches", self.calibration_batches, ">= 1")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)")


CalibrationBatch = tuple[list[Tensor], Tensor, Tensor, Tensor]
"""The heads' outputs, and the ground truth's boxes_cxcywh_px, labels and present."""


class LossParts(NamedTuple):
    """Scalars on the network's device: the weighted terms, their sum, and what they counted."""

    total: Tensor
    box: Tensor
    classes: Tensor
    confidence: Tensor
    positives: Tensor
    ignored: Tensor
    lost: Tensor


class DeclaredTerms(NamedTuple):
    """The weighted terms, each with its graph, and what the confidence term was told about the cells."""

    box: Tensor
    classes: Tensor
    confidence: Tensor
    assignment: Assignment
    targets: ConfidenceTargets


class Criterion:
    """The loss of a batch.

    Args:
        config: reduction and weights.
        loss: the arm's confidence loss.
        layout, assigner: of the network.

    Attributes:
        calibration: the constant of match_bce; 1 until `calibrate` has measured it.
    """

    def __init__(
        self, config: CriterionConfig, loss: ConfidenceLoss, layout: HeadLayout, assigner: Assigner
    ) -> None:
        heads = len(layout.masks)
        weights = f"a list with a weight for each of the {heads} heads"
        require(len(config.balance) >= heads, "balance", config.balance, weights)
        self.config = config
        self.loss = loss
        self.layout = layout
        self.assigner = assigner
        self.calibration = 1.0
        self._balance = torch.tensor(config.balance[: len(layout.masks)], device=assigner.device)

    @property
    def gain(self) -> float:
        """The arm's explicit factor of its confidence term, everything that is its own included."""
        return self.config.confidence_gain * self.config.gain_of.get(self.loss.name(), 1.0) * self.calibration

    def __call__(
        self, outputs: list[Tensor], boxes_cxcywh_px: Tensor, labels: Tensor, present: Tensor, grid: CellGrid
    ) -> LossParts:
        """The loss of a batch; see Assigner for the ground truth's shapes.

        Args:
            outputs: the network's heads, (batch, anchors * (5 + classes), rows, columns) each.
        """
        raw = flatten_outputs(outputs, self.layout)
        box, classes, confidence, assignment, _ = self.terms(raw, boxes_cxcywh_px, labels, present, grid)
        return LossParts(
            total=box + classes + confidence,
            box=box.detach(),
            classes=classes.detach(),
            confidence=confidence.detach(),
            positives=assignment.matched.sum(),
            ignored=assignment.ignored.sum(),
            lost=assignment.lost,
        )

    def terms(
        self, raw: Tensor, boxes_cxcywh_px: Tensor, labels: Tensor, present: Tensor, grid: CellGrid
    ) -> DeclaredTerms:
        """The three terms apart, for whoever wants the gradient of each; their sum is the loss.

        Args:
            raw: (batch, cells, 5 + classes), see flatten_outputs.
        """
        predicted = decode_boxes(raw.detach(), grid)
        assignment = self.assigner(boxes_cxcywh_px, labels, present, predicted, grid)
        # Box and class have a gradient at the matches only: their cells are gathered, and decoded again.
        cells, objectness = _Fields.apply(raw, assignment.cell)
        heads = F.one_hot(assignment.head, len(self.layout.masks)).to(raw.dtype)
        count = self._count(assignment.matched.to(raw.dtype).sum(0) @ heads, raw.shape[0])

        overlap, quality = self._overlap(decode_boxes(cells, grid.at(assignment.cell)), assignment)
        box = (torch.where(assignment.matched, 1 - overlap, 0.0).sum(0) @ heads) / count
        classes = (self._classes(cells, assignment).sum(0) @ heads) / count
        targets = self._targets(assignment, quality)
        confidence = self._confidence(self.loss, objectness, targets, grid)

        return DeclaredTerms(
            box=self.config.box_gain * box.sum(),
            classes=self.config.class_gain * classes.sum(),
            confidence=self.gain * confidence,
            assignment=assignment,
            targets=targets,
        )

    @torch.no_grad()
    def targets(
        self, raw: Tensor, boxes_cxcywh_px: Tensor, labels: Tensor, present: Tensor, grid: CellGrid
    ) -> ConfidenceTargets:
        """What the confidence loss is told about a batch, (batch, cells) each."""
        predicted = decode_boxes(raw, grid)
        assignment = self.assigner(boxes_cxcywh_px, labels, present, predicted, grid)
        matches = predicted.gather(1, assignment.cell[..., None].expand(-1, -1, 4))
        return self._targets(assignment, self._overlap(matches, assignment)[1])

    def calibrate(self, batches: Iterable[CalibrationBatch], grid: CellGrid) -> float:
        """Measure the gain of match_bce and keep it: sum |dL_bce/dz| / sum |dL_arm/dz|.

        Args:
            batches: (outputs, boxes, labels, present) of the calibration batches at the initial
                weights; the same for every arm of one seed.

        Returns:
            The constant, 1 for BCE itself.
        """
        bce, loss_gradient = 0.0, 0.0
        for outputs, boxes, labels, present in batches:
            raw = flatten_outputs(outputs, self.layout).detach()
            targets = self.targets(raw, boxes, labels, present, grid)
            for loss in (BCE(), self.loss):
                logits = raw[..., OBJECTNESS].clone().requires_grad_()
                self._confidence(loss, logits, targets, grid).backward()
                assert logits.grad is not None
                size = float(logits.grad.abs().sum())
                if loss is self.loss:
                    loss_gradient += size
                else:
                    bce += size
        require(
            loss_gradient > 0,
            "match_bce",
            loss_gradient,
            "used with a loss whose gradient is not 0 everywhere",
        )
        self.calibration = bce / loss_gradient
        return self.calibration

    def _count(self, per_head: Tensor, images: int) -> Tensor:
        """(heads,) divisor of each head, at least 1: its own count, everybody's, or the images."""
        if self.config.normaliser == "images":
            return torch.full_like(per_head, float(images))
        return (per_head if self.config.by_scale else per_head.sum().expand_as(per_head)).clamp(min=1)

    def _overlap(self, matches_cxcywh_px: Tensor, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """(batch, M) CIoU of each match's decoded box, and the (batch, cells) detached IoU at positives."""
        complete, plain = ciou(matches_cxcywh_px, assignment.boxes_cxcywh_px, self.config.detach_tradeoff)
        quality = torch.zeros(assignment.positive.shape, device=matches_cxcywh_px.device)
        matched_iou = torch.where(assignment.matched, plain.detach(), 0.0)
        return complete, quality.scatter_reduce(1, assignment.cell, matched_iou, "amax")

    def _classes(self, cells: Tensor, assignment: Assignment) -> Tensor:
        """(batch, M): sum over classes of BCE at each match, 0 elsewhere, from the raw fields of its cell."""
        logits = cells[..., FIRST_CLASS:]
        smooth = self.config.label_smoothing
        smoothed = assignment.classes * (1 - smooth) + smooth / 2
        loss = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").sum(-1)
        return torch.where(assignment.matched, loss, 0.0)

    def _targets(self, assignment: Assignment, quality: Tensor) -> ConfidenceTargets:
        return ConfidenceTargets(assignment.positive.float(), quality, ~assignment.ignored)

    def _confidence(
        self, loss: ConfidenceLoss, logits: Tensor, targets: ConfidenceTargets, grid: CellGrid
    ) -> Tensor:
        """The confidence term without the arm's gain: mask, normalise, balance, sum the heads."""
        sizes = grid.sizes
        batch = logits.shape[0]
        costs, valid, positives = [], [], []
        parts = zip(
            grid.shapes,
            logits.split(sizes, 1),
            targets.objectness.split(sizes, 1),
            targets.quality.split(sizes, 1),
            targets.valid.split(sizes, 1),
            strict=True,
        )
        for shape, *head in parts:
            z, objectness, quality, mask = (part.reshape(batch, *shape) for part in head)
            cost = loss(z, ConfidenceTargets(objectness, quality, mask))
            costs.append(torch.where(mask, cost, 0.0).sum())
            valid.append(mask.sum())
            positives.append(objectness.sum())
        divisor = positives if self.config.normaliser == "positives" else valid
        count = self._count(torch.stack(divisor).to(logits.dtype), batch)
        term = (self._balance * torch.stack(costs) / count).sum() * self.config.confidence_weight
        if self.config.reference_px is not None:
            _, rows, columns = grid.shapes[0]
            area = rows * columns * self.layout.strides[0] ** 2
            term = term * (area / self.config.reference_px**2)
        return term


class _Fields(torch.autograd.Function):
    """(batch, cells, 5 + classes) -> all fields of some cells, (batch, M, 5 + classes), and every objectness.

    One gradient in the shape of the whole input is made and filled, not one for each of the two.
    """

    @staticmethod
    def forward(ctx: Any, raw: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        index = cell[..., None].expand(-1, -1, raw.shape[-1])
        ctx.save_for_backward(index)
        ctx.shape = raw.shape
        return raw.gather(1, index), raw[..., OBJECTNESS].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cells: Tensor, objectness: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        gradient = cells.new_zeros(ctx.shape)
        gradient[..., OBJECTNESS] = objectness
        return gradient.scatter_add_(1, index, cells), None
