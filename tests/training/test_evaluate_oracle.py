"""AP by pycocotools against two other implementations, on detections that are hard to count."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.voc_oracle import voc_ap

from ablation.training.evaluate import SIZES, CocoDict, CocoResult, coco_metrics

Truth = tuple[CocoDict, list[CocoResult], tuple[str, ...]]


def hard(seed: int) -> Truth:
    """Crowds, tied scores, duplicates, classes without objects or without detections, every size."""
    rng = np.random.default_rng(seed)
    classes = tuple("abcdef")
    images = [{"id": i, "file_name": f"{i}", "width": 640, "height": 480} for i in range(1, 41)]
    annotations: list[CocoDict] = []
    results: list[CocoResult] = []
    for image in images:
        for _ in range(int(rng.integers(0, 15))):
            side = np.exp(rng.uniform(np.log(6), np.log(300), 2))
            x, y = rng.uniform(0, [640 - side[0], 480 - side[1]])
            box = [float(v) for v in (x, y, *side)]
            category = int(rng.integers(1, 6))  # no object of the sixth
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                shift = rng.normal(0, 0.12, 4) * [side[0], side[1], side[0], side[1]]
                x1, y1, w, h = np.array(box) + shift
                label = category if rng.random() < 0.8 else int(rng.integers(1, 7))
                results.append(detection(image["id"], label, (x1, y1, max(w, 1), max(h, 1)), rng))
        for _ in range(int(rng.integers(0, 8))):  # of nothing
            w, h = np.exp(rng.uniform(np.log(6), np.log(300), 2))
            results.append(
                detection(image["id"], int(rng.integers(1, 7)), (*rng.uniform(0, 300, 2), w, h), rng)
            )
    results = [result for result in results if result["category_id"] != 5]  # the fifth is never found
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}, results, classes


def detection(image: int, category: int, box: Any, rng: np.random.Generator) -> CocoResult:
    score = float(rng.integers(1, 12)) / 12  # eleven scores only: ties everywhere
    bbox = [float(value) for value in box]
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score, "objectness": score}


@functools.cache
def cells(bccd: Path) -> Truth:
    """BCCD's val boxes: round cells in a row, up to 30 in an image, with detections about them."""
    from ablation.data.voc import Voc
    from ablation.training.evaluate import coco_ground_truth

    data = Voc(root=str(bccd), bad_boxes="drop", cache="none").open()
    truth = coco_ground_truth(data.val, data.classes)
    rng = np.random.default_rng(5)
    results: list[CocoResult] = []
    for annotation in truth["annotations"]:
        for _ in range(int(rng.integers(0, 8))):  # more than 100 in some images
            box = np.array(annotation["bbox"]) * (1 + rng.normal(0, 0.08, 4))
            quality = float(np.exp(-20 * np.abs(box / np.array(annotation["bbox"]) - 1).mean()))
            label = annotation["category_id"] if rng.random() < 0.9 else int(rng.integers(1, 4))
            score = quality * float(rng.uniform(0.3, 1))
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": label,
                    "bbox": box.tolist(),
                    "score": score,
                    "objectness": score,
                }
            )
    assert max(np.bincount([result["image_id"] for result in results])) > 100
    return truth, results, tuple(data.classes)


def by_hotcoco(truth: CocoDict, results: list[CocoResult], folder: Path) -> Any:
    """(precision, recall) of hotcoco, which reads files."""
    hotcoco = pytest.importorskip("hotcoco", reason="hotcoco is not installed: pip install '.[oracle]'")
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    ground = hotcoco.COCO(str(folder / "truth.json"))
    evaluation = hotcoco.COCOeval(ground, ground.load_res(str(folder / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def by_faster_coco_eval(truth: CocoDict, results: list[CocoResult], folder: Path) -> Any:
    """(precision, recall) of faster-coco-eval."""
    faster = pytest.importorskip(
        "faster_coco_eval", reason="faster-coco-eval is not installed: pip install '.[oracle]'"
    )
    ground = faster.COCO(copy.deepcopy(truth))
    evaluation = faster.COCOeval_faster(ground, ground.loadRes(copy.deepcopy(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def statistics(evaluated: Any, classes: tuple[str, ...]) -> dict[str, float]:
    """Our metrics from another implementation's arrays of (IoU, recall, class, area, most detections)."""
    precision = np.asarray(evaluated["precision"]).reshape(10, 101, len(classes), 4, -1)[..., -1]
    recall = np.asarray(evaluated["recall"]).reshape(10, len(classes), 4, -1)[..., -1]
    parts = {
        "AP": precision[..., 0],
        "AP50": precision[0, ..., 0],
        "AP75": precision[5, ..., 0],
        "AR100": recall[..., 0],
    }
    parts |= {f"AP_{name}": precision[..., area] for area, name in enumerate(SIZES, start=1)}
    for label, name in enumerate(classes):
        parts[f"AP_class/{name}"] = precision[:, :, label, 0]
        parts[f"AP50_class/{name}"] = precision[0, :, label, 0]
    return {name: float(part[part > -1].mean()) for name, part in parts.items() if (part > -1).any()}


@pytest.mark.parametrize("other", [by_hotcoco, by_faster_coco_eval])
@pytest.mark.parametrize("which", ["hard 0", "hard 1", "cells", "none", "perfect"])
def test_pycocotools_agrees_with_other_implementations(
    which: str, other: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if which == "cells":
        truth, results, classes = cells(request.getfixturevalue("bccd"))
    else:
        truth, results, classes = hard(1 if which == "hard 1" else 0)
    if which == "perfect":
        objects = [annotation for annotation in truth["annotations"] if not annotation["iscrowd"]]
        results = [annotation | {"score": 0.9} for annotation in objects]
    elif which == "none":  # of any object: one far too small, since loadRes refuses an empty list
        results = [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 0.01, 0.01], "score": 0.5, "objectness": 0.5}
        ]
    ours = coco_metrics(truth, results, classes).metrics
    theirs = statistics(other(truth, results, tmp_path), classes) | voc_ap(truth, results, inclusive=True)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name
    if which == "perfect":
        assert set(np.round(list(ours.values()), 12)) == {1.0}
    elif which == "none":
        assert set(ours.values()) == {0.0}
    else:
        assert 0.05 < ours["AP"] < 0.8 and len({ours[f"AP_{size}"] for size in SIZES}) == 3
