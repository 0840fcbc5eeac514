"""COCO's JSON files: images, annotations with `bbox` [x, y, width, height] in pixels, categories.

Boxes come from `bbox` alone: polygons and run-length masks are not read. Category ids may be any
integers; classes are in the order of the ids in the train file, and the other files are matched by
category name. Images without annotations are images without objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ablation.data.dataset import Fault
from ablation.data.decode import SUFFIXES
from ablation.data.file_source import FileSource, Reader, leaves, open_root, other_layout, there_is
from ablation.data.file_split import RawBox, RawExample
from ablation.data.hash_split import SplitName
from ablation.data.reading import (
    MUST_BE_NAME,
    is_coordinate,
    is_name,
    is_whole,
    literal,
    load_json,
    shorten,
    user_path,
)
from ablation.errors import DataError, UsageError, require
from ablation.records import NOT_IDENTITY

_NO_BOX = "has a segmentation but no bbox; boxes are read from bbox alone"


@dataclass(frozen=True)
class Coco(FileSource):
    """A data set in COCO's format.

    Objects with iscrowd are ignored: not trained on, and neither missed nor false in evaluation. The paths
    of train_json and val_json are no part of a run's identity: what the files say is in the fingerprint. The
    others are, so give folders relative to root where the data may move.

    Attributes:
        train_json, val_json, test_json: annotation files, relative to root or absolute. val_json and
            test_json may be null: the data set has no such split (see val_share and test_share).
        train_images, val_images, test_images: folders of the images, relative to root or absolute.
    """

    name: ClassVar[str] = "coco"

    train_json: str = field(default="annotations/instances_train2017.json", metadata=NOT_IDENTITY)
    val_json: str | None = field(default="annotations/instances_val2017.json", metadata=NOT_IDENTITY)
    test_json: str | None = None
    train_images: str = "train2017"
    val_images: str = "val2017"
    test_images: str = "test2017"

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "val", "test"):
            for key in (f"{split}_json", f"{split}_images"):
                value = getattr(self, key)
                usable = value is None or (value != "" and "\0" not in value)
                require(usable, key, value, "a path relative to data.root, or an absolute one")

    def reader(self) -> Reader:
        needs = f"must be the folder that holds {self.train_json} and {self.train_images}"
        return _CocoReader(self, open_root(self.root, needs))


class _CocoReader(Reader):
    def __init__(self, source: Coco, root: Path) -> None:
        super().__init__()
        self.source, self.root = source, root
        self._loaded: dict[SplitName, _File] = {}

    def has(self, split: SplitName) -> bool:
        return getattr(self.source, f"{split}_json") is not None

    def setting(self, split: SplitName) -> str | None:
        return f"data.{split}_json"

    def is_there(self, split: SplitName) -> bool:
        name = getattr(self.source, f"{split}_json")
        return name is not None and os.path.isfile(_within(self.root, name))  # noqa: PTH113

    def listing(self, split: SplitName) -> str:
        return str(getattr(self.source, f"{split}_json") or self.source.train_json)

    def classes(self, seen: Sequence[RawExample]) -> tuple[str, ...]:
        return tuple(self._file("train").categories.values())

    def lists_nothing(self, split: SplitName) -> bool:
        try:
            content = load_json(_within(self.root, self.listing(split)))
        except DataError:
            return False
        return isinstance(content, dict) and content.get("images") == []

    def read(self, split: SplitName) -> list[RawExample]:
        key = f"{split}_images"
        folder = _within(self.root, getattr(self.source, key))
        if not os.path.isdir(folder):  # noqa: PTH112  (False for any path that cannot be looked up)
            raise UsageError(
                f"data.{key}: {shorten(str(folder), 200)} is not a folder; {self.root} holds: "
                f"{there_is(self.root)}{other_layout(self.root, 'coco')}"
            )
        file = self._file(split)
        raws, lost = _read(file, folder)
        if lost and self.source.bad_boxes == "error":
            more = f" (and {len(lost) - 1} more annotations at fault)" if len(lost) > 1 else ""
            cure = "correct the annotation, or leave such boxes out with data.bad_boxes=drop"
            raise DataError(f"{file.path}: {lost[0]}{more}; {cure}")
        self.faults[split] = [Fault(str(file.path), what, "box left out") for what in _counted(lost)]
        return raws

    def _file(self, split: SplitName) -> _File:
        if split not in self._loaded:
            name = getattr(self.source, f"{split}_json")
            self._loaded[split] = _load(_within(self.root, name), f"data.{split}_json", self.root)
        return self._loaded[split]


@dataclass(frozen=True)
class _File:
    """An annotation file whose lists and categories have been checked; `categories` by ascending id."""

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]


def _load(path: Path, key: str, root: Path) -> _File:
    try:
        content = load_json(path)
    except FileNotFoundError:
        candidates = sorted(str(json_file.relative_to(root)) for json_file in root.glob("**/*.json"))[:8]
        available = ", ".join(candidates) or "no .json"
        hint = "" if key == "data.train_json" else f"; where there is no such split, set {key}=null"
        hint += other_layout(root, "coco")
        raise UsageError(f"{key}: no file {path}; there is: {available}{hint}") from None
    lists = []
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{path}: has no list {name!r}; a COCO file has images, annotations, categories")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(f"{path}: {name}[{number}] is {shorten(entry, 40)}, must be a mapping")
        lists.append(entries)
    images, annotations, categories = lists
    if not images:
        raise DataError(f"{path}: lists no image")
    return _File(path, images, annotations, _categories(path, categories))


def _categories(path: Path, entries: Sequence[dict[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, entry in enumerate(entries):
        identity, name = entry.get("id"), entry.get("name")
        if not is_whole(identity) or not is_name(name):
            what = f"categories[{number}] has id {literal(identity)} and name {literal(name)}"
            raise DataError(f"{path}: {what}; must be a whole number and {MUST_BE_NAME}")
        if identity in names or name in names.values():
            twice = f"id {identity} or name {literal(name)}"
            raise DataError(f"{path}: categories[{number}]: {twice} is there twice")
        names[identity] = name
    if not names:
        raise DataError(f"{path}: lists no category, so there are no classes")
    return dict(sorted(names.items()))


def _read(file: _File, folder: Path) -> tuple[list[RawExample], list[str]]:
    """The images with their boxes; and the annotations that belong to no image or hold no box."""
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    for number, image in enumerate(file.images):
        identity, name = image.get("id"), image.get("file_name")
        if not is_whole(identity) or not is_name(name):
            what = f"images[{number}] has id {literal(identity)} and file_name {literal(name)}"
            raise DataError(f"{file.path}: {what}; must be a whole number and {MUST_BE_NAME}")
        if identity in names:
            raise DataError(f"{file.path}: image id {identity} is there twice ({names[identity]}, {name})")
        if leaves(name):
            raise DataError(f"{file.path}: image {identity}: {name!r} leads out of the data set")
        names[identity] = name
        if _stem(name) in seen:
            first = names[seen[_stem(name)]]
            raise DataError(f"{file.path}: images {first} and {name} have one name; list an image once")
        seen[_stem(name)] = identity
    boxes: dict[int, list[RawBox]] = {identity: [] for identity in names}
    lost: list[str] = []
    for annotation in file.annotations:
        where, image_id = f"annotation {shorten(annotation.get('id'), 40)}", annotation.get("image_id")
        if not is_whole(image_id) or image_id not in boxes:
            lost.append(f"{where}: image_id {literal(image_id)} is not among the images")
        elif not annotation.get("bbox") and annotation.get("segmentation"):
            lost.append(f"{where}: {_NO_BOX}")
        else:
            boxes[image_id].append(_box(annotation, where, file.categories))
    raws = [
        _example(file.path, folder, names[identity], image, boxes[identity])
        for identity, image in zip(names, file.images, strict=True)
    ]
    return raws, lost


def _example(path: Path, folder: Path, name: str, image: dict[str, Any], boxes: list[RawBox]) -> RawExample:
    damage = None
    if Path(name).suffix.lower() not in SUFFIXES:
        damage = f"image {image['id']}: {name} is none of {', '.join(SUFFIXES)}"
    width, height = image.get("width"), image.get("height")
    stated = (width, height) if is_whole(width) and is_whole(height) and width and height else None
    return RawExample(
        name=_stem(name), image=folder / name, annotation=path, boxes=boxes, stated_px=stated, damage=damage
    )


def _box(annotation: dict[str, Any], where: str, categories: dict[int, str]) -> RawBox:
    category = annotation.get("category_id")
    label = categories.get(category) if is_whole(category) else None
    wrong = None if label is not None else f"category_id {literal(category)} is not one of {_few(categories)}"
    bbox, crowd = annotation.get("bbox"), annotation.get("iscrowd", 0)
    numbers = bbox if isinstance(bbox, list) and all(is_coordinate(value) for value in bbox) else []
    if len(numbers) != 4:
        wrong = wrong or f"bbox {shorten(bbox, 60)} must be four numbers: x, y, width, height"
        numbers = [0.0] * 4
    if crowd is not None and crowd not in (0, 1):
        wrong = wrong or f"iscrowd {literal(crowd)} must be 0 or 1"
    x, y, width, height = (float(value) for value in numbers)
    return RawBox(
        where=where if label is None else f"{where} ({label})",
        label=label or "",
        corners_xyxy=(x, y, x + width, y + height),
        ignored=crowd == 1,
        wrong=wrong,
    )


def _counted(lost: Iterable[str]) -> list[str]:
    """One line for all annotations with a segmentation only; the others one by one."""
    texts = list(lost)
    boxless = [text for text in texts if text.endswith(_NO_BOX)]
    rest = [text for text in texts if not text.endswith(_NO_BOX)]
    if len(boxless) > 1:
        boxless = [f"{boxless[0]} ({len(boxless)} annotations are so)"]
    return rest + boxless


def _stem(name: str) -> str:
    """The file's path without its ending: the name that an example has in every format."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else str(path)


def _few(categories: dict[int, str]) -> str:
    listed = ", ".join(f"{key} ({name})" for key, name in list(categories.items())[:8])
    return listed + (", ..." if len(categories) > 8 else "")


def _within(root: Path, name: str) -> Path:
    """A path of the settings: relative to root, or absolute."""
    return root / user_path("data", name)
