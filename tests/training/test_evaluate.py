from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ablation.data.dataset import Example, Image, Split
from ablation.data.letterbox import Letterbox
from ablation.errors import DataError
from ablation.model.base import Detector
from ablation.model.blocks import ConvSlot
from ablation.model.head import HeadLayout
from ablation.model.yolov4_tiny import YOLOv4Tiny
from ablation.training.detect import Detections
from ablation.training.evaluate import (
    EvaluationSettings,
    coco_ground_truth,
    coco_metrics,
    coco_results,
    evaluate,
)

CLASSES = ("cat", "dog", "emu")
Box = tuple[float, float, float, float]


class Annotated(Split):
    """Black images of 200 x 100 px with given objects: (box_xyxy, label, ignored)."""

    def __init__(
        self, *images: list[tuple[Box, int, bool]], width_px: int = 200, height_px: int = 100
    ) -> None:
        self.faults = []
        self.examples = [
            Example(
                name=f"image{index}",
                width_px=width_px,
                height_px=height_px,
                boxes_xyxy_px=np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4),
                labels=np.array([label for _, label, _ in objects], np.int64),
                ignored=np.array([ignored for _, _, ignored in objects], np.bool_),
            )
            for index, objects in enumerate(images)
        ]

    def read(self, index: int) -> Image:
        example = self.examples[index]
        return np.zeros((example.height_px, example.width_px, 3), np.uint8)

    def fingerprint(self) -> str:
        return "annotated"


def result(image: int, label: int, box: Box, score: float) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": image + 1,
        "category_id": label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": score,
        "objectness": score,
    }


def measure(split: Split, *results: dict[str, Any]) -> dict[str, float]:
    return coco_metrics(coco_ground_truth(split, CLASSES), list(results), CLASSES).metrics


SMALL: Box = (0, 0, 10, 10)
MEDIUM: Box = (50, 20, 90, 60)
LARGE: Box = (90, 0, 190, 98)
MIXED = Annotated(
    [(SMALL, 0, False), (MEDIUM, 0, False)], [], [(LARGE, 2, False), (SMALL, 0, False), (MEDIUM, 2, True)]
)
PERFECT = [
    result(0, 0, SMALL, 0.9),
    result(0, 0, MEDIUM, 0.8),
    result(2, 2, LARGE, 0.7),
    result(2, 0, SMALL, 0.6),
]


