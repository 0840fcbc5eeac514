"""COCO's ground truth and results, read and checked for `ablation import`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ablation.errors import DataError, one_line
from ablation.files import canonical_json


def read_ground_truth(path: Path) -> tuple[dict[str, Any], dict[int, int]]:
    """COCO's ground truth with categories numbered from 1 and annotations too, and old id -> new id."""
    content = _json(path)
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list) for part in parts):
        raise DataError(f"{path}: must be COCO's ground truth, an object with {', '.join(parts)}")
    try:
        categories = sorted(content["categories"], key=lambda category: int(category["id"]))
        new_ids = {int(category["id"]): index for index, category in enumerate(categories, 1)}
        images = {int(image["id"]): image | {"id": int(image["id"])} for image in content["images"]}
        annotations = [
            _annotation(f"{path}: annotation {number}", number, annotation, images, new_ids)
            for number, annotation in enumerate(content["annotations"], 1)
        ]
        names = [{"id": new_ids[int(row["id"])], "name": str(row["name"])} for row in categories]
        truth = {"images": list(images.values()), "annotations": annotations, "categories": names}
        canonical_json(truth).encode()  # refuses infinite numbers and broken text
    except _WRONG_FORM as error:
        raise DataError(f"{path}: not COCO's form: {type(error).__name__} {one_line(error, 80)}") from None
    for what, rows in (("image", content["images"]), ("category", categories)):
        if len({int(row["id"]) for row in rows}) < len(rows):
            raise DataError(f"{path}: two of its {what} ids are equal")
    return truth, new_ids


_WRONG_FORM = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def _annotation(
    where: str, number: int, content: Any, images: dict[int, Any], new_ids: dict[int, int]
) -> dict[str, Any]:
    category, image = int(content["category_id"]), int(content["image_id"])
    if category not in new_ids:
        raise DataError(f"{where}: category_id {content['category_id']} is none of the categories")
    if image not in images:
        raise DataError(f"{where}: image_id {content['image_id']} is none of the images")
    box = _box(where, content["bbox"])
    return {
        "id": number,
        "image_id": image,
        "category_id": new_ids[category],
        "bbox": box,
        "area": float(content.get("area", box[2] * box[3])),
        "iscrowd": int(content.get("iscrowd", 0)),
    }


def read_results(path: Path, truth: dict[str, Any], new_ids: dict[int, int]) -> list[dict[str, Any]]:
    """COCO's results, checked against the ground truth, with its new category ids."""
    content = _json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: must be a list of detections in COCO's result format")
    images = {image["id"] for image in truth["images"]}
    results = []
    for index, old in enumerate(content):
        where = f"{path}: detection {index + 1}"
        try:
            if int(old["category_id"]) not in new_ids:
                raise DataError(f"{where}: category_id {old['category_id']} is not in the ground truth")
            if int(old["image_id"]) not in images:
                raise DataError(f"{where}: image_id {old['image_id']} is not in the ground truth")
            result: dict[str, Any] = {
                "image_id": int(old["image_id"]),
                "category_id": new_ids[int(old["category_id"])],
                "bbox": _box(where, old["bbox"]),
                "score": float(old["score"]),
            }
        except _WRONG_FORM as error:
            raise DataError(
                f"{where}: not COCO's form: {type(error).__name__} {one_line(error, 80)}"
            ) from None
        if not math.isfinite(result["score"]):
            raise DataError(f"{where}: score {old['score']} is not finite")
        results.append(result)
    return results


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON: {one_line(error, 100)}") from None


def _box(where: str, box: Any) -> list[float]:
    numbers = [float(number) for number in box]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: bbox {box}: must be x, y, width, height, all finite")
    return numbers
