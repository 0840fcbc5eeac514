from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablation.model.head import HeadLayout, cell_grid
from ablation.training.detect import Detections, DetectionSettings, decode, detect, suppress

LAYOUT = HeadLayout(
    anchors_px=((10, 14), (23, 27), (37, 58)),
    masks=((1, 2), (0, 1)),
    strides=(32, 16),
    scale_xy=(1.0, 1.2),
    num_classes=2,
)
SIZE_PX = 64
CELLS = 2 * 2 * 2 + 2 * 4 * 4
CPU = torch.device("cpu")


def silent(batch: int = 1) -> list[Tensor]:
    """Raw outputs in which no cell is confident of anything."""
    return [torch.full((batch, 2 * 7, side, side), -20.0) for side in (2, 4)]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def put(
    outputs: list[Tensor],
    cell: tuple[int, int, int, int],
    box_cxcywh_px: tuple[float, float, float, float],
    objectness: float,
    classes: tuple[float, float],
    image: int = 0,
) -> None:
    """Write into (head, anchor, row, column) the logits that mean this box: the inverse of decoding."""
    head, anchor, row, column = cell
    stride, scale = LAYOUT.strides[head], LAYOUT.scale_xy[head]
    width, height = LAYOUT.anchors_px[LAYOUT.masks[head][anchor]]
    cx, cy, w, h = box_cxcywh_px
    offsets = [
        (cx / stride - column + (scale - 1) / 2) / scale,
        (cy / stride - row + (scale - 1) / 2) / scale,
    ]
    raw = [logit(offset) for offset in offsets] + [math.log(w / width), math.log(h / height)]
    raw += [logit(objectness), *(logit(p) for p in classes)]
    outputs[head][image, anchor * 7 : anchor * 7 + 7, row, column] = torch.tensor(raw)


def greedy(
    boxes: NDArray[np.float64], scores: NDArray[np.floating], labels: NDArray[np.int64], limit: float
) -> list[int]:
    """Suppression by its definition, one pair at a time."""
    remaining: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in remaining:
            wide = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            high = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            both = max(0.0, wide) * max(0.0, high)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if labels[i] == labels[j] and both / (sum(areas) - both) > limit:
                break
        else:
            remaining.append(int(i))
    return remaining


@pytest.mark.parametrize("cell", [(0, 0, 0, 0), (0, 1, 1, 0), (1, 0, 3, 2), (1, 1, 0, 3)])
def test_decoding_inverts_encoding(cell: tuple[int, int, int, int]) -> None:
    head, anchor, row, column = cell
    stride = LAYOUT.strides[head]
    box = ((column + 0.3) * stride, (row + 0.8) * stride, 21.0, 9.5)
    outputs = silent()
    put(outputs, cell, box, 0.7, (0.2, 0.9))
    boxes, scores = decode(outputs, LAYOUT, cell_grid(LAYOUT, SIZE_PX, SIZE_PX, CPU))
    assert boxes.shape == (1, CELLS, 4) and scores.shape == (1, CELLS, 2)
    side = SIZE_PX // stride
    position = (0 if head == 0 else 8) + (anchor * side + row) * side + column
    cx, cy, w, h = box
    expected = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
    assert boxes[0, position].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert scores[0, position].tolist() == pytest.approx([0.14, 0.63], rel=1e-5)
    assert scores[0].sum().item() == pytest.approx(0.77, rel=1e-5), "another cell has a score"


def test_scale_xy_lets_a_centre_reach_the_border_of_its_cell() -> None:
    """s sigmoid(t) - (s - 1) / 2: at t = logit(11/12) a scale of 1.2 is exactly 1, the plain one 11/12."""
    grid = cell_grid(LAYOUT, SIZE_PX, SIZE_PX, CPU)
    outputs = [torch.zeros(1, 14, side, side) for side in (2, 4)]
    for output in outputs:
        output.view(1, 2, 7, -1)[:, :, 0] = logit(11 / 12)
    boxes, _ = decode(outputs, LAYOUT, grid)
    centres = (boxes[0, :, 0] + boxes[0, :, 2]) / 2
    torch.testing.assert_close(centres[:2], torch.tensor([11 / 12 * 32, (1 + 11 / 12) * 32]))
    torch.testing.assert_close(centres[8:12], torch.tensor([16.0, 32.0, 48.0, 64.0]))
    torch.testing.assert_close((boxes[0, 8:, 1] + boxes[0, 8:, 3]) / 2 % 16, torch.full((32,), 8.0))


def run(outputs: list[Tensor], **settings: float) -> list[Detections]:
    grid = cell_grid(LAYOUT, SIZE_PX, SIZE_PX, CPU)
    return detect(outputs, LAYOUT, grid, DetectionSettings(**settings))  # type: ignore[arg-type]


def test_detections_of_a_batch_by_hand() -> None:
    outputs = silent(batch=3)
    put(outputs, (0, 0, 1, 1), (40, 40, 20, 20), 0.9, (0.8, 0.1), image=0)
    put(outputs, (1, 1, 2, 2), (41, 41, 20, 20), 0.5, (0.8, 0.9), image=0)  # IoU .82 with the first
    put(outputs, (1, 0, 0, 0), (5, 6, 8, 10), 0.4, (0.001, 0.5), image=2)
    first, second, third = run(outputs)
    assert len(second) == 0 and second.boxes_xyxy_px.shape == (0, 4)
    # Class 0: the first suppresses the second; class 1: the second suppresses the first.
    assert first.labels.tolist() == [0, 1]
    assert first.scores.tolist() == pytest.approx([0.72, 0.45], rel=1e-5)
    assert first.objectness.tolist() == pytest.approx([0.9, 0.5], rel=1e-5)
    np.testing.assert_allclose(first.boxes_xyxy_px, [[30, 30, 50, 50], [31, 31, 51, 51]], atol=1e-3)
    assert third.labels.tolist() == [1] and third.scores.tolist() == pytest.approx([0.2], rel=1e-5)
    np.testing.assert_allclose(third.boxes_xyxy_px, [[1, 1, 9, 11]], atol=1e-3)
    assert [part.dtype for part in (first.boxes_xyxy_px, first.scores, first.objectness)] == [np.float32] * 3


