"""The vectorised criterion against the plain one, and the identities that keep arms comparable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import criterion_oracle as oracle
from omegaconf import OmegaConf
from torch import Tensor

from ablation.boxes import cxcywh_to_xyxy, iou
from ablation.config.typed import filled
from ablation.losses.base import ConfidenceLoss
from ablation.losses.bce import BCE
from ablation.losses.focal import Focal
from ablation.model.head import HeadLayout, cell_grid, flatten_outputs
from ablation.objective.assigner import Assigner, AssignerConfig, largest_iou
from ablation.objective.criterion import Criterion, CriterionConfig

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SIZE = (64, 96)
ANCHORS = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))
YOLO = HeadLayout(ANCHORS, ((6, 7, 8), (3, 4, 5), (0, 1, 2)), (32, 16, 8), (1.0, 1.0, 1.0), 3)
DARKNET = HeadLayout(ANCHORS, ((6, 7, 8), (3, 4, 5), (0, 1, 2)), (32, 16, 8), (1.05, 1.1, 1.2), 3)
TINY = HeadLayout(
    ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)),
    ((3, 4, 5), (1, 2, 3)),
    (32, 16),
    (1.0, 1.0),
    2,
)

Truth = list[list[tuple[list[float], int]]]
CASES: dict[str, Truth] = {
    "ordinary": [
        [([30.0, 20.0, 14.0, 18.0], 0), ([70.0, 40.0, 40.0, 30.0], 1)],
        [([50.0, 30.0, 30.0, 60.0], 2)],
    ],
    "an image without objects": [[([30.0, 20.0, 14.0, 18.0], 0)], []],
    "no objects at all": [[], []],
    "two objects in one cell and anchor": [
        [([33.0, 20.0, 14.0, 18.0], 0), ([35.0, 21.0, 13.0, 17.0], 1), ([34.0, 22.0, 12.0, 16.0], 1)],
        [([50.0, 30.0, 30.0, 60.0], 0)],
    ],
    "objects on the border": [
        [([96.0, 64.0, 20.0, 30.0], 1), ([0.0, 0.0, 13.0, 17.0], 0)],
        [([96.0, 0.0, 90.0, 60.0], 1), ([0.0, 64.0, 40.0, 30.0], 0)],
    ],
    "tiny objects": [
        [([30.0, 20.0, 0.6, 0.4], 0), ([31.0, 20.0, 1.5, 2.0], 1)],
        [([50.0, 31.0, 0.5, 3.0], 0)],
    ],
    "larger than the image": [[([48.0, 32.0, 300.0, 280.0], 1)], [([48.0, 32.0, 95.0, 63.0], 0)]],
}


def preset(name: str, **changes: Any) -> CriterionConfig:
    values: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "criterion" / f"{name}.yaml"))
    values.pop("defaults", None)
    return filled("criterion", CriterionConfig, values | changes)


def random_outputs(
    layout: HeadLayout, batch: int, seed: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, channels, rows, columns, generator=g, dtype=torch.float64).to(dtype)
        for channels, (_, rows, columns) in zip(layout.channels, layout.shapes(*SIZE), strict=True)
    ]


def padded(images: Truth) -> tuple[Tensor, Tensor, Tensor]:
    most = max(1, *(len(image) for image in images))
    boxes, labels = torch.zeros(len(images), most, 4), torch.zeros(len(images), most, dtype=torch.int64)
    present = torch.zeros(len(images), most, dtype=torch.bool)
    for i, image in enumerate(images):
        for j, (box, label) in enumerate(image):
            boxes[i, j], labels[i, j], present[i, j] = torch.tensor(box), label, True
    return boxes, labels, present


def criterion(
    config: CriterionConfig,
    loss: ConfidenceLoss,
    layout: HeadLayout = YOLO,
    assigner: AssignerConfig | None = None,
) -> Criterion:
    return Criterion(config, loss, layout, Assigner(assigner or AssignerConfig(), layout, CPU))


def evaluated(c: Criterion, outputs: list[Tensor], images: Truth) -> Any:
    return c(outputs, *padded(images), cell_grid(c.layout, *SIZE, CPU))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["positives", "blog", "darknet"])
@pytest.mark.parametrize("layout", [YOLO, TINY, DARKNET], ids=["yolov4", "tiny", "darknet"])
def test_vectorised_equals_the_plain_reading(case: str, name: str, layout: HeadLayout) -> None:
    config = preset(name, label_smoothing=0.1 if layout is DARKNET else 0.0)
    rule = AssignerConfig(0.7, 0.213) if layout is DARKNET else AssignerConfig(0.5, None)
    loss = Focal(0.25, 2.0)
    images = [[(box, label % layout.num_classes) for box, label in image] for image in CASES[case]]
    drawn = random_outputs(layout, len(images), seed=list(CASES).index(case))
    outputs = [output.float().requires_grad_() for output in drawn]
    c = criterion(config, loss, layout, rule)
    ours = evaluated(c, outputs, images)
    ours_gradient = torch.autograd.grad(ours.total, outputs)

    exact = [o.detach().double().requires_grad_() for o in outputs]
    plain = oracle.loss_of_batch(
        exact, images, layout, loss, config, c.gain, rule.ignore_iou, rule.match_iou, SIZE
    )
    plain_gradient = torch.autograd.grad(plain["total"], exact)
    assert int(ours.positives) == plain["positives"]
    assert int(ours.lost) == plain["lost"]
    for part in ("box", "classes", "confidence", "total"):
        assert float(getattr(ours, part).detach()) == pytest.approx(
            float(plain[part].detach()), rel=1e-6, abs=1e-9
        ), part
    for a, b in zip(ours_gradient, plain_gradient, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)


def test_two_objects_in_one_cell_are_counted_and_the_later_wins() -> None:
    images = CASES["two objects in one cell and anchor"]
    c = criterion(preset("positives"), BCE())
    raw = flatten_outputs(random_outputs(YOLO, 2, 0, torch.float32), YOLO)
    grid = cell_grid(YOLO, *SIZE, CPU)
    found = c.assigner(*padded(images), torch.zeros(2, raw.shape[1], 4), grid)
    assert int(found.lost) == 2
    kept = found.boxes_cxcywh_px[0][found.matched[0]]
    assert kept.tolist() == [pytest.approx([34.0, 22.0, 12.0, 16.0])]
    assert found.classes[0][found.matched[0]].tolist() == [[1.0, 1.0, 0.0]]  # classes are OR-ed


def test_seed_method_focal_at_half_and_zero_is_five_times_bce() -> None:
    config = preset("blog")
    outputs = random_outputs(YOLO, 2, 3, torch.float32)
    bce = evaluated(criterion(config, BCE()), outputs, CASES["ordinary"])
    focal = evaluated(criterion(config, Focal(alpha=0.5, gamma=0.0)), outputs, CASES["ordinary"])
    assert criterion(config, Focal()).gain == 10 and criterion(config, BCE()).gain == 1
    assert float(focal.confidence) == pytest.approx(5 * float(bce.confidence), rel=1e-6)
    assert torch.equal(focal.box, bce.box) and torch.equal(focal.classes, bce.classes)


@pytest.mark.parametrize("name", ["positives", "blog", "matched", "darknet"])
def test_arms_share_mask_normaliser_box_and_class_terms(name: str) -> None:
    outputs = random_outputs(YOLO, 2, 4, torch.float32)
    parts = [
        evaluated(criterion(preset(name), loss), outputs, CASES["ordinary"]) for loss in (BCE(), Focal())
    ]
    for field in ("box", "classes", "positives", "ignored", "lost"):
        assert torch.equal(getattr(parts[0], field), getattr(parts[1], field))
    assert not torch.equal(parts[0].confidence, parts[1].confidence)


def test_an_ignored_cell_gets_no_confidence_gradient() -> None:
    """Every cell predicts the object's own box: all but the positive one overlap it and are ignored."""
    layout = HeadLayout(((32.0, 32.0),), ((0,),), (16,), (1.0,), 1)
    output = torch.zeros(1, 6, 4, 6, requires_grad=True)
    images: Truth = [[([56.0, 24.0, 32.0, 32.0], 0)]]
    c = criterion(preset("positives"), BCE(), layout, AssignerConfig(ignore_iou=0.3))
    parts = evaluated(c, [output], images)
    (gradient,) = torch.autograd.grad(parts.total, output)
    touched = gradient[0, 4] != 0
    # Neighbours in the cross share half of the box: IoU 1/3 > 0.3, so they are ignored.
    assert not touched[1, 2] and not touched[1, 4] and not touched[0, 3] and not touched[2, 3]
    assert touched[1, 3] and touched[0, 2]
    assert int(parts.ignored) == 4 and int(parts.positives) == 1


