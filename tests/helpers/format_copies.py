"""One set of images and boxes, written in COCO's and in YOLO's format from a VOC folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import yaml

from ablation.data.opencv import cv2

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Written:
    """One image and its objects, as the VOC folder has them."""

    image: Path
    width: int
    height: int
    boxes: list[tuple[str, float, float, float, float]]


def read_voc(root: Path) -> dict[str, list[Written]]:
    """The VOC folder by plain XML, without the reader under test."""
    images_of: dict[str, list[Written]] = {}
    for split in SPLITS:
        images_of[split] = []
        for stem in (root / "ImageSets/Main" / f"{split}.txt").read_text().split():
            image = root / "JPEGImages" / f"{stem}.jpg"
            height, width = cv2.imdecode(np.fromfile(image, np.uint8), cv2.IMREAD_COLOR).shape[:2]
            tree = ElementTree.parse(root / "Annotations" / f"{stem}.xml")
            boxes = [_box(node) for node in tree.findall("object")]
            images_of[split].append(Written(image, width, height, boxes))
    return images_of


def _box(node: ElementTree.Element) -> tuple[str, float, float, float, float]:
    x1, y1, x2, y2 = (float(str(node.findtext(f"bndbox/{key}"))) for key in ("xmin", "ymin", "xmax", "ymax"))
    return str(node.findtext("name")), x1, y1, x2, y2


def classes_of(images_of: dict[str, list[Written]]) -> list[str]:
    return sorted({box[0] for split in SPLITS for item in images_of[split] for box in item.boxes})


def write_coco(images_of: dict[str, list[Written]], root: Path, *, link: bool = False) -> Path:
    """Sparse category ids, image ids out of order, categories out of order."""
    names = classes_of(images_of)
    ids = {name: 3 + 7 * index for index, name in enumerate(names)}
    categories = [{"id": ids[name], "name": name} for name in reversed(names)]
    (root / "annotations").mkdir(parents=True)
    for split in SPLITS:
        images, annotations = [], []
        for number, item in enumerate(images_of[split]):
            _place(item.image, root / split / item.image.name, link)
            image_id = 1000 - 2 * number
            images.append(
                {"id": image_id, "file_name": item.image.name, "width": item.width, "height": item.height}
            )
            for label, x1, y1, x2, y2 in item.boxes:
                width, height = x2 - x1, y2 - y1
                where = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[label]}
                what = {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0}
                annotations.append(where | what)
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


def write_yolo(images_of: dict[str, list[Written]], root: Path, *, link: bool = False) -> Path:
    """images/SPLIT and labels/SPLIT, every number with all its digits."""
    names = classes_of(images_of)
    for split in SPLITS:
        (root / "labels" / split).mkdir(parents=True)
        for item in images_of[split]:
            _place(item.image, root / "images" / split / item.image.name, link)
            lines = [
                f"{names.index(label)} {(x1 + x2) / 2 / item.width!r} {(y1 + y2) / 2 / item.height!r} "
                f"{(x2 - x1) / item.width!r} {(y2 - y1) / item.height!r}\n"
                for label, x1, y1, x2, y2 in item.boxes
            ]
            (root / "labels" / split / f"{item.image.stem}.txt").write_text("".join(lines))
    content = {split: f"images/{split}" for split in SPLITS} | {"nc": len(names), "names": names}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


def _place(source: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copy(source, target)
