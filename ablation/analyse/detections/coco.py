"""pycocotools, run silently on dictionaries: the matching behind every AP that is reported."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_eval(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    category_ids: Sequence[int],
    *,
    all_sizes: bool = True,
) -> COCOeval:
    """A COCOeval of boxes after `evaluate()`: detections are matched, AP is not computed yet.

    The arguments stay as they are: pycocotools adds keys to annotations and results, and gets copies of
    those; what lies in them it only reads. What it prints is dropped.

    Args:
        ground_truth: COCO's dictionary: images, annotations, categories.
        results: COCO's result format; may be empty.
        category_ids: evaluated in this order.
        all_sizes: also match the objects of each of COCO's three sizes alone; False: only all together.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(ground_truth)
        if results:
            detections = truth.loadRes([dict(result) for result in results])
        else:
            detections = _coco({**ground_truth, "annotations": []})
        evaluation = COCOeval(truth, detections, "bbox")
        evaluation.params.catIds = list(category_ids)
        if not all_sizes:
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
    return evaluation


def _coco(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content | {"annotations": [dict(annotation) for annotation in content["annotations"]]}
    coco.createIndex()
    return coco