def test_matched_gain_makes_the_confidence_gradients_equal() -> None:
    config = preset("matched", normaliser="positives", match_bce=True)
    outputs = random_outputs(YOLO, 2, 5, torch.float32)
    boxes, labels, present = padded(CASES["ordinary"])
    grid = cell_grid(YOLO, *SIZE, CPU)
    sizes = {}
    for name, loss in {"bce": BCE(), "focal": Focal(0.25, 2.0), "weighted": BCE(pos_weight=4.0)}.items():
        c = criterion(config, loss)
        constant = c.calibrate([(outputs, boxes, labels, present)], grid)
        assert c.gain == constant
        leaves = [o.clone().requires_grad_() for o in outputs]
        raw_gradients = torch.autograd.grad(c(leaves, boxes, labels, present, grid).total, leaves)
        sizes[name] = sum(float(g.view(2, -1, 8, *g.shape[-2:])[:, :, 4].abs().sum()) for g in raw_gradients)
        if name == "bce":
            assert constant == 1.0
    assert sizes["focal"] == pytest.approx(sizes["bce"], rel=1e-5)
    assert sizes["weighted"] == pytest.approx(sizes["bce"], rel=1e-5)


@pytest.mark.parametrize("name", ["positives", "blog"])
def test_the_loss_never_asks_the_device_for_a_number(name: str) -> None:
    """Tensors on "meta" have shapes and no values: an .item(), a nonzero or a mask index would fail."""
    meta = torch.device("meta")
    c = Criterion(preset(name), Focal(), YOLO, Assigner(AssignerConfig(0.7, 0.213), YOLO, meta))
    outputs = [o.to(meta).requires_grad_() for o in random_outputs(YOLO, 2, 0, torch.float32)]
    boxes, labels, present = (t.to(meta) for t in padded(CASES["ordinary"]))
    parts = c(outputs, boxes, labels, present, cell_grid(YOLO, *SIZE, meta))
    torch.autograd.grad(parts.total, outputs)
    assert parts.total.device == meta and parts.total.shape == ()


