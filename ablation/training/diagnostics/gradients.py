"""Where the gradient goes: to positives, easy or hard negatives; to box, class or confidence.

The direct test of "it is only the loss's scale": an arm that differs from BCE by a factor alone has
BCE's shares, and the factor in its sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ablation.losses.base import ConfidenceTargets
from ablation.model.head import OBJECTNESS, CellGrid, flatten_outputs
from ablation.objective.criterion import CalibrationBatch, Criterion
from ablation.training.diagnostics.bins import histogram, log10_edges, logit_edges

HARD = 0.1
"""A negative is hard where its objectness is above this: ten times the usual prior of .01.

One number for all arms. A loss that draws its scores to the middle, as focal does, thereby has more
hard negatives than BCE for the same ranking of cells; see score_inversion.json.
"""

GROUPS = ("positives", "easy_negatives", "hard_negatives")
TERMS = ("box", "class", "confidence")


def groups(objectness_logits: Tensor, targets: ConfidenceTargets) -> dict[str, Tensor]:
    """The three disjoint masks of GROUPS, (batch, cells) bool each; ignored cells are in none."""
    positive = targets.objectness > 0
    negative = targets.valid & ~positive
    hard = objectness_logits.sigmoid() > HARD
    masks = (positive, negative & ~hard, negative & hard)
    return dict(zip(GROUPS, masks, strict=True))


def gradient_record(
    criterion: Criterion, batches: Sequence[CalibrationBatch], grid: CellGrid
) -> dict[str, Any]:
    """Gradients of the loss with respect to the heads' outputs, as the network receives them.

    Gain, normaliser and balance are in them: the sums of two arms can be compared. Every number is a
    mean over the batches. Not finite (a network about to diverge): null.

    Returns:
        cells: number of cells of each of GROUPS;
        objectness: sum over the cells of each group of |dL/dz|, z the objectness logit;
        outputs_l1, outputs_l2: for each of TERMS, the norm of its gradient over all outputs.
    """
    rows = []
    for outputs, boxes, labels, present in batches:
        raw = flatten_outputs(outputs, criterion.layout).detach().requires_grad_()
        with torch.enable_grad():
            terms = criterion.terms(raw, boxes, labels, present, grid)
            parts = [
                torch.autograd.grad(term, raw, retain_graph=True)[0].double()
                for term in (terms.box, terms.classes, terms.confidence)
            ]
        size = parts[2][..., OBJECTNESS].abs()
        masks = groups(raw.detach()[..., OBJECTNESS], terms.targets).values()
        row = [mask.sum().double() for mask in masks] + [size[mask].sum() for mask in masks]
        row += [part.abs().sum() for part in parts] + [part.square().sum().sqrt() for part in parts]
        rows.append(torch.stack(row))
    values = [_number(value) for value in torch.stack(rows).mean(0).tolist()]
    return {
        "cells": dict(zip(GROUPS, values[0:3], strict=True)),
        "objectness": dict(zip(GROUPS, values[3:6], strict=True)),
        "outputs_l1": dict(zip(TERMS, values[6:9], strict=True)),
        "outputs_l2": dict(zip(TERMS, values[9:12], strict=True)),
    }


def gradient_norms(
    criterion: Criterion, batches: Sequence[CalibrationBatch], grid: CellGrid
) -> dict[str, Any]:
    """Histograms over the cells of all batches: of |dL/dz| itself, and over how wrong a cell is.

    L is a cell's own confidence loss times the arm's gain, before balance and normaliser. How wrong
    a cell is: g = |p - y|, which for plain BCE is |dL/dz| (Li et al., "Gradient Harmonized
    Single-stage Detector", arXiv 1811.05181, where g is the gradient norm); a loss that focuses
    moves the gradient to larger g.

    Returns:
        log10_edges: of the bins of |dL/dz|; logit_edges: of the bins of g, in log(g / (1 - g));
        positives, negatives: each `norms` (cells by |dL/dz|), `cells` (cells by g) and `gradient`
        (sum of |dL/dz| by g).
    """
    by_side: dict[str, list[tuple[Tensor, Tensor]]] = {"positives": [], "negatives": []}
    for outputs, boxes, labels, present in batches:
        raw = flatten_outputs(outputs, criterion.layout).detach()
        targets = criterion.targets(raw, boxes, labels, present, grid)
        logits = raw[..., OBJECTNESS].clone().requires_grad_()
        with torch.enable_grad():
            # A loss takes (batch, anchors, rows, columns); it looks at each cell by itself.
            shaped = ConfidenceTargets(*(part[:, :, None, None] for part in vars(targets).values()))
            cost = criterion.loss(logits[:, :, None, None], shaped).squeeze((2, 3))
            (gradient,) = torch.autograd.grad(cost[targets.valid].sum(), logits)
        size = gradient.abs().double() * criterion.gain
        # log(g / (1 - g)) is the logit of the wrong side, exactly.
        wrong = torch.where(targets.objectness > 0, -logits, logits).detach()
        positive = targets.objectness > 0
        for name, mask in (("positives", positive), ("negatives", targets.valid & ~positive)):
            by_side[name].append((wrong[mask], size[mask]))
    record: dict[str, Any] = {"log10_edges": log10_edges(), "logit_edges": logit_edges()}
    for name, parts in by_side.items():
        wrong, size = (torch.cat(column).nan_to_num(0.0) for column in zip(*parts, strict=True))
        record[name] = {
            "norms": histogram(size.log10(), log10_edges()),
            "cells": histogram(wrong, logit_edges()),
            "gradient": [_number(value) for value in histogram(wrong, logit_edges(), size)],
        }
    return record


def _number(value: float) -> float | None:
    """Seven digits, which is what float32 gradients have; None where it is not finite."""
    return float(f"{value:.7g}") if abs(value) < float("inf") else None
