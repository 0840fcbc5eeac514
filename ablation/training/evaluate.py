"""Average precision of a detector, COCO's through pycocotools and Pascal VOC's, with the detections kept."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablation.analyse.detections.average_precision import VOC, average_precision
from ablation.analyse.detections.coco import coco_eval
from ablation.analyse.detections.voc import voc_matches
from ablation.config import TrainConfig
from ablation.data.dataset import Split
from ablation.data.letterbox import Letterbox
from ablation.data.loader import ValBatch, val_batches
from ablation.errors import DataError, counted
from ablation.machine import autocast_dtype
from ablation.model.base import Detector
from ablation.model.head import cell_grid
from ablation.training.detect import Detections, DetectionSettings, detect

CocoDict = dict[str, Any]
"""A ground truth file of COCO: images, annotations, categories."""
CocoResult = dict[str, Any]
"""A detection in COCO's result format: image_id, category_id, bbox [x, y, w, h], score."""

SIZES = ("small", "medium", "large")
"""COCO's classes of object area in original pixels: below 32^2, to 96^2, above."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How a network is evaluated.

    Attributes:
        size_px: side of the letterboxed input.
        batch_size: images at a time; does not change the result (up to rounding).
        device: where the network is.
        autocast: the network is run in this precision (torch.bfloat16); None: as its weights are.
        detection: which of its boxes become detections. COCO's metrics use the 100 best of an image.
        voc_inclusive: of AP50_voc, see voc.voc_matches.
    """

    size_px: int
    batch_size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: torch.dtype | None = None
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    voc_inclusive: bool = True

    @classmethod
    def of(cls, train: TrainConfig, device: torch.device) -> EvaluationSettings:
        """As a run's configuration declares them; its precision must be resolved."""
        detection = DetectionSettings(train.score_threshold, train.nms_iou, train.max_detections)
        precision = autocast_dtype(train.precision)
        return cls(train.size_px, train.eval_batch_size, device, precision, detection, train.voc_inclusive)

    def forward(self, model: Detector, images: Tensor) -> list[Tensor]:
        """The heads' outputs for (batch, 3, size_px, size_px) uint8 images."""
        pixels = images.to(self.device).float() / 255
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return list(model(pixels))


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one evaluation and what they were computed from.

    Attributes:
        metrics: name -> value in [0, 1]: AP (mean over IoU .5:.05:.95), AP50, AP75, AP_small,
            AP_medium, AP_large, AR100 (mean recall with 100 detections per image), AP50_voc (Pascal
            VOC's AP), and AP_class/<name>, AP50_class/<name>, AP50_voc_class/<name>. A size or class
            without objects has no entry.
        results: every detection, in COCO's result format in original pixels, and its objectness.
        ground_truth: what they were compared with, in COCO's format.
    """

    metrics: dict[str, float]
    results: list[CocoResult]
    ground_truth: CocoDict


def image_id(index: int) -> int:
    """The image's id in COCO's format: its position in the split, from 1."""
    return index + 1


def category_id(label: int) -> int:
    """The category's id in COCO's format: the label, from 1."""
    return label + 1


def coco_ground_truth(split: Split, classes: Sequence[str]) -> CocoDict:
    """The objects of a split as COCO's dictionary.

    Images without objects are included: what is detected there counts as false. Ignored objects
    become crowds: to detect them, once or often, is neither right nor wrong. Ids start at 1, of
    annotations too: pycocotools marks an unmatched detection by 0, so an annotation with the id 0
    could never be matched. Areas are those of the boxes, in original pixels.
    """
    images: list[CocoDict] = []
    annotations: list[CocoDict] = []
    for index, example in enumerate(split.examples):
        images.append(
            {
                "id": image_id(index),
                "file_name": example.name,
                "width": int(example.width_px),
                "height": int(example.height_px),
            }
        )
        boxes = example.boxes_xyxy_px.astype(np.float64)
        for (x1, y1, x2, y2), label, ignored in zip(
            boxes.tolist(), example.labels.tolist(), example.ignored.tolist(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id(index),
                    "category_id": category_id(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(ignored),
                }
            )
    categories = [{"id": category_id(label), "name": name} for label, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(
    indices: Iterable[int], detections: Iterable[Detections], geometries: Iterable[Letterbox]
) -> list[CocoResult]:
    """The detections of some images in COCO's result format, best score first within an image.

    Boxes go back from the letterboxed input to original pixels and are clipped to the image, since
    no annotation reaches beyond it. `objectness` is added to COCO's fields; readers of the format
    pass over it.

    Args:
        indices: position of each image in its split.
        detections: of each image, in pixels of the network's input.
        geometries: how each image was letterboxed.
    """
    results = []
    for index, of_image, geometry in zip(indices, detections, geometries, strict=True):
        boxes: NDArray[np.float64] = geometry.to_original(of_image.boxes_xyxy_px).astype(np.float64)
        limits = np.array([geometry.width_px, geometry.height_px] * 2, np.float64)
        boxes = boxes.clip(0, limits)
        for (x1, y1, x2, y2), score, label, objectness in zip(
            boxes.tolist(),
            of_image.scores.tolist(),
            of_image.labels.tolist(),
            of_image.objectness.tolist(),
            strict=True,
        ):
            results.append(
                {
                    "image_id": image_id(int(index)),
                    "category_id": category_id(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                    "objectness": objectness,
                }
            )
    return results


def coco_metrics(
    ground_truth: CocoDict,
    results: list[CocoResult],
    classes: Sequence[str],
    *,
    all_sizes: bool = True,
    voc_inclusive: bool = True,
) -> Evaluation:
    """COCO's metrics, computed by pycocotools with its own parameters, and Pascal VOC's AP.

    No results at all are a result: 0.

    Args:
        ground_truth: as from coco_ground_truth.
        results: as from coco_results.
        classes: names; label i is category i + 1.
        all_sizes: also measure the objects of each of COCO's three sizes alone, which takes most of the time.
        voc_inclusive: of AP50_voc, see voc.voc_matches.

    Raises:
        DataError: the ground truth has no object that counts, so that nothing can be measured.
    """
    if not any(not annotation["iscrowd"] for annotation in ground_truth["annotations"]):
        ignored = len(ground_truth["annotations"])
        why = (
            f"with {counted(ignored, 'annotation')}, all to be ignored" if ignored else "without annotations"
        )
        images = counted(len(ground_truth["images"]), "image")
        raise DataError(f"no objects to evaluate on: {images} {why}")
    category_ids = [category_id(label) for label in range(len(classes))]
    evaluation = coco_eval(ground_truth, results, category_ids, all_sizes=all_sizes)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation.accumulate()
    # (IoU thresholds, recall thresholds, categories, areas, most detections), -1 where undefined
    precision = evaluation.eval["precision"][..., -1]
    recall = evaluation.eval["recall"][..., -1]
    ious = np.round(evaluation.params.iouThrs, 2).tolist()
    at_50, at_75 = ious.index(0.5), ious.index(0.75)
    values = {
        "AP": precision[..., 0],
        "AP50": precision[at_50, ..., 0],
        "AP75": precision[at_75, ..., 0],
        "AR100": recall[..., 0],
    }
    if all_sizes:
        values |= {f"AP_{name}": precision[..., area] for area, name in enumerate(SIZES, start=1)}
    for label, name in enumerate(classes):
        values[f"AP_class/{name}"] = precision[:, :, label, 0]
        values[f"AP50_class/{name}"] = precision[at_50, :, label, 0]
    metrics = {name: float(part[part > -1].mean()) for name, part in values.items() if (part > -1).any()}
    metrics |= voc_metrics(ground_truth, results, inclusive=voc_inclusive)
    return Evaluation(metrics, results, ground_truth)


def voc_metrics(
    ground_truth: CocoDict, results: Sequence[CocoResult], *, inclusive: bool = True
) -> dict[str, float]:
    """Pascal VOC's AP at IoU .5 with all-point interpolation: AP50_voc, and AP50_voc_class/<name>.

    Args:
        inclusive: see voc.voc_matches.
    """
    matches = voc_matches(ground_truth, results, inclusive)
    once = np.ones(len(matches.image_ids))
    parts = {"AP50_voc": VOC}
    parts |= {f"AP50_voc_class/{entry.name}": replace(VOC, name=entry.name) for entry in matches.classes}
    values = {name: float(average_precision(matches, once, part)[0]) for name, part in parts.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def evaluate(
    model: Detector,
    split: Split,
    classes: Sequence[str],
    settings: EvaluationSettings,
    observe: Callable[[list[Tensor], ValBatch], None] | None = None,
) -> Evaluation:
    """Run `model` in eval mode over every image of `split` and measure it.

    The model's mode is restored. Decoding and scores are float32 in any precision.

    Args:
        model: on the settings' device; its layout must be the one for their size_px.
        observe: called with the heads' outputs of each batch (in inference mode) and the batch.

    Raises:
        DataError: an image cannot be read, or the split has no objects.
    """
    size_px = settings.size_px
    ground_truth = coco_ground_truth(split, classes)
    grid = cell_grid(model.layout, size_px, size_px, settings.device)
    results: list[CocoResult] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in val_batches(split, batch_size=settings.batch_size, size_px=size_px):
                outputs = settings.forward(model, batch.images)
                if observe is not None:
                    observe(outputs, batch)
                detections = detect(outputs, model.layout, grid, settings.detection)
                results += coco_results(batch.indices.tolist(), detections, batch.geometries)
    finally:
        model.train(was_training)
    return coco_metrics(ground_truth, results, classes, voc_inclusive=settings.voc_inclusive)