def test_one_loss_per_batch_does_not_depend_on_padding() -> None:
    outputs = random_outputs(YOLO, 2, 6, torch.float32)
    c = criterion(preset("positives"), Focal())
    boxes, labels, present = padded(CASES["ordinary"])
    grid = cell_grid(YOLO, *SIZE, CPU)
    wide = torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.bool)
    for target, source in zip(wide, (boxes, labels, present), strict=True):
        target[:, :2] = source
    assert torch.equal(c(outputs, boxes, labels, present, grid).total, c(outputs, *wide, grid).total)


@pytest.mark.parametrize("objects", [0, 1, 7, 40])
def test_the_largest_overlap_is_that_of_all_pairs_to_the_last_bit(objects: int) -> None:
    """10,647 cells times 40 ground truths are taken in several pieces; some boxes repeat."""
    generator = torch.Generator().manual_seed(objects)
    boxes = torch.rand(10_647 + objects, 4, generator=generator) * 200
    corners = cxcywh_to_xyxy(boxes)
    predicted, truth = corners[objects:], corners[:objects]
    if objects > 1:
        predicted = torch.cat([truth, predicted[objects:]])
        truth = torch.cat([truth[1:], truth[:1]])
        truth[3:5] = truth[0].clone()
    expected = iou(predicted[:, None], truth).amax(1) if objects else torch.zeros(len(predicted))
    assert torch.equal(largest_iou(predicted, truth), expected)