def test_thresholds_and_limits() -> None:
    outputs = silent()
    for column in range(4):
        put(outputs, (1, 0, 0, column), (column * 16 + 8, 8, 10, 10), 0.5 + column / 10, (0.5, 0.001))
    assert run(outputs)[0].scores.tolist() == pytest.approx([0.4, 0.35, 0.3, 0.25], rel=1e-5)
    assert len(run(outputs, score_threshold=0.32)[0]) == 2
    assert run(outputs, max_detections=3)[0].scores.tolist() == pytest.approx([0.4, 0.35, 0.3], rel=1e-5)
    assert run(outputs, max_candidates=1)[0].scores.tolist() == pytest.approx([0.4], rel=1e-5)


def test_candidates_are_the_best_ones_whatever_the_head() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(4, 14, side, side, generator=generator) for side in (2, 4)]
    _, scores = decode(outputs, LAYOUT, cell_grid(LAYOUT, SIZE_PX, SIZE_PX, CPU))
    for image, detections in enumerate(run(outputs, nms_iou=1.0, max_candidates=10)):
        expected = scores[image].flatten().sort(descending=True).values[:10]
        np.testing.assert_array_equal(detections.scores, expected.numpy())


def test_equal_scores_are_taken_in_the_order_of_cells() -> None:
    outputs = [torch.zeros(2, 14, side, side) for side in (2, 4)]
    boxes, _ = decode(outputs, LAYOUT, cell_grid(LAYOUT, SIZE_PX, SIZE_PX, CPU))
    for detections in run(outputs, nms_iou=1.0, max_candidates=7):
        np.testing.assert_array_equal(detections.boxes_xyxy_px, boxes[0, [0, 0, 1, 1, 2, 2, 3]].numpy())
        assert detections.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_many_equal_scores_stay_in_the_order_of_cells() -> None:
    levels = torch.randint(-1, 2, (40,), generator=torch.Generator().manual_seed(0)).float()
    outputs = [torch.zeros(1, 14, side, side) for side in (2, 4)]
    outputs[0].view(2, 7, 4)[:, 4] = levels[:8].view(2, 4)
    outputs[1].view(2, 7, 16)[:, 4] = levels[8:].view(2, 16)
    boxes, _ = decode(outputs, LAYOUT, cell_grid(LAYOUT, SIZE_PX, SIZE_PX, CPU))
    expected = sorted(range(80), key=lambda pair: -levels[pair // 2].item())  # Python's sort is stable
    detections = run(outputs, nms_iou=1.0)[0]
    assert detections.labels.tolist() == [pair % 2 for pair in expected]
    np.testing.assert_array_equal(
        detections.boxes_xyxy_px, boxes[0, [pair // 2 for pair in expected]].numpy()
    )


def test_numbers_that_are_not_finite_detect_nothing() -> None:
    outputs = silent()
    put(outputs, (0, 0, 0, 0), (16, 16, 20, 20), 0.9, (0.8, 0.1))
    outputs[1][:, :, 1, 1] = torch.nan
    outputs[1][:, 4, 2, 2] = torch.inf
    outputs[1][:, 0, 3, 3] = torch.nan
    outputs[1][:, 4:6, 3, 3] = 5.0
    detections = run(outputs)[0]
    assert detections.scores.tolist() == pytest.approx([0.72, 0.09], rel=1e-5)


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.9])
def test_suppression_against_its_definition(limit: float) -> None:
    generator = np.random.default_rng(int(limit * 10))
    for _ in range(30):
        count = int(generator.integers(1, 120))
        low = generator.uniform(-40, 100, (count, 2))
        high = low + np.exp(generator.normal(2.5, 1.5, (count, 2)))
        boxes = np.concatenate([low, high], 1).astype(np.float32)
        scores = generator.random(count).round(2).astype(np.float32)  # many ties
        labels = generator.integers(0, 4, count)
        expected = greedy(boxes.astype(np.float64), scores, labels, limit)
        assert suppress(boxes, scores, labels, limit).tolist() == expected


def test_suppression_of_nothing_and_of_score_zero() -> None:
    none = np.zeros((0, 4), np.float32)
    assert suppress(none, none[:, 0], np.zeros(0, np.int64), 0.5).tolist() == []
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 3], [9, 9, 9.5, 9.5]], np.float32)
    assert suppress(boxes, np.zeros(3, np.float32), np.zeros(3, np.int64), 0.5).tolist() == [0, 2]


def test_precision_of_the_outputs_does_not_reach_the_scores() -> None:
    outputs = [torch.full((1, 14, side, side), 8.0, dtype=torch.bfloat16) for side in (2, 4)]
    scores = run(outputs)[0].scores
    assert scores[0] == pytest.approx((1 / (1 + math.exp(-8))) ** 2, rel=1e-6) and scores[0] < 1
