"""Damaged ground truth and detections in COCO's form, as `ablation import` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.fuzz import Reader, Result
from helpers.mutations import Damage

from ablation.data.coco_files import read_ground_truth, read_results

Fuzz = Callable[[Reader, int], Result]
Value = tuple[dict[str, Any], list[dict[str, Any]]]

IMAGES = [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30} for number in (3, 8)]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}]
TRUTH = [
    {"id": 1, "image_id": 3, "category_id": 7, "bbox": [1, 2, 10, 12.5], "area": 125.0, "iscrowd": 0},
    {"id": 2, "image_id": 8, "category_id": 2, "bbox": [5, 5, 20, 20]},
]
DETECTIONS = [
    {"image_id": 3, "category_id": 7, "bbox": [1.5, 2, 10, 12], "score": 0.9},
    {"image_id": 8, "category_id": 2, "bbox": [5, 6, 20, 19], "score": 0.25},
]


def write(folder: Path) -> None:
    content = {"images": IMAGES, "annotations": TRUTH, "categories": CATEGORIES}
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "detections.json").write_text(json.dumps(DETECTIONS))


def damage(folder: Path, mutation: Damage) -> None:
    mutation.json_file(mutation.choose(sorted(folder.iterdir())))


def read(folder: Path) -> Value:
    truth, new_ids = read_ground_truth(folder / "truth.json")
    results = read_results(folder / "detections.json", truth, new_ids)
    json.dumps([truth, results], allow_nan=False).encode()  # as it is stored
    return truth, results


def wrong(folder: Path, value: Value, undamaged: Value) -> str | None:
    """Boxes and scores as the files have them, classes by name."""
    content = json.loads((folder / "truth.json").read_bytes())
    old_names = {entry["id"]: entry["name"] for entry in content["categories"]}
    truth, results = value
    new_names = {entry["id"]: entry["name"] for entry in truth["categories"]}
    detections = json.loads((folder / "detections.json").read_bytes())
    for entries, read_entries in ((content["annotations"], truth["annotations"]), (detections, results)):
        if len(entries) != len(read_entries):
            return f"{len(read_entries)} entries of {len(entries)}"
        for entry, read_entry in zip(entries, read_entries, strict=True):
            name, read_name = old_names[entry["category_id"]], new_names[read_entry["category_id"]]
            if (name, entry["image_id"]) != (read_name, read_entry["image_id"]):
                return f"{read_entry} is not {entry}"
            if entry["bbox"] != read_entry["bbox"] or entry.get("score") != read_entry.get("score"):
                return f"{read_entry} is not {entry}"
            if bool(entry.get("iscrowd", 0)) != bool(read_entry.get("iscrowd", 0)):
                return f"{read_entry} is not {entry}"
    return None


def _truth(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        content = json.loads((folder / "truth.json").read_text())
        change(content)
        (folder / "truth.json").write_text(json.dumps(content))

    return special


def _detections(text: str) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        (folder / "detections.json").write_text(text)

    return special


DETECTION_FILES = Reader(
    "ground truth and detections",
    write,
    damage,
    read,
    wrong,
    special={
        "nameless": _truth(lambda content: content["categories"][0].pop("name")),
        "box as text": _truth(lambda content: content["annotations"][0].update(bbox="1234")),
        "ids as fractions": _truth(lambda content: content["annotations"][0].update(image_id=3.7)),
        "infinite id": _truth(lambda content: content["annotations"][0].update(image_id=float("inf"))),
        "infinite extra": _truth(lambda content: content["images"][0].update(extra=float("nan"))),
        "category twice": _truth(lambda content: content["categories"].append({"id": 7, "name": "cow"})),
        "deep": _detections("[" * 200_000),
        "huge": _detections('[{"image_id": 3, "category_id": 7, "bbox": [1, 2, 3, 1e999], "score": 1}]'),
        "digits": _detections("[" + "9" * 6000 + "]"),
    },
    names=("truth.json", "detections.json"),
)


def test_ground_truth_and_detections(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(DETECTION_FILES, mutations).failures == []
