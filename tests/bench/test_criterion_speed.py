"""How much faster the vectorised criterion is than the usual loop over heads, images and boxes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ablation.boxes import ciou, cxcywh_to_xyxy, iou, shape_iou
from ablation.losses.base import ConfidenceTargets
from ablation.losses.focal import Focal
from ablation.model.head import HeadLayout, cell_grid
from ablation.objective.assigner import Assigner, AssignerConfig
from ablation.objective.criterion import Criterion, CriterionConfig

ANCHORS = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))
LAYOUT = HeadLayout(ANCHORS, ((6, 7, 8), (3, 4, 5), (0, 1, 2)), (32, 16, 8), (1.0, 1.0, 1.0), 3)
CPU = torch.device("cpu")


def looped(outputs: list[Tensor], images: list[tuple[Tensor, Tensor]], size_px: int) -> Tensor:
    """criterion=positives with best-anchor assignment, image by image and box by box."""
    loss, anchors = Focal(), torch.tensor(LAYOUT.anchors_px)
    box_sum = class_sum = cost_sum = torch.zeros(())
    positives = 0
    for head, (mask, stride, output) in enumerate(zip(LAYOUT.masks, LAYOUT.strides, outputs, strict=True)):
        rows = size_px // stride
        raw = output.view(output.shape[0], len(mask), 8, rows, rows).permute(0, 1, 3, 4, 2)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="ij")
        centre = (torch.stack([x, y], -1) + raw[..., :2].sigmoid()) * stride
        size = raw[..., 2:4].exp() * anchors[list(LAYOUT.masks[head])][:, None, None]
        predicted = torch.cat([centre, size], -1)
        for b, (boxes, labels) in enumerate(images):
            objectness = torch.zeros(raw.shape[1:4])
            classes = torch.zeros(*raw.shape[1:4], 3)
            truth = torch.zeros(*raw.shape[1:4], 4)
            for box, label in zip(boxes, labels, strict=True):
                best = int(shape_iou(box[2:], anchors).argmax())
                if best in mask:
                    place = mask.index(best), int(box[1] / stride), int(box[0] / stride)
                    objectness[place], truth[place] = 1, box
                    classes[place][label] = 1
            overlaps = iou(cxcywh_to_xyxy(predicted[b].detach()).unsqueeze(-2), cxcywh_to_xyxy(boxes))
            ignored = (overlaps.amax(-1) > 0.5) & (objectness == 0)
            chosen = objectness.bool()
            if chosen.any():
                box_sum = box_sum + (1 - ciou(predicted[b][chosen], truth[chosen])[0]).sum()
                class_sum = class_sum + F.binary_cross_entropy_with_logits(
                    raw[b][chosen][:, 5:], classes[chosen], reduction="sum"
                )
            positives += int(chosen.sum())
            valid = ~ignored
            t = ConfidenceTargets(objectness[valid], objectness[valid], valid[valid])
            cost_sum = cost_sum + loss(raw[b, ..., 4][valid], t).sum()
    return (2 * box_sum + class_sum + cost_sum) / max(positives, 1)


def seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


@pytest.mark.bench
@pytest.mark.parametrize(
    ("size_px", "batch", "objects"), [(96, 16, 5), (256, 8, 13), (416, 16, 13), (416, 16, 40), (416, 16, 80)]
)
def test_vectorised_against_looped(size_px: int, batch: int, objects: int) -> None:
    g = torch.Generator().manual_seed(0)
    outputs = [
        torch.randn(batch, c, r, k, generator=g).requires_grad_()
        for c, (_, r, k) in zip(LAYOUT.channels, LAYOUT.shapes(size_px, size_px), strict=True)
    ]
    centre = torch.rand(batch, objects, 2, generator=g) * (size_px - 1)
    boxes = torch.cat([centre, 4 + torch.rand(batch, objects, 2, generator=g) * size_px * 0.4], -1)
    labels = torch.randint(0, 3, (batch, objects), generator=g)
    present = torch.ones(batch, objects, dtype=torch.bool)
    grid = cell_grid(LAYOUT, size_px, size_px, CPU)
    c = Criterion(CriterionConfig(), Focal(), LAYOUT, Assigner(AssignerConfig(), LAYOUT, CPU))
    images = list(zip(boxes, labels, strict=True))

    def ours() -> Tensor:
        total = c(outputs, boxes, labels, present, grid).total
        torch.autograd.grad(total, outputs)
        return total.detach()

    def theirs() -> Tensor:
        total = looped(outputs, images, size_px)
        torch.autograd.grad(total, outputs)
        return total.detach()

    assert float(ours()) == pytest.approx(float(theirs()), rel=1e-5)
    fast, slow = seconds(ours, 7), seconds(theirs, 3)
    case = f"{size_px} px, batch {batch}, {objects} objects"
    print(f"\n{case}: {1000 * fast:.1f} ms against {1000 * slow:.1f} ms, {slow / fast:.1f} times")
