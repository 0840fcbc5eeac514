"""The objectness of every cell of the validation images, with its label: collected while evaluating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablation.data.dataset import Split
from ablation.data.loader import ValBatch, letterboxed_ground_truth
from ablation.losses.base import ConfidenceTargets
from ablation.model.head import OBJECTNESS, CellGrid, flatten_outputs
from ablation.objective.criterion import Criterion
from ablation.training.diagnostics.bins import histogram, logit_edges

MOST_IMAGES = 256
"""Images looked at, evenly spread over a larger split: 2.7 million cells at 416 px."""


@dataclass(frozen=True)
class Cells:
    """Positives and negatives; ignored cells are left out.

    Attributes:
        logits: (n,) float32 objectness logits, on the CPU.
        objectness: (n,) float32, 1 at positives, else 0.
        quality: (n,) float32, IoU of the decoded box with its ground truth at positives.
        images: how many images they come from.
    """

    logits: Tensor
    objectness: Tensor
    quality: Tensor
    images: int

    def targets(self) -> ConfidenceTargets:
        """As a confidence loss takes them: (1, 1, 1, n) each."""
        parts = (self.objectness, self.quality, torch.ones_like(self.objectness, dtype=torch.bool))
        return ConfidenceTargets(*(part[None, None, None] for part in parts))


class CellCollector:
    """Watches an evaluation (see evaluate's `observe`) and keeps the cells of its images.

    Cells are labelled as in training, by the criterion's assigner. The ground truth is that of `split`.
    """

    def __init__(self, criterion: Criterion, split: Split, grid: CellGrid) -> None:
        self.criterion, self.split, self.grid = criterion, split, grid
        count = min(len(split), MOST_IMAGES)
        self.selected = set(np.linspace(0, len(split) - 1, count).round().astype(int).tolist())
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, outputs: list[Tensor], batch: ValBatch) -> None:
        """Keep the cells of the batch's selected images."""
        rows = [row for row, index in enumerate(batch.indices.tolist()) if index in self.selected]
        if not rows:
            return
        raw = flatten_outputs([output[rows] for output in outputs], self.criterion.layout)
        truth = letterboxed_ground_truth(
            [self.split.examples[int(batch.indices[row])] for row in rows],
            [batch.geometries[row] for row in rows],
        )
        boxes, labels, present = (part.to(raw.device) for part in vars(truth).values())
        targets = self.criterion.targets(raw, boxes, labels, present, self.grid)
        valid = targets.valid
        columns = (raw[..., OBJECTNESS], targets.objectness, targets.quality)
        # Through numpy: what inference mode makes may not enter a graph.
        samples = [torch.from_numpy(column[valid].float().cpu().numpy().copy()) for column in columns]
        self._parts.append((samples[0], samples[1], samples[2]))

    def cells(self) -> Cells:
        """The cells of all batches so far."""
        logits, objectness, quality = (torch.cat(column) for column in zip(*self._parts, strict=True))
        return Cells(logits.nan_to_num(0.0), objectness, quality, len(self.selected))


def objectness_histograms(cells: Cells) -> dict[str, Any]:
    """Counts of cells by objectness, in bins of its logit, at positives and at negatives."""
    positive = cells.objectness > 0
    return {
        "images": cells.images,
        "logit_edges": logit_edges(),
        "positives": histogram(cells.logits[positive], logit_edges()),
        "negatives": histogram(cells.logits[~positive], logit_edges()),
    }
