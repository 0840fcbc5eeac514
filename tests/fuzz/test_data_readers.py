"""Damaged data sets in each format: what is accepted must be what the files say, read in another way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from helpers.format_copies import Written, write_coco, write_yolo
from helpers.fuzz import Reader, Result
from helpers.mutations import Damage
from helpers.voc_folder import annotation, encode, picture

from ablation.data.coco import Coco
from ablation.data.dataset import DetectionData, Image
from ablation.data.decode import read_image
from ablation.data.file_source import FileSource
from ablation.data.opencv import cv2
from ablation.data.voc import Voc
from ablation.data.yolo import Yolo

Fuzz = Callable[[Reader, int], Result]
SPLITS = {"train": ("a", "b"), "val": ("c", "d"), "test": ("e",)}
SIZE = (40, 30)
BOXES = [("dog", 2.0, 3.0, 12.0, 13.0), ("cat", 20.0, 10.0, 40.0, 30.0)]
Box = tuple[str, float, float, float, float]


def opened(source: FileSource) -> DetectionData:
    """The data set, every image decoded."""
    data = source.open()
    for split in (data.train, data.val):
        for index in range(len(split)):
            split.read(index)
    return data


def boxes_of(data: DetectionData) -> dict[str, dict[str, list[Box]]]:
    """split -> image -> boxes."""
    return {
        name: {
            example.name: [
                (data.classes[label], *corners)
                for label, corners in zip(
                    example.labels.tolist(), example.boxes_xyxy_px.tolist(), strict=True
                )
            ]
            for example in split.examples
        }
        for name, split in (("train", data.train), ("val", data.val))
    }


def differs(data: DetectionData, expected: dict[str, dict[str, list[Box]]]) -> str | None:
    """Where the data set is not what the files say, boxes clipped to their image."""
    limits = (SIZE[0], SIZE[1]) * 2
    actual = boxes_of(data)
    for split, images in expected.items():
        if set(actual[split]) != set(images):
            return f"{split}: images {sorted(actual[split])}, in the files {sorted(images)}"
        for image, boxes in images.items():
            clipped = [
                (name, *(min(max(v, 0.0), float(top)) for v, top in zip(corners, limits, strict=True)))
                for name, *corners in boxes
            ]
            if [box[0] for box in actual[split][image]] != [box[0] for box in clipped]:
                return f"{split} {image}: {actual[split][image]}, in the files {clipped}"
            for box, right in zip(actual[split][image], clipped, strict=True):
                if not np.allclose(box[1:], right[1:], atol=1e-3):
                    return f"{split} {image}: {box}, in the files {right}"
    return None


def damage_one(folder: Path, damage: Damage, pattern: dict[str, Callable[[Path], None]]) -> None:
    """One file that fits one of the patterns, by its pattern's damage."""
    glob = damage.choose(sorted(pattern))
    pattern[glob](damage.choose(sorted(folder.glob(glob))))


