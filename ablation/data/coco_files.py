"""COCO's ground truth and results made elsewhere, read and checked: of imports and of own trainers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.data.reading import MUST_BE_NAME, is_coordinate, is_name, is_whole, load_json, shorten
from ablation.errors import DataError

_PARTS = ("images", "annotations", "categories")
_SIZES = ("width", "height")


def read_ground_truth(path: Path) -> tuple[dict[str, Any], dict[int, int]]:
    """COCO's ground truth with categories numbered from 1 and annotations too, and old id -> new id."""
    content = _json(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(part), list) for part in _PARTS):
        raise DataError(f"{path}: must be COCO's ground truth, an object with {', '.join(_PARTS)}")
    categories = _by_id(f"{path}: categories", content["categories"])
    images = {
        identity: _image(f"{path}: images: id {identity}", image)
        for identity, image in _by_id(f"{path}: images", content["images"]).items()
    }
    new_ids = {identity: number for number, identity in enumerate(sorted(categories), 1)}
    names = [
        {"id": new_ids[identity], "name": _name(f"{path}: categories: id {identity}", categories[identity])}
        for identity in sorted(categories)
    ]
    if len({row["name"] for row in names}) < len(names):
        raise DataError(f"{path}: categories: two have one name; names must differ")
    annotations = [
        _annotation(f"{path}: annotation {number}", number, annotation, images, new_ids)
        for number, annotation in enumerate(content["annotations"], 1)
    ]
    return {"images": list(images.values()), "annotations": annotations, "categories": names}, new_ids


def read_results(path: Path, truth: dict[str, Any], new_ids: dict[int, int]) -> list[dict[str, Any]]:
    """COCO's results, checked against the ground truth, with its new category ids."""
    content = _json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: must be a list of detections in COCO's result format")
    images = {image["id"] for image in truth["images"]}
    results = []
    for number, old in enumerate(content, 1):
        where = f"{path}: detection {number}"
        category, image = _ids(where, old, new_ids, images)
        score = old.get("score")
        if not is_coordinate(score):
            raise DataError(f"{where}: score {shorten(score)} must be a finite number")
        box = _box(where, old.get("bbox"))
        results.append({"image_id": image, "category_id": category, "bbox": box, "score": float(score)})
    return results


def _json(path: Path) -> Any:
    try:
        return load_json(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def _by_id(where: str, entries: list[Any]) -> dict[int, dict[str, Any]]:
    by_id: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        identity = _mapping(f"{where}[{number}]", entry).get("id")
        if not is_whole(identity):
            raise DataError(f"{where}[{number}]: id {shorten(identity)} must be a whole number")
        if identity in by_id:
            raise DataError(f"{where}[{number}]: id {identity} is there twice")
        by_id[identity] = entry
    return by_id


def _mapping(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: found {shorten(entry)}, must be a mapping")
    return entry


def _name(where: str, category: Mapping[str, Any]) -> str:
    name = category.get("name")
    if not is_name(name):
        raise DataError(f"{where}: name {shorten(name)} must be {MUST_BE_NAME}")
    return name


def _image(where: str, image: Mapping[str, Any]) -> dict[str, Any]:
    """What of an image is used later."""
    name = image.get("file_name")
    if name is not None and not is_name(name):
        raise DataError(f"{where}: file_name {shorten(name)} must be {MUST_BE_NAME}")
    sizes = {key: image[key] for key in _SIZES if image.get(key) is not None}
    for key, value in sizes.items():
        if not is_coordinate(value) or value <= 0:
            raise DataError(f"{where}: {key} {shorten(value)} must be a positive number of pixels")
    return {"id": image["id"]} | ({} if name is None else {"file_name": name}) | sizes


def _ids(where: str, entry: Any, new_ids: Mapping[int, int], images: Any) -> tuple[int, int]:
    """The new category id and the image id of an annotation or a detection."""
    category, image = (_mapping(where, entry).get(key) for key in ("category_id", "image_id"))
    if not is_whole(category) or category not in new_ids:
        raise DataError(f"{where}: category_id {shorten(category)} is not in the ground truth")
    if not is_whole(image) or image not in images:
        raise DataError(f"{where}: image_id {shorten(image)} is not in the ground truth")
    return new_ids[category], image


def _annotation(
    where: str, number: int, entry: Any, images: Mapping[int, Any], new_ids: Mapping[int, int]
) -> dict[str, Any]:
    category, image = _ids(where, entry, new_ids, images)
    box = _box(where, entry.get("bbox"))
    area, crowd = entry.get("area", box[2] * box[3]), entry.get("iscrowd", 0)
    if isinstance(area, bool) or not isinstance(area, int | float) or not 0 <= area <= 1e18:
        raise DataError(f"{where}: area {shorten(area)} must be a number of square pixels, at least 0")
    if crowd not in (0, 1):
        raise DataError(f"{where}: iscrowd {shorten(crowd)} must be 0 or 1")
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": float(area),
        "iscrowd": int(crowd),
    }


def _box(where: str, box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(is_coordinate(value) for value in box):
        raise DataError(f"{where}: bbox {shorten(box)} must be x, y, width, height, all finite")
    if box[2] < 0 or box[3] < 0:
        raise DataError(f"{where}: bbox {shorten(box)}: width and height must be at least 0")
    return [float(value) for value in box]