def test_ground_truth_by_hand() -> None:
    truth = coco_ground_truth(MIXED, CLASSES)
    assert [image["id"] for image in truth["images"]] == [1, 2, 3], "the image without objects counts"
    assert truth["images"][0] == {"id": 1, "file_name": "image0", "width": 200, "height": 100}
    assert truth["categories"] == [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    assert [annotation["id"] for annotation in truth["annotations"]] == [1, 2, 3, 4, 5]
    assert truth["annotations"][1] == {
        "id": 2,
        "image_id": 1,
        "category_id": 1,
        "bbox": [50, 20, 40, 40],
        "area": 1600,
        "iscrowd": 0,
    }
    assert [annotation["iscrowd"] for annotation in truth["annotations"]] == [0, 0, 0, 0, 1]


def test_perfect_detections_score_one() -> None:
    metrics = measure(MIXED, *PERFECT)
    overall = {"AP", "AP50", "AP75", "AR100", "AP_small", "AP_medium", "AP_large", "AP50_voc"}
    kinds = ("AP", "AP50", "AP50_voc")
    by_class = {f"{name}_class/{label}" for name in kinds for label in ("cat", "emu")}
    assert set(metrics) == overall | by_class, "a class without objects (dog) has no entry"
    assert list(metrics.values()) == pytest.approx([1.0] * len(metrics), abs=1e-12)


def test_the_very_first_object_can_be_found() -> None:
    """With annotation ids from 0, pycocotools counts its match as none, and this would be 0."""
    split = Annotated([(SMALL, 0, False)])
    assert measure(split, result(0, 0, SMALL, 0.9))["AP"] == pytest.approx(1.0)


def test_no_detections_score_zero() -> None:
    metrics = measure(MIXED)
    assert set(metrics) == set(measure(MIXED, *PERFECT))
    assert set(metrics.values()) == {0.0}


def test_sizes_without_objects_have_no_entry() -> None:
    metrics = measure(Annotated([(SMALL, 1, False)]), result(0, 1, SMALL, 0.5))
    assert "AP_small" in metrics and "AP_medium" not in metrics and "AP_large" not in metrics
    assert metrics["AP_class/dog"] == pytest.approx(1.0) and "AP_class/cat" not in metrics


def test_average_precision_by_hand() -> None:
    """One false detection above one true: precision 1/2 at every recall, so AP is 1/2."""
    split = Annotated([(MEDIUM, 0, False)], [])
    wrong, right = result(1, 0, SMALL, 0.9), result(0, 0, MEDIUM, 0.8)
    metrics = measure(split, wrong, right)
    assert metrics["AP"] == metrics["AP50"] == pytest.approx(0.5)
    assert metrics["AR100"] == pytest.approx(1.0)
    below = measure(split, wrong | {"score": 0.7}, right)
    assert below["AP"] == pytest.approx(1.0), "a false detection below every true one costs nothing"


def test_half_of_the_objects_found_by_hand() -> None:
    """Precision 1 up to recall 1/2, then none: COCO's 101 recalls 0, .01, ..., hold 51 up to .5."""
    split = Annotated([(SMALL, 0, False), (MEDIUM, 0, False)])
    assert measure(split, result(0, 0, SMALL, 0.9))["AP"] == pytest.approx(51 / 101)


def test_overlap_decides_at_which_thresholds_a_box_counts() -> None:
    """IoU of 40 x 40 with 40 x 28 is .7: found at .5 to .65 surely, not from .75 on."""
    split = Annotated([(MEDIUM, 0, False)])
    metrics = measure(split, result(0, 0, (50, 20, 90, 47.9), 0.9))
    assert metrics["AP50"] == pytest.approx(1.0) and metrics["AP75"] == 0.0
    assert metrics["AP"] == pytest.approx(4 / 10)


def test_ignored_objects_neither_help_nor_punish() -> None:
    perfect = [result(0, 0, SMALL, 0.9)]
    plain = measure(Annotated([(SMALL, 0, False)]), *perfect)
    with_ignored = Annotated([(SMALL, 0, False), (MEDIUM, 0, True)])
    assert measure(with_ignored, *perfect) == plain, "not to find it costs nothing"
    twice = [*perfect, result(0, 0, MEDIUM, 0.95), result(0, 0, MEDIUM, 0.99)]
    assert measure(with_ignored, *twice) == plain, "to find it, even twice, costs nothing"
    assert measure(Annotated([(SMALL, 0, False)]), *twice)["AP"] == pytest.approx(1 / 3)


def test_nothing_to_measure_is_an_error() -> None:
    for split in (Annotated(), Annotated([], []), Annotated([(SMALL, 0, True)])):
        with pytest.raises(DataError, match="no objects to evaluate on") as caught:
            measure(split, result(0, 0, SMALL, 0.9))
        assert "\n" not in str(caught.value)


def test_inputs_stay_as_they_are_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truth = coco_ground_truth(MIXED, CLASSES)
    results = [dict(item) for item in PERFECT]
    evaluation = coco_metrics(truth, results, CLASSES)
    assert results == PERFECT and truth == coco_ground_truth(MIXED, CLASSES)
    assert evaluation.results == PERFECT and evaluation.ground_truth == truth
    assert capsys.readouterr().out == ""


def test_without_the_sizes_the_other_metrics_are_the_same() -> None:
    random = np.random.default_rng(0)

    def boxes(count: int) -> list[Box]:
        x, y = random.uniform(0, 100, count), random.uniform(0, 50, count)
        w, h = random.uniform(5, 90, count), random.uniform(5, 45, count)
        return list(zip(x, y, x + w, y + h, strict=True))

    split = Annotated(*([(box, index % 3, False) for index, box in enumerate(boxes(6))] for _ in range(5)))
    truth = coco_ground_truth(split, CLASSES)
    results = [
        result(image, label, box, float(random.uniform()))
        for image in range(5)
        for label in range(3)
        for box in boxes(8)
    ]
    whole = coco_metrics(truth, results, CLASSES).metrics
    part = coco_metrics(truth, results, CLASSES, all_sizes=False).metrics
    sizes = {"AP_small", "AP_medium", "AP_large"} & whole.keys()
    assert sizes and part == {name: value for name, value in whole.items() if name not in sizes}


def test_results_go_back_to_original_pixels_and_are_clipped() -> None:
    """200 x 100 px in a square of 64: scale .32, 16 rows of padding above."""
    geometry = Letterbox.fit(200, 100, 64)
    boxes = np.array([[16, 22.4, 32, 28.8], [-5, 0, 70, 64], [10, 0, 20, 8]], np.float32)
    detections = Detections(
        boxes,
        np.array([0.9, 0.5, 0.1], np.float32),
        np.array([2, 0, 1]),
        np.array([0.95, 0.6, 0.2], np.float32),
    )
    results = coco_results([6], [detections], [geometry])
    assert [item["image_id"] for item in results] == [7, 7, 7]
    assert [item["category_id"] for item in results] == [3, 1, 2]
    assert results[0]["bbox"] == pytest.approx([50, 20, 50, 20], abs=1e-4)
    assert results[1]["bbox"] == [0, 0, 200, 100]
    assert results[2]["bbox"] == pytest.approx([31.25, 0, 31.25, 0], abs=1e-4), "wholly in the padding"
    assert [item["score"] for item in results] == pytest.approx([0.9, 0.5, 0.1])
    assert [item["objectness"] for item in results] == pytest.approx([0.95, 0.6, 0.2])
    assert all(type(item["image_id"]) is int and type(item["score"]) is float for item in results)


class Oracle(Detector):
    """A "network" that finds one bright rectangle: it puts its box into the cell of its centre."""

    def __init__(self) -> None:
        layout = HeadLayout(((32.0, 32.0),), ((0,),), (32,), (1.0,), len(CLASSES))
        super().__init__(layout, nn.BatchNorm2d(3), nn.Identity(), [nn.Identity()])
        self.modes: list[bool] = []
        self.batches: list[int] = []

    def darknet_convs(self) -> list[ConvSlot]:
        return []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.modes.append(self.training)
        self.batches.append(len(images))
        assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
        side = images.shape[2] // 32
        raw = torch.full((len(images), 8, side, side), -20.0)
        for index, image in enumerate(images):
            rows, columns = (image[0] > 0.75).nonzero(as_tuple=True)
            if len(rows) == 0:
                continue
            y1, y2, x1, x2 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            cx, cy = float(x1 + x2) / 64, float(y1 + y2) / 64
            values = [torch.logit(torch.tensor(v % 1)).item() for v in (cx, cy)]
            values += [math.log(float(x2 - x1) / 32), math.log(float(y2 - y1) / 32), 5.0, -9.0, 5.0, -9.0]
            raw[index, :, int(cy), int(cx)] = torch.tensor(values)
        return [raw]


class Painted(Annotated):
    """The objects painted white on black."""

    def read(self, index: int) -> Image:
        image = super().read(index)
        for x1, y1, x2, y2 in self.examples[index].boxes_xyxy_px.astype(int):
            image[y1:y2, x1:x2] = 255
        return image


def test_evaluate_from_images_to_metrics() -> None:
    """Through letterbox, network, decoding, suppression and back: every rectangle is found."""
    boxes: list[Box] = [(10, 10, 60, 40), (100, 20, 180, 90), (64, 4, 120, 80)]
    split = Painted(*([(box, 1, False)] for box in boxes), [])
    model = Oracle().train()
    evaluation = evaluate(model, split, CLASSES, EvaluationSettings(size_px=128, batch_size=3))
    assert model.training and model.modes == [False, False] and model.batches == [3, 1]
    assert evaluation.metrics["AP50"] == pytest.approx(1.0) and evaluation.metrics["AP"] > 0.8
    best = {item["image_id"]: item["bbox"] for item in reversed(evaluation.results)}
    assert sorted(best) == [1, 2, 3]
    for index, box in enumerate(boxes, start=1):
        x, y, w, h = best[index]
        assert [x, y, x + w, y + h] == pytest.approx(box, abs=1 / 0.64)  # a pixel of the input


def test_evaluate_does_not_depend_on_the_batch_size() -> None:
    split = Painted(*([((10.0 * i, 10.0, 60.0 + 10 * i, 60.0), 1, False)] for i in range(5)))
    one_at_a_time, all_at_once = (
        evaluate(Oracle(), split, CLASSES, EvaluationSettings(128, size)) for size in (1, 5)
    )
    assert one_at_a_time.metrics == all_at_once.metrics and one_at_a_time.results == all_at_once.results


def test_evaluate_restores_the_mode_when_the_network_fails() -> None:
    class Broken(Oracle):
        def forward(self, images: Tensor) -> list[Tensor]:
            raise RuntimeError("out of memory")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(model, Painted([(SMALL, 0, False)]), CLASSES, EvaluationSettings(64, 1))
    assert model.training


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_evaluate_of_an_untrained_network(autocast: torch.dtype | None) -> None:
    """A real network in either precision: scores are float32 probabilities, its AP is next to nothing."""
    split = Painted([(MEDIUM, 0, False)], [(LARGE, 2, False)], [])
    model = YOLOv4Tiny(width=0.125, anchors_at_px=416).build(3, 96, 0)
    evaluation = evaluate(model, split, CLASSES, EvaluationSettings(96, 2, autocast=autocast))
    assert 0 <= evaluation.metrics["AP"] < 0.3
    counts = [sum(item["image_id"] == image for item in evaluation.results) for image in (1, 2, 3)]
    assert all(0 < count <= 100 for count in counts)
    for item in evaluation.results:
        x, y, w, h = item["bbox"]
        assert 0 <= x <= x + w <= 200 and 0 <= y <= y + h <= 100 + 1e-4
        assert 0.001 < item["score"] < item["objectness"] < 1
    assert len({item["score"] for item in evaluation.results}) > 100, "scores are not rounded to bf16"
