"""COCO's JSON files: images, annotations with `bbox` [x, y, width, height] in pixels, categories.

Boxes come from `bbox` alone: polygons and run-length masks are not read. Category ids may be any
integers; classes are in the order of the ids in the train file, and the other files are matched by
category name. Images without annotations are images without objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeGuard

from ablation.data.dataset import Fault
from ablation.data.decode import SUFFIXES
from ablation.data.file_source import FileSource, Reader, leaves, open_root, there_is
from ablation.data.file_split import RawBox, RawExample
from ablation.data.hash_split import SplitName
from ablation.errors import DataError, UsageError, require

_NO_BOX = "has a segmentation but no bbox; boxes are read from bbox alone"


@dataclass(frozen=True)
class Coco(FileSource):
    """A data set in COCO's format.

    Objects with iscrowd are ignored: not trained on, and neither missed nor false in evaluation.

    Attributes:
        train_json, val_json, test_json: annotation files, relative to root. val_json and test_json
            may be null: the data set has no such split (see val_share and test_share).
        train_images, val_images, test_images: folders of the images, relative to root.
    """

    name: ClassVar[str] = "coco"

    train_json: str = "annotations/instances_train2017.json"
    val_json: str | None = "annotations/instances_val2017.json"
    test_json: str | None = None
    train_images: str = "train2017"
    val_images: str = "val2017"
    test_images: str = "test2017"

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "val", "test"):
            for key in (f"{split}_json", f"{split}_images"):
                value = getattr(self, key)
                inside = value is None or (value != "" and not leaves(value))
                require(inside, key, value, "a path inside data.root, relative to it")

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

    def listing(self, split: SplitName) -> str:
        return str(getattr(self.source, f"{split}_json") or self.source.train_json)

    def classes(self, seen: Sequence[RawExample]) -> tuple[str, ...]:
        return tuple(self._file("train").categories.values())

    def read(self, split: SplitName) -> list[RawExample]:
        key = f"{split}_images"
        folder = self.root / getattr(self.source, key)
        if not folder.is_dir():
            raise UsageError(
                f"data.{key}: {folder} is not a folder; {self.root} holds: {there_is(self.root)}"
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
            self._loaded[split] = _load(self.root / name, f"data.{split}_json", self.root)
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
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        candidates = sorted(str(other.relative_to(root)) for other in root.glob("**/*.json"))[:8]
        raise UsageError(f"{key}: no file {path}; there is: {', '.join(candidates) or 'no .json'}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    lists = []
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{path}: has no list {name!r}; a COCO file has images, annotations, categories")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise DataError(f"{path}: {name}[{number}] is {entry!r:.40}, must be a mapping")
        lists.append(entries)
    images, annotations, categories = lists
    if not images:
        raise DataError(f"{path}: lists no image")
    return _File(path, images, annotations, _categories(path, categories))


def _categories(path: Path, entries: Sequence[dict[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, entry in enumerate(entries):
        identity, name = entry.get("id"), entry.get("name")
        if not _whole(identity) or not isinstance(name, str) or not name:
            what = f"categories[{number}] has id {identity!r} and name {name!r}"
            raise DataError(f"{path}: {what}; must be a whole number and a text")
        if identity in names or name in names.values():
            raise DataError(f"{path}: categories[{number}]: id {identity} or name {name!r} is there twice")
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
        if not _whole(identity) or not isinstance(name, str) or not name:
            what = f"images[{number}] has id {identity!r} and file_name {name!r}"
            raise DataError(f"{file.path}: {what}; must be a whole number and a text")
        if identity in names:
            raise DataError(f"{file.path}: image id {identity} is there twice ({names[identity]}, {name})")
        if leaves(name):
            raise DataError(f"{file.path}: image {identity}: {name!r} leads out of the data set")
        names[identity] = name
        if _stem(name) in seen:
            other = names[seen[_stem(name)]]
            raise DataError(f"{file.path}: images {other} and {name} have one name; list an image once")
        seen[_stem(name)] = identity
    boxes: dict[int, list[RawBox]] = {identity: [] for identity in names}
    lost: list[str] = []
    for annotation in file.annotations:
        where, image_id = f"annotation {annotation.get('id')}", annotation.get("image_id")
        if not _whole(image_id) or image_id not in boxes:
            lost.append(f"{where}: image_id {image_id!r} is not among the images")
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
    stated = (width, height) if _whole(width) and _whole(height) and width and height else None
    return RawExample(
        name=_stem(name), image=folder / name, annotation=path, boxes=boxes, stated_px=stated, damage=damage
    )


def _box(annotation: dict[str, Any], where: str, categories: dict[int, str]) -> RawBox:
    category = annotation.get("category_id")
    label = categories.get(category) if _whole(category) else None
    wrong = None if label is not None else f"category_id {category!r} is not one of {_few(categories)}"
    bbox = annotation.get("bbox")
    numbers = bbox if isinstance(bbox, list) and all(_number(value) for value in bbox) else []
    if len(numbers) != 4:
        wrong = wrong or f"bbox {bbox!r:.60} must be four numbers: x, y, width, height"
        numbers = [0.0] * 4
    x, y, width, height = (float(value) for value in numbers)
    return RawBox(
        where=where if label is None else f"{where} ({label})",
        label=label or "",
        corners_xyxy=(x, y, x + width, y + height),
        ignored=annotation.get("iscrowd", 0) not in (0, None),
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


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