def put(name: str, content: str | bytes) -> Callable[[Path], None]:
    """A damage: the file's whole content is another."""

    def special(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return special


def swap(name: str, former: str, text: str) -> Callable[[Path], None]:
    """A damage: a part of a file is another."""

    def special(folder: Path) -> None:
        content = (folder / name).read_text()
        assert former in content
        (folder / name).write_text(content.replace(former, text))

    return special


def written(folder: Path, stems: tuple[str, ...]) -> list[Written]:
    images = []
    for stem in stems:
        path = folder / f"{stem}.png"
        path.write_bytes(encode(picture(*SIZE, seed=ord(stem)), ".png"))
        images.append(Written(path, *SIZE, BOXES))
    return images


# Pascal VOC


def write_voc(folder: Path) -> None:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, stems in SPLITS.items():
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        written(folder / "JPEGImages", stems)
        for stem in stems:
            text = annotation(stem, BOXES, SIZE, extra="<difficult>0</difficult>")
            (folder / "Annotations" / f"{stem}.xml").write_text(text.replace("><", ">\n<"))


def damage_voc(folder: Path, damage: Damage) -> None:
    patterns = {
        "Annotations/[a-d].xml": damage.text_file,
        "ImageSets/Main/[tv][ra][al]*.txt": damage.text_file,
        "JPEGImages/[a-d].png": damage.binary_file,
    }
    damage_one(folder, damage, patterns)


def read_voc(folder: Path) -> DetectionData:
    return opened(Voc(root=str(folder), cache="none"))


def wrong_voc(folder: Path, data: DetectionData, undamaged: Any) -> str | None:
    expected: dict[str, dict[str, list[Box]]] = {}
    for split in ("train", "val"):
        text = (folder / "ImageSets/Main" / f"{split}.txt").read_bytes().decode("utf-8-sig")
        stems = [line.strip().removesuffix(".png") for line in text.splitlines() if line.strip()]
        expected[split] = {stem: _voc_boxes(folder / "Annotations" / f"{stem}.xml") for stem in stems}
    return differs(data, expected)


def _voc_boxes(path: Path) -> list[Box]:
    boxes = []
    for element in ElementTree.fromstring(path.read_bytes()).iter():
        corners = element.find("bndbox")
        if corners is not None:
            values = (float(str(corners.findtext(key))) for key in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((str(element.findtext("name")).strip(), *values))
    return boxes  # type: ignore[return-value]


VOC = Reader(
    "VOC",
    write_voc,
    damage_voc,
    read_voc,
    wrong_voc,
    special={
        "deep": put("Annotations/a.xml", "<annotation>" + "<a>" * 200_000),
        "other root": put("Annotations/a.xml", "<html/>"),
        "renamed object": swap("Annotations/a.xml", "object>", "objekt>"),
        "two corners": swap("Annotations/a.xml", "<xmin>", "<xmin>9</xmin><xmin>"),
        "a number with _": swap("Annotations/a.xml", "<xmin>2", "<xmin>2_0"),
        "difficult": swap("Annotations/a.xml", "<difficult>0", "<difficult>no"),
        "class of val only": swap("Annotations/c.xml", ">cat<", ">Cat<"),
    },
    names=("Annotations", "ImageSets", "JPEGImages"),
)


def test_voc(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(VOC, mutations).failures == []


# COCO


def write_coco_folder(folder: Path) -> None:
    source = folder.parent / "coco images"
    source.mkdir(exist_ok=True)
    write_coco({split: written(source, stems) for split, stems in SPLITS.items()}, folder)


def damage_coco(folder: Path, damage: Damage) -> None:
    json_file = damage.json_file
    patterns = {
        "annotations/train.json": json_file,
        "annotations/val.json": json_file,
        "[tv][ra][al]*/*.png": damage.binary_file,
    }
    damage_one(folder, damage, patterns)


def read_coco(folder: Path) -> DetectionData:
    jsons = {"train_json": "annotations/train.json", "val_json": "annotations/val.json"}
    return opened(Coco(root=str(folder), **jsons, train_images="train", val_images="val", cache="none"))


def wrong_coco(folder: Path, data: DetectionData, undamaged: Any) -> str | None:
    expected: dict[str, dict[str, list[Box]]] = {}
    for split in ("train", "val"):
        content = json.loads((folder / "annotations" / f"{split}.json").read_bytes())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        expected[split] = {
            image["file_name"].removesuffix(".png"): [
                (names[entry["category_id"]], *_corners(entry["bbox"]))
                for entry in content["annotations"]
                if entry["image_id"] == image["id"]
            ]
            for image in content["images"]
        }
    return differs(data, expected)


def _corners(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    return x, y, x + width, y + height


def _coco_change(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def special(folder: Path) -> None:
        path = folder / "annotations/train.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return special


COCO = Reader(
    "COCO",
    write_coco_folder,
    damage_coco,
    read_coco,
    wrong_coco,
    special={
        "deep": put("annotations/train.json", "[" * 200_000),
        "nameless": _coco_change(lambda content: content["categories"][0].pop("name")),
        "surrogate": _coco_change(lambda content: content["images"][0].update(file_name="\ud800.png")),
        "long name": _coco_change(lambda content: content["images"][0].update(file_name="x" * 5000 + ".png")),
        "zero byte": _coco_change(lambda content: content["images"][0].update(file_name="a\0.png")),
        "huge id": _coco_change(lambda content: content["images"][0].update(id=10**400)),
        "huge box": _coco_change(lambda content: content["annotations"][0].update(bbox=[0, 0, 1e308, 1e308])),
        "crowd": _coco_change(lambda content: content["annotations"][0].update(iscrowd="0")),
        "a key twice": swap("annotations/train.json", '"info": {}', '"annotations": [], "info": {}'),
    },
    names=("train", "val"),
)


def test_coco(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(COCO, mutations).failures == []


# YOLO


def write_yolo_folder(folder: Path) -> None:
    source = folder.parent / "yolo images"
    source.mkdir(exist_ok=True)
    write_yolo({split: written(source, stems) for split, stems in SPLITS.items()}, folder)


def damage_yolo(folder: Path, damage: Damage) -> None:
    text = damage.text_file
    patterns = {
        "data.yaml": text,
        "labels/[tv][ra][al]*/*.txt": text,
        "images/[tv][ra][al]*/*.png": damage.binary_file,
    }
    damage_one(folder, damage, patterns)


def read_yolo(folder: Path) -> DetectionData:
    return opened(Yolo(root=str(folder), cache="none"))


def wrong_yolo(folder: Path, data: DetectionData, undamaged: Any) -> str | None:
    """Names as text, by a loader that resolves nothing; the labels line by line."""
    content = yaml.load((folder / "data.yaml").read_bytes().decode("utf-8-sig"), yaml.CBaseLoader)
    names = content["names"]
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    if [name.strip() for name in names] != list(data.classes):
        return f"classes {data.classes}, in the file {names}"
    expected: dict[str, dict[str, list[Box]]] = {}
    for split in ("train", "val"):
        places = content[split] if isinstance(content[split], list) else [content[split]]
        images: dict[str, list[Box]] = {}
        for place in places:
            # An entry that leads out of the folder is read below it.
            base = folder.joinpath(*(part for part in Path(place).parts if part not in ("..", "/")))
            for path in base.rglob("*.png"):
                below = path.relative_to(folder / "images") if "images" in path.parts else path
                label = (folder / "labels" / below).with_suffix(".txt")
                name = path.relative_to(base).with_suffix("").as_posix()
                images[name] = _yolo_boxes(label, names)
        expected[split] = images
    return differs(data, expected)


def _yolo_boxes(path: Path, names: list[str]) -> list[Box]:
    boxes: list[Box] = []
    for line in path.read_bytes().decode("utf-8-sig").splitlines():
        if line.strip():
            kind, x, y, width, height = map(float, line.split())
            share = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            corners = [value * side for value, side in zip(share, SIZE * 2, strict=True)]
            boxes.append((names[int(kind)].strip(), corners[0], corners[1], corners[2], corners[3]))
    return boxes


def _yaml(text: str) -> Callable[[Path], None]:
    return put("data.yaml", text)


_LEVELS = [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghi")]
_BOMB = "\n".join(
    ["a: &a [x,x,x,x,x,x,x,x,x]", *_LEVELS, "train: images/train", "val: images/val", "names: *i"]
)

YOLO = Reader(
    "YOLO",
    write_yolo_folder,
    damage_yolo,
    read_yolo,
    wrong_yolo,
    special={
        "alias bomb": _yaml(_BOMB),
        "deep": _yaml("names: " + "[" * 100_000),
        "dates": _yaml("{train: images/train, val: images/val, names: [2020-01-01, 2020-01-02]}"),
        "infinite": _yaml("{train: images/train, val: images/val, nc: .inf, names: [cat, dog]}"),
        "huge": _yaml("{train: images/train, val: images/val, nc: " + "9" * 5000 + ", names: [cat, dog]}"),
        "long path": _yaml("{train: " + "x" * 5000 + ", val: images/val, names: [cat, dog]}"),
        "truth": _yaml("{train: images/train, val: images/val, names: [true, false]}"),
        "latin": put("data.yaml", b"names: [\xe9, b]\ntrain: x\n"),
        "full width": put("labels/train/a.txt", "0 \uff10.5 0.5 0.2 0.2"),
    },
    names=("data.yaml", "labels", "images"),
)


def test_yolo(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(YOLO, mutations).failures == []


# image files


def write_images(folder: Path) -> None:
    (folder / "a.png").write_bytes(encode(picture(*SIZE), ".png"))
    (folder / "b.jpg").write_bytes(encode(picture(*SIZE)))


def damage_images(folder: Path, damage: Damage) -> None:
    damage.binary_file(damage.choose(sorted(folder.iterdir())))


def read_images(folder: Path) -> list[Image]:
    return [read_image(path) for path in sorted(folder.iterdir())]


def wrong_images(folder: Path, images: list[Image], undamaged: list[Image]) -> str | None:
    """A PNG has checksums; of a JPEG only the size can be told."""
    if not np.array_equal(images[0], undamaged[0]):
        return "other pixels of a PNG were accepted"
    opencv = cv2.imread(str(folder / "b.jpg"))
    return None if opencv.shape == images[1].shape else f"{images[1].shape}, for OpenCV {opencv.shape}"


NAMES = ("a.png", "b.jpg")
IMAGES = Reader("image files", write_images, damage_images, read_images, wrong_images, names=NAMES)


def test_image_files(fuzz: Fuzz, mutations: int) -> None:
    assert fuzz(IMAGES, mutations).failures == []
